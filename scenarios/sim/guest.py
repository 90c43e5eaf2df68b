"""The port `Guest` of the simulated world: a node's hold on a machine that outlives it.

A call takes time on the way there and back; a node that dies in between leaves what was done done. The data channel is the real
one (frames, token, manifest) over the simulated network, without sockets.
"""

import asyncio
from collections.abc import Callable, Mapping

import attrs

from paging import frames
from paging.errors import TransferError
from paging.frames import FrameReader, Kind
from paging.guest import Endpoint, Guest, Halted, Manifest, PageCounts, Seat, Watcher
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.reception import Conversation
from paging.slots import SlotSet
from paging.transfer import parse_answer
from scenarios.sim.machine import SimMachine
from scenarios.sim.network import SimNetwork
from scenarios.sim.process import Process

DELIVERED_S = 10.0
LOOK_S = 0.25

Machines = Callable[[Endpoint], SimMachine | None]
"""Who listens at an endpoint now"""


class SimGuest(Guest):
    """One node's hold on one machine."""

    def __init__(self, seat: Seat, machine: SimMachine, network: SimNetwork, find: Machines, process: Process) -> None:
        self.seat, self.machine = seat, machine
        self._network, self._find, self._process = network, find, process
        self._watchers: list[Watcher] = []
        self._conversation: Conversation | None = None

    def let_go(self) -> None:
        """The node is dead: what it had under way ends, the machine goes on."""
        for watcher in self._watchers:
            self.machine.watchers.remove(watcher)
        self._watchers.clear()
        if self._conversation is not None:
            self._conversation.close()

    async def boot(self) -> None:
        """See `Guest`."""
        await self._way()
        self.machine.boot()
        await self._way()

    async def stage(self) -> Endpoint:
        """See `Guest`."""
        await self._way()
        endpoint = self.machine.stage()
        await self._way()
        return endpoint

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """See `Guest`."""
        self.machine.arm(slots)

    async def halt(self) -> Halted:
        """See `Guest`."""
        await self._way()
        pages = self.machine.halt()
        halted = Halted(swapped=pages.swapped(), counts=_timeless(pages.counts()))
        await self._way()
        return halted

    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:
        """See `Guest`."""
        await self._way()
        outgoing = Outgoing(self.machine.there(), near)
        target = self._find(endpoint)
        if target is None or target.reception is None or not self._network.reaches(self.machine.host, endpoint.host):
            raise TransferError(f"the data channel to {endpoint.host} cannot be opened")
        conversation = self._conversation = Conversation(target.reception)
        try:
            answers = FrameReader()
            self._expect(answers, await self._feed(conversation, target, frames.encode_hello(endpoint.token)), Kind.WELCOME)
            last = b""
            for frame in outgoing.frames():
                last = await self._feed(conversation, target, frame)
                if conversation.is_over:
                    break
            self._expect(answers, last, Kind.DONE)
        finally:
            conversation.close()
        if outgoing.manifest is None:
            raise TransferError(f"the data channel to {endpoint.host} ended too early")
        return outgoing.manifest

    async def _feed(self, conversation: Conversation, target: SimMachine, data: bytes) -> bytes:
        await self._way()
        broken = self._network.fortune.strikes("delivery broken")
        self.machine.there()
        if broken or target.pages is None or not self._network.reaches(self.machine.host, target.host):
            raise TransferError(f"the data channel to {target.host} broke")
        target.moved = True
        return conversation.feed(data)

    def _expect(self, reader: FrameReader, answer: bytes, kind: Kind) -> None:
        found = list(reader.feed(answer))
        if not found:
            raise TransferError("the target closed the data channel without a word")
        parse_answer(found[-1], kind)

    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """See `Guest`."""
        await self._way()
        waited = 0.0
        while self._incoming().manifest is None and waited < DELIVERED_S:
            await asyncio.sleep(LOOK_S)
            waited += LOOK_S
        self._incoming().accept(manifest, granted)
        self.machine.moved = True
        await self._way()

    def _incoming(self) -> Incoming:
        self.machine.there()
        if self.machine.reception is None:
            raise TransferError(f"{self.seat.instance} was not staged")
        return self.machine.reception.incoming

    async def run(self) -> None:
        """See `Guest`."""
        await self._way()
        self.machine.run()
        await self._way()

    async def adopt(self) -> bool:
        """See `Guest`."""
        await self._way()
        return not self.machine.dead and self.machine.pages is not None

    async def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """See `Guest`."""
        self.machine.clean(granted, pages_per_s)

    async def destroy(self) -> None:
        """See `Guest`."""
        await self._way()
        self.machine.destroy()
        await self._way()

    async def counts(self) -> PageCounts:
        """See `Guest`."""
        return _timeless(self.machine.there().counts())

    async def swapped(self) -> Mapping[str, SlotSet]:
        """See `Guest`."""
        return self.machine.there().swapped()

    async def verify(self) -> str | None:
        """See `Guest`."""
        self.machine.there()
        return self.machine.wrong or None

    def watch(self, watcher: Watcher) -> None:
        """See `Guest`. """


        def heard(what: str, sentence: str) -> None:
            self._process.call_at(asyncio.get_running_loop().time(), watcher, what, sentence)

        self.machine.watchers.append(heard)
        self._watchers.append(heard)

    async def _way(self) -> None:
        await asyncio.sleep(self._network.fortune.travel_s())


def _timeless(counts: PageCounts) -> PageCounts:
    """The same without what a real clock measured."""
    return attrs.evolve(counts, page_in_us_p50=0.0, page_in_us_p99=0.0)
