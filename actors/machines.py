"""What machines report, and how sagas, users and placements go on from it.

A report names the revision that it answers; an older one changes nothing. What a machine has not reported it is told again.
"""

import attrs

from actors.domain import hosting
from actors.domain.holdings import cut
from actors.domain.hosting import Armed, Brought, HostFacts, Instance, Owned, SourceFacts, TargetFacts, Told, want
from actors.domain.lifecycle import Level, Outcome, State
from actors.errors import Defect
from actors.messages import MANAGER, Boot, Booted, Clean, Noticed, Report, Verdict, Wanted
from actors.runtime.actor import Record, Turn
from actors.runtime.saga import Progress


def report(turn: Turn, body: Report) -> tuple[str, ...]:
    """File what a machine reached, or why it cannot. Returns the sagas that may go on from it."""
    instance = turn.get(Instance, body.instance)
    if instance is None or body.revision != instance.revision or instance.reached:
        return ()
    if body.failed:
        if body.failed != instance.failed:  # else telling it again is the timer's, or the machine would fail in a loop
            turn.event("machine_failed", vm=instance.vm, instance=instance.id, level=str(body.level), reason=body.failed)
            turn.put(attrs.evolve(instance, failed=body.failed), instance.id)
        if _never_ran(instance):
            _give_up(turn, instance, body.failed)
    else:
        instance = attrs.evolve(instance, reported=body.revision, failed=instance.failed if instance.lost else "")
        turn.put(instance, instance.id)
        turn.event("machine", vm=instance.vm, instance=instance.id, level=str(body.level), saga=instance.leaving_by)
        _keep_report(turn, instance, body)
        booted(turn, instance)
        _refused(turn, instance)
    return (instance.leaving_by, instance.brought_by)


def _keep_report(turn: Turn, instance: Instance, body: Report) -> None:
    """File what a machine brought with the level it reached."""
    leaving, coming = turn.get(SourceFacts, instance.leaving_by), turn.get(TargetFacts, instance.brought_by)
    if body.level is Level.STAGED and coming is not None:
        turn.put(attrs.evolve(coming, endpoint=body.endpoint), instance.brought_by)
    elif body.level is Level.FROZEN and leaving is not None:
        cast = (turn.get(Progress, instance.leaving_by) or _missing(instance.leaving_by)).cast
        near = {device: slots for device, slots in body.swapped.items() if device in cast.devices}
        grants = cut(turn.all(Owned).values(), near)
        turn.put(attrs.evolve(leaving, grants=grants, halted=True), instance.leaving_by)
    elif body.level is Level.SENT and leaving is not None:
        turn.put(attrs.evolve(leaving, manifest=body.manifest), instance.leaving_by)
    elif body.level is Level.GONE:
        for kind in (Instance, Armed, Brought):
            turn.drop(kind, instance.id)
        turn.timer("housekeeping", hosting.HOUSEKEEPING_S)


def levels_again(turn: Turn, count: int) -> None:
    """Machines that have not reported are told again."""
    late = [one for one in turn.all(Instance).values() if not one.reached]
    for instance in late:
        turn.put(instance, instance.id)
        if count >= 3:
            turn.event(
                "machine_waits", vm=instance.vm, instance=instance.id, level=str(instance.wanted),
                told=count, reason=instance.failed, saga=instance.leaving_by or instance.brought_by,
            )  # fmt: skip
    if late:
        turn.timer("levels", min(5.0, float(count)))


def noticed(turn: Turn, body: Noticed) -> tuple[str, ...]:
    """File what happened to a machine unasked. Returns the sagas that may go on from it."""
    instance = turn.get(Instance, body.instance)
    if instance is None:
        return ()
    if body.what == "died":
        return _died(turn, instance, body)
    stalled = body.sentence if body.what == "stalled" else ""
    if stalled != instance.stalled:
        turn.event(f"machine_{body.what}", vm=instance.vm, instance=instance.id, reason=body.sentence)
        turn.put(attrs.evolve(instance, stalled=stalled), instance.id)
    return ()


def _died(turn: Turn, instance: Instance, body: Noticed) -> tuple[str, ...]:
    """A machine ended by itself, and the guest's memory with it. Where the VM is placed here it boots anew, as after a
    power failure; a saga before its pivot is undone first, and decides then."""
    if body.revision < instance.born or instance.lost or instance.state is State.ENDING:
        return ()
    turn.event("machine_died", vm=instance.vm, instance=instance.id, reason=body.sentence)
    if instance.state is State.RUNNING:
        want(turn, attrs.evolve(instance, stalled=""), Level.BOOTED)
        turn.drop(Brought, instance.id)
        turn.timer("housekeeping", hosting.HOUSEKEEPING_S)
        return (instance.brought_by,)
    turn.put(attrs.evolve(instance, lost=True, failed=body.sentence), instance.id)
    return (instance.leaving_by, instance.brought_by)


def boot(facts: HostFacts, turn: Turn, body: Boot) -> None:
    """Start a VM that the manager placed here, or say why not."""
    name = hosting.instance_id(body.vm, facts.host, f"boot-{body.epoch}")
    instance = turn.get(Instance, name)
    if instance is not None:
        booted(turn, instance)
        return
    told = turn.get(Told, body.vm)
    if told is not None and body.epoch <= told.epoch:
        turn.say(MANAGER, Booted(vm=body.vm, epoch=body.epoch, refused=told.refused))
        return
    problem = hosting.room_problem(turn, facts, body.definition)
    turn.put(Told(epoch=body.epoch, refused=problem), body.vm)
    if problem:
        turn.say(MANAGER, Booted(vm=body.vm, epoch=body.epoch, refused=problem))
        return
    armed = hosting.arm(turn, facts, body.definition) or {}
    turn.put(Armed(slots=armed), name)
    fresh = Instance(
        id=name, vm=body.vm, epoch=body.epoch, definition=body.definition, state=State.RUNNING,
        wanted=Level.BOOTED, revision=0, clean_pages_per_s=facts.clean_pages_per_s,
    )  # fmt: skip
    want(turn, fresh, Level.BOOTED)


def booted(turn: Turn, instance: Instance) -> None:
    """Tell the manager that a placed VM runs."""
    if instance.wanted is Level.BOOTED and not instance.brought_by and instance.reached:
        turn.say(MANAGER, Booted(vm=instance.vm, epoch=instance.epoch))


def _never_ran(instance: Instance) -> bool:
    is_first = instance.wanted is Level.BOOTED and not instance.brought_by and instance.reported == 0
    return is_first and instance.state is State.RUNNING


def _give_up(turn: Turn, instance: Instance, reason: str) -> None:
    """A VM that could not be started here may be placed elsewhere: not before nothing of it can start here any more."""
    turn.put(Told(epoch=instance.epoch, refused=reason), instance.vm)
    want(turn, hosting.move(instance, State.ENDING), Level.GONE)


def _refused(turn: Turn, instance: Instance) -> None:
    """Tell the manager that a placed VM could not be started, once its machine is gone."""
    told = turn.get(Told, instance.vm)
    if instance.wanted is Level.GONE and told is not None and told.epoch == instance.epoch and told.refused:
        turn.say(MANAGER, Booted(vm=instance.vm, epoch=instance.epoch, refused=told.refused))


def clean(turn: Turn, body: Clean) -> None:
    """A user wants a VM's granted slots copied home, faster, slower, or not now."""
    instance = hosting.instance_of(turn, body.vm)
    if instance is None:
        verdict = Verdict(request=body.request, vm=body.vm, outcome=Outcome.REFUSED, reason=f"{body.vm} does not run here")
    else:
        turn.put(attrs.evolve(instance, clean_pages_per_s=body.pages_per_s), instance.id)
        how = f"is cleaned up at {body.pages_per_s} pages/s" if body.pages_per_s else "is not cleaned up for now"
        verdict = Verdict(request=body.request, vm=body.vm, outcome=Outcome.DONE, reason=f"{body.vm} {how}")
    turn.say(body.reply_to, verdict)


def _missing(saga: str) -> Progress:
    raise Defect(f"saga {saga} has facts but no progress")


def wanted_of(record: Record, instance: Instance) -> Wanted:
    """What an instance is told: a function of the record, so it can be told again at any time."""
    armed = record.get(Armed, instance.id)
    leaving, coming = record.get(SourceFacts, instance.leaving_by), record.get(TargetFacts, instance.brought_by)
    progress = record.get(Progress, instance.leaving_by)
    brought = record.get(Brought, instance.id)
    return Wanted(
        revision=instance.revision,
        level=instance.wanted,
        definition=instance.definition,
        armed=armed.slots if armed else {},
        endpoint=leaving.endpoint if leaving else None,
        near=frozenset(progress.cast.devices) if progress else frozenset(),
        manifest=coming.manifest if coming else None,
        granted=brought.slots if brought else {},
        clean_pages_per_s=instance.clean_pages_per_s,
    )
