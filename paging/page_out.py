"""One batch of pages on its way out of RAM: fence, read, write slots, name them in the table, drop (DATAPLANE 4.3).

Killed at any point, this loses nothing: until an entry is written the page is resident, and afterwards its slot is complete.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from paging.device import PAGE_BYTES, SlotDevice
from paging.errors import DeviceError, OutOfSlots, PagingError
from paging.fault_points import fault_point
from paging.memory import Memory, Run
from paging.policy import Clock, runs_of
from paging.slot_pool import SlotPool
from paging.swap_table import SwapTable

Filled = list[tuple[int, memoryview]]
"""Pages that are not zero, with their bytes"""


class PageOut:
    """Evicts for one guest. `devices` are by uuid."""

    trouble: PagingError | None = None
    """why the last batch left pages in RAM: `OutOfSlots` or `DeviceError`; None when it did not"""

    def __init__(self, memory: Memory, table: SwapTable, devices: Mapping[str, SlotDevice], pool: SlotPool, clock: Clock) -> None:
        self._memory, self._table, self._devices, self._pool, self._clock = memory, table, devices, pool, clock

    def batch(self, count: int) -> int:
        """Evict up to `count` pages and return how many left. The rest stays resident with its fence lifted; see `trouble`."""
        self.trouble = None
        runs = self._clock.choose(count)
        for run in runs:
            self._memory.fence(run)
        fault_point("evict.after_fence")
        zero, filled = split_zero(self._memory, runs)
        fault_point("evict.after_read")
        gone = zero
        while filled and self.trouble is None:
            written = self._write(filled)
            gone += [page for page, _ in filled[:written]]
            filled = filled[written:]
        if gone:
            self._memory.drop(runs_of(sorted(gone)))
            fault_point("evict.after_drop")
            self._clock.left(gone)
        self._keep([page for page, _ in filled])
        return len(gone)

    def _write(self, filled: Filled) -> int:
        """Write the longest run of slots that can be had, and name it. Returns pages written; 0 with `trouble` set."""
        taken = self._pool.take(len(filled))
        if taken is None:
            self.trouble = OutOfSlots(f"{len(filled)} pages have to go out, no armed slot is free; grant this guest more slots")
            return 0
        device, first, length = taken
        part = filled[:length]
        try:
            self._devices[device].write(first, [data for _, data in part])
        except OSError as error:
            # The slots hold anything now and no entry names them: free again, but not the next to be tried.
            for slot in range(first, first + length):
                self._pool.give(device, slot)
            self.trouble = DeviceError(
                f"slots {first}-{first + length - 1} of device {device} cannot be written: {error.strerror}; "
                "the pages stay in RAM: repair the device or give it room"
            )
            return 0
        fault_point("evict.after_write")
        pages = np.array([page for page, _ in part], dtype=np.int64)
        checksums = np.array([zlib.crc32(data) for _, data in part], dtype=np.uint32)
        self._table.enter_slots(pages, device, np.arange(first, first + length), checksums)
        fault_point("evict.after_entry")
        return length

    def _keep(self, pages: Sequence[int]) -> None:
        for run in runs_of(pages):
            self._memory.release(run)
        self._clock.kept(pages)


def split_zero(memory: Memory, runs: Sequence[Run]) -> tuple[list[int], Filled]:
    """The pages of resident runs that are all zero, and the others with their bytes."""
    zero: list[int] = []
    filled: Filled = []
    for first, count in runs:
        data = memory.read((first, count))
        is_filled = np.atleast_1d(np.frombuffer(data, dtype=np.uint64).reshape(count, -1).any(axis=1))
        for index in range(count):
            if is_filled[index]:
                filled.append((first + index, data[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]))
            else:
                zero.append(first + index)
    return zero, filled
