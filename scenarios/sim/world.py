"""A world from one seed: hosts, devices, VMs, users and mishaps; a safety phase with faults, then a liveness phase without.

Everything happens on one virtual loop. The nodes, their shells, actors and codec are the real ones; what is around them is here.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import UUID, uuid5

import attrs

from actors.client import Client
from actors.domain.ledger import Right
from actors.domain.placement import Placement
from actors.errors import StoreError
from actors.messages import MANAGER, Cancel, Define, Migrate, Verdict, swap_device
from actors.runtime.actor import Record
from actors.runtime.observed import Observed
from bus.errors import Transient
from paging.device import DeviceId, DevicePath
from paging.guest import Definition, Endpoint
from scenarios.host import HostPlan, facts_for
from scenarios.sim import checkers, mishaps
from scenarios.sim.checkers import Violation
from scenarios.sim.clock import SimClock
from scenarios.sim.devices import Medium, SimSlots
from scenarios.sim.faults import Profile
from scenarios.sim.fortune import Fortune
from scenarios.sim.host import Place, SimHost, SimParts
from scenarios.sim.loop import VirtualLoop
from scenarios.sim.machine import SimMachine
from scenarios.sim.network import SimBroker, SimNetwork
from scenarios.sim.process import Process
from scenarios.sim.store import Disk
from scenarios.sim.turns import HOMECOMING, Turns
from scenarios.sim.witness import Witness

PAGES, RESIDENT, SLOTS = 12, 4, 1200
TICK_S = 0.6
SAFETY_S = 60.0
REST_S = 400.0
ASK_AGAIN_S = 3.0
CALM_BEGINNINGS = 0.8
"""of so many worlds the VMs may start before anything goes wrong"""
WISHES_MAX = 6
HOMECOMING_WISHES = 12
WARM_UP_DEEDS = 20
CLEAN_PAGES_PER_S = 3
STILL = 0.7
"""how often it is one that stands still, where there is one: it does so for a few turns only"""
DEEDS = 0.4
"""how often a guest does something between two turns"""
QUIET_S = 8
"""longer than a publish that waits for its deadline: then nothing is under way any more"""
_IDS = UUID("3d0b2f5e-7f3c-5d3a-8b0e-0c5b9b6f1a55")


@attrs.frozen(kw_only=True)
class Size:
    """How big a world is."""

    hosts: int = 3
    vms: int = 4
    devices: int = 2


class World:
    """One history. `play` raises `Violation`."""

    def __init__(self, loop: VirtualLoop, seed: int, profile: Profile, size: Size, limits: "Limits | None" = None) -> None:
        limits = limits or Limits()
        self.loop, self.seed, self.size, self.limits = loop, seed, size, limits
        self.fortune = Fortune(seed, profile, limits.faults_max)
        self.turns = Turns(self.fortune, self.fail, self._drops)
        self.witness = Witness(self.turns, self.fail, self.tell, self._process_of)
        self.network = SimNetwork(self.fortune, self.witness)
        self.story: list[str] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.steps = 0
        self.verdicts: dict[str, Verdict] = {}
        self.truths: dict[str, dict[int, bytes]] = {}
        self.random = self.fortune.random
        self.media = self._media()
        self.homes = {name: medium.home for name, medium in self.media.items()}
        self.places = self._places()
        self._hosting = {MANAGER: self._hosts()[0]} | {swap_device(device): home for device, home in self.homes.items()}
        self._hosting |= {f"hypervisor.{host}": host for host in self.places}
        self._asked: dict[str, object] = {}
        self.generations: dict[str, int] = {}
        self._enough = asyncio.Event()
        self.unlooked = False
        """a ledger or the sharing table may have changed since the rules were looked at"""

    # -- what there is

    def _hosts(self) -> list[str]:
        return [f"h{index + 1}" for index in range(self.size.hosts)]

    def _media(self) -> dict[str, Medium]:
        media, hosts = {}, self._hosts()
        for index in range(self.size.devices):
            name, home = f"d{index + 1}", hosts[index % len(hosts)]
            reach = tuple(host for host in hosts if host == home or self.random.random() < 0.8)
            media[name] = Medium(name, home, DeviceId(uuid=str(uuid5(_IDS, name)), slot_count=SLOTS), reach)
        return media

    def _places(self) -> dict[str, Place]:
        placed = {
            name: (medium.home, DevicePath(name=name, path=Path(f"/sim/{name}"), uuid=medium.identity.uuid), SLOTS)
            for name, medium in self.media.items()
        }
        places = {}
        for index, host in enumerate(self._hosts()):
            plan = HostPlan(
                facts=facts_for(host, self.random.choice((3, 6, 8)) * PAGES * 4096, placed, clean_pages_per_s=CLEAN_PAGES_PER_S),
                paths=tuple(path for name, (_, path, _) in placed.items() if host in self.media[name].reach),
                hosts=frozenset(self._hosts()),
                manager=index == 0,
            )
            skew = self.fortune.profile.skew_s
            places[host] = Place(plan, Disk(host), SimClock(self.fortune.between(-skew, skew)))
        return places

    def machines(self) -> Iterable[SimMachine]:
        """All machines of all hosts."""
        for place in self.places.values():
            yield from place.machines.values()

    def record(self, address: str) -> Record:
        """What is durable of an actor."""
        return self.places[self._hosting[address]].disk.record(address)

    def owner(self, device: str, slot: int) -> str:
        """Whose slot it is, by the ledger."""
        rights = self.record(swap_device(device)).all(Right)
        return next((right.owner for right in rights.values() if slot in right.slots), self.homes[device])

    # -- nodes

    def boot(self, name: str) -> None:
        """Start a node on this host, unless one runs."""
        place = self.places[name]
        if place.process is None:
            place.process = Process(name, self._died)
            self.tell(f"{name}: a node starts")
            place.process.start(self._start(place, place.process))

    async def _start(self, place: Place, process: Process) -> None:
        while True:
            parts = SimParts(
                place, process, self.network, turns=self.turns, random=self.random, make=self._machine, find=self._listener
            )
            host = place.host = SimHost(place, parts, process, turns=self.turns, media=self.media, observe=self._observe)
            try:
                return await host.start()
            except (Transient, StoreError):
                await asyncio.sleep(1.0)

    def _died(self, process: Process) -> None:
        place = self.places[process.name]
        self.tell(f"{place.name}: the node dies")
        self.turns.forget(process)
        if place.host is not None:
            self._check_node(place.host)
            place.host.parts.close()
        place.process = place.host = None
        self.network.later(self.fortune.between(0.05, 1.5), self.boot, place.name)

    def _machine(self, host: str, instance: str, definition: Definition) -> SimMachine:
        devices = {
            name: SimSlots(medium, host, instance, self.fortune, self._guard)
            for name, medium in self.media.items()
            if host in medium.reach
        }
        return SimMachine(instance, host, definition, devices=devices, fortune=self.fortune, truths=self.truths)

    def _listener(self, endpoint: Endpoint) -> SimMachine | None:
        place = self.places.get(endpoint.host)
        for machine in place.machines.values() if place else ():
            if machine.reception is not None and machine.reception.token == endpoint.token:
                return machine
        return None

    # -- playing

    async def play(self) -> None:
        """Safety, then liveness."""
        for name in self.places:
            self.boot(name)
        user = Process("user")
        self.client = Client(SimBroker(self.network, user), "ops", SimClock(), ask_again_s=ASK_AGAIN_S)
        await self.client.open()
        self._asks = [user.start(self._define(index)) for index in range(self.size.vms)]
        if self.random.random() < CALM_BEGINNINGS:
            self.fortune.end()
            await asyncio.wait(self._asks)
            self._warm_up()
            self.fortune.begin()
        chores = [asyncio.ensure_future(chore) for chore in (self._life(), self._wishes(user), mishaps.strike(self))]
        try:
            async with asyncio.timeout(SAFETY_S):
                await self._enough.wait()
        except TimeoutError:
            self.tell("time is up")
        for chore in chores[1:]:
            chore.cancel()
        self._end_faults()
        await self._rest()
        chores[0].cancel()
        self.check(checkers.AT_REST)

    def _warm_up(self) -> None:
        """Guests that have written more than their RAM holds."""
        for machine in self.machines():
            for _ in range(WARM_UP_DEEDS):
                machine.live()

    def _end_faults(self) -> None:
        self.tell("no more faults")
        self.fortune.end()
        self.network.mend_all()
        for medium in self.media.values():
            medium.mend()
        for place in self.places.values():
            place.disk.full = False
            if place.process is not None and place.process.frozen:
                place.process.thaw()
        self.check(checkers.ALWAYS, everything=True)

    async def _rest(self) -> None:
        quiet = 0
        for _ in range(int(REST_S)):
            quiet = quiet + 1 if all(ask.done() for ask in self._asks) and not self._restless() else 0
            if quiet > QUIET_S:
                return
            await asyncio.sleep(1.0)
        waiting = [request for request in self._asked if request not in self.verdicts]
        self.fail("liveness", f"after {REST_S:g} s without faults: no verdict for {waiting}, still running {self._restless()}")
        await asyncio.sleep(1.0)

    def _restless(self) -> list[str]:
        timers = [
            f"{actor}/{name}" for place in self.places.values() for actor, rows in place.disk.timers.items() for name in rows
        ]
        return timers + [name for name, place in self.places.items() if place.process is None]

    async def _life(self) -> None:
        while True:
            await asyncio.sleep(TICK_S * (0.5 + self.random.random()))
            for machine in list(self.machines()):
                machine.relieve()
                machine.live()
                if self.fortune.over:
                    machine.tidy()
            self.look()

    # -- users

    async def _define(self, index: int) -> None:
        over = self.random.random() < 0.85
        resident = RESIDENT if over else PAGES
        definition = Definition(vm=f"vm{index + 1}", memory_bytes=PAGES * 4096, resident_bytes=resident * 4096)
        request = self.client.new_request()
        await self._ask(Define(request=request, definition=definition, host=self._hosts()[index % len(self.homes)]))

    async def _ask(self, body: Define | Migrate | Cancel) -> None:
        self._asked[body.request] = body
        self.tell(f"user asks {body.request}: {type(body).__name__} {getattr(body, 'vm', '')} {getattr(body, 'target', '')}")
        answer = await self.client.ask(body, 1e6)
        assert isinstance(answer, Verdict), "nothing else was asked"
        self.verdicts[body.request] = answer
        self.tell(f"user hears {body.request}: {answer.outcome}, {answer.reason}")

    async def _wishes(self, user: Process) -> None:
        # With an end to wishes, slots come home while things go wrong.
        wishes = HOMECOMING_WISHES if self.turns.favourite[0] in HOMECOMING else 10**6
        longest_s = self.random.choice((1.0, 2.0, 8.0))
        while len(self._asks) < wishes:
            await asyncio.sleep(self.fortune.between(0.1, longest_s))
            if sum(not ask.done() for ask in self._asks) >= WISHES_MAX:
                continue
            vm = f"vm{self.random.randrange(self.size.vms) + 1}"
            target, wish = self._target(vm), self.random.random()
            if wish < 0.75:
                self._wish(user, Migrate(request=self.client.new_request(), vm=vm, target=target, reply_to=self.client.address))
            elif wish < 0.9:
                self._wish(user, Cancel(request=self.client.new_request(), vm=vm, reply_to=self.client.address))
            else:
                self._evacuate(user, target)

    def _target(self, vm: str) -> str:
        """Mostly another host than the one that it is on."""
        place = self.record(MANAGER).get(Placement, vm)
        others = [host for host in self.places if place is None or host != place.host]
        equipped = [host for host in others if host in self.homes.values()]  # an over-committed VM goes nowhere else
        return self.random.choice(self.random.choice((equipped, equipped, equipped, others)) or list(self.places))

    def _evacuate(self, user: Process, host: str) -> None:
        for vm, place in self.record(MANAGER).all(Placement).items():
            if place.host == host:
                request = self.client.new_request()
                self._wish(user, Migrate(request=request, vm=vm, target=self._target(vm), reply_to=self.client.address))

    def _wish(self, user: Process, body: Migrate | Cancel) -> None:
        self._asks.append(user.start(self._ask(body)))

    # -- watching

    def tell(self, line: str) -> None:
        """Something happened: into the log, and into the story where one is told."""
        text = f"{self.loop.time():10.4f} {line}"
        self.digest.update(text.encode())
        if self.limits.story:
            self.story.append(text)

    def step(self) -> None:
        """One more thing has happened."""
        self.steps += 1
        if self.random.random() < self.fortune.profile.per_step and not self.fortune.over:
            self.network.later(self.random.choice((0.0, 0.002, 0.01)), mishaps.strike_once, self)
        if self.steps >= (self.limits.steps_max or self.fortune.profile.steps):
            self._enough.set()

    def fail(self, checker: str, sentence: str) -> None:
        """A rule is broken: the history ends here."""
        self.tell(f"VIOLATION {checker}: {sentence}")
        self.loop.halt(Violation(checker, sentence))

    def check(self, rules: Mapping[str, checkers.Rule], *, everything: bool = False) -> None:
        """Fail at the first of these rules that is broken."""
        if everything:
            for machine in self.machines():
                machine.moved = True
        for name, rule in rules.items():
            for sentence in rule(self):
                self.fail(name, sentence)
                return

    def look(self) -> None:
        """What is looked at after each step, where something has happened that it is about."""
        if self.unlooked or any(machine.moved or machine.wrong for machine in self.machines()):
            self.unlooked = False
            self.check(checkers.ALWAYS)

    def _guard(self, host: str, instance: str, device: str, slot: int) -> None:
        problem = checkers.write_problem(self, host, instance, device, slot)
        if problem:
            self.fail("writers", problem)

    def _drops(self, process: Process) -> int:
        host = self.places[process.name].host if process.name in self.places else None
        return sum(count for name, count in host.node.counts.items() if name.startswith("dropped_")) if host else 0

    def _check_node(self, host: SimHost) -> None:
        counts = host.node.counts
        if counts["defects"]:
            self.fail("defects", f"an actor of {host.plan.facts.host} met a defect")

    def _observe(self, seen: Observed) -> None:
        self.unlooked |= not seen.actor.startswith(("vm.", "hypervisor."))
        says = " ".join(f"{type(say.body).__name__}>{say.target}" for say in seen.says)
        events = " ".join(f"{event.name}:{event.fields.get('row', '')}" for event in seen.events)
        self.tell(f"{seen.actor} {seen.type} from {seen.heard.source} {seen.heard.id} | {events} | {says}")
        self.witness.judge(seen)
        if self.random.random() < DEEDS:
            machines = [machine for machine in self.machines() if machine.pages is not None]
            still = [machine for machine in machines if not machine.executes]
            if machines:
                self._live(self.random.choice(still if still and self.random.random() < STILL else machines))
        self.step()
        self.look()

    def _live(self, machine: SimMachine) -> None:
        if machine.pages is not None:
            machine.live()
            self.step()

    def _process_of(self, address: str) -> Process | None:
        host = self._hosting.get(address)
        if host is None and address.startswith("vm."):
            host = address.partition("@")[2].partition(".")[0]
        return self.places[host].process if host in self.places else None


@attrs.frozen(kw_only=True)
class Limits:
    """A prefix of a history: at most so many faults and steps; with its story told or not."""

    faults_max: int | None = None
    steps_max: int | None = None
    story: bool = False
