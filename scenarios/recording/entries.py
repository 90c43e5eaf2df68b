"""What the records of a recording are: one class each, as plain data with the name of its class under "entry"."""

from typing import Any

import attrs

from actors.errors import Malformed
from actors.runtime.values import from_plain
from bus.errors import RecordingError

FORMAT = 1


@attrs.frozen(kw_only=True)
class Begun:
    """A program begins to record. The first record of a file, and again where a later program goes on with it."""

    t: float
    format: int
    program: str
    """the version of swapferry"""
    salt: bytes
    """for the words that stand for secrets"""


@attrs.frozen(kw_only=True)
class Started:
    """A node starts: all that its actors are made of."""

    t: float
    node: str
    facts: Any
    hosts: tuple[str, ...]
    manager: bool
    reach: tuple[str, ...]
    """devices that the host reaches"""


@attrs.frozen(kw_only=True)
class Loaded:
    """An actor begins, or begins again, with this record."""

    t: float
    node: str
    actor: str
    values: Any
    """[kind, key, value] each"""
    digest: bytes


@attrs.frozen(kw_only=True)
class HeardEntry:
    """A message, or a timer that rang, as its actor heard it."""

    id: str
    source: str
    type: str
    body: Any
    cast: Any


@attrs.frozen(kw_only=True)
class DecisionEntry:
    """What the turn came to; timers without the jitter that the shell adds."""

    changes: Any
    says: Any
    timers: Any
    events: Any


@attrs.frozen(kw_only=True)
class Decided:
    """An actor heard something and decided. It counts once it is stored. `digest` is of its record then."""

    t: float
    node: str
    actor: str
    heard: HeardEntry
    decision: DecisionEntry
    digest: bytes


@attrs.frozen(kw_only=True)
class Failed:
    """An actor heard something and met a defect."""

    t: float
    node: str
    actor: str
    heard: HeardEntry
    error: str


@attrs.frozen(kw_only=True)
class Stored:
    """The decisions of these actors are durable."""

    t: float
    node: str
    actors: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Retired:
    """An actor ended for good."""

    t: float
    node: str
    actor: str


@attrs.frozen(kw_only=True)
class Ended:
    """The recording was ended in order."""

    t: float


Entry = Begun | Started | Loaded | Decided | Failed | Stored | Retired | Ended
_ENTRIES: dict[str, type] = {
    kind.__name__: kind for kind in (Begun, Started, Loaded, Decided, Failed, Stored, Retired, Ended)
}


def parse(data: Any) -> Entry:
    """The entry in a record. Raises `Malformed`."""
    if not isinstance(data, dict) or data.get("entry") not in _ENTRIES:
        raise Malformed(f"unknown entry {data.get('entry') if isinstance(data, dict) else type(data).__name__!r}")
    fields = {name: value for name, value in data.items() if name != "entry"}
    entry: Entry = from_plain(_ENTRIES[data["entry"]], fields)
    return entry


def check_format(entry: Entry) -> Begun:
    """The first entry of a recording. Raises `RecordingError` for a format that is not read here."""
    if not isinstance(entry, Begun):
        raise RecordingError(f"it begins with {type(entry).__name__}, not with Begun")
    if entry.format != FORMAT:
        raise RecordingError(
            f"it was recorded in format {entry.format} by swapferry {entry.program}; this one reads format {FORMAT}"
        )
    return entry
