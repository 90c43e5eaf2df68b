"""What must hold in every world, each rule with a name and a sentence.

The first group is looked at after every step, the second when a world has come to rest. What is durable is what counts: the rules
read the disks, the tables and the slots, never what an actor believes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from actors.domain import hosting
from actors.domain.hosting import Armed, Instance
from actors.domain.ledger import Right
from actors.domain.lifecycle import State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import MANAGER, hypervisor, swap_device
from actors.runtime.actor import Heard, Turn
from actors.runtime.hosted import State as HostedState
from actors.runtime.saga import Progress
from actors.swap_device import Numbered, rights_of
from scenarios.audit import Kept, compare
from scenarios.sim.machine import ZERO, SimMachine

if TYPE_CHECKING:
    from scenarios.sim.world import World

CHECKERS: Mapping[str, str] = {
    "one place": "at most one machine of a VM executes at any moment",
    "pages": "every page of a VM that runs reads as last written, wherever it lies",
    "writers": "a slot is written only by the host that owns it and is its home, and while no table names it",
    "listed": "a device with a slot away from home is in the sharing table",
    "turns": "store, obey, say, ack: in this order, in every turn; one turn at a time, in the order of arrival",
    "store": "at rest what an actor has in memory is what its disk holds",
    "home": "at rest nothing that could go home is away, and nothing is asked for that is done",
    "delivery": "what the bus took over is delivered until it is settled, and at rest nothing waits",
    "order": "what one actor says to another arrives in the order of its words, but for what comes again",
    "once": "a row of a saga is done once by each that plays it",
    "generations": "the generation in which a slot is owned only rises",
    "undone": "a migration is committed or undone, never both, and its verdict says which",
    "verdicts": "a request ends, and ends one way",
    "dead letters": "nothing is a dead letter but what nobody can have",
    "defects": "no actor meets a defect, no node ends by itself",
    "sagas end": "at rest no saga is open, nothing waits, no timer runs",
    "agreement": "at rest ledgers, owners, homes, sharing table, placements and swap tables agree",
    "leaks": "at rest no slot is armed twice, and none is in two tables",
    "machines": "at rest each VM executes exactly where it is placed, and nothing else executes",
    "liveness": "without faults everything comes to rest in bounded time",
}


class Violation(Exception):
    """A rule does not hold."""

    def __init__(self, checker: str, sentence: str) -> None:
        self.checker, self.sentence = checker, sentence
        super().__init__(f"{checker}: {sentence}")


Rule = Callable[["World"], Iterable[str]]


def one_place(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    places: dict[str, list[str]] = {}
    for machine in world.machines():
        if machine.executes:
            places.setdefault(machine.vm, []).append(machine.instance)
    for vm, instances in places.items():
        if len(instances) > 1:
            yield f"{vm} executes in {' and '.join(sorted(instances))}"


def pages(world: "World") -> Iterable[str]:
    """See `CHECKERS`. Only machines to which something happened are looked at."""
    for machine in world.machines():
        if machine.wrong:
            yield machine.wrong
        moved, machine.moved = machine.moved, False
        if machine.executes and moved:
            yield from pages_of(machine)


def pages_of(machine: SimMachine) -> Iterable[str]:
    """Every page of one machine that executes: it lies in one place, and reads as last written."""
    both = machine.twice()
    if both:
        yield f"pages {both} of {machine.instance} are in RAM, and its table names them too"
    truth = machine.truths[machine.vm]
    for page in range(machine.definition.pages):
        found, expected = machine.reads(page), truth.get(page, ZERO)
        if found is None:
            yield f"page {page} of {machine.instance} lies on a device that its host does not reach"
        elif found != expected:
            yield f"page {page} of {machine.instance} reads {bytes(found[:8]).hex()}, written was {expected[:8].hex()}"


def listed(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    shared = world.record(MANAGER).all(Shared)
    for device, home in world.homes.items():
        if device in shared:
            continue
        away = [right.owner for right in world.record(swap_device(device)).all(Right).values() if right.owner != home]
        if away:
            yield f"slots of {device} are with {away[0]}, and the sharing table does not name the device"


def defects(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for place in world.places.values():
        if place.host is not None and place.host.node.counts["defects"]:
            yield f"an actor of {place.name} met a defect"


def generations(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for device in world.homes:
        record, before = world.record(swap_device(device)), world.generations.get(device, 0)
        count = (record.get(Numbered) or Numbered(generation=before)).generation
        newest = max((int(key) for key in record.all(Right)), default=0)
        if count < before or newest > max(count, 1):
            yield f"{device} counts {count}, after {before}; its newest right is of {newest}"
        world.generations[device] = count


ALWAYS: Mapping[str, Rule] = {
    "one place": one_place, "pages": pages, "listed": listed, "defects": defects, "generations": generations,
}  # fmt: skip


def write_problem(world: "World", host: str, instance: str, device: str, slot: int) -> str:
    """Why this write must not land; empty where it may."""
    owner, home = world.owner(device, slot), world.homes[device]
    if owner != host:
        return f"{instance} writes slot {slot} of {device}, which belongs to {owner}"
    if home != host:
        return f"{instance} writes slot {slot} of {device}, whose home is {home}"
    for machine in world.machines():
        if machine.pages is None:
            continue
        table = machine.pages.table
        for page in range(table.pages):
            entry = table.at(page)
            if entry is not None and entry.slot == slot and machine.pages.names.get(entry.device) == device:
                return f"{instance} writes slot {slot} of {device}, where page {page} of {machine.instance} lies"
    return ""


# -- at rest


def sagas_end(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for place in world.places.values():
        record = world.record(hypervisor(place.name))
        for saga, progress in record.all(Progress).items():
            if progress.cast.opener == place.name:
                yield f"saga {saga} is still open at {place.name}"
        for instance in record.all(Instance).values():
            if instance.state is not State.RUNNING:
                yield f"instance {instance.id} is still {instance.state}"
    for vm, placement in world.record(MANAGER).all(Placement).items():
        if placement.lock:
            yield f"the placement of {vm} is still locked by {placement.lock}"


def agreement(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    kept = []
    for place in world.places.values():
        facts = place.plan.facts
        ledgers = {
            device: rights_of(world.record(swap_device(device)).all(Right))
            for device, home in facts.homes.items()
            if home == place.name
        }
        manager = world.record(MANAGER) if place.plan.manager else None
        kept.append(Kept(facts=facts, hypervisor=world.record(hypervisor(place.name)), ledgers=ledgers, manager=manager))
    tables = {machine.instance: machine.pages.swapped() for machine in world.machines() if machine.pages is not None}
    yield from compare(kept, tables)


def leaks(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for place in world.places.values():
        taken: dict[tuple[str, int], str] = {}
        for name, armed in world.record(hypervisor(place.name)).all(Armed).items():
            for device, slots in armed.slots.items():
                for slot in slots:
                    if (device, slot) in taken:
                        yield f"slot {slot} of {device} is armed to {name} and to {taken[device, slot]}"
                    taken[device, slot] = name


def machines(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    executing = Counter((machine.vm, machine.host) for machine in world.machines() if machine.executes)
    for vm, placement in world.record(MANAGER).all(Placement).items():
        where = [host for (name, host) in executing if name == vm]
        if not placement.failed and where != [placement.host]:
            yield f"{vm} is placed on {placement.host} and executes on {', '.join(where) or 'no host'}"
    for machine in world.machines():
        if machine.pages is not None and world.record(hypervisor(machine.host)).get(Instance, machine.instance) is None:
            yield f"{machine.host} has a machine {machine.instance} that its record does not know"
        if machine.executes:
            yield from pages_of(machine)


def delivery(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    network = world.network
    if network.landed != network.settled:
        yield f"the bus took over {network.landed} messages, {network.settled} were settled, {network.under_way()} are under way"


def store(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for place in world.places.values():
        if place.host is None:
            continue
        for address, state in place.host.node.states().items():
            watched = place.host.actors.get(address)
            if state is HostedState.RUNNING and watched is not None and watched.record is not None:
                known, kept = dict(watched.record.items()), dict(place.disk.record(address).items())
                if known != kept or {(kind.__name__, key) for kind, key in kept} != set(place.disk.rows.get(address, {})):
                    differ = sorted(f"{kind.__name__}[{key}]" for kind, key in known.keys() ^ kept.keys())
                    yield f"{address} and its disk differ: {', '.join(differ) or 'in values or rows'}"


def home(world: "World") -> Iterable[str]:
    """See `CHECKERS`."""
    for place in world.places.values():
        record, facts = world.record(hypervisor(place.name)), place.plan.facts
        idle = hosting.idle_foreign(Turn(record, Heard(id="look", source="", body=None)), facts)
        if idle:
            yield f"{place.name} keeps idle slots of {idle[0].device} that are not its own: {idle[0].slots!r}"
        lent = {one.device for one in record.all(hosting.Lent).values()}
        for device in record.all(hosting.Lending):
            if device not in lent:
                yield f"{place.name} still lends {device}, and none of its slots is away"
        if record.all(hosting.Regained):
            yield f"{place.name} has slots that came home, and the manager does not know"
    for device, shared in world.record(MANAGER).all(Shared).items():
        if shared.empty:
            yield f"{device} is in the sharing table, and none of its slots is away"


AT_REST: Mapping[str, Rule] = {
    "sagas end": sagas_end, "agreement": agreement, "leaks": leaks, "machines": machines, "delivery": delivery,
    "store": store, "home": home,
}  # fmt: skip
