"""The header of a swap table: whose memory it is, what the table means now, and which devices its entries point to.

The phase is written before the machine is told to do anything, so a pager that is started while everything else is down
needs nothing but this file (PROTOCOL 13.6).
"""

import enum
import struct
import uuid
import zlib
from pathlib import Path

import attrs

from paging.errors import PagingError

HEADER_BYTES = 4096
MAGIC = b"SFTABLE\n"
VERSION = 1
DEVICES_MAX = 128
INSTANCE_BYTES_MAX = 255

_FIXED = struct.Struct("<8sIIQIQ36s256sI")
"""magic, version, phase, pages, machine pid, machine start time, boot id, instance, devices; then 16 bytes a device"""
_CHECKSUM = struct.Struct("<I")
_CHECKSUM_AT = HEADER_BYTES - _CHECKSUM.size


class TableUnusable(PagingError):
    """A swap table cannot be used; names the file, what was found and what to do."""

    def __init__(self, path: Path, found: str, remedy: str) -> None:
        super().__init__(f"swap table {path} {found}; {remedy}")


class Phase(enum.Enum):
    """What the table means, and what a pager may do. `meaning` is the sentence for people."""

    meaning: str

    EMPTY = (0, "nothing is in it yet: pages appear as zeros, nothing is evicted")
    FILLING = (1, "a transfer is arriving: the table wins over RAM, pages under its entries are punched")
    LOADED = (2, "all has arrived and the guest stands still: faults are served by copying, the table never changes")
    FROZEN = (3, "the guest was halted here: faults are served by copying, the table never changes")
    RUNNING = (4, "the guest runs: RAM wins over the table, pages are evicted, slots of pages that came in are free again")

    def __new__(cls, number: int, meaning: str) -> "Phase":
        """A member with its number in the file as value and the sentence beside it."""
        member = object.__new__(cls)
        member._value_ = number
        member.meaning = meaning
        return member


_PHASES = {phase.value: phase for phase in Phase}


@attrs.frozen
class Process:
    """A process that a reused pid cannot be mistaken for: start time in clock ticks since boot (field 22 of its stat)."""

    pid: int = 0
    started: int = 0


@attrs.frozen(kw_only=True)
class Header:
    """All that the first 4096 bytes say."""

    pages: int
    instance: str
    boot_id: str
    devices: tuple[str, ...] = ()
    process: Process = Process()
    phase: Phase = Phase.EMPTY


def encode_header(header: Header) -> bytes:
    """The header as 4096 bytes. Raises `PagingError` if a name is too long or there are too many devices."""
    instance = header.instance.encode()
    if len(instance) > INSTANCE_BYTES_MAX or len(header.devices) > DEVICES_MAX:
        raise PagingError(f"swap table of {header.instance!r}: the name or the list of {len(header.devices)} devices is too long")
    fixed = _FIXED.pack(
        MAGIC, VERSION, header.phase.value, header.pages, header.process.pid, header.process.started,
        header.boot_id.encode()[:36], instance, len(header.devices),
    )  # fmt: skip
    body = fixed + b"".join(uuid.UUID(device).bytes for device in header.devices)
    body = body.ljust(_CHECKSUM_AT, b"\0")
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_header(path: Path, data: bytes) -> Header:
    """Read a header. Raises `TableUnusable` for anything that is not one of this version."""
    if len(data) < HEADER_BYTES:
        raise TableUnusable(path, f"has {len(data)} bytes only", "it is truncated: destroy the instance and start it anew")
    magic, version, phase, pages, pid, started, boot_id, instance, count = _FIXED.unpack_from(data)
    if magic != MAGIC:
        raise TableUnusable(path, "is no swap table", "something else was put in its place")
    if version != VERSION:
        raise TableUnusable(path, f"has version {version}, this program reads {VERSION}", "use the program that made it")
    if zlib.crc32(data[:_CHECKSUM_AT]) != _CHECKSUM.unpack_from(data, _CHECKSUM_AT)[0]:
        raise TableUnusable(path, "has a damaged header", "destroy the instance and start it anew")
    if phase not in _PHASES:
        raise TableUnusable(path, f"is in phase {phase}, which this program does not know", "use the program that made it")
    devices = (data[at : at + 16] for at in range(_FIXED.size, _FIXED.size + 16 * count, 16))
    return Header(
        pages=pages, instance=instance.rstrip(b"\0").decode(), boot_id=boot_id.rstrip(b"\0").decode(),
        devices=tuple(str(uuid.UUID(bytes=raw)) for raw in devices), process=Process(pid, started), phase=_PHASES[phase],
    )  # fmt: skip
