"""Compares what actors have kept, without changing anything: every slot has one owner, and all agree on it.

The ledger of a device is the arbiter: where somebody differs from it, it is somebody who is wrong. `compare` asks what must hold
at rest; `examine` asks more, for `swapferry fsck`, and says of each finding what kind of trouble it is and about which slots.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import attrs

from actors.domain.holdings import by_device
from actors.domain.hosting import Armed, Brought, HostFacts, Instance, Lent, Owned, Regained, SourceFacts, TargetFacts
from actors.domain.ledger import Right
from actors.domain.lifecycle import State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.runtime.actor import Record
from actors.runtime.saga import Progress
from actors.sagas.migration import MIGRATION
from paging.slots import SlotSet, union

Tables = Mapping[str, Mapping[str, SlotSet]]
"""instance -> device -> slots that its swap table names"""


@attrs.frozen(kw_only=True)
class Kept:
    """What one node kept."""

    facts: HostFacts
    hypervisor: Record
    ledgers: Mapping[str, Mapping[int, Right]]
    manager: Record | None


class Trouble(StrEnum):
    """What a finding means for the slots that it names."""

    LEAKED = "leaked"
    DOUBLED = "doubled"
    ORPHANED = "orphaned"
    DIFFERS = "differs"
    STUCK = "stuck"


TROUBLES = {
    Trouble.LEAKED: "nobody can use these slots",
    Trouble.DOUBLED: "two believe that these slots are theirs",
    Trouble.ORPHANED: "somebody uses slots that are not its own",
    Trouble.DIFFERS: "two records disagree",
    Trouble.STUCK: "something waits for a saga that is over",
}


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that is wrong."""

    rule: str
    trouble: Trouble
    sentence: str
    device: str = ""
    generation: int = 0
    host: str = ""
    vm: str = ""
    sagas: tuple[str, ...] = ()
    slots: SlotSet = attrs.field(factory=SlotSet)

    @property
    def key(self) -> tuple[str, ...]:
        """What it is about, whatever the slots."""
        return (self.rule, str(self.trouble), self.device, str(self.generation), self.host, self.vm, *self.sagas)


def compare(kept: Sequence[Kept], tables: Tables) -> list[str]:
    """What they disagree about, in sentences; empty where all is well."""
    return [finding.sentence for finding in _at_rest(kept, tables)]


def examine(kept: Sequence[Kept], tables: Tables) -> list[Finding]:
    """Everything that is wrong, what must hold at any time included. Hosts that are not in `kept` are not judged."""
    found = [*_at_rest(kept, tables)]
    for rule in (_owners_exist, _holders_live, _tables_are_apart):
        found += rule(kept, tables)
    return found


def settled(before: Sequence[Finding], now: Sequence[Finding], kept: Sequence[Kept]) -> list[Finding]:
    """While nodes run: what was found twice and is named by no open saga."""
    seen = {finding.key: finding for finding in before}
    opened, claimed = _open_sagas(kept), _claimed(kept)
    vms = {progress.cast.vm for progress in opened.values()}
    found = []
    for finding in now:
        earlier = seen.get(finding.key)
        if earlier is None or set(finding.sagas) & set(opened) or (finding.vm and finding.vm in vms):
            continue
        slots = (finding.slots & earlier.slots) - claimed.get(finding.device, SlotSet())
        if slots or not finding.slots:
            found.append(attrs.evolve(finding, slots=slots))
    return found


def open_sagas(kept: Sequence[Kept]) -> frozenset[str]:
    """Sagas that are not over: their opener or the manager says so."""
    return frozenset(_open_sagas(kept))


def _open_sagas(kept: Sequence[Kept]) -> dict[str, Progress]:
    close = MIGRATION.index("close")
    found: dict[str, Progress] = {}
    for one in kept:
        mine = one.hypervisor.all(Progress)
        found |= {saga: progress for saga, progress in mine.items() if progress.cast.opener == one.facts.host}
        theirs = one.manager.all(Progress) if one.manager is not None else {}
        found |= {saga: progress for saga, progress in theirs.items() if progress.row < close}
    return found


def _claimed(kept: Sequence[Kept]) -> dict[str, SlotSet]:
    """Slots that open sagas name."""
    held = [
        holding
        for one in kept
        for holdings in (
            *(facts.grants for facts in one.hypervisor.all(SourceFacts).values()),
            *(facts.holdings for facts in one.hypervisor.all(TargetFacts).values()),
        )
        for holding in holdings
    ]
    return by_device(held)


def _at_rest(kept: Sequence[Kept], tables: Tables) -> Iterator[Finding]:
    for rule in (_ledgers_cover, _ledgers_are_partitions, _owners_agree, _lent_agree, _sharing_agrees, _placements_agree):
        yield from rule(kept)
    for one in kept:
        yield from _tables_are_owned(one, tables)


def _ledgers(kept: Sequence[Kept]) -> dict[str, Mapping[int, Right]]:
    """Device -> ledger, for those devices that a grant was ever asked of."""
    return {device: ledger for one in kept for device, ledger in one.ledgers.items() if ledger}


def on_the_way(kept: Sequence[Kept]) -> dict[str, SlotSet]:
    """Slots that were given back and of which not all have heard: their owner, their home, or the manager. Nobody uses
    them, and the housekeeping of owner and home goes on until all agree (PROTOCOL 5)."""
    found: dict[str, SlotSet] = {}
    for device, ledger in _ledgers(kept).items():
        back = union(right.slots for right in ledger.values() if right.returned)
        found[device] = back & union(slots for one in kept for slots in _unheard(one, device))
    return found


def _unheard(one: Kept, device: str) -> Iterator[SlotSet]:
    kind = Lent if one.facts.homes[device] == one.facts.host else Owned
    yield from (held.slots for held in one.hypervisor.all(Regained).values() if held.device == device)
    yield from (held.slots for held in one.hypervisor.all(kind).values() if held.device == device)


def _ledgers_cover(kept: Sequence[Kept]) -> Iterable[Finding]:
    counts = {device: count for one in kept for device, count in one.facts.slot_counts.items()}
    for device, ledger in _ledgers(kept).items():
        missing = SlotSet.span(0, counts[device]) - union(right.slots for right in ledger.values())
        if missing:
            sentence = f"ledger of {device}: not every slot has exactly one owner"
            yield Finding(rule="ledger", trouble=Trouble.LEAKED, sentence=sentence, device=device, slots=missing)


def _ledgers_are_partitions(kept: Sequence[Kept]) -> Iterator[Finding]:
    """No slot is in two generations of a ledger, and none is beyond its device."""
    counts = {device: count for one in kept for device, count in one.facts.slot_counts.items()}
    for device, ledger in _ledgers(kept).items():
        taken = SlotSet()
        for generation, right in sorted(ledger.items(), reverse=True):
            if both := right.slots & taken:
                sentence = f"ledger of {device}: {both!r} are in generation {generation} of {right.owner} and in a later one too"
                yield Finding(
                    rule="partition", trouble=Trouble.DOUBLED, sentence=sentence, device=device, generation=generation,
                    host=right.owner, slots=both,
                )  # fmt: skip
            taken = taken | right.slots
        if beyond := taken - SlotSet.span(0, counts[device]):
            sentence = f"ledger of {device}: {beyond!r} are beyond the end of the device"
            yield Finding(rule="beyond", trouble=Trouble.ORPHANED, sentence=sentence, device=device, slots=beyond)


def _owners_agree(kept: Sequence[Kept]) -> Iterable[Finding]:
    """A host owns what the ledger says, in the generation that it says."""
    way = on_the_way(kept)
    for device, ledger in _ledgers(kept).items():
        for one in kept:
            host = one.facts.host
            granted = {generation: right.slots for generation, right in ledger.items() if right.owner == host}
            owned = {own.generation: own.slots for own in one.hypervisor.all(Owned).values() if own.device == device}
            for generation in sorted(granted.keys() | owned.keys()):
                says, has = (one.get(generation, SlotSet()) - way[device] for one in (granted, owned))
                yield from _owner_differs(device, generation, host, says, has)


def _owner_differs(device: str, generation: int, host: str, says: SlotSet, has: SlotSet) -> Iterator[Finding]:
    where = f"{device}, generation {generation}: ledger and {host} differ about"
    for slots, trouble, how in (
        (says - has, Trouble.LEAKED, "the host does not know that it owns them"),
        (has - says, Trouble.ORPHANED, "the host believes that it owns them"),
    ):
        if slots:
            yield Finding(
                rule="owner", trouble=trouble, sentence=f"{where} {slots!r}: {how}",
                device=device, generation=generation, host=host, slots=slots,
            )  # fmt: skip


def _lent_agree(kept: Sequence[Kept]) -> Iterable[Finding]:
    """What a home has lent is what the ledger says others own."""
    way = on_the_way(kept)
    for one in kept:
        for device, ledger in one.ledgers.items():
            on_way = way.get(device, SlotSet())
            away = union(right.slots for right in ledger.values() if right.owner != one.facts.host) - on_way
            lent = union(loan.slots for loan in one.hypervisor.all(Lent).values() if loan.device == device) - on_way
            differ = (away - lent) | (lent - away)
            if differ:
                sentence = f"{device}: ledger and the loans of {one.facts.host} differ about {differ!r}"
                trouble = Trouble.LEAKED if lent - away else Trouble.DIFFERS
                yield Finding(
                    rule="lent", trouble=trouble, sentence=sentence, device=device, host=one.facts.host, slots=differ
                )


def _sharing_agrees(kept: Sequence[Kept]) -> Iterable[Finding]:
    """At rest the sharing table lists exactly the slots that are away from home."""
    manager = next((one.manager for one in kept if one.manager is not None), None)
    if manager is None:
        return
    shared, way = manager.all(Shared), on_the_way(kept)
    for one in kept:
        for device, ledger in one.ledgers.items():
            listed = shared.get(device, Shared())
            if listed.pending:
                sentence = f"sharing table: {device} still waits for saga {', '.join(listed.pending)}"
                yield Finding(rule="pending", trouble=Trouble.STUCK, sentence=sentence, device=device, sagas=listed.pending)
            on_way = way.get(device, SlotSet())
            truth = _by_host((right.owner, right.slots - on_way) for right in ledger.values())
            truth.pop(one.facts.host, None)
            told = _by_host((assigned.host, assigned.slots - on_way) for assigned in listed.away.values())
            if truth != told:
                yield Finding(
                    rule="sharing", trouble=Trouble.DIFFERS, device=device, slots=_apart(truth, told),
                    sentence=f"sharing table and ledger of {device} differ: {told} and {truth}",
                )  # fmt: skip


def _apart(truth: Mapping[str, SlotSet], told: Mapping[str, SlotSet]) -> SlotSet:
    """Slots that the two give to different hosts."""
    none = SlotSet()
    pairs = [(truth.get(host, none), told.get(host, none)) for host in truth.keys() | told.keys()]
    return union((true - said) | (said - true) for true, said in pairs)


def _by_host(pairs: Iterable[tuple[str, SlotSet]]) -> dict[str, SlotSet]:
    found: dict[str, SlotSet] = {}
    for host, slots in pairs:
        if slots:
            found[host] = found.get(host, SlotSet()) | slots
    return found


def _placements_agree(kept: Sequence[Kept]) -> Iterable[Finding]:
    """A placed VM has one instance, on the host and in the epoch that the placement says."""
    manager = next((one.manager for one in kept if one.manager is not None), None)
    if manager is None:
        return
    places = {vm: place for vm, place in manager.all(Placement).items() if not place.failed}
    for vm, place in places.items():
        found = sorted((one.facts.host, instance.epoch) for one in kept for instance in _of(one, vm))
        if found != [(place.host, place.epoch)]:
            trouble = Trouble.DOUBLED if len(found) > 1 else Trouble.DIFFERS
            sentence = f"{vm} is placed on {place.host} in epoch {place.epoch}; instances are at {found}"
            yield Finding(rule="placement", trouble=trouble, sentence=sentence, vm=vm, host=place.host)
        if place.lock:
            sentence = f"the placement of {vm} is still locked by saga {place.lock}"
            yield Finding(rule="lock", trouble=Trouble.STUCK, sentence=sentence, vm=vm, sagas=(place.lock,))


def _of(one: Kept, vm: str) -> list[Instance]:
    """The instances of a VM, without those that were told to go."""
    found = [instance for instance in one.hypervisor.all(Instance).values() if instance.vm == vm]
    return [instance for instance in found if instance.state is not State.ENDING]


def _tables_are_owned(one: Kept, tables: Tables) -> Iterable[Finding]:
    """An instance's swap table names only slots that it was armed with or that came with it, and no other names them."""
    taken: dict[str, SlotSet] = {}
    for name, instance in one.hypervisor.all(Instance).items():
        armed, brought = one.hypervisor.get(Armed, name), one.hypervisor.get(Brought, name)
        for device, slots in tables.get(name, {}).items():
            mine = union(holder.slots.get(device, SlotSet()) for holder in (armed, brought) if holder is not None)
            owned = union(own.slots for own in one.hypervisor.all(Owned).values() if own.device == device)
            host = one.facts.host
            about = Finding(rule="table", trouble=Trouble.ORPHANED, sentence="", device=device, host=host, vm=instance.vm)
            if strange := slots - (mine & owned):
                sentence = f"swap table of {name} names slots of {device} that are not its own: {strange!r}"
                yield attrs.evolve(about, sentence=sentence, slots=strange)
            if both := slots & taken.get(device, SlotSet()):
                sentence = f"swap tables of {one.facts.host}: two name {both!r} of {device}"
                yield attrs.evolve(about, rule="tables", trouble=Trouble.DOUBLED, sentence=sentence, slots=both)
            taken[device] = taken.get(device, SlotSet()) | slots


# -- what `examine` asks beyond that


def _owners_exist(kept: Sequence[Kept], _tables: Tables) -> Iterator[Finding]:
    """Whoever owns slots is a host of this cluster: the home of a device, or one that was read."""
    hosts = {one.facts.host for one in kept} | {home for one in kept for home in one.facts.homes.values()}
    for device, ledger in _ledgers(kept).items():
        for generation, right in ledger.items():
            if right.owner not in hosts:
                sentence = f"ledger of {device}: generation {generation} belongs to {right.owner}, which is no host that was read"
                yield Finding(
                    rule="stranger", trouble=Trouble.ORPHANED, sentence=sentence, device=device, generation=generation,
                    host=right.owner, slots=right.slots,
                )  # fmt: skip


def _holders_live(kept: Sequence[Kept], _tables: Tables) -> Iterator[Finding]:
    """Slots are armed to, and were brought by, instances that exist, and to one of them only."""
    for one in kept:
        taken: dict[str, SlotSet] = {}
        for word, name, device, slots in _held(one):
            about = Finding(
                rule=word, trouble=Trouble.LEAKED, sentence="", device=device, host=one.facts.host, vm=name.partition("@")[0]
            )
            if one.hypervisor.get(Instance, name) is None:
                sentence = f"{one.facts.host}: {slots!r} of {device} are {word} to {name}, which is not there"
                yield attrs.evolve(about, rule=f"{word}-to-nobody", sentence=sentence, slots=slots)
            elif both := slots & taken.get(device, SlotSet()):
                sentence = f"{one.facts.host}: {both!r} of {device} are {word} to {name} and to another instance too"
                yield attrs.evolve(about, trouble=Trouble.DOUBLED, sentence=sentence, slots=both)
            taken[device] = taken.get(device, SlotSet()) | slots


def _held(one: Kept) -> Iterator[tuple[str, str, str, SlotSet]]:
    """(armed or brought, instance, device, slots)."""
    for name, armed in one.hypervisor.all(Armed).items():
        yield from (("armed", name, device, slots) for device, slots in armed.slots.items())
    for name, brought in one.hypervisor.all(Brought).items():
        yield from (("brought", name, device, slots) for device, slots in brought.slots.items())


def _tables_are_apart(kept: Sequence[Kept], tables: Tables) -> Iterator[Finding]:
    """No slot is named by swap tables of two hosts, but while a move lets source and target name the same."""
    places = {name: (one.facts.host, instance) for one in kept for name, instance in one.hypervisor.all(Instance).items()}
    taken: dict[str, list[tuple[str, SlotSet]]] = {}
    for name, named in tables.items():
        host, instance = places.get(name, ("", None))
        if instance is None:
            yield Finding(
                rule="table-of-nobody", trouble=Trouble.ORPHANED, vm=name.partition("@")[0],
                sentence=f"there is a swap table of {name}, which no host knows",
            )  # fmt: skip
            continue
        for device, slots in named.items():
            for other, theirs in taken.get(device, []):
                if other != host and (both := slots & theirs):
                    sentence = f"swap tables of {other} and {host} both name {both!r} of {device}"
                    yield Finding(
                        rule="tables-apart", trouble=Trouble.DOUBLED, sentence=sentence, device=device, host=host,
                        vm=instance.vm, slots=both,
                    )  # fmt: skip
            taken.setdefault(device, []).append((host, slots))
