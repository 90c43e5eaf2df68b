"""The superblock of a swap device: the first 4096 bytes of a file or block device say what it is; slots lie behind it.

Slot s begins at byte 4096 * (s + 1). A device is known by the uuid in here, never by its path. Reading a superblock changes
nothing and needs no lock, so it is read again whenever somebody asks which devices a host reaches.
"""

import errno
import os
import stat
import struct
import uuid
import zlib
from pathlib import Path

from paging.device import PAGE_BYTES, DeviceId
from paging.errors import DeviceError

SUPERBLOCK_BYTES = 4096
MAGIC = b"SFSWAPDV"
VERSION = 1
_FIXED = struct.Struct("<8sIIQQ16s")
"""magic, version, bytes a slot, slots, incarnation, uuid"""
_CHECKSUM = struct.Struct("<I")
_CHECKSUM_AT = SUPERBLOCK_BYTES - _CHECKSUM.size
_STAMP = struct.Struct("<4sQ")
_STAMP_MAGIC = b"SFIN"
_STAMP_AT, _STAMP_END = 2048, 2560
"""Changed while the device is in use, so in a sector (512 bytes) of its own, which is written whole or not at all, under a
checksum of its own; to the checksum of the superblock it is zero"""
_LOOKED_AT_BYTES = 1 << 20
"""How much of a file must be zero to be taken for one that holds nothing: file systems and tables begin in there."""


def slot_offset(slot: int) -> int:
    """Where a slot begins, in bytes."""
    return SUPERBLOCK_BYTES + slot * PAGE_BYTES


def format_device(
    path: Path, slot_count: int, *, device_uuid: str | None = None, incarnation: int = 1, overwrite: bool = False
) -> DeviceId:
    """Make a swap device of a new or empty file, or of a block device that is zero where it begins.

    `overwrite` gives up what is there. Raises `DeviceError` if the file holds something, is too small (block devices are not
    resized) or cannot be written; then it is as it was.
    """
    if slot_count < 1:
        raise DeviceError(f"swap device {path}: {slot_count} slots asked; ask for at least 1")
    identity = DeviceId(uuid=device_uuid or str(uuid.uuid4()), slot_count=slot_count, incarnation=incarnation)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(f"swap device {path} cannot be made: {error.strerror}; check directory and permissions") from error
    try:
        if not overwrite and any(os.pread(descriptor, _LOOKED_AT_BYTES, 0)):
            raise DeviceError(f"swap device {path} holds something already; name another file, or say that it may be overwritten")
        _make_room(path, descriptor, slot_offset(slot_count))
        os.pwrite(descriptor, _encode(identity), 0)
        os.fsync(descriptor)
    except OSError as error:
        raise DeviceError(f"swap device {path} cannot be written: {error.strerror}; give it another place") from error
    finally:
        os.close(descriptor)
    return identity


def read_superblock(path: Path) -> DeviceId:
    """What the device at this path says it is. Raises `DeviceError` (missing, no permission, foreign, truncated, damaged)."""
    try:
        # Non-blocking: opening a pipe that somebody named by mistake would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DeviceError(f"swap device {path} cannot be opened: {error.strerror}; {_remedy(error)}") from error
    try:
        return check_superblock(path, descriptor)
    except OSError as error:
        raise DeviceError(f"swap device {path} cannot be read: {error.strerror}; {_remedy(error)}") from error
    finally:
        os.close(descriptor)


def stamp(path: Path, incarnation: int) -> None:
    """Let the superblock say that it is this incarnation from now on, durable against power loss; it only grows. Raises
    `DeviceError`."""
    known = read_superblock(path).incarnation
    if incarnation <= known:
        raise DeviceError(f"swap device {path} is in incarnation {known} already, {incarnation} is old; look who else serves it")
    fixed = _STAMP.pack(_STAMP_MAGIC, incarnation)
    data = (fixed + _CHECKSUM.pack(zlib.crc32(fixed))).ljust(_STAMP_END - _STAMP_AT, b"\0")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, data, _STAMP_AT)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeviceError(f"swap device {path} cannot be written: {error.strerror}; {_remedy(error)}") from error


def check_superblock(path: Path, descriptor: int) -> DeviceId:
    """As `read_superblock`, of an open descriptor (not of one with O_DIRECT)."""
    identity = _decode(path, os.pread(descriptor, SUPERBLOCK_BYTES, 0))
    size, needed = _size(descriptor), slot_offset(identity.slot_count)
    if size < needed:
        raise DeviceError(
            f"swap device {path} is truncated: {size} bytes, {identity.slot_count} slots need {needed}; "
            "restore it, or format it anew if no guest has pages on it"
        )
    return identity


def _encode(identity: DeviceId) -> bytes:
    fixed = _FIXED.pack(
        MAGIC, identity.version, identity.slot_bytes, identity.slot_count, identity.incarnation, uuid.UUID(identity.uuid).bytes
    )
    body = fixed.ljust(_CHECKSUM_AT, b"\0")
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _decode(path: Path, data: bytes) -> DeviceId:
    if len(data) < SUPERBLOCK_BYTES or data[: len(MAGIC)] != MAGIC:
        raise DeviceError(f"swap device {path} has a foreign superblock or none; name a device that was formatted by swapferry")
    _, version, slot_bytes, slot_count, incarnation, raw = _FIXED.unpack_from(data)
    if version != VERSION or slot_bytes != PAGE_BYTES:
        raise DeviceError(f"swap device {path} has version {version} and {slot_bytes} bytes a slot; known here are 1 and 4096")
    unstamped = data[:_STAMP_AT] + bytes(_STAMP_END - _STAMP_AT) + data[_STAMP_END:_CHECKSUM_AT]
    if zlib.crc32(unstamped) != _CHECKSUM.unpack_from(data, _CHECKSUM_AT)[0]:
        raise DeviceError(f"swap device {path} has a damaged superblock; restore its first 4096 bytes")
    stamped = _stamped(path, data[_STAMP_AT:_STAMP_END])
    return DeviceId(
        uuid=str(uuid.UUID(bytes=raw)), slot_count=slot_count, version=version, incarnation=max(incarnation, stamped)
    )


def _stamped(path: Path, sector: bytes) -> int:
    """The incarnation that was stamped last; 0: none was."""
    if not any(sector):
        return 0
    magic, incarnation = _STAMP.unpack_from(sector)
    if magic != _STAMP_MAGIC or zlib.crc32(sector[: _STAMP.size]) != _CHECKSUM.unpack_from(sector, _STAMP.size)[0]:
        raise DeviceError(f"swap device {path} has a damaged stamp in its superblock; restore its first 4096 bytes")
    return int(incarnation)


def _make_room(path: Path, descriptor: int, needed: int) -> None:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.truncate(descriptor, needed)
    elif _size(descriptor) < needed:
        raise DeviceError(f"swap device {path} has {_size(descriptor)} bytes, {needed} are needed; ask for fewer slots")


def _size(descriptor: int) -> int:
    # st_size of a block device is 0; the end of it can only be sought.
    return os.lseek(descriptor, 0, os.SEEK_END)


def _remedy(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "format it first or correct the path"
    if isinstance(error, PermissionError):
        return "give this user read and write permission"
    if error.errno == errno.EIO:
        return "replace the disk"
    return "name a file or a block device"
