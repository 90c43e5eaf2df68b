"""The core of a pager: one guest's pages between RAM and slots, over the ports `Memory` and `SlotDevice`.

It knows nothing of userfaultfd or processes: a loop somewhere calls `fault` for each fault and `evict` while `over` is true;
both are short steps. What may happen in which phase stands in `paging.table_header.Phase`. Threads may share a `Pages`: a
transfer runs beside the loop.

At most `limit + batch` pages are resident at any time: at that mark a batch goes out before a page comes in.
"""

import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping

import numpy as np

from paging.device import SlotDevice
from paging.errors import OutOfSlots, PagingError, SlotUnreadable
from paging.fault_points import fault_point
from paging.guest import Halted, PageCounts
from paging.latency import Latencies
from paging.memory import Memory
from paging.page_out import PageOut
from paging.policy import BATCH_PAGES, Clock, runs_of
from paging.slot_pool import SlotPool
from paging.slots import SlotSet
from paging.swap_table import Entry, Phase, SwapTable

_LOOKS = 16
"""How many batches a fault may look through for zero pages; a fault that is tried again looks further"""


class Pages:
    """One guest's pages. A table that is not empty is recovered from (DATAPLANE 4.4): see `_recover`."""

    def __init__(
        self, memory: Memory, table: SwapTable, devices: Mapping[str, SlotDevice], *, limit: int, batch: int = BATCH_PAGES
    ) -> None:
        """`devices` are by name; `limit` is the resident limit in pages, `batch` the pages of one eviction."""
        if limit < 1 or table.pages != memory.pages:
            raise PagingError(f"{table.instance}: {memory.pages} pages of RAM, {table.pages} in the table, limit {limit}")
        self.memory, self.table, self.limit = memory, table, limit
        self.batch = min(batch, max(1, limit // 2))
        self.devices = {device.identity.uuid: device for device in devices.values()}
        self.names = {device.identity.uuid: name for name, device in devices.items()}
        self.pool = SlotPool()
        self.clock = Clock(memory.pages, limit)
        self.lock = threading.RLock()
        self.copying = threading.Lock()
        """held while a slot is copied in the background, and taken before `lock`; whoever changes what may be written waits"""
        self.stalled: dict[int, PagingError] = {}
        """page -> why its fault is unanswered, in order of appearance"""
        self._out = PageOut(memory, table, self.devices, self.pool, self.clock)
        self._latencies = Latencies()
        self._visitors: deque[int] = deque()
        """pages that came in while the guest stood still"""
        self._faults = self._evicted = self._allocated_max = 0
        self._recover()

    # Steps of the pager's loop

    def fault(self, page: int) -> None:
        """Answer a fault of the guest.

        Raises `SlotUnreadable` (bad content, device gone), `OutOfSlots` or `DeviceError` (at the mark, and nothing can go out).
        Then the fault stays unanswered, is remembered in `stalled`, and is tried again by `retry` or its next event.
        """
        started = time.perf_counter_ns()
        with self.lock:
            if page in self.clock:
                # A second event for one fault, or a fence that an earlier pager left behind.
                self.memory.release((page, 1))
                return
            try:
                self._bring(page)
            except PagingError as error:
                self.stalled[page] = error
                raise
            self.stalled.pop(page, None)
            self._faults += 1
        self._latencies.record(time.perf_counter_ns() - started)

    def retry(self) -> int:
        """Try every stalled fault again; returns how many are stalled still."""
        for page in list(self.stalled):
            try:
                self.fault(page)
            except PagingError:
                continue
            self.stalled.pop(page, None)
        return len(self.stalled)

    @property
    def over(self) -> bool:
        """More is resident than should be, and eviction is allowed."""
        return self.clock.count > self.limit and self.table.phase is Phase.RUNNING

    @property
    def trouble(self) -> PagingError | None:
        """Why the last eviction left pages in RAM that should have gone, or None. With trouble, do not ask again at once."""
        return self._out.trouble

    def evict(self) -> int:
        """One batch out, if more is resident than the limit. Returns how many pages left; never raises for a bad device."""
        with self.lock:
            return self._evict() if self.over else 0

    def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """These slots (device name -> set) and no others may be written; what is in use stays in use.

        Raises `PagingError` for a device that is not here or slots beyond its end; then nothing has changed.
        """
        by_name = {name: uuid for uuid, name in self.names.items()}
        for name, wanted in slots.items():
            if name not in by_name:
                raise PagingError(f"{self.table.instance}: armed with slots of device {name}, which this host does not reach")
            slot_count = self.devices[by_name[name]].identity.slot_count
            if wanted and int(wanted.array()[-1]) >= slot_count:
                raise PagingError(f"{self.table.instance}: armed with slots of {name} beyond its {slot_count}")
        with self.copying, self.lock:
            self.pool.arm({by_name[name]: wanted for name, wanted in slots.items()}, self.table.slots())

    # Phases

    def start(self) -> None:
        """empty -> running: a guest boots."""
        self._enter(Phase.RUNNING, Phase.EMPTY)

    def clear(self) -> None:
        """empty or filling -> filling: drop whatever there is, a transfer (or its repetition) begins.

        A staged machine's own start left pages that would win over granted slots.
        """
        with self.lock:
            self._enter(Phase.FILLING, Phase.EMPTY)
            self.table.clear_pages(np.flatnonzero(self.table.entries))
            self.pool.arm(self.pool.armed(), {})
            self._drop_resident()

    def forget(self, pages: list[int]) -> None:
        """While filling: these resident pages are another's, drop them."""
        if pages:
            with self.lock:
                gone = set(pages)
                self._visitors = deque(page for page in self._visitors if page not in gone)
                self.memory.drop(runs_of(pages))
                self.clock.left(pages)

    def settle(self) -> None:
        """filling -> loaded: all has arrived."""
        self._enter(Phase.LOADED, Phase.FILLING)

    def freeze(self) -> None:
        """running -> frozen: the guest is stopped; from here on the table does not change, and no write is under way."""
        with self.copying:
            self._enter(Phase.FROZEN, Phase.RUNNING)

    def thaw(self) -> None:
        """frozen or loaded -> running. Pages that came in by copying meanwhile are RAM's now."""
        with self.lock:
            self._enter(Phase.RUNNING, Phase.FROZEN, Phase.LOADED)
            self._let_resident_win()

    def rest(self) -> None:
        """Give back the descriptors of devices on which nothing lies and nothing is armed. They open again when needed."""
        with self.copying, self.lock:
            needed = self.table.slots().keys() | self.pool.armed().keys()
            for uuid, device in self.devices.items():
                if uuid not in needed:
                    device.close()

    # What can be asked

    @property
    def faults(self) -> int:
        """Faults answered so far."""
        return self._faults

    def content(self, page: int, entry: Entry) -> bytes:
        """A swapped page's bytes from its slot, checksum verified. Raises `SlotUnreadable`."""
        name = self.names.get(entry.device, entry.device)
        device = self.devices.get(entry.device)
        if device is None:
            raise SlotUnreadable(page, entry.slot, name, "this host does not reach the device")
        try:
            data = device.read(entry.slot)
        except (OSError, ValueError) as error:
            raise SlotUnreadable(page, entry.slot, name, str(error)) from error
        if zlib.crc32(data) != entry.checksum:
            raise SlotUnreadable(page, entry.slot, name, "its content has a wrong checksum")
        return data

    def swapped(self) -> Mapping[str, SlotSet]:
        """Device name -> the slots that the table names."""
        with self.lock:
            return {self.names.get(uuid, uuid): slots for uuid, slots in self.table.slots().items()}

    def counts(self) -> PageCounts:
        """How the memory lies now."""
        with self.lock:
            self._sample()
            resident = self.clock.count
            swapped = int(np.count_nonzero(self.table.swapped() & ~self.clock.resident()))
            return PageCounts(
                total=self.memory.pages, resident=resident, swapped=swapped, zero=self.memory.pages - resident - swapped,
                faults=self._faults, evicted=self._evicted, resident_bytes_max=self._allocated_max,
                page_in_us_p50=self._latencies.quantile_us(0.5), page_in_us_p99=self._latencies.quantile_us(0.99),
                stalled=str(next(iter(self.stalled.values()))) if self.stalled else None,
            )  # fmt: skip

    def halted(self) -> Halted:
        """What a freeze reports."""
        return Halted(swapped=self.swapped(), counts=self.counts())

    # How it is done

    def _bring(self, page: int) -> None:
        if self.clock.count >= self.limit + self.batch:
            self._make_room(page)
        entry = self.table.at(page)
        if entry is None:
            self.memory.place_zero(page)
        else:
            self.memory.place(page, self.content(page, entry))
            fault_point("page_in.after_place")
            if self.table.phase is Phase.RUNNING:
                self.table.clear(page)
                fault_point("page_in.after_clear")
                self.pool.give(entry.device, entry.slot)
        if self.table.phase is not Phase.RUNNING:
            self._visitors.append(page)
        self.clock.placed(page)

    def _make_room(self, page: int) -> None:
        gone = self._evict_hard() if self.table.phase is Phase.RUNNING else self._send_visitors_off()
        if not gone:
            why = self.trouble or OutOfSlots("RAM is full and nothing may go out while the guest stands still")
            raise type(why)(f"page {page} cannot come in: {why}")

    def _evict_hard(self) -> int:
        """Without a free slot, zero pages can still leave: look for some among the batches that are next."""
        for _ in range(_LOOKS):
            gone = self._evict()
            if gone or not isinstance(self.trouble, OutOfSlots):
                return gone
        return 0

    def _evict(self) -> int:
        self._sample()
        gone = self._out.batch(self.batch)
        self._evicted += gone
        return gone

    def _send_visitors_off(self) -> int:
        """Make room while the guest stands still and the table must not change: drop pages that came in meanwhile and are
        as they came, since their slots (or nothing, for zeros) say the same."""
        gone: list[int] = []
        while self._visitors and len(gone) < self.batch:
            page = self._visitors.popleft()
            self.memory.fence((page, 1))
            if self._is_unchanged(page):
                gone.append(page)
            else:
                self.memory.release((page, 1))
        if gone:
            self.memory.drop(runs_of(sorted(gone)))
            self.clock.left(gone)
        return len(gone)

    def _is_unchanged(self, page: int) -> bool:
        content, entry = self.memory.read((page, 1)), self.table.at(page)
        return zlib.crc32(content) == entry.checksum if entry else not any(content)

    def _enter(self, phase: Phase, *before: Phase) -> None:
        with self.lock:
            now = self.table.phase
            if now is phase:
                return
            if now not in before:
                raise PagingError(f"{self.table.instance} is {now.name.lower()} and cannot become {phase.name.lower()}")
            self.table.enter(phase)

    def _recover(self) -> None:
        """Take over from a pager that died. Who wins where RAM and table name one page depends on the phase."""
        resident = self.memory.resident()
        if self.table.phase is Phase.FILLING and (stale := resident & self.table.swapped()).any():
            self.memory.drop(runs_of(np.flatnonzero(stale).tolist()))
            resident = resident & ~stale
        self.clock.placed_all(np.flatnonzero(resident))
        if self.table.phase is Phase.RUNNING:
            self._let_resident_win()
        else:
            self._visitors.extend(np.flatnonzero(self.table.swapped() & resident).tolist())
        self._sample()

    def _let_resident_win(self) -> None:
        """The guest may have written to a resident page since it came in: its entry is stale, its slot not needed."""
        self._visitors.clear()
        both = np.flatnonzero(self.table.swapped() & self.clock.resident())
        freed = [entry for page in both.tolist() if (entry := self.table.at(page))]
        self.table.clear_pages(both)
        for entry in freed:
            self.pool.give(entry.device, entry.slot)

    def _drop_resident(self) -> None:
        pages = np.flatnonzero(self.memory.resident() | self.clock.resident()).tolist()
        if pages:
            self.memory.drop(runs_of(pages))
        self.clock.left(np.flatnonzero(self.clock.resident()).tolist())
        self._visitors.clear()

    def _sample(self) -> None:
        self._allocated_max = max(self._allocated_max, self.memory.allocated_bytes())
