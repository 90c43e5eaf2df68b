"""The `Guest` without QEMU: a program in this process, with real bytes, real slots, a real table and a real data channel.

For tests, for the simulator and for a look at the whole house on a machine without QEMU. The guest itself has no threads; its
time comes from the `sleep` that it is given.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping

from paging import transfer_streams
from paging.cleaner import TICK_S, Cleaner
from paging.device import SlotDevice
from paging.device_on_demand import DeviceOnDemand
from paging.errors import GuestError, PagingError, TransferError
from paging.fake_memory import FakeMemory
from paging.fake_program import Bring, Program, Sleep
from paging.faulty_device import FaultyDevice
from paging.guest import Endpoint, Guest, Halted, Manifest, PageCounts, Seat, Watcher
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.pages import Pages
from paging.process_identity import boot_id, identify
from paging.slots import SlotSet
from paging.swap_table import Phase, SwapTable
from paging.transfer_streams import StreamListener

TABLE_NAME = "swap-table"
RETRY_S = 0.05
"""How soon a page that could not be had is tried again"""
DELIVERED_S = 30.0
"""How long `load` waits for a delivery whose manifest is known already"""


class FakeGuest(Guest):
    """One instance in this process."""

    def __init__(self, seat: Seat, *, sleep: Sleep = asyncio.sleep) -> None:
        self.seat = seat
        self._sleep = sleep
        self._watchers: list[Watcher] = []
        self._armed: Mapping[str, SlotSet] = {}
        self._machine: _Machine | None = None
        self._listener: StreamListener | None = None
        self._incoming: Incoming | None = None
        self._running: asyncio.Task[None] | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._cleaning: asyncio.Task[None] | None = None

    async def boot(self) -> None:
        """See `Guest`. Returns when the memory is filled."""
        if self._machine is not None:
            return
        machine = self._make()
        machine.pages.start()
        await machine.program.fill()
        self._start(machine)

    async def stage(self) -> Endpoint:
        """See `Guest`."""
        if self._listener is None:
            machine = self._machine or self._make()
            self._incoming = Incoming(machine.pages)
            self._incoming.begin()
            self._listener = await StreamListener.open(self._incoming, self.seat.listen_host)
        return self._listener.endpoint

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """See `Guest`. Before there is a machine, it is remembered for it."""
        if self._machine is not None:
            self._machine.pages.arm(slots)
        self._armed = dict(slots)

    async def halt(self) -> Halted:
        """See `Guest`."""
        pages = self._pages()
        if pages.stalled:
            raise GuestError(f"{self.seat.instance} cannot be halted: {next(iter(pages.stalled.values()))}")
        await self._stop()
        pages.freeze()
        return pages.halted()

    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:
        """See `Guest`."""
        return await transfer_streams.deliver(endpoint, Outgoing(self._pages(), near))

    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """See `Guest`."""
        if self._listener is None or self._incoming is None:
            raise TransferError(f"{self.seat.instance} was not staged")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listener.delivered.wait(), DELIVERED_S)
        self._incoming.accept(manifest, granted)
        await self._listener.close()

    async def run(self) -> None:
        """See `Guest`."""
        machine = self._there()
        if self._running is None:
            machine.pages.thaw()
            self._start(machine)

    async def adopt(self) -> bool:
        """See `Guest`. The machine is a part of this process; of an earlier one only its table is left."""
        if self._machine is None:
            (self.seat.directory / TABLE_NAME).unlink(missing_ok=True)
        return self._machine is not None

    async def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """See `Guest`."""
        cleaner = self._there().cleaner
        cleaner.want(granted, pages_per_s)
        if not cleaner.idle and (self._cleaning is None or self._cleaning.done()):
            self._cleaning = asyncio.ensure_future(self._clean(cleaner))

    async def _clean(self, cleaner: Cleaner) -> None:
        while not cleaner.idle:
            cleaner.tick(TICK_S)
            await self._sleep(TICK_S)

    async def destroy(self) -> None:
        """See `Guest`."""
        await self._stop()
        for task in (self._retrying, self._cleaning):
            if task is not None:
                task.cancel()
        if self._listener is not None:
            await self._listener.close()
        if self._machine is not None:
            self._machine.close()
        self._machine = self._listener = self._incoming = None
        with contextlib.suppress(OSError):
            self.seat.directory.rmdir()

    async def counts(self) -> PageCounts:
        """See `Guest`."""
        if self._machine is None:
            total = self.seat.definition.pages
            return PageCounts(total=total, resident=0, swapped=0, zero=total)
        return self._machine.cleaner.add_to(self._machine.pages.counts())

    async def swapped(self) -> Mapping[str, SlotSet]:
        """See `Guest`."""
        return self._machine.pages.swapped() if self._machine else {}

    async def verify(self) -> str | None:
        """See `Guest`. A page that cannot be had is the answer, with page, slot and device; nothing waits for it."""
        machine = self._there()
        if machine.pages.table.phase is not Phase.RUNNING:
            raise GuestError(f"{self.seat.instance} stands still and cannot check its memory")
        checker = Program(machine.memory, self.seat.definition, self._bring_or_raise, self._sleep)
        try:
            return machine.program.wrong or await checker.check_all()
        except PagingError as error:
            return str(error)

    def watch(self, watcher: Watcher) -> None:
        """See `Guest`."""
        self._watchers.append(watcher)

    # The machine

    def _make(self) -> "_Machine":
        if self._machine is not None:
            raise GuestError(f"{self.seat.instance} is there already")
        machine = _Machine(self.seat, self._bring, self._sleep)
        try:
            machine.pages.arm(self._armed)
        except PagingError:
            machine.close()
            raise
        self._machine = machine
        return machine

    def _there(self) -> "_Machine":
        if self._machine is None:
            raise GuestError(f"{self.seat.instance} is not there")
        return self._machine

    def _pages(self) -> Pages:
        return self._there().pages

    def _start(self, machine: "_Machine") -> None:
        self._running = asyncio.ensure_future(machine.program.work())
        self._running.add_done_callback(self._tell_death)

    async def _stop(self) -> None:
        """The program ends at one of its awaits, where its memory is consistent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _bring(self, wanted: tuple[int, ...]) -> None:
        """What a CPU does: it waits at a page that is missing for as long as it takes."""
        while True:
            try:
                return await self._bring_or_raise(wanted)
            except PagingError:
                await self._sleep(RETRY_S)

    async def _bring_or_raise(self, wanted: tuple[int, ...]) -> None:
        machine = self._there()
        # Evictions come between accesses, never between the pages of one: they would take turns for ever.
        if machine.pages.over:
            machine.pages.evict()
        while missing := [page for page in wanted if not machine.memory.is_resident(page)]:
            self._fault(machine.pages, missing[0])

    def _fault(self, pages: Pages, page: int) -> None:
        try:
            pages.fault(page)
        except PagingError as error:
            if self._retrying is None or self._retrying.done():
                self._tell("stalled", str(error))
                self._retrying = asyncio.ensure_future(self._retry(pages))
            raise

    async def _retry(self, pages: Pages) -> None:
        while pages.retry():
            await self._sleep(RETRY_S)
        self._tell("unstalled", "all faults are answered again")

    def _tell_death(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (error := running.exception()):
            self._tell("died", f"its program ended with {error!r}")

    def _tell(self, what: str, sentence: str) -> None:
        for watcher in self._watchers:
            watcher(what, f"{self.seat.instance}: {sentence}")


class _Machine:
    """What a guest consists of while it exists. Raises `PagingError` and leaves nothing if one part cannot be had."""

    def __init__(self, seat: Seat, bring: Bring, sleep: Sleep) -> None:
        definition = seat.definition
        seat.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            devices: dict[str, SlotDevice] = {}
            for where in seat.devices:
                devices[where.name] = device = FaultyDevice(DeviceOnDemand(where))
                undo.callback(device.close)
            self.table = SwapTable.create(
                seat.directory / TABLE_NAME, pages=definition.pages, instance=seat.instance, boot_id=boot_id(),
                devices=[where.uuid for where in seat.devices], process=identify(os.getpid()),
            )  # fmt: skip
            undo.callback(self.table.path.unlink)
            undo.callback(self.table.close)
            self.memory = FakeMemory(definition.pages)
            self.pages = Pages(self.memory, self.table, devices, limit=definition.resident_pages)
            self.cleaner = Cleaner(self.pages)
            self.program = Program(self.memory, definition, bring, sleep)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Give everything back; the table's file is removed."""
        self._undo.close()
