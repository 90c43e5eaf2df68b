"""The machine of an instance: a guest that reads, writes and discards its few pages, on the real paging core.

It lives outside of its node's process, as QEMU and the pager do: a node may die and come back, the machine goes on. Its memory,
table and slots hold real bytes; what the guest last wrote is kept beside it, as the truth that it is measured by.
"""

import contextlib
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path

from paging.cleaner import Cleaner
from paging.device import PAGE_BYTES, SlotDevice
from paging.errors import GuestError, MachineGone, PagingError
from paging.fake_memory import FakeMemory
from paging.guest import Definition, Endpoint
from paging.incoming import Incoming
from paging.pages import Pages
from paging.reception import Reception
from paging.slots import SlotSet
from paging.swap_table import Phase, SwapTable, table_bytes
from paging.table_header import Header
from scenarios.sim.devices import SimSlots
from scenarios.sim.fortune import Fortune

ZERO = bytes(PAGE_BYTES)
PORT = 7000
Tell = Callable[[str, str], None]


class SimMachine:
    """One instance's machine and pager. `truth` is what the VM's pages hold; zero pages are not in it."""

    def __init__(
        self, instance: str, host: str, definition: Definition, *, devices: Mapping[str, SimSlots], fortune: Fortune,
        truths: dict[str, dict[int, bytes]],
    ) -> None:  # fmt: skip
        self.instance, self.host, self.definition, self.vm = instance, host, definition, definition.vm
        self.devices, self.fortune, self.truths = devices, fortune, truths
        self.pages: Pages | None = None
        self.memory: FakeMemory
        self.reception: Reception | None = None
        self.executes = False
        """the guest's processors run"""
        self.dead = ""
        self.watchers: list[Tell] = []
        self.wrong = ""
        """what the guest read that it had not written"""
        self.moved = True
        """something happened to it since the checkers last looked"""
        self._armed: Mapping[str, SlotSet] = {}
        self._cleaner: Cleaner | None = None
        self._copying = False

    # what a node may ask of it

    def there(self) -> Pages:
        """Its pages. Raises `MachineGone` or `GuestError`."""
        if self.dead:
            raise MachineGone(self.dead)
        if self.pages is None:
            raise GuestError(f"{self.instance} has no machine")
        return self.pages

    @property
    def phase(self) -> Phase:
        """How its table stands; empty where there is none."""
        return self.pages.table.phase if self.pages is not None else Phase.EMPTY

    def boot(self) -> None:
        """From nothing to running, with empty memory."""
        if self.dead:
            raise MachineGone(self.dead)
        if self.pages is None:
            self._make().start()
            self.truths[self.vm] = {}
            self.executes = self.moved = True

    def stage(self) -> Endpoint:
        """From nothing to staged."""
        if self.dead:
            raise MachineGone(self.dead)
        if self.reception is None:
            incoming = Incoming(self.pages or self._make())
            incoming.begin()
            self.reception = Reception(incoming, token=f"token-of-{self.instance}-{self.fortune.random.randrange(1 << 30)}")
        return Endpoint(host=self.host, port=PORT, token=self.reception.token)

    def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """These slots may be written."""
        if self.pages is not None:
            self.pages.arm(slots)
        self._armed = dict(slots)

    def halt(self) -> Pages:
        """Stand still."""
        pages = self.there()
        if pages.stalled:
            raise GuestError(f"{self.instance} cannot be halted: {next(iter(pages.stalled.values()))}")
        self.executes, self.moved = False, True
        pages.freeze()
        return pages

    def run(self) -> None:
        """Go on."""
        pages = self.there()
        if not self.executes:
            pages.thaw()
            self.executes = self.moved = True

    def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """Copy pages out of these slots in the background."""
        self.there()
        assert self._cleaner is not None, "it comes with the pages"
        self._cleaner.want(granted, pages_per_s)

    def destroy(self) -> None:
        """Be gone."""
        if self.pages is not None:
            self.pages.table.close()
        self.pages = self.reception = None
        self.executes, self.dead, self._cleaner = False, "", None

    def die(self, why: str) -> None:
        """End by itself; memory and table are gone."""
        self.destroy()
        self.dead = f"{self.instance}: {why}"
        self._tell("died", why)

    def _make(self) -> Pages:
        header = Header(
            pages=self.definition.pages, instance=self.instance, boot_id="00000000-0000-0000-0000-000000000000",
            devices=tuple(device.identity.uuid for device in self.devices.values()),
        )  # fmt: skip
        table = SwapTable(Path("nowhere"), mmap.mmap(-1, table_bytes(header.pages)), header, writable=True)
        self.memory = FakeMemory(header.pages)
        devices: dict[str, SlotDevice] = dict(self.devices)
        self.pages = Pages(self.memory, table, devices, limit=self.definition.resident_pages, batch=2)
        self.pages.arm(self._armed)
        self._cleaner = Cleaner(self.pages)
        for device in self.devices.values():
            device.interlude = self.interlude
        return self.pages

    # what goes on inside

    def live(self) -> None:
        """One deed of the guest or of its pager, whichever fate wants."""
        if self.pages is None:
            return
        pick, page = self.fortune.random, self.fortune.random.randrange(self.definition.pages)
        try:
            if not self.executes:
                if self.phase in (Phase.FROZEN, Phase.LOADED):
                    self._touch_still(page)
                return
            deed = pick.random()
            if self._cleaner is not None and not self._cleaner.idle and deed < 0.4:
                self.tidy()
            elif deed < 0.6:
                self._read(page)
            elif deed < 0.92:
                self._write(page, self._fresh())
            else:
                self._write(page, ZERO)
            self._relieved()
        except PagingError as error:
            self._tell("stalled", str(error))

    def _touch_still(self, page: int) -> None:
        """A device model reads the memory of a guest that stands still; its table must not change by that."""
        table = self.there().table
        before = table.entries.copy()
        self._touch(page)
        if (table.entries != before).any():
            self.wrong = f"the table of {self.instance} changed while it stood still, when page {page} came in"

    def _read(self, page: int) -> None:
        self._touch(page)
        found, expected = self.memory.peek(page), self.truths[self.vm].get(page, ZERO)
        if found != expected and not self.wrong:
            self.wrong = f"the guest of {self.instance} read {_shown(found)} in page {page}, written was {_shown(expected)}"

    def _write(self, page: int, data: bytes) -> None:
        self._touch(page)
        self.memory.poke(page, 0, data)
        if data == ZERO:
            self.truths[self.vm].pop(page, None)
        else:
            self.truths[self.vm][page] = data

    def _touch(self, page: int) -> None:
        pages = self.there()
        if pages.over:
            pages.evict()
        while not self.memory.is_resident(page):
            pages.fault(page)

    def _relieved(self) -> None:
        pages = self.there()
        if pages.stalled and not pages.retry():
            self._tell("unstalled", "all faults are answered again")

    def relieve(self) -> None:
        """Try what is stalled again."""
        if self.pages is not None and self.pages.stalled:
            self._relieved()

    def tidy(self) -> None:
        """A second's worth of the background copy."""
        if self._cleaner is not None and self.executes:
            self._copying = True
            self._cleaner.tick(1.0)
            self._copying = False
            self.moved = True

    def interlude(self) -> None:
        """A slot is being read or written for the copy, without any lock: the guest goes on meanwhile."""
        if self._copying and self.fortune.random.random() < 0.5:
            self._copying = False
            with contextlib.suppress(PagingError):
                swapped = self.there().table.swapped().nonzero()[0].tolist()
                if swapped:
                    self._write(self.fortune.random.choice(swapped), self._fresh())
            self._copying = True

    def _fresh(self) -> bytes:
        return self.fortune.random.randrange(1, 1 << 62).to_bytes(8, "little") * (PAGE_BYTES // 8)

    def _tell(self, what: str, sentence: str) -> None:
        for watcher in list(self.watchers):
            watcher(what, f"{self.instance}: {sentence}")

    # what a checker may look at

    def twice(self) -> list[int]:
        """Pages that are in RAM and in the table of a machine that executes: one of the two is stale."""
        found = self.there().table.swapped() & self.memory.resident()
        return [int(page) for page in found.nonzero()[0]] if found.any() else []

    def reads(self, page: int) -> bytes | memoryview | None:
        """What the guest would read there, without touching anything; None where the pager could not answer."""
        pages = self.there()
        entry = pages.table.at(page)
        if self.memory.is_resident(page) and (entry is None or self.phase is Phase.RUNNING):
            return self.memory.peek(page)
        if entry is None:
            return ZERO
        name = pages.names.get(entry.device)
        return self.devices[name].medium.slots.get(entry.slot, ZERO) if name is not None else None


def _shown(data: bytes | memoryview) -> str:
    return bytes(data[:8]).hex() if any(data) else "zeros"
