"""Swap devices of the simulated world: slots in memory, and for each host a way there that may fail.

Who may write what is not known here; each write is shown to the `guard` (a checker) before it lands.
"""

import errno
from collections.abc import Callable, Sequence

import attrs

from paging.device import PAGE_BYTES, DeviceId, SlotDevice
from scenarios.sim.fortune import Fortune

Guard = Callable[[str, str, str, int], None]
"""(host, instance, device, slot): this is about to be written"""


@attrs.define(eq=False)
class Medium:
    """The device itself: what lies in its slots, and at which hosts it misbehaves now."""

    name: str
    home: str
    identity: DeviceId
    reach: tuple[str, ...]
    slots: dict[int, bytes] = attrs.field(factory=dict)
    failing: set[str] = attrs.field(factory=set)
    unreadable: set[str] = attrs.field(factory=set)
    slow: bool = False

    def mend(self) -> None:
        """All is well again."""
        self.failing.clear()
        self.unreadable.clear()
        self.slow = False


class SimSlots(SlotDevice):
    """A device as the pager of one instance sees it."""

    def __init__(self, medium: Medium, host: str, instance: str, fortune: Fortune, guard: Guard) -> None:
        self.identity = medium.identity
        self.medium = medium
        self.interlude: Callable[[], None] = lambda: None
        """called before a slot is read or written: what else goes on meanwhile"""
        self._host, self._instance, self._fortune, self._guard = host, instance, fortune, guard

    def read(self, slot: int) -> bytes:
        """See `SlotDevice.read`."""
        self._check()
        self.interlude()
        data = self.medium.slots.get(slot, bytes(PAGE_BYTES))
        return bytes([data[0] ^ 1]) + data[1:] if self._host in self.medium.unreadable else data

    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        """See `SlotDevice.write`."""
        self._check()
        self.interlude()
        for index, page in enumerate(pages):
            self._guard(self._host, self._instance, self.medium.name, slot + index)
            data = bytes(page)
            if self._fortune.strikes("write torn"):
                self.medium.slots[slot + index] = data[:2048] + self.medium.slots.get(slot + index, bytes(PAGE_BYTES))[2048:]
                raise OSError(errno.EIO, "the write was torn")
            self.medium.slots[slot + index] = data

    def flush(self) -> None:
        """See `SlotDevice.flush`."""

    def close(self) -> None:
        """See `SlotDevice.close`."""

    def _check(self) -> None:
        if self._host in self.medium.failing or self._host not in self.medium.reach:
            raise OSError(errno.EIO, "input/output error")
