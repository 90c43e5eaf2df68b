"""The target's rows of a migration: welcome, prepare, resume, and discard as their undo."""

from collections.abc import Sequence

import attrs

from actors.domain import hosting
from actors.domain.holdings import by_device, pieces
from actors.domain.hosting import Armed, Brought, Instance, TargetFacts, instance_id, need, want
from actors.domain.lifecycle import Level, State
from actors.errors import Defect
from actors.messages import MANAGER, Cast, Close, Commit, Forget, Freeze, Prepare, Restored, Resume, Welcome, hypervisor
from actors.runtime.actor import Say, Turn
from actors.runtime.saga import Now, Readiness, Refuse
from actors.sagas.abort import abort
from actors.sagas.players import HostPlayer


def name_of(cast: Cast) -> str:
    """The target instance of this saga."""
    return instance_id(cast.vm, cast.target, cast.saga)


def facts_of(turn: Turn, saga: str) -> TargetFacts:
    """What the target knows of the saga so far."""
    return turn.get(TargetFacts, saga) or TargetFacts()


# -- welcome: before anything is halted, so that the target's start-up is not part of the downtime


def take_welcome(_actor: HostPlayer, turn: Turn, cast: Cast, body: Welcome) -> None:
    """Keep what is to be hosted."""
    turn.put(attrs.evolve(facts_of(turn, cast.saga), definition=body.definition), cast.saga)


def welcome_ready(actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Reserve room and stage an empty instance; done when its machine waits and its listener is open."""
    instance = turn.get(Instance, name_of(cast))
    if instance is None:
        return _reserve(actor, turn, cast)
    if instance.failed or instance.lost:
        return Refuse(f"{cast.target} could not stage {cast.vm}: {instance.failed}")
    if instance.wanted is not Level.STAGED or not instance.reached:
        return Now.WAIT
    return Now.DONE


def _reserve(actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    definition = facts_of(turn, cast.saga).definition
    assert definition is not None, "welcome is taken before it is judged"
    reach = turn.get(hosting.Reach)
    missing = sorted(device for device in cast.devices if reach is None or device not in reach.devices)
    if missing:
        return Refuse(f"{cast.target} does not reach device {', '.join(missing)}")
    problem = hosting.room_problem(turn, actor.facts, definition)
    if problem:
        return Refuse(problem)
    armed = hosting.arm(turn, actor.facts, definition)
    assert armed is not None, "room was checked"
    name = name_of(cast)
    staged = Instance(
        id=name, vm=cast.vm, epoch=cast.epoch + 1, definition=definition, state=State.STAGED,
        wanted=Level.STAGED, revision=0, brought_by=cast.saga,
        clean_pages_per_s=actor.facts.clean_pages_per_s,
    )  # fmt: skip
    turn.put(Armed(slots=armed), name)
    want(turn, staged, Level.STAGED)
    return Now.WAIT


def say_freeze(_actor: HostPlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Give the source, and nobody else, the way in."""
    endpoint = facts_of(turn, cast.saga).endpoint
    if endpoint is None:
        raise Defect(f"saga {cast.saga}: welcomed without an endpoint")
    return [Say(target=hypervisor(cast.source), body=Freeze(endpoint=endpoint), cast=cast)]


# -- prepare


def take_prepare(_actor: HostPlayer, turn: Turn, cast: Cast, body: Prepare) -> None:
    """Keep this chunk of what was granted, and what the data channel must have delivered."""
    facts = facts_of(turn, cast.saga)
    parts = {**facts.parts, body.chunk: body.holdings}
    turn.put(attrs.evolve(facts, parts=parts, of=body.of, manifest=body.manifest), cast.saga)


def prepare_ready(_actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Done when every chunk is here and the machine has loaded exactly what the manifest says."""
    facts, instance = facts_of(turn, cast.saga), need(turn, name_of(cast))
    if instance.failed or instance.lost:
        return Refuse(f"{cast.target} could not take over {cast.vm}: {instance.failed}")
    if len(facts.parts) < facts.of:
        return Now.WAIT
    if instance.wanted is Level.STAGED:
        for holding in facts.holdings:
            hosting.gain(turn, holding)
        turn.put(Brought(slots=by_device(facts.holdings)), instance.id)
        want(turn, instance, Level.LOADED)
        return Now.WAIT
    return Now.DONE if instance.wanted is Level.LOADED and instance.reached else Now.WAIT


def ask_commit(_actor: HostPlayer, turn: Turn, cast: Cast) -> Sequence[Say]:
    """Everything is here: let the VM be placed here. An instance that died meanwhile is not offered any more."""
    instance = need(turn, name_of(cast))
    if instance.lost:
        return [abort(cast, f"{cast.vm} died at {cast.target} before the commit: {instance.failed}")]
    parts = pieces(facts_of(turn, cast.saga).holdings)
    return [
        Say(target=MANAGER, body=Commit(chunk=chunk, of=len(parts), holdings=part), cast=cast) for chunk, part in enumerate(parts)
    ]


# -- discard: the undo of welcome and prepare


def discard(actor: HostPlayer, turn: Turn, cast: Cast, restored: tuple[Restored, ...]) -> tuple[Restored, ...]:
    """Let the staged machine go and hold nothing of it; a staged instance never ran."""
    facts = turn.get(TargetFacts, cast.saga)
    for holding in facts.holdings if facts else ():
        hosting.lose(turn, actor.facts, holding, holding.generation)
    turn.drop(TargetFacts, cast.saga)
    instance = turn.get(Instance, name_of(cast))
    if instance is not None and instance.state is State.STAGED:
        turn.drop(Brought, instance.id)
        want(turn, hosting.move(instance, State.ENDING), Level.GONE)
    return restored


# -- resume


def take_resume(_actor: HostPlayer, turn: Turn, cast: Cast, _body: Resume) -> None:
    """The VM is placed here: run it. Without its memory it boots, as after any power failure."""
    instance = need(turn, name_of(cast))
    if instance.state is State.STAGED:
        level = Level.BOOTED if instance.lost else Level.RUNNING
        want(turn, attrs.evolve(hosting.move(instance, State.RUNNING), lost=False), level)


def resume_ready(_actor: HostPlayer, turn: Turn, cast: Cast) -> Readiness:
    """Done when the machine runs."""
    instance = turn.get(Instance, name_of(cast))
    if instance is not None and instance.wanted in (Level.RUNNING, Level.BOOTED) and not instance.reached:
        return Now.WAIT
    turn.drop(TargetFacts, cast.saga)
    turn.timer("housekeeping", hosting.HOUSEKEEPING_S)
    return Now.DONE


def say_forget(_actor: HostPlayer, _turn: Turn, cast: Cast) -> Sequence[Say]:
    """It runs here; the source may drop its own. A dead source is passed over."""
    if cast.source in cast.dead:
        return [Say(target=MANAGER, body=Close(), cast=cast)]
    return [Say(target=hypervisor(cast.source), body=Forget(), cast=cast)]
