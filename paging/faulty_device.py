"""A swap device that fails as a test has armed it (`paging.fault_points`: device.read, device.write)."""

import errno
import os
import time
from collections.abc import Sequence

from paging.device import SlotDevice
from paging.fault_points import SLOW_S, due, fault_point


class FaultyDevice(SlotDevice):
    """Another device, with faults before its reads and writes."""

    def __init__(self, inner: SlotDevice) -> None:
        self._inner, self.identity = inner, inner.identity

    def read(self, slot: int) -> bytes:
        """Raises `OSError` or takes longer where device.read is armed."""
        fault_point("device.read")
        return self._inner.read(slot)

    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        """As `read`; a short write leaves the first half of its pages, and half of one, behind."""
        action = due("device.write")
        if action == "short":
            half = len(pages) // 2
            torn = bytes(pages[half][: len(pages[half]) // 2]).ljust(len(pages[half]), b"\xee")
            self._inner.write(slot, [*pages[:half], torn])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if action == "slow":
            time.sleep(SLOW_S)
        elif action is not None:
            code = errno.ENOSPC if action == "enospc" else errno.EIO
            raise OSError(code, os.strerror(code))
        self._inner.write(slot, pages)

    def flush(self) -> None:
        """As of the device."""
        self._inner.flush()

    def close(self) -> None:
        """As of the device."""
        self._inner.close()
