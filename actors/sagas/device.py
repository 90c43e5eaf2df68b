"""The arbiter's row of a migration: grant, and regrant (the compensating grant) as its undo."""

from collections.abc import Mapping, Sequence

import attrs

from actors.domain import ledger
from actors.domain.holdings import Holding, digest, joined
from actors.domain.ledger import Right
from actors.messages import Cast, Grant, Granted, Restored, hypervisor
from actors.runtime.actor import Say, Turn
from actors.runtime.saga import Now, Readiness, Refuse
from actors.sagas.players import DevicePlayer


@attrs.frozen(kw_only=True)
class DeviceFacts:
    """What the arbiter remembers of a saga beside its progress."""

    of: int = 0
    parts: Mapping[int, tuple[Holding, ...]] = attrs.field(factory=dict)
    generation: int = 0
    """in which the slots were granted; 0: not yet"""
    digest: str = ""


def facts_of(turn: Turn, saga: str) -> DeviceFacts:
    """What the arbiter knows of the saga so far."""
    return turn.get(DeviceFacts, saga) or DeviceFacts()


def rights(turn: Turn) -> dict[int, Right]:
    """The ledger as this turn left it."""
    return {int(generation): right for generation, right in turn.all(Right).items()}


def change(turn: Turn, changes: Mapping[int, Right | None]) -> None:
    """File what changed of the ledger."""
    for generation, right in changes.items():
        if right is None:
            turn.drop(Right, str(generation))
        else:
            turn.put(right, str(generation))


def take_grant(_actor: DevicePlayer, turn: Turn, cast: Cast, body: Grant) -> None:
    """Keep this chunk of what is asked."""
    facts = facts_of(turn, cast.saga)
    turn.put(attrs.evolve(facts, of=body.of, parts={**facts.parts, body.chunk: body.holdings}), cast.saga)


def grant_ready(actor: DevicePlayer, turn: Turn, cast: Cast) -> Readiness:
    """Compare and set: every slot passes from the source to the target in one new generation, or none does."""
    facts = facts_of(turn, cast.saga)
    if len(facts.parts) < facts.of:
        return Now.WAIT
    asked = joined(facts.parts.values())
    if any(holding.device != actor.device for holding in asked):
        return Refuse(f"device {actor.device} was asked for slots of another device")
    if not ledger.holds(rights(turn), cast.source, asked):
        return Refuse(f"device {actor.device}: {cast.source} does not own the slots that it wants to grant")
    generation = actor.next_generation(turn)
    change(turn, ledger.given(rights(turn), asked, cast.target, generation))
    turn.put(DeviceFacts(generation=generation, digest=digest(asked)), cast.saga)
    return Now.DONE


def say_granted(actor: DevicePlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Tell the source in which generation the target has them."""
    facts = facts_of(turn, cast.saga)
    body = Granted(device=actor.device, generation=facts.generation, digest=facts.digest)
    return [Say(target=hypervisor(cast.source), body=body, cast=cast)]


def regrant(actor: DevicePlayer, turn: Turn, cast: Cast, restored: tuple[Restored, ...]) -> tuple[Restored, ...]:
    """The compensating grant: what this saga granted goes back to the source, in a new generation."""
    facts = facts_of(turn, cast.saga)
    right = turn.get(Right, str(facts.generation))
    turn.drop(DeviceFacts, cast.saga)
    if right is None or right.owner != cast.target:
        return restored
    held = Holding(device=actor.device, generation=facts.generation, slots=right.slots)
    generation = actor.next_generation(turn)
    change(turn, ledger.given(rights(turn), [held], cast.source, generation))
    return (*restored, Restored(device=actor.device, generation=generation, digest=facts.digest))
