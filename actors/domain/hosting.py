"""What a hypervisor knows: its instances, the slots it owns or has lent, what it armed to whom.

There is no free list. A home slot is free when it is owned, armed to no instance, brought by none, and named by no open
saga; so nothing can leak inside a host (PROTOCOL 2 and 13.1). The functions here read and write a `Turn` and nothing else.
"""

from collections.abc import Mapping

import attrs

from actors.domain.holdings import Holding, by_device, joined
from actors.domain.lifecycle import TRANSITIONS, Level, State
from actors.errors import Defect
from actors.messages import Granted
from actors.runtime.actor import Turn
from paging.guest import Definition, Endpoint, Manifest
from paging.slots import SlotSet, union

HOUSEKEEPING_S = 1.0
"""between two rounds of returns and surveys; doubles while nothing changes"""

SLACK_SLOTS = 128
"""armed beyond memory - resident limit: two eviction batches may be under way"""


@attrs.frozen(kw_only=True)
class HostFacts:
    """What configuration says of a host: never changes while the node runs."""

    host: str
    memory_bytes: int
    homes: Mapping[str, str]
    """swap device -> host that it belongs to, for all devices of the cluster"""
    uuids: Mapping[str, str]
    slot_counts: Mapping[str, int]
    clean_pages_per_s: int = 0
    """how fast a VM that came here copies granted slots to slots of this host; 0: only when asked to"""


@attrs.frozen(kw_only=True)
class Counters:
    """Numbers that only grow."""

    sagas: int = 0
    requests: int = 0
    loans: int = 0


@attrs.frozen(kw_only=True)
class Instance:
    """A VM on this host, named by the saga (or the boot) that brought it."""

    id: str
    vm: str
    epoch: int
    definition: Definition
    state: State
    wanted: Level
    revision: int = 1
    reported: int = 0
    """the newest revision that its machine has reached"""
    failed: str = ""
    """why the machine cannot reach the wanted level"""
    lost: bool = False
    """its memory is gone: machine or pager died"""
    stalled: str = ""
    """a fault that cannot be answered: page, slot, device"""
    brought_by: str = ""
    """the saga that brought it here"""
    leaving_by: str = ""
    """the open saga that will take it away"""
    born: int = 0
    """the revision in which its machine was started; word of a death before that is of an earlier machine"""
    clean_pages_per_s: int = 0

    @property
    def reached(self) -> bool:
        """True if the machine is what it was last told to be."""
        return self.reported == self.revision


@attrs.frozen(kw_only=True)
class Owned(Holding):
    """Slots that belong to this host, home or foreign."""


@attrs.frozen(kw_only=True)
class Lent(Holding):
    """Home slots that belong to another host, in the generation in which they left."""


@attrs.frozen(kw_only=True)
class Regained(Holding):
    """Home slots that came back, of which the manager has not confirmed to know."""


@attrs.frozen(kw_only=True)
class Lending:
    """A home device that may be in the sharing table because of this host. The loan names the last time slots left; it
    never begins anew, so that a late word about an earlier loan ends nothing."""

    loan: int


@attrs.frozen(kw_only=True)
class Surveyed:
    """Up to which generation the home knows what was given back on a device; and of the answer that goes on from there,
    which chunks are here."""

    since: int = 0
    until: int = 0
    seen: frozenset[int] = frozenset()


@attrs.frozen(kw_only=True)
class Armed:
    """Slots that an instance may write. Disjoint between instances; given back only when its machine is gone."""

    slots: Mapping[str, SlotSet]


@attrs.frozen(kw_only=True)
class Brought:
    """Slots that came with an instance: named by its table at first, idle once paged in; never written here."""

    slots: Mapping[str, SlotSet]


@attrs.frozen(kw_only=True)
class Reach:
    """Devices whose superblock was read last time (name -> uuid), and why others could not be."""

    devices: Mapping[str, str]
    problems: Mapping[str, str]


@attrs.frozen(kw_only=True)
class SourceFacts:
    """What the source remembers of a saga beside its progress."""

    reply_to: str = ""
    endpoint: Endpoint | None = None
    halted: bool = False
    """the list of grants is final"""
    grants: tuple[Holding, ...] = ()
    granted: Mapping[str, Granted] = attrs.field(factory=dict)
    manifest: Manifest | None = None


@attrs.frozen(kw_only=True)
class TargetFacts:
    """What the target remembers of a saga beside its progress."""

    definition: Definition | None = None
    endpoint: Endpoint | None = None
    of: int = 0
    parts: Mapping[int, tuple[Holding, ...]] = attrs.field(factory=dict)
    manifest: Manifest | None = None

    @property
    def holdings(self) -> tuple[Holding, ...]:
        """All slots that were granted, once every chunk is here."""
        return joined(part for _, part in sorted(self.parts.items()))


@attrs.frozen(kw_only=True)
class Told:
    """The newest epoch in which the manager told this host to start a VM, and why it could not (empty: it did). A late Boot
    of an epoch that was answered must not start the VM a second time, wherever it has gone since."""

    epoch: int
    refused: str = ""


KINDS: tuple[type, ...] = (
    Counters, Instance, Told, Owned, Lent, Regained, Lending, Surveyed, Armed, Brought, Reach, SourceFacts, TargetFacts,
)  # fmt: skip


STARTS = (Level.BOOTED, Level.STAGED)
"""levels that a new machine is started for"""

# -- instances and their machines


def instance_id(vm: str, host: str, origin: str) -> str:
    """An instance's name: an undone saga and its retry stage the same epoch, so the saga is part of it (PROTOCOL 13.13)."""
    return f"{vm}@{host}.{origin}"


def need(turn: Turn, instance: str) -> Instance:
    """The instance that a row relies on. Raises `Defect` where there is none."""
    found = turn.get(Instance, instance)
    if found is None:
        raise Defect(f"instance {instance} is not in the record")
    return found


def instance_of(turn: Turn, vm: str) -> Instance | None:
    """The instance of this VM that runs here, or ran until a saga halted it."""
    found = [one for one in turn.all(Instance).values() if one.vm == vm]
    active = [one for one in found if one.state not in (State.STAGED, State.ENDING)]
    return max(active, key=lambda one: one.epoch, default=None)


def move(instance: Instance, state: State) -> Instance:
    """The instance in a new state. Raises `Defect` for a transition that the lifecycle does not have."""
    if state is not instance.state and state not in TRANSITIONS[instance.state]:
        raise Defect(f"instance {instance.id} cannot go from {instance.state} to {state}")
    return attrs.evolve(instance, state=state)


def want(turn: Turn, instance: Instance, level: Level) -> None:
    """Tell the machine to be something else: a new revision, told again until it is reported."""
    revision = instance.revision + 1
    born = revision if level in STARTS else instance.born
    turn.put(attrs.evolve(instance, wanted=level, revision=revision, born=born, failed=""), instance.id)
    turn.timer("levels", 1.0)


# -- slots


def found_slots(turn: Turn, facts: HostFacts) -> None:
    """A host that starts for the first time owns all slots of its home devices, in the first generation."""
    for device, home in facts.homes.items():
        if home == facts.host:
            put_owned(turn, device, 1, SlotSet.span(0, facts.slot_counts[device]))


def put_owned(turn: Turn, device: str, generation: int, slots: SlotSet) -> None:
    """File the slots owned in one generation."""
    owned = Owned(device=device, generation=generation, slots=slots)
    if slots:
        turn.put(owned, owned.key)
    else:
        turn.drop(Owned, owned.key)


def gain(turn: Turn, holding: Holding) -> None:
    """These slots belong to this host now; home slots come back from those who had them."""
    put_owned(turn, holding.device, holding.generation, holding.slots)
    for key, lent in turn.all(Lent).items():
        if lent.device == holding.device and lent.generation < holding.generation:
            keep_lent(turn, lent, key, lent.slots - holding.slots)


def lose(turn: Turn, facts: HostFacts, held: Holding, generation: int) -> None:
    """Slots held in an older generation belong to somebody else since this one. A home slot is lent from then on."""
    key = f"{held.device}/{held.generation}"
    owned = turn.get(Owned, key)
    if owned is None:
        return
    put_owned(turn, held.device, held.generation, owned.slots - held.slots)
    if facts.homes[held.device] != facts.host:
        return
    back = union(one.slots for one in turn.all(Owned).values() if one.device == held.device and one.generation > generation)
    gone = held.slots - back
    if not gone:
        return
    before = turn.get(Lent, f"{held.device}/{generation}")
    lent = Lent(device=held.device, generation=generation, slots=gone | before.slots if before else gone)
    turn.put(lent, lent.key)
    known = turn.get(Surveyed, held.device)
    if known is not None and known.since > generation:
        # they may have been given back, and surveyed, before this host had heard that they were gone
        turn.put(Surveyed(since=generation), held.device)
    counters = turn.get(Counters) or Counters()
    turn.put(attrs.evolve(counters, loans=counters.loans + 1))
    turn.put(Lending(loan=counters.loans + 1), held.device)
    turn.timer("housekeeping", HOUSEKEEPING_S)


def keep_lent(turn: Turn, lent: Lent, key: str, slots: SlotSet) -> None:
    """File what is still lent of this."""
    if slots:
        turn.put(attrs.evolve(lent, slots=slots), key)
    else:
        turn.drop(Lent, key)


def free_slots(turn: Turn, facts: HostFacts) -> dict[str, SlotSet]:
    """Home slots that nobody uses and no open saga names (device name -> set)."""
    used = [one.slots for one in turn.all(Armed).values()] + [one.slots for one in turn.all(Brought).values()]
    used += [by_device(one.grants) for one in turn.all(SourceFacts).values()]
    used += [by_device(one.holdings) for one in turn.all(TargetFacts).values()]
    owned = by_device(one for one in turn.all(Owned).values() if facts.homes[one.device] == facts.host)
    return {device: slots - union(one.get(device, SlotSet()) for one in used) for device, slots in owned.items()}


def idle_foreign(turn: Turn, facts: HostFacts) -> tuple[Holding, ...]:
    """Slots of other homes that nobody here uses: to be given back. A slot that an open saga names is not idle, whatever
    the tables say: a staged instance's pages may travel on another way than its slots (PROTOCOL 13.1)."""
    used = [one.slots for one in turn.all(Brought).values()]
    used += [by_device(one.grants) for one in turn.all(SourceFacts).values()]
    used += [by_device(one.holdings) for one in turn.all(TargetFacts).values()]
    idle = []
    for owned in turn.all(Owned).values():
        if facts.homes[owned.device] == facts.host:
            continue
        slots = owned.slots - union(one.get(owned.device, SlotSet()) for one in used)
        if slots:
            idle.append(Holding(device=owned.device, generation=owned.generation, slots=slots))
    return tuple(idle)


def slots_needed(definition: Definition) -> int:
    """How many slots an instance must be able to write: all that can be out of RAM, and two batches under way."""
    over = definition.pages - definition.resident_pages
    return over + SLACK_SLOTS if over > 0 else 0


def arm(turn: Turn, facts: HostFacts, definition: Definition) -> dict[str, SlotSet] | None:
    """Slots for a new instance, spread evenly over the home devices with room. None: there are not enough."""
    wanted = slots_needed(definition)
    free = sorted(free_slots(turn, facts).items(), key=lambda item: (len(item[1]), item[0]))
    armed: dict[str, SlotSet] = {}
    for index, (device, slots) in enumerate(free):
        share = min(len(slots), -(-wanted // (len(free) - index)))
        if share:
            armed[device] = slots.first(share)
            wanted -= share
    return armed if wanted <= 0 else None


def memory_free(turn: Turn, facts: HostFacts) -> int:
    """Bytes of the host's memory budget that no instance has reserved."""
    return facts.memory_bytes - sum(one.definition.resident_bytes for one in turn.all(Instance).values())


def room_problem(turn: Turn, facts: HostFacts, definition: Definition) -> str:
    """Why this VM has no room here; empty where it has."""
    free = memory_free(turn, facts)
    if free < definition.resident_bytes:
        needed = definition.resident_bytes >> 20
        return f"no room at {facts.host}: {definition.vm} needs {needed} MiB of memory, {free >> 20} MiB are free"
    slots = sum(len(one) for one in free_slots(turn, facts).values())
    if slots < slots_needed(definition):
        return f"no room at {facts.host}: {definition.vm} needs {slots_needed(definition)} swap slots, {slots} are free"
    return ""


def used_devices(turn: Turn, instance: str) -> frozenset[str]:
    """Devices on which the instance may have pages."""
    holders = (turn.get(Armed, instance), turn.get(Brought, instance))
    return frozenset(device for holder in holders if holder for device in holder.slots)
