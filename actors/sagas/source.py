"""The source's rows of a migration: open, freeze, hand over, forget, and thaw as their undo."""

from collections.abc import Sequence

import attrs

from actors import requests
from actors.domain import hosting
from actors.domain.holdings import by_device, digest, pieces
from actors.domain.hosting import Instance, SourceFacts, need, want
from actors.domain.lifecycle import Level, State
from actors.errors import Defect
from actors.messages import (
    MANAGER,
    Cast,
    Close,
    Forget,
    Freeze,
    Grant,
    Granted,
    Prepare,
    Register,
    Restored,
    hypervisor,
    swap_device,
)
from actors.runtime.actor import Say, Turn
from actors.runtime.saga import Now, Readiness, Refuse
from actors.sagas.players import HostPlayer


def facts_of(turn: Turn, saga: str) -> SourceFacts:
    """What the source knows of its saga. Raises `Defect` where there is none."""
    found = turn.get(SourceFacts, saga)
    if found is None:
        raise Defect(f"saga {saga}: the source has no facts of it")
    return found


# -- open


def say_register(_actor: HostPlayer, _turn: Turn, cast: Cast) -> Sequence[Say]:
    """Ask the manager to lock the placement."""
    return [Say(target=MANAGER, body=Register(), cast=cast)]


# -- freeze, in three transactions (PROTOCOL 13.4): told to halt; halted; the list stored and the grants asked for


def take_freeze(_actor: HostPlayer, turn: Turn, cast: Cast, body: Freeze) -> None:
    """Keep where the pages are awaited, and tell the machine to stand still."""
    turn.put(attrs.evolve(facts_of(turn, cast.saga), endpoint=body.endpoint), cast.saga)
    instance = need(turn, cast.instance)
    if instance.state is State.LEAVING and not instance.lost:
        want(turn, hosting.move(instance, State.FREEZING), Level.FROZEN)


def freeze_ready(_actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Done when the machine stands still and the list of its slots is stored; then the pages may go."""
    instance = need(turn, cast.instance)
    if instance.lost:
        return Refuse(f"{cast.vm} died at {cast.source}: {instance.failed}")
    if not facts_of(turn, cast.saga).halted:
        return Now.WAIT
    want(turn, hosting.move(instance, State.FROZEN), Level.SENT)
    return Now.DONE


def ask_grants(_actor: HostPlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Ask each device that has not answered; where nothing is swapped out, go on at once."""
    facts = facts_of(turn, cast.saga)
    says = []
    for device in by_device(facts.grants):
        if device in facts.granted:
            continue
        parts = pieces(holding for holding in facts.grants if holding.device == device)
        for chunk, part in enumerate(parts):
            body = Grant(chunk=chunk, of=len(parts), holdings=part)
            says.append(Say(target=swap_device(device), body=body, cast=cast))
    if says:
        return says
    return [Say(target=hypervisor(cast.source), body=Granted(device="", generation=0, digest=""), cast=cast)]


# -- hand over


def take_granted(_actor: HostPlayer, turn: Turn, cast: Cast, body: Granted) -> None:
    """Keep what a device granted, if it is what was asked for."""
    facts = facts_of(turn, cast.saga)
    asked = digest(holding for holding in facts.grants if holding.device == body.device)
    if not body.device:
        return
    if body.digest != asked:
        raise Defect(f"saga {cast.saga}: {body.device} granted {body.digest}, asked was {asked}")
    turn.put(attrs.evolve(facts, granted={**facts.granted, body.device: body}), cast.saga)


def hand_over_ready(_actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Done when every device has granted and the data channel has delivered everything."""
    facts, instance = facts_of(turn, cast.saga), need(turn, cast.instance)
    if instance.lost or instance.failed:
        return Refuse(f"{cast.vm} could not be sent to {cast.target}: {instance.failed}")
    if set(facts.granted) != set(by_device(facts.grants)) or facts.manifest is None:
        return Now.WAIT
    granted = sum(len(holding.slots) for holding in facts.grants)
    if facts.manifest.pages_granted != granted:
        return Refuse(f"{cast.vm} was halted with {granted} slots to grant, and sent with {facts.manifest.pages_granted}")
    return Now.DONE


def say_prepare(_actor: HostPlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Tell the target what was sent and which slots are its own now."""
    facts = facts_of(turn, cast.saga)
    assert facts.manifest is not None, "hand over is done only with a manifest"
    granted = [attrs.evolve(one, generation=facts.granted[one.device].generation) for one in facts.grants]
    parts = pieces(granted)
    return [
        Say(
            target=hypervisor(cast.target),
            body=Prepare(chunk=chunk, of=len(parts), manifest=facts.manifest, holdings=part),
            cast=cast,
        )
        for chunk, part in enumerate(parts)
    ]


# -- thaw: the undo of open, freeze and hand over


def thaw(_actor: HostPlayer, turn: Turn, cast: Cast, restored: tuple[Restored, ...]) -> tuple[Restored, ...]:
    """The slots are back in new generations; the guest runs on as it was."""
    instance = turn.get(Instance, cast.instance)
    facts = turn.get(SourceFacts, cast.saga)
    if instance is None or facts is None:
        return restored
    for one in restored:
        _take_back(turn, facts, one)
    halting = instance.state in (State.FREEZING, State.FROZEN)
    running = attrs.evolve(hosting.move(instance, State.RUNNING), leaving_by="")
    turn.put(running, running.id)
    if running.lost:
        want(turn, attrs.evolve(running, lost=False), Level.BOOTED)
    elif halting:
        want(turn, running, Level.RUNNING)
    return restored


def _take_back(turn: Turn, facts: SourceFacts, restored: Restored) -> None:
    held = [holding for holding in facts.grants if holding.device == restored.device]
    if digest(held) != restored.digest:
        raise Defect(f"{restored.device} restored {restored.digest}, granted was {digest(held)}")
    for holding in held:
        owned = turn.get(hosting.Owned, holding.key)
        if owned is not None:
            hosting.put_owned(turn, holding.device, holding.generation, owned.slots - holding.slots)
    hosting.put_owned(turn, restored.device, restored.generation, by_device(held)[restored.device])


# -- forget


def take_forget(_actor: HostPlayer, turn: Turn, cast: Cast, _body: Forget) -> None:
    """The VM runs at the target; tell the machine here to go."""
    instance = turn.get(Instance, cast.instance)
    if instance is not None and instance.state is not State.ENDING:
        want(turn, hosting.move(instance, State.ENDING), Level.GONE)


def forget_ready(actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Done when the machine is gone: granted slots are lent from now on, all others are free again."""
    if turn.get(Instance, cast.instance) is not None:
        return Now.WAIT
    facts = facts_of(turn, cast.saga)
    for holding in facts.grants:
        hosting.lose(turn, actor.facts, holding, facts.granted[holding.device].generation)
    turn.timer("housekeeping", hosting.HOUSEKEEPING_S)
    return Now.DONE


def say_close(_actor: HostPlayer, _turn: Turn, cast: Cast) -> Sequence[Say]:
    """Nothing is outstanding here."""
    return [Say(target=MANAGER, body=Close(), cast=cast)]


# -- closed


def closed_ready(_actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Remember for the users how it ended, then drop the saga's record."""
    requests.end_saga(turn, cast)
    return Now.DONE
