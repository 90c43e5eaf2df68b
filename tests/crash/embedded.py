"""Hosts in one process whose nodes die at a chosen step of a chosen turn, and come back; their guests live on, or are lost.

The places are the fault points of the shell and the driver. A node that dies there raises `Died` through everything that it does,
takes no further step, and is killed and started again from its store.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from unittest import mock

import attrs

from actors.domain.lifecycle import Outcome
from actors.messages import Define, Inspect, Inspected, Migrate, Verdict
from bus.topology import Topology
from paging.fake import FakeGuest
from paging.guest import Guest, Seat
from scenarios.audit import compare
from scenarios.faults import Faults
from scenarios.host import HostNode, HostPlan
from scenarios.runner import definition_of
from scenarios.scenario import About, DeviceSpec, Expect, HostSpec, Scenario, VmSpec
from scenarios.snapshot import abroad, open_sagas
from scenarios.world import OneProcess, plans
from swapferry.config import EMBEDDED
from swapferry.wiring import RealParts, Rooms, brokers

PAGE = 4096
MANAGER, SOURCE, TARGET = "m", "h1", "h2"
HOSTS = (MANAGER, SOURCE, TARGET)
VM = "web"
VERDICT_S = 120.0
QUIET_S = 60.0

PLACE: ContextVar["Place"] = ContextVar("place")
"""the node on whose behalf code runs: every task of a node inherits it from the one that started the node"""

WORLD = Scenario(
    about=About(name="matrix"),
    expect=Expect(outcome="done"),
    hosts=tuple(HostSpec(name=host, memory=1024 * PAGE, clean_pages_per_s=100_000) for host in HOSTS),
    devices=tuple(DeviceSpec(name=f"d{host}", home=host, size=1024 * PAGE, reach=HOSTS) for host in HOSTS),
    vms=(VmSpec(name=VM, host=SOURCE, memory=256 * PAGE, resident=64 * PAGE, fill=192 * PAGE, hot=32 * PAGE, writes_per_s=20),),
    steps=(),
)


class Died(BaseException):
    """The node ended here. Not an `Exception`: nothing in a node can go on from it."""


@attrs.frozen
class Trip:
    """Where a node dies: host, fault point, and what the turn is (or the level of the machine). `lost`: its guests with it."""

    host: str
    point: str
    detail: str
    lost: bool = False


class LastingGuest(FakeGuest):
    """Lives on when its node dies, as a real machine does."""

    @property
    def runs(self) -> bool:
        """Its program works."""
        return self._running is not None and not self._running.done()


class Place:
    """One life of a node."""

    def __init__(self, world: "Embedded", host: str) -> None:
        self._world, self._host, self.dead = world, host, False

    def reach(self, point: str, detail: str) -> None:
        """A fault point was reached."""
        if not self.dead and self._world.trips(self._host, point, detail):
            self.dead = True
            self._world.bury(self._host)
        if self.dead:
            raise Died(f"{self._host} at {point} of {detail}")


def _reach(point: str, detail: str = "") -> None:
    place = PLACE.get(None)
    if place is not None:
        place.reach(point, detail)


@contextmanager
def fault_points_reach_places() -> Iterator[None]:
    """While this lasts, fault points are for the places of this module."""
    with (
        mock.patch("actors.runtime.shell.fault_point", _reach),
        mock.patch("actors.runtime.shell.is_armed", return_value=True),
        mock.patch("actors.driver.fault_point", _reach),
    ):
        yield


class Embedded(OneProcess):
    """The world of one case."""

    def __init__(self, directory: Path, trip: Trip | None) -> None:
        self._trip, self.fired = trip, asyncio.Event()
        self._registry: dict[str, LastingGuest] = {}
        self._restarting: list[asyncio.Task[None]] = []
        rooms = Rooms(work=directory / "work", ram=directory / "ram")
        rooms.work.mkdir()
        rooms.ram.mkdir()
        faults = Faults()
        parts = RealParts(rooms, brokers(EMBEDDED, Topology()), self._guest, faults)
        super().__init__(WORLD, parts, faults, user="matrix")

    def _guest(self, seat: Seat) -> Guest:
        """The same one for the node that comes after."""
        return self._registry.setdefault(seat.instance, LastingGuest(seat))

    # -- life of the nodes

    async def start(self) -> None:
        """Start every host, and the user."""
        for plan in plans(WORLD, self._parts):
            self.hosts.append(await self._node(plan))
        await self.client.open()

    async def _node(self, plan: HostPlan) -> HostNode:
        PLACE.set(Place(self, plan.facts.host))
        host = HostNode(plan, self._parts, self._observe)
        await host.start()
        return host

    def trips(self, host: str, point: str, detail: str) -> bool:
        """True once."""
        trip = self._trip
        if trip is None or self.fired.is_set() or (host, point, detail) != (trip.host, trip.point, trip.detail):
            return False
        self.fired.set()
        return True

    def bury(self, host: str) -> None:
        """The node of this host is dead: have it killed, and another one started."""
        self._restarting.append(asyncio.get_running_loop().create_task(self._restart(host)))

    async def _restart(self, host: str) -> None:
        assert self._trip is not None
        index = HOSTS.index(host)
        dead = self.hosts[index]
        await dead.node.kill()
        if self._trip.lost:
            for instance in dead.guests:
                await self._registry.pop(instance).destroy()
        self.hosts[index] = await self._node(dead.plan)

    async def stop(self) -> list[str]:
        """Stop everything, and compare."""
        await asyncio.gather(*self._restarting)
        try:
            return await super().stop()
        finally:
            self._parts.close()

    # -- the user

    async def define(self) -> None:
        """Let the guest run on the source."""
        request = Define(request=self.client.new_request(), definition=definition_of(WORLD.vms[0]), host=SOURCE)
        answer = await self.client.ask(request, VERDICT_S)
        assert isinstance(answer, Verdict)
        assert answer.outcome is Outcome.DONE, answer.reason

    async def migrate(self, target: str = TARGET) -> Verdict:
        """Ask until there is a verdict."""
        client = self.client
        request = Migrate(request=client.new_request(), vm=VM, target=target, reply_to=client.address)
        answer = await client.ask(request, VERDICT_S)
        assert isinstance(answer, Verdict)
        return answer

    async def verify(self) -> Inspected:
        """Let the guest check all of its memory."""
        client = self.client
        answer = await client.ask(
            Inspect(request=client.new_request(), vm=VM, verify=True, reply_to=client.address), VERDICT_S
        )
        assert isinstance(answer, Inspected)
        return answer

    # -- looking

    async def quiet(self) -> list[str]:
        """Wait until all is at rest and agrees; else what is not so in the end."""
        give_up = asyncio.get_running_loop().time() + QUIET_S
        while True:
            await asyncio.gather(*self._restarting)
            problems = await self._look()
            if not problems or asyncio.get_running_loop().time() > give_up:
                return problems
            await asyncio.sleep(0.2)

    async def _look(self) -> list[str]:
        kept = self.kept()
        problems = [f"saga {saga} is still open" for saga in open_sagas(kept)]
        if left := abroad(kept, VM):
            problems.append(f"{left} slots (or devices) are still shared")
        return problems + compare(kept, await self._tables())

    @property
    def boots(self) -> int:
        """How often a machine of the guest was started from nothing."""
        return sum(entry.event.startswith("machine is booted") for entry in self.entries())

    def runs_on(self) -> list[str]:
        """Hosts on which a machine of the guest runs."""
        return sorted(guest.seat.instance.split("@")[1].split(".")[0] for guest in self._registry.values() if guest.runs)


@asynccontextmanager
async def embedded(directory: Path, trip: Trip | None) -> AsyncIterator[Embedded]:
    """The world of one case, with the guest running on the source."""
    directory.mkdir()  # noqa: ASYNC240 - nobody waits for it
    world = Embedded(directory, trip)
    try:
        await world.start()
        await world.define()
        yield world
    finally:
        await world.stop()
