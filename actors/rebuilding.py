"""The resource manager's record made again from hosts and ledgers, when its store was lost. Pure.

Placements follow from the instances, the sharing table from the ledgers. An open saga is decided by what its players have heard:
who has resumed or forgotten has heard of the commit, who has undone has heard of the undo. Where nobody has heard either, the old
manager's word may still be under way in a queue; only when the queues are empty may such a saga be undone.
"""

from collections.abc import Iterator, Mapping, Sequence

import attrs

from actors.audit import Kept
from actors.domain.hosting import Counters, Instance
from actors.domain.ledger import Right
from actors.domain.lifecycle import Level, State
from actors.domain.placement import Placement
from actors.domain.sharing import Assigned, Shared
from actors.errors import ActorError
from actors.messages import hypervisor
from actors.runtime.actor import Key, Record
from actors.runtime.saga import Floor, Progress
from actors.sagas.migration import MIGRATION

UNDECIDED = "the manager's record was lost before anybody had heard how the saga ended"


class CannotRebuild(ActorError):
    """Something that is needed is missing or undecided; says what, and what to do."""


@attrs.frozen(kw_only=True)
class Rebuilt:
    """The record of the new manager."""

    placements: Mapping[str, Placement]
    shared: Mapping[str, Shared]
    sagas: Mapping[str, Progress]
    floors: Mapping[str, Floor]

    def values(self) -> dict[Key, object | None]:
        """As a store keeps it."""
        parts: Sequence[Mapping[str, object]] = (self.placements, self.shared, self.sagas, self.floors)
        return {(type(value), key): value for part in parts for key, value in part.items()}


def rebuild(kept: Sequence[Kept], arbiters: Mapping[str, Record], *, lost: frozenset[str], undo_undecided: bool) -> Rebuilt:
    """From all hosts but those that are `lost` for good. `arbiters` are the records of swap devices. Raises `CannotRebuild`."""
    _all_there(kept, lost)
    sagas = _sagas(kept, arbiters, undo_undecided=undo_undecided)
    return Rebuilt(
        placements=_placements(kept, sagas), shared=_sharing(kept, sagas), sagas=sagas, floors=_floors(kept, sagas)
    )


def _all_there(kept: Sequence[Kept], lost: frozenset[str]) -> None:
    read = {one.facts.host for one in kept}
    named = {right.owner for one in kept for ledger in one.ledgers.values() for right in ledger.values()}
    named |= {host for one in kept for host in one.facts.homes.values()}
    casts = [progress.cast for one in kept for progress in one.hypervisor.all(Progress).values()]
    named |= {host for cast in casts for host in (cast.source, cast.target)}
    missing = sorted(named - read - lost)
    if missing:
        raise CannotRebuild(
            f"{', '.join(missing)}: a VM may run there, and the store was not read; name its directory too (--dir), or say that "
            f"the host is switched off for good (--without {missing[0]}), and declare it dead afterwards"
        )


# -- sagas


def _sagas(kept: Sequence[Kept], arbiters: Mapping[str, Record], *, undo_undecided: bool) -> dict[str, Progress]:
    players = {hypervisor(one.facts.host): one.hypervisor for one in kept} | dict(arbiters)
    opened = {saga: progress for one in kept for saga, progress in _opened(one)}
    decided: dict[str, Progress] = {}
    for saga, opening in opened.items():
        heard = [progress for record in players.values() if (progress := record.get(Progress, saga)) is not None]
        decided[saga] = _decided(saga, opening, heard, undo_undecided=undo_undecided)
    return decided


def _opened(one: Kept) -> Iterator[tuple[str, Progress]]:
    """Sagas that are not over: their opener has them still. An opener that is lost is told by what it has left behind."""
    staged = {instance.brought_by for instance in one.hypervisor.all(Instance).values() if instance.state is State.STAGED}
    for saga, progress in one.hypervisor.all(Progress).items():
        if progress.cast.opener == one.facts.host or saga in staged:
            yield saga, progress


def _decided(saga: str, opening: Progress, heard: Sequence[Progress], *, undo_undecided: bool) -> Progress:
    resume, pivot = MIGRATION.index("resume"), MIGRATION.index(MIGRATION.pivot)
    if any(max(progress.row, progress.begun) >= resume and not progress.undone for progress in heard):
        return Progress(cast=opening.cast, row=pivot, begun=pivot)
    reasons = [progress.reason for progress in heard if progress.undone]
    if not reasons and not undo_undecided:
        raise CannotRebuild(
            f"saga {saga} of {opening.cast.vm} is undecided, and a word of the lost manager may be under way: let the nodes run "
            "without a manager until their queues are empty (rabbitmqctl list_queues), stop them, and say --undo-undecided"
        )
    register = MIGRATION.index("register")
    reason = reasons[0] if reasons else UNDECIDED
    return Progress(cast=opening.cast, row=register, begun=register, undone=True, reason=reason)


# -- placements


def _placements(kept: Sequence[Kept], sagas: Mapping[str, Progress]) -> dict[str, Placement]:
    """A VM is where its newest instance runs, or stands still for a saga that is undone. A staged one never ran."""
    newest: dict[str, tuple[str, Instance]] = {}
    for one in kept:
        for instance in one.hypervisor.all(Instance).values():
            if not _counts(instance, sagas):
                continue
            known = newest.get(instance.vm)
            if known is not None and known[1].epoch == instance.epoch:
                raise CannotRebuild(
                    f"{instance.vm} is at {known[0]} and at {one.facts.host}, both in epoch {instance.epoch}; "
                    "end the one that is wrong on its host, then rebuild"
                )
            if known is None or known[1].epoch < instance.epoch:
                newest[instance.vm] = (one.facts.host, instance)
    return {vm: _placement(host, instance) for vm, (host, instance) in sorted(newest.items())}


def _counts(instance: Instance, sagas: Mapping[str, Progress]) -> bool:
    if instance.state is State.ENDING:
        return False
    committed = instance.brought_by in sagas and not sagas[instance.brought_by].undone
    return instance.state is not State.STAGED or committed


def _placement(host: str, instance: Instance) -> Placement:
    """Its lock is not set: a saga that is undone has released it, one that is committed too."""
    booting = instance.wanted is Level.BOOTED and not instance.brought_by and not instance.reached
    return Placement(host=host, definition=instance.definition, epoch=instance.epoch, booting=booting)


# -- the sharing table


def _sharing(kept: Sequence[Kept], sagas: Mapping[str, Progress]) -> dict[str, Shared]:
    ledgers = {device: ledger for one in kept for device, ledger in one.ledgers.items()}
    homes = {device: home for one in kept for device, home in one.facts.homes.items()}
    table: dict[str, Shared] = {}
    for device, ledger in sorted(ledgers.items()):
        pending = tuple(sorted(saga for saga, progress in sagas.items() if device in progress.cast.devices))
        shared = Shared(away=_away(ledger, homes[device]), pending=pending)
        if not shared.empty:
            table[device] = shared
    return table


def _away(ledger: Mapping[int, Right], home: str) -> dict[int, Assigned]:
    return {
        generation: Assigned(host=right.owner, slots=right.slots)
        for generation, right in sorted(ledger.items())
        if right.owner != home
    }


def _floors(kept: Sequence[Kept], sagas: Mapping[str, Progress]) -> dict[str, Floor]:
    """What is still under way of sagas that are over is ignored."""
    floors: dict[str, Floor] = {}
    for one in kept:
        host = one.facts.host
        counters = one.hypervisor.get(Counters) or Counters()
        numbers = [progress.cast.number for progress in sagas.values() if progress.cast.opener == host]
        floors[host] = Floor(number=min([*numbers, counters.sagas + 1]))
    return floors
