"""What can be proven about a finding of `actors.audit`, and mended in the records of nodes that stand still. Pure.

The ledger decides who owns a slot, a higher generation over a lower one; so records that only repeat it are written anew from it.
What somebody uses, in a swap table or as an armed range, is never taken away: that needs a person, and is said.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from actors.audit import Finding, Kept, Tables, open_sagas
from actors.domain import hosting
from actors.domain.hosting import Armed, Brought, Counters, Instance, Lending, Lent, Owned, put_owned
from actors.domain.ledger import Right
from actors.domain.placement import Placement
from actors.domain.sharing import Assigned, Shared
from actors.messages import MANAGER, hypervisor, swap_device
from actors.runtime.actor import Heard, Key, Record, Turn
from actors.swap_device import Numbered, rights_of
from paging.slots import SlotSet, union

STOP_IT = "stop the VM that has them (swapferry slots VM)"


@attrs.frozen(kw_only=True)
class Mending:
    """What one record needs for one finding."""

    finding: Finding
    actor: str
    sentence: str
    changes: Mapping[Key, object | None]


@attrs.frozen(kw_only=True)
class Unproven:
    """A finding that nobody here can mend, and what a person can do."""

    finding: Finding
    remedy: str


class _No(Exception):
    """It cannot be proven; says what a person can do."""


class Bench:
    """Copies of all records, mended one finding after another."""

    def __init__(self, kept: Sequence[Kept], records: Mapping[str, Record], tables: Tables) -> None:
        self.kept = {one.facts.host: one for one in kept}
        self.homes = {device: home for one in kept for device, home in one.facts.homes.items()}
        self.open = open_sagas(kept)
        self._tables = tables
        self._records = {actor: Record(dict(record.items())) for actor, record in records.items()}
        self._done: list[Mending] = []

    def edit(self, actor: str) -> Turn:
        """A record as it is by now; what is written to it counts when it is `keep`-ed."""
        if actor not in self._records:
            raise _No(f"the store of {actor} was not read; name its directory too")
        return Turn(self._records[actor], Heard(id="mend", source="", body=None))

    def keep(self, finding: Finding, actor: str, turn: Turn, sentence: str) -> None:
        """This is what the record shall be."""
        record = self._records[actor]
        changes = {key: value for key, value in turn.decision().changes.items() if record.get(*key) != value}
        if changes:
            record.apply(changes)
            self._done.append(Mending(finding=finding, actor=actor, sentence=sentence, changes=changes))

    def rights(self, device: str) -> dict[int, Right]:
        """The ledger as it is by now."""
        return rights_of(self.edit(swap_device(device)).all(Right))

    def used(self, host: str, device: str) -> SlotSet:
        """Slots of a device that somebody on this host may read or write."""
        turn = self.edit(hypervisor(host))
        living = turn.all(Instance)
        held = [one.slots for name, one in turn.all(Armed).items() if name in living]
        held += [one.slots for name, one in turn.all(Brought).items() if name in living]
        held += [self._tables[name] for name in living if name in self._tables]
        return union(one.get(device, SlotSet()) for one in held)

    def used_elsewhere(self, host: str, device: str) -> SlotSet:
        """By anybody but this host."""
        return union(self.used(other, device) for other in self.kept if other != host)

    @property
    def mended(self) -> list[Mending]:
        """All that was kept."""
        return self._done


def mend(
    findings: Iterable[Finding], kept: Sequence[Kept], records: Mapping[str, Record], tables: Tables
) -> tuple[list[Mending], list[Unproven]]:
    """What mends these findings, in the order in which it must be done, and what nobody can prove."""
    bench = Bench(kept, records, tables)
    unproven = []
    for finding in sorted(findings, key=lambda one: list(RULES).index(one.rule) if one.rule in RULES else len(RULES)):
        try:
            if finding.rule not in RULES:
                raise _No(REMEDIES.get(finding.rule, "look at it with `swapferry slots` and `swapferry devices`"))
            RULES[finding.rule](bench, finding)
        except _No as why:
            unproven.append(Unproven(finding=finding, remedy=str(why)))
    return bench.mended, unproven


# -- the ledger


def _later_generation_wins(bench: Bench, finding: Finding) -> None:
    """A slot that changed its owner is no longer what an earlier generation says."""
    actor = swap_device(finding.device)
    turn = bench.edit(actor)
    right = turn.get(Right, str(finding.generation))
    assert right is not None, "found there"
    _put_right(turn, finding.generation, attrs.evolve(right, slots=right.slots - finding.slots))
    bench.keep(finding, actor, turn, f"take {finding.slots!r} out of generation {finding.generation}; a later one has them")


def _give_to_claimant(bench: Bench, finding: Finding) -> None:
    """A slot without an owner goes to the only host that believes to own it, else home."""
    device, home = finding.device, bench.homes[finding.device]
    claims: dict[tuple[str, int], SlotSet] = {}
    for host in bench.kept:
        for owned in bench.edit(hypervisor(host)).all(Owned).values():
            if owned.device == device and (slots := owned.slots & finding.slots):
                claims[host, owned.generation] = slots
    if sum(len(slots) for slots in claims.values()) != len(union(claims.values())):
        raise _No("two hosts believe to own them; find out with `swapferry slots VM` whose pages they hold")
    actor = swap_device(device)
    turn = bench.edit(actor)
    for (host, generation), slots in claims.items():
        right = turn.get(Right, str(generation)) or Right(owner=host, slots=SlotSet())
        if right.owner != host:
            raise _No(f"{host} claims them in generation {generation}, which is {right.owner}'s")
        _put_right(turn, generation, attrs.evolve(right, slots=right.slots | slots))
    left = finding.slots - union(claims.values())
    if left & union(bench.used(host, device) for host in bench.kept):
        raise _No("a swap table names them, and no host owns them; look with `swapferry slots VM`")
    if left:
        generation = (turn.get(Numbered) or Numbered()).generation + 1
        turn.put(Numbered(generation=generation))
        _put_right(turn, generation, Right(owner=home, slots=left, returned=True))
    bench.keep(finding, actor, turn, "give them to who owns them by its own record, else to their home")
    if left:
        _follow_ledger(bench, finding, home)


def _put_right(turn: Turn, generation: int, right: Right) -> None:
    if right.slots:
        turn.put(right, str(generation))
    else:
        turn.drop(Right, str(generation))


# -- hosts


def _own_as_ledger_says(bench: Bench, finding: Finding) -> None:
    if finding.host not in bench.kept:
        raise _No(f"the store of {finding.host} was not read; name its directory too")
    _follow_ledger(bench, finding, finding.host)


def _lend_as_ledger_says(bench: Bench, finding: Finding) -> None:
    _follow_ledger(bench, finding, finding.host)


def _follow_ledger(bench: Bench, finding: Finding, host: str) -> None:
    """Write what a host owns and has lent of these slots anew from the ledger."""
    device, slots, actor = finding.device, finding.slots, hypervisor(host)
    rights = bench.rights(device)
    mine = union(right.slots for right in rights.values() if right.owner == host) & slots
    if taken := (slots - mine) & bench.used(host, device):
        raise _No(f"{host} uses {taken!r}, which the ledger gives to somebody else; {STOP_IT}")
    if taken := mine & bench.used_elsewhere(host, device):
        raise _No(f"another host uses {taken!r}, which the ledger gives to {host}; {STOP_IT}")
    turn = bench.edit(actor)
    for owned in turn.all(Owned).values():
        if owned.device == device and owned.slots & slots:
            put_owned(turn, device, owned.generation, owned.slots - slots)
    for generation, right in rights.items():
        if right.owner == host and (part := right.slots & slots):
            known = turn.get(Owned, f"{device}/{generation}")
            put_owned(turn, device, generation, part | known.slots if known else part)
    if bench.homes[device] == host:
        _lend(turn, device, slots, {generation: right for generation, right in rights.items() if right.owner != host})
    bench.keep(finding, actor, turn, f"let {host} own and lend them as the ledger says")


def _lend(turn: Turn, device: str, slots: SlotSet, away: Mapping[int, Right]) -> None:
    for key, lent in turn.all(Lent).items():
        if lent.device == device:
            hosting.keep_lent(turn, lent, key, lent.slots - slots)
    lent_now = False
    for generation, right in away.items():
        if part := right.slots & slots:
            known = turn.get(Lent, f"{device}/{generation}")
            lent = Lent(device=device, generation=generation, slots=part | known.slots if known else part)
            turn.put(lent, lent.key)
            lent_now = True
    if lent_now and turn.get(Lending, device) is None:
        counters = turn.get(Counters) or Counters()
        turn.put(attrs.evolve(counters, loans=counters.loans + 1))
        turn.put(Lending(loan=counters.loans + 1), device)


def _free_of_nobody(bench: Bench, finding: Finding) -> None:
    """What an instance that is not there was armed with is nobody's to write."""
    actor = hypervisor(finding.host)
    turn = bench.edit(actor)
    kind = Armed if finding.rule == "armed-to-nobody" else Brought
    for name in turn.all(kind):
        if turn.get(Instance, name) is None:
            turn.drop(kind, name)
    bench.keep(finding, actor, turn, "free what is kept for instances that are not there")


# -- the manager


def _list_as_ledger_says(bench: Bench, finding: Finding) -> None:
    turn = bench.edit(MANAGER)
    home = bench.homes[finding.device]
    rights = bench.rights(finding.device)
    away = {
        generation: Assigned(host=right.owner, slots=right.slots)
        for generation, right in sorted(rights.items())
        if right.owner != home
    }
    _put_shared(turn, finding.device, attrs.evolve(turn.get(Shared, finding.device) or Shared(), away=away))
    bench.keep(finding, MANAGER, turn, f"list {finding.device} as its ledger says")


def _relieve(bench: Bench, finding: Finding) -> None:
    turn = bench.edit(MANAGER)
    shared = turn.get(Shared, finding.device) or Shared()
    left = tuple(saga for saga in shared.pending if saga in bench.open)
    _put_shared(turn, finding.device, attrs.evolve(shared, pending=left))
    bench.keep(finding, MANAGER, turn, f"let {finding.device} wait no more for sagas that are over")


def _put_shared(turn: Turn, device: str, shared: Shared) -> None:
    if shared.empty:
        turn.drop(Shared, device)
    else:
        turn.put(shared, device)


def _unlock(bench: Bench, finding: Finding) -> None:
    turn = bench.edit(MANAGER)
    place = turn.get(Placement, finding.vm)
    assert place is not None, "found there"
    if place.lock in bench.open:
        raise _No(f"saga {place.lock} is open; see `swapferry sagas {place.lock}`")
    turn.put(attrs.evolve(place, lock=""), finding.vm)
    bench.keep(finding, MANAGER, turn, f"unlock {finding.vm}: saga {place.lock} is over")


RULES: Mapping[str, Callable[[Bench, Finding], None]] = {
    # in the order in which they are mended: the ledger first, then who repeats it
    "partition": _later_generation_wins,
    "ledger": _give_to_claimant,
    "armed-to-nobody": _free_of_nobody,
    "brought-to-nobody": _free_of_nobody,
    "owner": _own_as_ledger_says,
    "lent": _lend_as_ledger_says,
    "pending": _relieve,
    "sharing": _list_as_ledger_says,
    "lock": _unlock,
}

REMEDIES: Mapping[str, str] = {
    "placement": "if an instance runs where it is not placed, end it there; if the manager lost its store, rebuild-manager",
    "stranger": "if that host is gone for good: swapferry declare-dead HOST",
    "beyond": "the device was made smaller than its ledger: restore it",
    "table": "the guest may read what is not its own: stop that VM, then run fsck again",
    "tables": "two guests name one slot: stop both, then boot them anew",
    "tables-apart": "two hosts name one slot: stop the VM where it is not placed",
    "table-of-nobody": "a guest that no host knows: end its process, then remove its directory",
    "armed": "two guests may write one slot: stop one of them",
    "brought": "two guests name one slot: stop one of them",
}
