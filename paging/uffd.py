"""userfaultfd: mechanism only. What the kernel offers, spelled in Python; which page goes where is `paging.policy`'s business.

Numbers and layouts are those of linux/userfaultfd.h (x86-64), written out because Debian 12's header ends at feature bit 12.
All calls act on the memory of the process that *made* the descriptor (QEMU, by its preload library), from whichever process
holds it. The one profile in use is the synchronous one: the pager answers missing pages and write-protect faults, which
needs no kernel newer than 5.19 (shmem write-protection).
"""

import contextlib
import errno
import fcntl
import os
import struct

FEATURE_WRITE_PROTECT = 1 << 0
FEATURE_MISSING_SHMEM = 1 << 5
FEATURE_WRITE_PROTECT_SHMEM = 1 << 12
"""UFFD_FEATURE_WP_HUGETLBFS_SHMEM: shared memory can be write-protected, also where no page is mapped."""
MODE_MISSING = 1
MODE_WRITE_PROTECT = 2

FEATURES = FEATURE_WRITE_PROTECT | FEATURE_MISSING_SHMEM | FEATURE_WRITE_PROTECT_SHMEM
MODES = MODE_MISSING | MODE_WRITE_PROTECT

_WAKE = 0x8010AA02
_COPY = 0xC028AA03
_ZEROPAGE = 0xC020AA04
_WRITEPROTECT = 0xC018AA06

_RANGE = struct.Struct("<QQ")
_COPY_REQUEST = struct.Struct("<QQQQq")
_ZERO_REQUEST = struct.Struct("<QQQq")
_PROTECT_REQUEST = struct.Struct("<QQQ")

_MESSAGE_BYTES = 32
_MESSAGE = struct.Struct("<B15xQ8x")
"""event, (flags), address, (thread)"""
_EVENT_PAGEFAULT = 0x12
_MESSAGES_MAX = 64
_IN_PAGE = 4095


class Uffd:
    """One userfaultfd. Every method raises `OSError` for what it does not name; ESRCH means that QEMU is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        """For select and epoll: readable when a fault waits."""
        return self.descriptor

    def faults(self) -> list[int]:
        """Addresses (of QEMU, page-aligned) at which threads wait for an answer, at most 64, without blocking: a page is
        missing there, or it was written to while protected. An event that was read is never delivered again."""
        try:
            messages = os.read(self.descriptor, _MESSAGE_BYTES * _MESSAGES_MAX)
        except BlockingIOError:
            return []
        events = _MESSAGE.iter_unpack(messages)
        return [address & ~_IN_PAGE for event, address in events if event == _EVENT_PAGEFAULT]

    def copy(self, target: int, source: int, length: int) -> bool:
        """Let pages appear in one instant with the bytes at `source` (of this process) and wake their waiters.
        False where a page is there already: nothing was changed and nobody was woken."""
        return self._place(_COPY, _COPY_REQUEST.pack(target, source, length, 0, 0))

    def zero(self, start: int, length: int) -> bool:
        """Let pages of zeros appear; else as `copy`."""
        return self._place(_ZEROPAGE, _ZERO_REQUEST.pack(start, length, 0, 0))

    def _place(self, request: int, argument: bytes) -> bool:
        while True:
            try:
                fcntl.ioctl(self.descriptor, request, argument)
            except BlockingIOError:
                # EAGAIN: QEMU's address space is changing (mmap under way) and nothing was placed.
                continue
            except FileExistsError:
                return False
            return True

    def wake(self, start: int, length: int) -> None:
        """Let waiters try again; those that still find no page raise a new fault."""
        fcntl.ioctl(self.descriptor, _WAKE, _RANGE.pack(start, length))

    def protect(self, start: int, length: int) -> None:
        """From the return of this call on, writes in the range wait. Does not stop DMA through pinned pages."""
        self._write_protect(start, length, 1)

    def unprotect(self, start: int, length: int) -> None:
        """Lift `protect` and wake the waiters."""
        self._write_protect(start, length, 0)

    def _write_protect(self, start: int, length: int, mode: int) -> None:
        argument = _PROTECT_REQUEST.pack(start, length, mode)
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.ioctl(self.descriptor, _WRITEPROTECT, argument)
                return

    def close(self) -> None:
        """Give this descriptor back; QEMU's own stays open."""
        os.close(self.descriptor)


def is_gone(error: OSError) -> bool:
    """Whether an error says that the memory's process has ended: nobody waits any more."""
    return error.errno in (errno.ESRCH, errno.ENOENT)
