"""The manager's rows of a migration: register, commit (the pivot), close, and release as the undo of register."""

from collections.abc import Mapping, Sequence

import attrs

from actors.domain.holdings import Holding, joined
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import MANAGER as MANAGER_ADDRESS
from actors.messages import Cast, Close, Closed, Commit, Forget, Restored, Resume, Welcome, hypervisor
from actors.runtime.actor import Say, Turn
from actors.runtime.saga import Now, Readiness, Refuse
from actors.sagas.players import ManagerPlayer


@attrs.frozen(kw_only=True)
class ManagerFacts:
    """What the manager remembers of a saga beside its progress: the chunks of a Commit."""

    of: int = 0
    parts: Mapping[int, tuple[Holding, ...]] = attrs.field(factory=dict)


# -- register


def take_nothing(_actor: ManagerPlayer, _turn: Turn, _cast: Cast, _body: object) -> None:
    """The message brings nothing that has to be kept."""


def register_ready(_actor: ManagerPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Lock the placement, and list the devices as shared before any of their slots is granted."""
    place = turn.get(Placement, cast.vm)
    if place is None:
        return Refuse(f"unknown VM {cast.vm}")
    if (place.host, place.epoch) != (cast.source, cast.epoch):
        return Refuse(f"{cast.vm} is placed on {place.host} in epoch {place.epoch}, not on {cast.source} in {cast.epoch}")
    dead = sorted(cast.dead & {cast.source, cast.target})
    if dead:
        return Refuse(f"{dead[0]} was declared dead")
    if place.lock or place.booting:
        return Refuse(f"{cast.vm} is already {'migrating in saga ' + place.lock if place.lock else 'booting'}")
    turn.put(attrs.evolve(place, lock=cast.saga), cast.vm)
    for device in cast.devices:
        turn.put((turn.get(Shared, device) or Shared()).expecting(cast.saga), device)
    return Now.DONE


def say_welcome(_actor: ManagerPlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Let the target make room."""
    place = turn.get(Placement, cast.vm)
    assert place is not None, "a registered VM has a placement"
    return [Say(target=hypervisor(cast.target), body=Welcome(definition=place.definition), cast=cast)]


def release(_actor: ManagerPlayer, turn: Turn, cast: Cast, restored: tuple[Restored, ...]) -> tuple[Restored, ...]:
    """Unlock. The devices stay listed until the grants are known to be undone, at close."""
    place = turn.get(Placement, cast.vm)
    if place is not None and place.lock == cast.saga:
        turn.put(attrs.evolve(place, lock=""), cast.vm)
    turn.drop(ManagerFacts, cast.saga)
    return restored


# -- commit: the pivot


def take_commit(_actor: ManagerPlayer, turn: Turn, cast: Cast, body: Commit) -> None:
    """Keep this chunk of the slots that go with the VM."""
    facts = turn.get(ManagerFacts, cast.saga) or ManagerFacts()
    turn.put(attrs.evolve(facts, of=body.of, parts={**facts.parts, body.chunk: body.holdings}), cast.saga)


def commit_ready(actor: ManagerPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Compare and set the placement. From here on there is only forward."""
    facts = turn.get(ManagerFacts, cast.saga) or ManagerFacts()
    if len(facts.parts) < facts.of:
        return Now.WAIT
    place = turn.get(Placement, cast.vm)
    if place is None or (place.host, place.epoch, place.lock) != (cast.source, cast.epoch, cast.saga):
        return Refuse(f"the placement of {cast.vm} is not locked by saga {cast.saga} any more")
    turn.put(attrs.evolve(place, host=cast.target, epoch=cast.epoch + 1, lock=""), cast.vm)
    for holding in joined(facts.parts.values()):
        shared = turn.get(Shared, holding.device) or Shared()
        home = actor.homes[holding.device]
        turn.put(shared.assigned(holding.generation, cast.target, holding.slots, home), holding.device)
    turn.drop(ManagerFacts, cast.saga)
    return Now.DONE


def forward(_actor: ManagerPlayer, _turn: Turn, cast: Cast) -> Sequence[Say]:
    """The way on after the pivot; a dead host's row is passed over."""
    if cast.target not in cast.dead:
        return [Say(target=hypervisor(cast.target), body=Resume(), cast=cast)]
    if cast.source not in cast.dead:
        return [Say(target=hypervisor(cast.source), body=Forget(), cast=cast)]
    return [Say(target=MANAGER_ADDRESS, body=Close(), cast=cast)]


# -- close


def close_ready(_actor: ManagerPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Nothing of the saga is outstanding: a device with no slots away and nothing pending leaves the sharing table."""
    for device in cast.devices:
        shared = turn.get(Shared, device)
        if shared is None:
            continue
        relieved = shared.relieved(cast.saga)
        if relieved.empty:
            turn.drop(Shared, device)
        else:
            turn.put(relieved, device)
    return Now.DONE


def say_closed(_actor: ManagerPlayer, _turn: Turn, cast: Cast) -> Sequence[Say]:
    """Tell the opener that it may drop its record."""
    if cast.source in cast.dead:
        return []
    return [Say(target=hypervisor(cast.source), body=Closed(), cast=cast)]
