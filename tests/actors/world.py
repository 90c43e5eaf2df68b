"""A small seeded world for the real actors: pure turns, no event loop, machines as simple as they can be.

Messages are lost, doubled and reordered; actors crash after any step of the shell and come back from what was stored. The
machines hold a few pages with known contents, so that a slot in wrong hands shows as a wrong byte.
"""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from actors.domain import ledger
from actors.domain.hosting import Counters, HostFacts, Instance, Owned
from actors.domain.ledger import Right
from actors.domain.lifecycle import Level, State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.hypervisor import Hypervisor
from actors.messages import (
    BODIES,
    MANAGER,
    Cancel,
    Cast,
    Dead,
    Define,
    Migrate,
    Named,
    Noticed,
    Reached,
    Report,
    Verdict,
    hypervisor,
    swap_device,
)
from actors.resource_manager import ResourceManager
from actors.runtime import values
from actors.runtime.actor import Actor, Heard, Inbox, Key, Record, Tick, Turn
from actors.runtime.saga import Progress
from actors.swap_device import SwapDevice, rights_of
from paging.guest import Definition, Endpoint, Manifest, PageCounts
from paging.slots import SlotSet

PAGES = 6
RESIDENT = 3
SLOTS = 700
COUNTS = PageCounts(total=PAGES, resident=0, swapped=0, zero=0)


class Violation(Exception):
    """An invariant does not hold."""


class Machine:
    """The guest of one instance: `memory` page -> value, `table` page -> (device, slot)."""

    def __init__(self, world: "World", host: str, instance: str, vm: str) -> None:
        self.world, self.host, self.instance, self.vm = world, host, instance, vm
        self.phase = "nothing"
        self.memory: dict[int, int] = {}
        self.table: dict[int, tuple[str, int]] = {}
        self.armed: Mapping[str, SlotSet] = {}
        self.revision = self.died_in = 0

    def follow(self, wanted: Any) -> Report:
        """Reach the level at once; what it says may still be lost."""
        self.armed, self.revision = wanted.armed, wanted.revision
        report = {"instance": self.instance, "revision": wanted.revision, "level": wanted.level}
        if self.phase == "dead" and wanted.level is Level.BOOTED and wanted.revision > self.died_in:
            self.phase, self.memory, self.table = "nothing", {}, {}
        if self.phase == "dead" and wanted.level is not Level.GONE:
            self.tell_death()
            return Report(**report, failed="the machine is gone")
        try:
            getattr(self, f"_{wanted.level}")(wanted, report)
        except LookupError as error:
            report["failed"] = str(error)
        return Report(**report)

    def die(self) -> None:
        """The machine ends by itself, and its memory with it."""
        if self.phase != "dead":
            self.died_in = self.revision
        self.phase, self.memory, self.table = "dead", {}, {}
        self.world.counts["death"] += 1

    def tell_death(self) -> None:
        """A death is a level: told while it lasts."""
        body = Noticed(instance=self.instance, revision=self.died_in, what="died", sentence="the machine ended by itself")
        self.world.put(hypervisor(self.host), Heard(id="", source=f"vm.{self.instance}", body=body))

    def _booted(self, _wanted: Any, _report: dict[str, Any]) -> None:
        if self.phase == "nothing":
            if self.world.faults and self.world.random.random() < 0.1:
                raise LookupError("QEMU did not start")
            self.phase = "running"
            self.world.truth[self.vm] = {}

    def _staged(self, _wanted: Any, report: dict[str, Any]) -> None:
        if self.phase == "nothing":
            self.phase = "staged"
        report["endpoint"] = Endpoint(host="127.0.0.1", port=1, token=self.instance)

    def _frozen(self, _wanted: Any, report: dict[str, Any]) -> None:
        if self.phase == "running":
            self.phase = "frozen"
        swapped: dict[str, list[int]] = {}
        for device, slot in self.table.values():
            swapped.setdefault(device, []).append(slot)
        report["swapped"] = {device: SlotSet(slots) for device, slots in swapped.items()}
        report["counts"] = COUNTS

    def _sent(self, wanted: Any, report: dict[str, Any]) -> None:
        near = {page: slot for page, slot in self.table.items() if slot[0] in wanted.near}
        far = {page: self.world.contents[slot] for page, slot in self.table.items() if slot[0] not in wanted.near}
        self.world.channel[wanted.endpoint.token] = ({**self.memory, **far}, near)
        report["manifest"] = Manifest(
            pages_sent=len(self.memory) + len(far), pages_granted=len(near), pages_zero=0, bytes_sent=0,
            pages_digest="", table_digest="", state_bytes=0, state_digest="",
        )  # fmt: skip

    def _loaded(self, wanted: Any, _report: dict[str, Any]) -> None:
        if self.phase == "loaded":
            return
        if self.world.faults and self.world.random.random() < 0.1:
            raise LookupError("the channel broke")
        memory, table = self.world.channel[self.instance]
        named = {device: SlotSet(slot for name, slot in table.values() if name == device) for device, _ in table.values()}
        if named != dict(wanted.granted):
            raise Violation(f"{self.instance}: table names {named}, granted was {wanted.granted}")
        self.memory, self.table, self.phase = dict(memory), dict(table), "loaded"

    def _running(self, _wanted: Any, _report: dict[str, Any]) -> None:
        self.phase = "running"

    def _gone(self, _wanted: Any, _report: dict[str, Any]) -> None:
        self.phase = "gone"
        self.world.machines.pop(self.instance, None)

    # -- what a running guest and its pager do

    def live(self) -> None:
        """One random deed of guest or pager."""
        pick, page = self.world.random, self.world.random.randrange(PAGES)
        deed = pick.random()
        if deed < 0.15:
            self._clean()
        elif deed < 0.3:
            self.tell_named()
        elif page in self.table and pick.random() < 0.5:
            self.memory[page] = self.world.contents[self.table.pop(page)]
        elif page in self.memory and pick.random() < 0.6:
            self._page_out(page)
        elif page in self.memory or page not in self.table:
            self.world.value += 1
            self.memory[page] = self.world.truth[self.vm][page] = self.world.value

    def _clean(self) -> None:
        """One step of the background copy: a foreign page moves to an own slot, or a report of what is still named."""
        foreign = [page for page, (device, slot) in self.table.items() if slot not in self.armed.get(device, SlotSet())]
        page = self.world.random.choice(foreign) if foreign else None
        free = self._free()
        if page is not None and free and self.world.cleaning:
            slot = self.world.random.choice(free)
            self.world.write(self, slot, self.world.contents[self.table[page]])
            self.table[page] = slot

    def clean_all(self) -> None:
        """The background copy, to its end."""
        for _ in range(PAGES):
            self._clean()

    def tell_named(self) -> None:
        """What of the slots that came with it the table still names."""
        named: dict[str, list[int]] = {}
        for device, slot in self.table.values():
            named.setdefault(device, []).append(slot)
        body = Named(instance=self.instance, revision=self.revision, slots={one: SlotSet(slots) for one, slots in named.items()})
        self.world.put(hypervisor(self.host), Heard(id="", source=f"vm.{self.instance}", body=body))

    def _free(self) -> list[tuple[str, int]]:
        used = set(self.table.values())
        return [(device, slot) for device, slots in self.armed.items() for slot in slots if (device, slot) not in used]

    def _page_out(self, page: int) -> None:
        free = self._free()
        if free:
            slot = self.world.random.choice(free)
            self.world.write(self, slot, self.memory.pop(page))
            self.table[page] = slot

    def read(self, page: int) -> int | None:
        """What the guest would read now."""
        return self.world.contents[self.table[page]] if page in self.table else self.memory.get(page)


class Box(Inbox):
    """An actor's way to its node: what is posted goes into the world's bag like everything else."""

    def __init__(self, world: "World", host: str) -> None:
        self.world, self.host = world, host

    def post(self, address: str, body: object) -> None:
        self.world.put(address, Heard(id="", source=address, body=body))

    def spawn(self, actor: Actor) -> None:
        """Instances are machines here."""

    def retire(self, address: str) -> None:
        """A retired instance's machine has gone by itself."""


class World:
    """Hosts, devices, manager, users, and everything that is under way between them."""

    def __init__(self, seed: int, *, faults: bool = True, hosts: int = 3) -> None:
        self.random, self.faults = random.Random(seed), faults
        self.names = [f"h{index}" for index in range(1, hosts + 1)]
        self.homes = {f"san{index}": name for index, name in enumerate(self.names)} | {"far": "h1"}
        self.truth: dict[str, dict[int, int]] = {}
        self.contents: dict[tuple[str, int], int] = {}
        self.channel: dict[str, Any] = {}
        self.machines: dict[str, Machine] = {}
        self.value, self.counts = 0, Counter[str]()
        self.bag: list[tuple[str, Heard]] = []
        self.timers: dict[tuple[str, str], int] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.asks: dict[str, tuple[object, str]] = {}
        self.actors: dict[str, Actor] = {MANAGER: ResourceManager(self.homes, frozenset(self.names))}
        for device, home in self.homes.items():
            self.actors[swap_device(device)] = SwapDevice(device, home, SLOTS)
        for name in self.names:
            self.actors[hypervisor(name)] = self._hypervisor(name)
        self.records = {address: Record() for address in self.actors}
        self.gone: set[str] = set()
        self.mortal = faults and self.random.random() < 0.3
        self.deadly = faults and self.random.random() < 0.5
        self.cleaning = self.random.random() < 0.8

    def _hypervisor(self, name: str) -> Hypervisor:
        reached = [device for device in self.homes if device != "far" or name == "h1"]
        facts = HostFacts(
            host=name, memory_bytes=6 * RESIDENT * 4096, homes=self.homes, uuids={one: one for one in self.homes},
            slot_counts=dict.fromkeys(self.homes, SLOTS),
        )  # fmt: skip
        probe = Reached(devices={device: device for device in reached}, problems={})
        return Hypervisor(facts, Box(self, name), lambda _instance: None, lambda: probe)  # type: ignore[arg-type, return-value]

    # -- the bag

    def put(self, address: str, heard: Heard) -> None:
        """Somebody said something; the bus may lose it or double it."""
        fate = self.random.random() if self.faults else 1.0
        if fate > 0.05:
            self.bag.append((address, heard))
        if 0.05 < fate < 0.12:
            self.bag.append((address, heard))

    def ask(self, body: object) -> None:
        """A user asks; it is asked again until there is a verdict."""
        request: str = body.request  # type: ignore[attr-defined]
        self.asks[request] = (body, f"user.{request}")
        self._ask(request)

    def _ask(self, request: str) -> None:
        body, user = self.asks[request]
        self.put(MANAGER, Heard(id="", source=user, body=body))

    # -- the shell in micro-steps

    def deliver(self, address: str, heard: Heard) -> None:
        """decide and store -> obey -> say -> ack, with a crash wherever it likes; then the message comes again."""
        if self._unreachable(address):
            return
        if address.startswith("user."):
            self._verdict(heard.body)
        elif address.startswith("vm."):
            self._machine(address.removeprefix("vm."), heard.body)
        else:
            self._turn(address, heard)

    def _turn(self, address: str, heard: Heard) -> None:
        actor, record = self.actors[address], self.records[address]
        assert isinstance(heard.body, Tick) or type(heard.body) in actor.hears, f"{address} does not hear {heard.body}"
        turn = Turn(record, heard)
        actor.decide(turn)
        decision = turn.decision()
        if self._crashes(address, heard):
            return
        record.apply(_stored(decision.changes))
        for name, after in decision.timers.items():
            if after is None:
                self.timers.pop((address, name), None)
            else:
                self.timers[address, name] = heard.body.count + 1 if isinstance(heard.body, Tick) else 1
        for event in decision.events:
            self.counts[f"{event.name} {event.fields.get('row', '')}".strip()] += 1
        if self._crashes(address, heard):
            return
        actor.obey(record, decision.changes)
        if self._crashes(address, heard):
            return
        for say in decision.says:
            body = _travelled(say.body) if type(say.body) in BODIES else say.body
            cast = _travelled(say.cast) if say.cast else None
            self.put(say.target, Heard(id="", source=address, body=body, cast=cast))

    def _crashes(self, address: str, heard: Heard) -> bool:
        if not self.faults or self.random.random() > 0.01:
            return False
        self.counts["crash"] += 1
        self.bag.append((address, heard))
        self.restart(address)
        return True

    def kill(self) -> None:
        """A host is switched off for good, and the operator says so. Arbiters and manager live elsewhere here."""
        name = self.random.choice([one for one in self.names if one not in self.gone])
        self.gone.add(name)
        self.counts["host killed"] += 1
        self.machines = {key: machine for key, machine in self.machines.items() if machine.host != name}
        self.timers = {key: count for key, count in self.timers.items() if key[0] != hypervisor(name)}
        request = f"r{len(self.asks)}"
        self.ask(Dead(request=request, host=name, reply_to=f"user.{request}"))

    def _unreachable(self, address: str) -> bool:
        return any(address == hypervisor(name) or f"@{name}." in address for name in self.gone)

    def restart(self, address: str) -> None:
        """Come back from the store and obey all of it."""
        record = self.records[address]
        self.actors[address].obey(record, dict(record.items()))

    def _machine(self, name: str, body: Any) -> None:
        vm, host = name.split("@", maxsplit=1)[0], name.split("@")[1].split(".", maxsplit=1)[0]
        if body.level is Level.GONE and name not in self.machines:
            report = Report(instance=name, revision=body.revision, level=body.level)
        else:
            known = self.records[hypervisor(host)].get(Instance, name)
            if known is None:
                return
            if body.revision < known.revision:
                return
            machine = self.machines.setdefault(name, Machine(self, host, name, vm))
            report = machine.follow(body)
        self.put(hypervisor(host), Heard(id="", source=f"vm.{name}", body=report))

    def _verdict(self, body: Any) -> None:
        known = self.verdicts.get(body.request)
        if known is not None and known.outcome != body.outcome and not self.gone:
            raise Violation(f"request {body.request} ended twice: {known} and {body}")
        self.verdicts[body.request] = body
        self.counts[f"verdict {body.outcome}"] += 1

    # -- time

    def step(self) -> None:
        """One thing happens."""
        deed = self.random.random()
        running = [one for one in self.machines.values() if one.phase == "running"]
        if deed < 0.55 and self.bag:
            self.deliver(*self.bag.pop(self.random.randrange(len(self.bag))))
        elif deed < 0.75 and running:
            self.random.choice(running).live()
        elif deed < 0.85 and self.timers:
            self.ring(self.random.choice(sorted(self.timers)))
        elif deed < 0.90:
            self._ask_again()
        elif deed < 0.93:
            self._wish()
        elif deed < 0.932 and self.deadly and self.machines:
            self.random.choice(list(self.machines.values())).die()
        elif deed < 0.94:
            self._tell_deaths()
        elif deed < 0.941 and self.mortal and len(self.gone) < len(self.names) - 2:
            self.kill()

    def ring(self, timer: tuple[str, str]) -> None:
        """A timer goes off."""
        address, name = timer
        count = self.timers.pop(timer)
        self._turn(address, Heard(id="", source=address, body=Tick(timer=name, count=min(count, 20))))

    def _tell_deaths(self) -> None:
        for machine in self.machines.values():
            if machine.phase == "dead":
                machine.tell_death()

    def _ask_again(self) -> None:
        open_asks = [request for request in self.asks if request not in self.verdicts]
        if open_asks:
            self._ask(self.random.choice(open_asks))

    def _wish(self) -> None:
        number, vm = len(self.asks), f"web{self.random.randrange(2)}"
        request, name = f"r{number}", f"user.r{number}"
        if vm not in self.records[MANAGER].all(Placement):
            definition = Definition(vm=vm, memory_bytes=PAGES * 4096, resident_bytes=RESIDENT * 4096)
            self.ask(Define(request=request, definition=definition, host=self.random.choice(self.names)))
        elif self.random.random() < 0.8:
            self.ask(Migrate(request=request, vm=vm, target=self.random.choice(self.names), reply_to=name))
        else:
            self.ask(Cancel(request=request, vm=vm, reply_to=name))

    def settle(self) -> None:
        """No more faults: everything comes to rest."""
        self.faults = False
        for _ in range(400):
            while self.bag:
                self.deliver(*self.bag.pop(self.random.randrange(len(self.bag))))
                self.check()
            self._tell_deaths()
            at_rest = not self.bag and all(name in ("housekeeping", "dead") for _, name in self.timers)
            if at_rest and all(request in self.verdicts for request in self.asks):
                return self.tidy_up()
            for timer in sorted(self.timers):
                if timer in self.timers:
                    self.ring(timer)
            for request in self.asks:
                if request not in self.verdicts:
                    self._ask(request)
        waiting = {request for request in self.asks if request not in self.verdicts}
        raise Violation(f"no rest: timers {self.timers}, no verdict for {[self.asks[one] for one in waiting]}")

    def tidy_up(self) -> None:
        """No more moves: with cleaning, every slot comes home; without, nothing is lost at least."""
        for _ in range(400 if self.cleaning else 12):
            for machine in list(self.machines.values()):
                machine.clean_all()
                machine.tell_named()
            for timer in sorted(self.timers):
                self.ring(timer)
            while self.bag:
                self.deliver(*self.bag.pop(self.random.randrange(len(self.bag))))
                self.check()
            if not self.timers:
                break
        self.check_rest()
        if not self.cleaning:
            return
        for device, home in self.homes.items():
            away = {right.owner for right in self.records[swap_device(device)].all(Right).values()} - {home}
            if away or self.records[MANAGER].get(Shared, device):
                raise Violation(f"{device}: slots are still with {away} after the cleanup")

    # -- invariants

    def owner(self, slot: tuple[str, int]) -> str:
        """Whose slot it is, by the ledger."""
        rights = self.records[swap_device(slot[0])].all(Right)
        return next((right.owner for right in rights.values() if slot[1] in right.slots), self.homes[slot[0]])

    def write(self, machine: Machine, slot: tuple[str, int], value: int) -> None:
        """A pager writes a slot; only an owner does."""
        if self.owner(slot) != machine.host or self.homes[slot[0]] != machine.host:
            raise Violation(f"{machine.instance} writes slot {slot} of {self.owner(slot)}")
        self.contents[slot] = value

    def check(self) -> None:
        """What holds after every step."""
        runs = Counter(machine.vm for machine in self.machines.values() if machine.phase == "running")
        if runs and max(runs.values()) > 1:
            raise Violation(f"runs twice: {runs}")
        for machine in self.machines.values():
            if machine.phase == "running":
                strange = [slot for slot in machine.table.values() if self.owner(slot) != machine.host]
                if strange:
                    raise Violation(f"{machine.instance} runs on slots {strange} of others")
                for page, value in self.truth[machine.vm].items():
                    if machine.read(page) != value:
                        raise Violation(f"{machine.instance} page {page} reads {machine.read(page)}, written was {value}")
        self._check_listed()

    def _check_listed(self) -> None:
        listed = self.records[MANAGER].all(Shared)
        for device, home in self.homes.items():
            away = [one for one in self.records[swap_device(device)].all(Right).values() if one.owner != home]
            if away and device not in listed:
                raise Violation(f"{device} is shared but not listed")

    def alive(self) -> list[str]:
        """Hosts that are not switched off."""
        return [name for name in self.names if name not in self.gone]

    def check_rest(self) -> None:
        """What holds at rest."""
        places = self.records[MANAGER].all(Placement)
        for vm, place in places.items():
            runs = [machine.host for machine in self.machines.values() if machine.vm == vm and machine.phase == "running"]
            if runs != ([] if place.failed else [place.host]) or place.lock:
                raise Violation(f"{vm} runs on {runs}, placed {place}")
        for name in self.alive():
            record = self.records[hypervisor(name)]
            if any(one.cast.opener == name for one in record.all(Progress).values()):
                raise Violation(f"{name} has open sagas")
            if any(one.state is not State.RUNNING for one in record.all(Instance).values()):
                raise Violation(f"{name} has instances that do not run: {record.all(Instance)}")
        for device, home in self.homes.items():
            self._check_ledger(device, home)

    def _check_ledger(self, device: str, home: str) -> None:
        rights = rights_of(self.records[swap_device(device)].all(Right))
        if rights and not ledger.covers(rights, SLOTS):
            raise Violation(f"{device}: the ledger does not cover each slot once: {rights}")
        for generation, right in rights.items():
            if right.owner in self.gone:
                if right.owner != home:
                    raise Violation(f"{device}: {right} belongs to a dead host")
                continue
            record = self.records[hypervisor(right.owner)]
            if record.get(Counters) is None:
                continue  # it has heard nothing yet, and will found itself with this
            owned = record.get(Owned, f"{device}/{generation}")
            if owned is None or owned.slots != right.slots:
                raise Violation(f"{device}: {right.owner} has {owned} in generation {generation}, the ledger {right}")
        for name in self.alive():
            for owned in self.records[hypervisor(name)].all(Owned).values():
                right = rights.get(owned.generation)
                if owned.device == device and rights and (right is None or right.owner != name):
                    raise Violation(f"{device}: {name} believes to own {owned}, the ledger says {right}")
        self._check_sharing(device, home, rights)

    def _check_sharing(self, device: str, home: str, rights: Mapping[int, Right]) -> None:
        away: dict[str, SlotSet] = {}
        for right in rights.values():
            if right.owner != home:
                away[right.owner] = away.get(right.owner, SlotSet()) | right.slots
        shared = self.records[MANAGER].get(Shared, device)
        listed: dict[str, SlotSet] = {}
        for one in shared.away.values() if shared else ():
            listed[one.host] = listed.get(one.host, SlotSet()) | one.slots
        if listed != away or (shared and shared.pending):
            raise Violation(f"{device}: listed {shared}, truth {away}")


def _travelled(value: Any) -> Any:
    return values.from_plain(type(value), values.to_plain(value))


def _stored(changes: Mapping[Key, object | None]) -> dict[Key, object | None]:
    return {key: None if value is None else _travelled(value) for key, value in changes.items()}


def play(seed: int, steps: int = 400, *, faults: bool = True) -> World:
    """One history. Raises `Violation`."""
    world = World(seed, faults=faults)
    for _ in range(steps):
        world.step()
        world.check()
    world.settle()
    return world


__all__ = ["Cast", "Violation", "World", "play"]
