"""Slots come home: pages that lie in slots which came with the guest are copied into slots of this host (the cleanup).

Read the foreign slot, verify, write a free armed slot, and only then let the table's entry point there, if it still is the
entry that was read: a page that the guest fetched, rewrote or dropped meanwhile is settled already, and the slot written for
it is free again. Killed at any point, this loses nothing: an entry points to a complete slot before and after.

Slots are read and written without the lock of the pages, so a fault never waits for a copy.
"""

import zlib
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from paging.errors import DeviceError, OutOfSlots, PagingError, SlotUnreadable
from paging.fault_points import fault_point
from paging.pages import Pages
from paging.slots import SlotSet
from paging.swap_table import Entry, Phase


@attrs.frozen
class _Copy:
    page: int
    entry: Entry
    content: bytes


class SlotCopy:
    """Copies for one guest; one step at a time, from any one thread."""

    blocked: PagingError | None = None
    """why nothing can be copied until `look_again`: `DeviceError` or `OutOfSlots`"""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._foreign: dict[str, SlotSet] = {}
        """device uuid -> slots that are to be left"""
        self._waiting: list[int] = []
        """pages in foreign slots, the next one last"""
        self.unreadable: dict[int, SlotUnreadable] = {}
        """pages that are left out until `look_again`"""

    @property
    def left(self) -> int:
        """Pages that were in foreign slots at the last look and have not been copied since."""
        return len(self._waiting) + len(self.unreadable)

    @property
    def waiting(self) -> int:
        """What of this `step` would try."""
        return len(self._waiting)

    def aim(self, granted: Mapping[str, SlotSet]) -> None:
        """These slots (device name -> set) are to be left, except for those that are armed here. Looks through the table."""
        by_name = {name: uuid for uuid, name in self._pages.names.items()}
        armed = self._pages.pool.armed()
        self._foreign = {
            by_name[name]: slots - armed.get(by_name[name], SlotSet()) for name, slots in granted.items() if name in by_name
        }
        self.look_again()

    def look_again(self) -> None:
        """Find the pages again that are still to be copied; what could not be read is tried once more."""
        table = self._pages.table
        found = [table.pages_in(uuid, slots) for uuid, slots in self._foreign.items()]
        self._waiting = np.concatenate(found)[::-1].tolist() if found else []
        self.unreadable.clear()
        self.blocked = None

    def step(self, limit: int) -> int:
        """Copy up to `limit` pages. Returns how many entries were switched."""
        with self._pages.copying:
            if self._pages.table.phase is not Phase.RUNNING:
                return 0
            read = self._read(self._choose(limit))
            return self._write(read) if read else 0

    def _choose(self, limit: int) -> list[tuple[int, Entry]]:
        chosen: list[tuple[int, Entry]] = []
        with self._pages.lock:
            while self._waiting and len(chosen) < limit:
                page = self._waiting.pop()
                entry = self._pages.table.at(page)
                if entry is not None and entry.slot in self._foreign.get(entry.device, ()):
                    chosen.append((page, entry))
        return chosen

    def _read(self, chosen: Sequence[tuple[int, Entry]]) -> list[_Copy]:
        read: list[_Copy] = []
        for page, entry in chosen:
            try:
                read.append(_Copy(page, entry, self._pages.content(page, entry)))
            except SlotUnreadable as error:
                # Unless the guest fetched it meanwhile: then the slot may be another's already and hold anything.
                if self._pages.table.at(page) == entry:
                    self.unreadable[page] = error
        fault_point("copy.after_read")
        return read

    def _write(self, read: Sequence[_Copy]) -> int:
        taken = self._take(len(read))
        if taken is None:
            self._put_back(read)
            return 0
        device, first, count = taken
        part = read[:count]
        self._put_back(read[count:])
        try:
            self._pages.devices[device].write(first, [copy.content for copy in part])
        except OSError as error:
            self._give_back(device, range(first, first + count))
            self._put_back(part)
            where = f"slots {first}+{count} of device {self._pages.names[device]}"
            self.blocked = DeviceError(f"{where} cannot be written: {error.strerror}; copying waits")
            return 0
        fault_point("copy.after_write")
        return self._switch(part, device, first)

    def _take(self, count: int) -> tuple[str, int, int] | None:
        with self._pages.lock:
            # Evictions must never wait for slots because of a copy that is not urgent.
            spare = self._pages.pool.free() - self._pages.batch
            taken = self._pages.pool.take(min(count, spare)) if spare > 0 else None
            if taken is None:
                self.blocked = OutOfSlots(f"{self.left + count} pages are to come home, no armed slot is spare; copying waits")
            return taken

    def _switch(self, part: Sequence[_Copy], device: str, first: int) -> int:
        with self._pages.lock:
            table = self._pages.table
            same = [(copy, first + index) for index, copy in enumerate(part) if table.at(copy.page) == copy.entry]
            if same:
                pages = np.array([copy.page for copy, _ in same], dtype=np.int64)
                checksums = np.array([zlib.crc32(copy.content) for copy, _ in same], dtype=np.uint32)
                table.enter_slots(pages, device, np.array([slot for _, slot in same]), checksums)
            for copy, _ in same:
                self._pages.pool.give(copy.entry.device, copy.entry.slot)
            kept = {slot for _, slot in same}
            self._give_back(device, [slot for slot in range(first, first + len(part)) if slot not in kept])
        fault_point("copy.after_entry")
        return len(same)

    def _put_back(self, copies: Sequence[_Copy]) -> None:
        self._waiting += [copy.page for copy in reversed(copies)]

    def _give_back(self, device: str, slots: Sequence[int]) -> None:
        with self._pages.lock:
            for slot in slots:
                self._pages.pool.give(device, slot)
