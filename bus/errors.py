"""What can go wrong on the bus, sorted by what the caller has to do about it.

The type decides (STYLE: errors are a small tree): `Transient` is tried again from the record, `Unreadable` never gets
better and belongs into the dead-letter queue, `Unroutable` means that nobody has that address now.
"""


class BusError(Exception):
    """Root of all errors of this package."""


class Transient(BusError):
    """The broker is away, blocked or slow; what was said is said again later from the record, with the same id."""


class Unroutable(BusError):
    """No queue is bound to the target's address. The publisher has put the message into the dead-letter queue."""


class Unreadable(BusError):
    """A message can never be read: undecodable, too large, of an unknown type or version."""


class TooLarge(Unreadable):
    """A message exceeds the limit of the bus (256 KiB); it should have been chunked."""


class Absent(BusError):
    """There is no such dead letter (any more); or somebody else looks at it just now."""


class Unusable(BusError, ValueError):
    """A URL, a node name or an address that the bus cannot use, or a broker that refuses us: the operator must change it."""


class RecordingError(BusError):
    """A file that is no recording, cannot be read, or cannot be continued; names the file and what is wrong with it."""
