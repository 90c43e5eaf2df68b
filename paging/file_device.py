"""The `SlotDevice` of files and block devices: direct I/O at page granularity.

O_DIRECT keeps swapped pages out of the host's page cache, where they would be memory again; it wants buffers and offsets
that are aligned to pages, hence the anonymous mappings below. Some file systems refuse it; then I/O is buffered and
`direct_refused` says why.

Several pagers open one device. Whoever serves its ledger also locks it, so that no second swapferry hands out the same slots.
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from paging.device import PAGE_BYTES, DeviceId, DevicePath, SlotDevice
from paging.errors import DeviceError
from paging.superblock import format_device, read_superblock, slot_offset

__all__ = ["FileDevice", "format_device", "read_superblock"]

BUFFER_BYTES = 64 * PAGE_BYTES
"""One batch of an eviction; longer writes go in pieces of this size"""


class FileDevice(SlotDevice):
    """An open device. Threads may share it: each has its own buffer, and pread and pwrite keep no position."""

    direct_refused: str | None
    """why I/O is buffered here, or None"""

    def __init__(self, where: DevicePath, identity: DeviceId, descriptor: int, direct_refused: str | None) -> None:
        self.name, self.path, self.identity, self.direct_refused = where.name, where.path, identity, direct_refused
        self._descriptor = descriptor
        self._local = threading.local()

    @classmethod
    def open(cls, where: DevicePath) -> "FileDevice":
        """Open for I/O. Raises `DeviceError`: missing, no permission, foreign or damaged superblock, truncated, other uuid."""
        identity = read_superblock(where.path)
        if identity.uuid != where.uuid:
            raise DeviceError(
                f"swap device {where.name}: {where.path} is device {identity.uuid}, not {where.uuid}; correct the path, "
                "or the uuid if the device was formatted anew"
            )
        try:
            descriptor, refused = _open_direct(where.path)
        except OSError as error:
            raise DeviceError(f"swap device {where.path} cannot be written: {error.strerror}; check permissions") from error
        return cls(where, identity, descriptor, refused)

    def lock(self) -> None:
        """Be the only one that serves this device, until `close`. Raises `DeviceError` if another swapferry serves it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceError(
                f"swap device {self.name}: {self.path} is busy, another swapferry serves it; stop that one or name another device"
            ) from error

    def check(self) -> DeviceId:
        """Read the superblock again: the device is still there and the same. Raises `DeviceError`."""
        identity = read_superblock(self.path)
        if (identity.uuid, identity.slot_count) != (self.identity.uuid, self.identity.slot_count):
            raise DeviceError(f"swap device {self.name}: {self.path} is device {identity.uuid} now; put the old one back")
        return identity

    def read(self, slot: int) -> bytes:
        """One slot's content. Raises `OSError` and `ValueError`, as the port says."""
        self._check_bounds(slot, 1)
        buffer = self._buffer()
        view = memoryview(buffer)[:PAGE_BYTES]
        read = os.preadv(self._descriptor, [view], slot_offset(slot))
        if read != PAGE_BYTES:
            raise OSError(errno.EIO, f"slot {slot}: {read} of {PAGE_BYTES} bytes, the device was truncated", str(self.path))
        return bytes(view)

    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        """Write consecutive slots; one call to the kernel for each 64 of them."""
        self._check_bounds(slot, len(pages))
        in_buffer = BUFFER_BYTES // PAGE_BYTES
        for start in range(0, len(pages), in_buffer):
            self._write_piece(slot + start, pages[start : start + in_buffer])

    def flush(self) -> None:
        """Make what was written durable against power loss."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Give descriptor and lock back. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_piece(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        buffer = self._buffer()
        for index, page in enumerate(pages):
            if len(page) != PAGE_BYTES:
                raise ValueError(f"slot {slot + index}: {len(page)} bytes, a page has {PAGE_BYTES}")
            buffer[index * PAGE_BYTES : (index + 1) * PAGE_BYTES] = page
        left = memoryview(buffer)[: len(pages) * PAGE_BYTES]
        offset = slot_offset(slot)
        while left:
            written = os.pwritev(self._descriptor, [left], offset)
            if not written:
                raise OSError(errno.ENOSPC, f"slot {slot}: nothing was written", str(self.path))
            left, offset = left[written:], offset + written

    def _check_bounds(self, slot: int, count: int) -> None:
        if slot < 0 or slot + count > self.identity.slot_count:
            raise ValueError(f"device {self.name}: slots {slot}+{count} are beyond its {self.identity.slot_count}")

    def _buffer(self) -> mmap.mmap:
        buffer: mmap.mmap | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = mmap.mmap(-1, BUFFER_BYTES)
        return buffer


def _open_direct(path: Path) -> tuple[int, str | None]:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT), None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags), f"the file system of {path} refuses O_DIRECT"
