"""A world that a scenario is played in: hosts that run, and a user who asks. `OneProcess` has all hosts in this process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress

from actors.client import Client
from actors.runtime.observed import Observed
from actors.runtime.recorder import NOBODY, Recorder
from paging.errors import PagingError
from paging.slots import SlotSet
from scenarios.audit import Kept, Tables, compare, read_kept
from scenarios.errors import Failed
from scenarios.faults import Faults
from scenarios.host import HostNode, HostPlan, facts_for
from scenarios.parts import Parts
from scenarios.scenario import Scenario
from scenarios.snapshot import kept_of
from scenarios.timeline import Entry, entries_of

MakeRecorder = Callable[[HostPlan], Recorder]
"""who is told of the turns of a node that starts"""


class World(ABC):
    """What the runner needs of it."""

    client: Client

    @property
    @abstractmethod
    def faults(self) -> Faults:
        """For steps that meddle. Raises `Failed` where the parts are out of reach."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """The timeline so far, in the order of time."""

    @abstractmethod
    async def start(self) -> None:
        """Start every host, and the user."""

    @abstractmethod
    def kept(self) -> list[Kept]:
        """What the actors have kept until now, read while they work. Raises `StoreError`."""

    @abstractmethod
    async def kill(self, what: str, host: str) -> None:
        """Kill a host's node, its pagers or its guests' machines; returns when it is back. Raises `Failed`."""

    @abstractmethod
    async def stop(self) -> list[str]:
        """Stop every host and every guest; returns what stores, swap tables, ledgers and sharing table disagree about."""


class OneProcess(World):
    """All hosts in this process, each with a node, a store, guests and devices of its own."""

    def __init__(
        self, scenario: Scenario, parts: Parts, faults: Faults, user: str, recorder: MakeRecorder = lambda _: NOBODY
    ) -> None:
        self._scenario, self._parts, self._faults, self._recorder = scenario, parts, faults, recorder
        self._entries: list[Entry] = []
        self.hosts: list[HostNode] = []
        """in the order of the file, while they run"""
        self.client = Client(parts.broker(), user, parts.clock)

    @property
    def faults(self) -> Faults:
        """Troubles in front of the parts."""
        return self._faults

    def entries(self) -> list[Entry]:
        """The timeline so far."""
        return sorted(self._entries, key=lambda entry: entry.t)

    async def start(self) -> None:
        """Start every host, and the user."""
        for plan in plans(self._scenario, self._parts):
            host = HostNode(plan, self._parts, self._observe, self._recorder(plan))
            self.hosts.append(host)
            await host.start()
        await self.client.open()

    def kept(self) -> list[Kept]:
        """What the actors have kept until now."""
        return [kept_of(host.plan, self._parts.records(host.plan.facts.host)) for host in self.hosts]

    async def kill(self, what: str, host: str) -> None:
        """Never: there is one process only."""
        raise Failed(f"the {what} of {host} cannot be killed: run the scenario with --processes")

    async def stop(self) -> list[str]:
        """Stop the user and every host; compare what they have kept."""
        await self.client.close()
        tables = await self._tables()
        for host in self.hosts:
            await host.stop()
        kept: list[Kept] = [await read_kept(host.plan, self._parts.store(host.plan.facts.host)) for host in self.hosts]
        self.hosts.clear()
        return compare(kept, tables)

    async def _tables(self) -> Tables:
        """Which slots each living guest's swap table names."""
        alive = [(name, guest) for host in self.hosts for name, guest in host.guests.items() if host.is_alive(name)]
        tables: dict[str, Mapping[str, SlotSet]] = {}
        for name, guest in alive:
            with suppress(PagingError):  # a guest that has died names nothing any more
                tables[name] = await guest.swapped()
        return tables

    def _observe(self, seen: Observed) -> None:
        self._entries += entries_of(seen)


def plans(scenario: Scenario, parts: Parts) -> list[HostPlan]:
    """What each host is; the resource manager lives on the first one. Raises `DeviceError` for a device that is of no use."""
    devices = {spec.name: (spec.home, parts.device(spec), spec) for spec in scenario.devices}
    placed = {name: (home, path, spec.slots) for name, (home, path, spec) in devices.items()}
    hosts = frozenset(host.name for host in scenario.hosts)
    return [
        HostPlan(
            facts=facts_for(host.name, host.memory, placed, clean_pages_per_s=host.clean_pages_per_s),
            paths=tuple(path for _, path, spec in devices.values() if host.name in spec.reach),
            hosts=hosts,
            manager=index == 0,
        )
        for index, host in enumerate(scenario.hosts)
    ]
