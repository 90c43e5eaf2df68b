"""The wire format of the data channel, without any socket.

A frame is kind (u8), length of the body (u32), CRC-32 of the body (u32), body; little-endian. One connection carries:

    source: Hello(version, token)                                target: Welcome, or Refused(sentence)
    source: Table* Pages* State? End(manifest)                   target: Done, or Refused(sentence) at any time

The table comes before the contents, so that the receiver knows which slots are taken before it writes any of its own.
"""

import enum
import json
import struct
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import attrs

from paging.device import PAGE_BYTES
from paging.errors import TransferError
from paging.guest import Manifest
from paging.swap_table import CHECKSUM_BYTES, TableRun

VERSION = 1
MAGIC = b"swapferry data\n"
STATE_BYTES_MAX = 2 << 20
"""Cap of the machine's device state: more means that RAM travels in it (DATAPLANE 11.2)"""
FRAME_BYTES_MAX = STATE_BYTES_MAX
HELLO_BYTES_MAX = 1024
"""What a connection may send before it has shown the token"""
RUN_PAGES_MAX = 64
"""Pages in one run and, about, in one frame: 256 KiB; from 64 KiB on the size does not matter (DATAPLANE 7)"""
TABLE_RUN_PAGES_MAX = 1 << 15
"""Longer table runs are cut: 128 KiB of checksums"""

_HEADER = struct.Struct("<BII")
_PAGES = struct.Struct("<QI")
_TABLE = struct.Struct("<16sQQI")


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    TABLE = 4
    PAGES = 5
    STATE = 6
    END = 7
    DONE = 8


_KINDS = frozenset(Kind)


@attrs.frozen
class Frame:
    """One frame, checked for length and checksum."""

    kind: Kind
    body: bytes

    @property
    def wire_bytes(self) -> int:
        """Its length on the wire."""
        return _HEADER.size + len(self.body)


@attrs.frozen
class PageRun:
    """Contents of consecutive pages."""

    page: int
    checksums: bytes
    """little-endian u32, one a page"""
    contents: memoryview

    @property
    def count(self) -> int:
        """Pages in this run."""
        return len(self.checksums) // CHECKSUM_BYTES

    def content(self, page: int) -> memoryview:
        """The bytes of one page of this run."""
        at = (page - self.page) * PAGE_BYTES
        return self.contents[at : at + PAGE_BYTES]


def encode(kind: Kind, body: bytes = b"") -> bytes:
    """A frame as bytes."""
    assert len(body) <= FRAME_BYTES_MAX, f"{kind.name} frame of {len(body)} bytes"
    return _HEADER.pack(kind, len(body), zlib.crc32(body)) + body


def encode_hello(token: str) -> bytes:
    """The first frame of a connection."""
    return encode(Kind.HELLO, MAGIC + struct.pack("<I", VERSION) + token.encode())


def parse_hello(body: bytes) -> bytes:
    """The token in a hello. Raises `TransferError` for another program or version."""
    if not body.startswith(MAGIC) or len(body) < len(MAGIC) + 4:
        raise TransferError("the data channel was opened by something that is not swapferry")
    (version,) = struct.unpack_from("<I", body, len(MAGIC))
    if version != VERSION:
        raise TransferError(f"the data channel speaks version {version} there and {VERSION} here; use one release on both hosts")
    return body[len(MAGIC) + 4 :]


def page_run_parts(page: int, checksums: bytes) -> bytes:
    """What precedes the contents of a run of pages; also what the pages digest is taken of."""
    return _PAGES.pack(page, len(checksums) // CHECKSUM_BYTES) + checksums


def parse_page_runs(body: bytes) -> Iterator[PageRun]:
    """The runs in a Pages frame. Raises `TransferError`; page numbers are the receiver's to check."""
    view, at = memoryview(body), 0
    while at < len(body):
        page, count = _unpack(_PAGES, body, at)
        contents_at = at + _PAGES.size + count * CHECKSUM_BYTES
        end = contents_at + count * PAGE_BYTES
        if not 1 <= count <= RUN_PAGES_MAX or end > len(body):
            raise TransferError(f"the data channel brought a broken run of {count} pages")
        yield PageRun(page, body[at + _PAGES.size : contents_at], view[contents_at:end])
        at = end


def table_run_bytes(run: TableRun) -> bytes:
    """A table run on the wire; also what the table digest is taken of."""
    return _TABLE.pack(uuid.UUID(run.device).bytes, run.page, run.slot, run.count) + run.checksums


def parse_table_runs(body: bytes) -> Iterator[TableRun]:
    """The runs in a Table frame. Raises `TransferError`; numbers and device are the receiver's to check."""
    at = 0
    while at < len(body):
        device, page, slot, count = _unpack(_TABLE, body, at)
        end = at + _TABLE.size + count * CHECKSUM_BYTES
        if not 1 <= count <= TABLE_RUN_PAGES_MAX or end > len(body):
            raise TransferError(f"the data channel brought a broken table run of {count} pages")
        yield TableRun(page, str(uuid.UUID(bytes=device)), slot, body[at + _TABLE.size : end])
        at = end


def encode_end(manifest: Manifest) -> bytes:
    """The frame that ends a delivery."""
    return encode(Kind.END, json.dumps(attrs.asdict(manifest)).encode())


def parse_end(body: bytes) -> Manifest:
    """The manifest of an End frame. Raises `TransferError`."""
    try:
        values = json.loads(body)
        manifest = Manifest(**values)
    except (ValueError, TypeError) as error:
        raise TransferError(f"the data channel ended with something that is no manifest: {error}") from error
    return manifest


class FrameReader:
    """Bytes in, whole frames out."""

    limit = HELLO_BYTES_MAX
    """Longest body that is accepted; raised by whoever has seen the token"""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Frames that are complete now. Raises `TransferError` for a broken one; the connection is of no more use then."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    @property
    def is_between_frames(self) -> bool:
        """Nothing is left over: a connection that ends now was not cut inside a frame."""
        return not self._buffer

    def _next(self) -> Frame | None:
        if len(self._buffer) < _HEADER.size:
            return None
        kind, length, checksum = _HEADER.unpack_from(self._buffer)
        if length > self.limit or kind not in _KINDS:
            raise TransferError(f"the data channel brought a frame of kind {kind} and {length} bytes; allowed are {self.limit}")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[_HEADER.size : end])
        del self._buffer[:end]
        if zlib.crc32(body) != checksum:
            raise TransferError(f"the data channel brought a {Kind(kind).name} frame with a wrong checksum")
        return Frame(Kind(kind), body)


def _unpack(layout: struct.Struct, body: bytes, at: int) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(body, at)
    except struct.error as error:
        raise TransferError("the data channel brought a run that is cut off") from error
