"""One simulated host while its node runs: the wiring of `scenarios.host` with parts of this world.

The node is a process that may die; disk, clock and machines belong to the host and are found again by the next node.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from actors.domain.hosting import Instance
from actors.messages import Reached
from actors.runtime.actor import Actor
from actors.runtime.clock import Random
from actors.runtime.shell import Onlooker
from actors.runtime.store import Store
from bus.broker import Broker
from paging.device import DevicePath
from paging.guest import Definition, Guest, Seat
from scenarios.host import HostNode, HostPlan
from scenarios.parts import Parts
from scenarios.scenario import DeviceSpec
from scenarios.sim.clock import SimClock
from scenarios.sim.devices import Medium
from scenarios.sim.guest import Machines, SimGuest
from scenarios.sim.machine import SimMachine
from scenarios.sim.network import SimBroker, SimNetwork
from scenarios.sim.process import Process
from scenarios.sim.store import Disk, SimStore
from scenarios.sim.turns import Turns, Watched

MakeMachine = Callable[[str, str, Definition], SimMachine]
"""(host, instance, definition) -> a machine that does not exist yet"""


@attrs.define(eq=False)
class Place:
    """What of a host outlives its node."""

    plan: HostPlan
    disk: Disk
    clock: SimClock
    machines: dict[str, SimMachine] = attrs.field(factory=dict)
    """by instance"""
    process: Process | None = None
    host: "SimHost | None" = None

    @property
    def name(self) -> str:
        """The host's name."""
        return self.plan.facts.host


class SimParts(Parts):
    """The parts of one node's life."""

    def __init__(
        self, place: Place, process: Process, network: SimNetwork, *, turns: Turns, random: Random, make: MakeMachine,
        find: Machines,
    ) -> None:  # fmt: skip
        self.clock, self.random = place.clock, random
        self.connection = SimBroker(network, process)
        self.guests: list[SimGuest] = []
        self._place, self._process, self._network, self._turns = place, process, network, turns
        self._make, self._find = make, find

    def broker(self) -> Broker:  # noqa: D102 - see the port
        return self.connection

    def store(self, node: str) -> Store:  # noqa: ARG002, D102
        return SimStore(
            self._place.disk, self._process, self._network.fortune, before=self._turns.committing, after=self._turns.committed
        )

    def device(self, spec: DeviceSpec) -> DevicePath:  # noqa: D102
        raise NotImplementedError("the devices of a simulated world are made with it")

    def guest(self, host: str, instance: str, definition: Definition, devices: Sequence[DevicePath]) -> Guest:  # noqa: D102
        machine = self._place.machines.get(instance)
        if machine is None:
            machine = self._place.machines[instance] = self._make(host, instance, definition)
        seat = Seat(instance=instance, definition=definition, directory=Path("nowhere"), devices=tuple(devices))
        guest = SimGuest(seat, machine, self._network, self._find, self._process)
        self.guests.append(guest)
        return guest

    def close(self) -> None:
        """The node is dead: the broker and the machines notice."""
        self.connection.leave()
        for guest in self.guests:
            guest.let_go()


class SimHost(HostNode):
    """One node's life on a host."""

    def __init__(
        self, place: Place, parts: SimParts, process: Process, *, turns: Turns, media: Mapping[str, Medium],
        observe: Onlooker,
    ) -> None:  # fmt: skip
        super().__init__(place.plan, parts, observe)
        self.actors: dict[str, Watched] = {}
        self.process, self.parts = process, parts
        self._turns, self._media = turns, media

    def probe(self) -> Reached:
        """See `HostNode.probe`."""
        host = self.plan.facts.host
        found = {path.name: path.uuid for path in self.plan.paths if host not in self._media[path.name].failing}
        problems = {path.name: "input/output error" for path in self.plan.paths if path.name not in found}
        return Reached(devices=found, problems=problems)

    def _actors(self) -> list[Actor]:
        return [self._watched(actor) for actor in super()._actors()]

    def _instance(self, instance: Instance) -> Actor:
        return self._watched(super()._instance(instance))

    def _watched(self, actor: Actor) -> Actor:
        watched = Watched(actor, self.process, self._turns)
        if actor.address not in self.node.states():
            self.actors[actor.address] = watched
        return watched
