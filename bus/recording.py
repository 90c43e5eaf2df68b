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


def _records(file: BinaryIO) -> Iterator[Whole | Damage]:
    expected = 0
    while True:
        found = _record(file, expected)
        if found is None:
            return
        yield found
        if isinstance(found, Damage):
            return
        expected += 1


def _record(file: BinaryIO, expected: int) -> Whole | Damage | None:
    """The next record; None at the end."""
    offset = file.tell()
    head = file.read(HEAD_BYTES)
    if not head:
        return None
    if len(head) < HEAD_BYTES:
        return _torn(expected, offset, len(head))
    if zlib.crc32(head[: _HEAD.size]) != _CHECK.unpack_from(head, _HEAD.size)[0]:
        return _changed(expected, offset, "the checksum of its head does not match")
    number, length, crc = _HEAD.unpack_from(head)
    if number != expected:
        return _misplaced(expected, number, offset)
    payload = file.read(length)
    if len(payload) < length:
        return _torn(expected, offset, HEAD_BYTES + len(payload), HEAD_BYTES + length)
    if zlib.crc32(payload) != crc:
        return _changed(expected, offset, f"the checksum of its {length} bytes does not match")
    try:
        return Whole(number=number, offset=offset, data=msgpack.unpackb(payload))
    except (ValueError, msgpack.UnpackException) as error:
        return _changed(expected, offset, f"its checksums match, but it is no msgpack: {error}")


def _torn(number: int, offset: int, found: int, whole: int | None = None) -> Damage:
    of = "" if whole is None else f" of {whole}"
    sentence = f"record {number} at byte {offset} is truncated: {found}{of} bytes of it are there; whole up to record {number - 1}"
    return Damage(kind=Kind.TRUNCATED, number=number, offset=offset, sentence=sentence)


def _changed(number: int, offset: int, what: str) -> Damage:
    sentence = f"record {number} at byte {offset} was changed: {what}"
    return Damage(kind=Kind.CHANGED, number=number, offset=offset, sentence=sentence)


def _misplaced(expected: int, number: int, offset: int) -> Damage:
    many = "record {0} is" if number == expected + 1 else "records {0} to {1} are"
    gone = many.format(expected, number - 1)
    sentence = f"{gone} missing: at byte {offset} comes record {number}"
    if number < expected:
        sentence = f"record {expected} is missing: at byte {offset} comes record {number} again"
    return Damage(kind=Kind.MISSING, number=expected, offset=offset, sentence=sentence)


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
