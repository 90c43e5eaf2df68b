"""The file of a recording: numbered records of plain data, appended one by one, each with its checksums.

What the records mean is not known here. A program that is killed leaves whole records and perhaps a torn last one: each record
is handed to the kernel in one write, which outlives the process (not the machine: nothing is flushed to the disk).

    file    magic, record 0, record 1, ...
    record  head (16 bytes: number, payload's length, payload's CRC-32, CRC-32 of these 12 bytes), payload (msgpack)

The head has a checksum of its own, so that a changed length is told from a torn tail; the number tells a record that is missing.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import msgpack

from bus.errors import RecordingError

MAGIC = b"swapferry recording\n"
_HEAD = struct.Struct("<III")
_CHECK = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECK.size
_FILE_MODE = 0o600


class Kind(StrEnum):
    """What is wrong with a file."""

    CHANGED = "changed"
    """a byte is not what was written"""
    MISSING = "missing"
    """a record is not where its number belongs"""
    TRUNCATED = "truncated"
    """the last record is not whole: its writer was killed, or the file was cut"""


@attrs.frozen(kw_only=True)
class Whole:
    """A record as it was written. `offset` is where its head begins, in bytes."""

    number: int
    offset: int
    data: Any


@attrs.frozen(kw_only=True)
class Damage:
    """Where the reading ended, and why."""

    kind: Kind
    number: int
    """the first record that cannot be read"""
    offset: int
    sentence: str


def read(path: Path) -> Iterator[Whole | Damage]:
    """All whole records from the beginning; a `Damage` is the last of them. Raises `RecordingError` for a file that is no
    recording or cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise RecordingError(f"{path} is no recording of swapferry")
            yield from _records(file)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from error


class _DamagedError(Exception):
    """Ends the reading."""

    def __init__(self, kind: Kind, number: int, offset: int, what: str) -> None:
        sentence = f"record {number} at byte {offset} {what}"
        self.damage = Damage(kind=kind, number=number, offset=offset, sentence=sentence)


def _records(file: BinaryIO) -> Iterator[Whole | Damage]:
    expected, offset = 0, file.tell()
    try:
        while (length_crc := _head(file, expected, offset)) is not None:
            payload = _payload(file, expected, offset, *length_crc)
            yield Whole(number=expected, offset=offset, data=payload)
            expected, offset = expected + 1, file.tell()
    except _DamagedError as error:
        yield error.damage


def _head(file: BinaryIO, expected: int, offset: int) -> tuple[int, int] | None:
    """Length and checksum of the payload that follows; None at the end."""
    head = file.read(HEAD_BYTES)
    if not head:
        return None
    if len(head) < HEAD_BYTES:
        raise _torn(expected, offset, f"{len(head)} bytes of its head")
    if zlib.crc32(head[: _HEAD.size]) != _CHECK.unpack_from(head, _HEAD.size)[0]:
        raise _DamagedError(Kind.CHANGED, expected, offset, "was changed: the checksum of its head does not match")
    number, length, crc = _HEAD.unpack_from(head)
    if number != expected:
        raise _DamagedError(Kind.MISSING, expected, offset, f"is missing: record {number} stands there")
    return length, crc


def _payload(file: BinaryIO, number: int, offset: int, length: int, crc: int) -> Any:
    payload = file.read(length)
    if len(payload) < length:
        raise _torn(number, offset, f"{len(payload)} of its {length} bytes")
    if zlib.crc32(payload) != crc:
        what = f"was changed: the checksum of its {length} bytes does not match"
        raise _DamagedError(Kind.CHANGED, number, offset, what)
    try:
        return msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException) as error:
        raise _DamagedError(Kind.CHANGED, number, offset, f"is no msgpack, though its checksums match: {error}") from error


def _torn(number: int, offset: int, found: str) -> _DamagedError:
    whole = f"whole up to record {number - 1}" if number else "no record is whole"
    return _DamagedError(Kind.TRUNCATED, number, offset, f"is truncated: {found} are there; {whole}")


class Writer:
    """Appends records to one file, which nobody else may write meanwhile. A file that is there is continued; the torn record
    at its end is cut off. Raises `RecordingError` for a file that is none, is damaged or locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: Any = None
        """the data of record 0, where the file was there already"""
        self._number = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror or error}") from error
        try:
            self._lock()
            self._continue()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, data: Any) -> int:
        """Write a record of plain data; returns its number. Raises `OSError`, and `TypeError` or `ValueError` for what is no
        plain data; then nothing was appended."""
        payload: bytes = msgpack.packb(data)
        head = _HEAD.pack(self._number, len(payload), zlib.crc32(payload))
        self._write(head + _CHECK.pack(zlib.crc32(head)) + payload)
        self._number += 1
        return self._number - 1

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecordingError(f"{self.path}: somebody else records there; give another path") from error

    def _continue(self) -> None:
        if os.fstat(self._file).st_size == 0:
            self._end = 0
            self._write(MAGIC)
            return
        self._end = os.fstat(self._file).st_size
        for found in read(self.path):
            if isinstance(found, Whole):
                self.first = found.data if found.number == 0 else self.first
                self._number = found.number + 1
            elif found.kind is Kind.TRUNCATED:
                os.ftruncate(self._file, found.offset)
                self._end = found.offset
            else:
                raise RecordingError(f"{self.path}: {found.sentence}; it is not continued, give another path")

    def _write(self, data: bytes) -> None:
        """All of it or nothing: a disk that is full must not leave half a record in the middle."""
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)
