"""Before a saga: what a user's wish to move a VM needs until row *open* can be played.

The source looks at its own devices and asks the target what it reaches and has room for; nothing is recorded at the target.
What is believed here may be stale a moment later: row *welcome* checks again and reserves (PROTOCOL 13.2).
"""

import attrs

from actors import requests
from actors.domain import hosting
from actors.domain.hosting import Counters, HostFacts, Instance, Reach, SourceFacts
from actors.domain.lifecycle import Outcome, State
from actors.messages import MANAGER, Cast, Enquire, Migrate, Offer, Reached, Register, hypervisor
from actors.requests import Request
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress

ASK_FIRST_S = 1.0
ENQUIRIES_MAX = 12
"""a target that does not answer so many enquiries is not there"""


@attrs.frozen(kw_only=True)
class Enquiry:
    """Somebody wants to know what this host reaches and has room for; answered when the devices were looked at."""

    request: str
    source: str


def migrate(facts: HostFacts, turn: Turn, body: Migrate) -> None:
    """A user wants a VM moved: refuse at once what cannot be, else ask the target."""
    known = turn.get(Request, body.request)
    if known is not None:
        requests.answer(turn, requests.ask_again(turn, known, body.reply_to))
        return
    request = requests.open_request(turn, body.request, body.vm, body.reply_to, body.target)
    instance = hosting.instance_of(turn, body.vm)
    problem = _leave_problem(facts, instance, request)
    if problem:
        requests.end(turn, request, Outcome.REFUSED, problem)
        return
    turn.say(hypervisor(body.target), Enquire(request=body.request))
    turn.timer(f"enquire:{body.request}", ASK_FIRST_S)


def _leave_problem(facts: HostFacts, instance: Instance | None, request: Request) -> str:
    """Why this instance cannot leave now; empty where it can. A machine that is not yet what it was told to be would be
    told two things at once."""
    vm = request.vm
    if instance is None:
        return f"{vm} does not run on {facts.host}"
    hindrances = (
        (request.target == facts.host, f"{vm} runs on {facts.host} already"),
        (instance.state is not State.RUNNING, f"{vm} is already migrating in saga {instance.leaving_by}"),
        (instance.lost, f"{vm} has died: {instance.failed}"),
        (bool(instance.stalled), f"{vm} is held: {instance.stalled}"),
        (not instance.reached, f"{vm} is still starting"),
    )
    return next((sentence for hinders, sentence in hindrances if hinders), "")


def enquire(turn: Turn, body: Enquire) -> None:
    """Somebody wants to know what this host reaches: look first."""
    turn.put(Enquiry(request=body.request, source=turn.heard.source), body.request)


def reached(facts: HostFacts, turn: Turn, body: Reached) -> None:
    """The devices were looked at: answer who asked, and go on with what this host itself wanted to know."""
    turn.put(Reach(devices=body.devices, problems=body.problems))
    slots = sum(len(one) for one in hosting.free_slots(turn, facts).values())
    for key, enquiry in turn.all(Enquiry).items():
        room = hosting.memory_free(turn, facts)
        turn.say(
            enquiry.source,
            Offer(request=enquiry.request, reached=dict(body.devices), memory_bytes=max(0, room), slots=slots),
        )
        turn.drop(Enquiry, key)
    for request in turn.all(Request).values():
        if request.enquiring and not request.probed:
            turn.put(attrs.evolve(request, probed=True), request.request)
            _consider(facts, turn, request.request)


def offer(facts: HostFacts, turn: Turn, body: Offer) -> None:
    """The target answered."""
    request = turn.get(Request, body.request)
    if request is None or not request.enquiring:
        return
    turn.put(
        attrs.evolve(
            request,
            offer_reached=dict(body.reached),
            offer_memory_bytes=body.memory_bytes,
            offer_slots=body.slots,
        ),
        body.request,
    )
    _consider(facts, turn, body.request)


def enquire_again(turn: Turn, name: str, count: int) -> None:
    """The target has not answered yet."""
    request = turn.get(Request, name)
    if request is None or not request.enquiring:
        return
    if count >= ENQUIRIES_MAX:
        reason = f"{request.target} does not answer (asked {count} times); is its node up?"
        requests.end(turn, request, Outcome.REFUSED, reason)
        return
    turn.say(hypervisor(request.target), Enquire(request=name))
    turn.put(request, name)
    turn.timer(f"enquire:{name}", ASK_FIRST_S)


def _consider(facts: HostFacts, turn: Turn, name: str) -> None:
    """Open the saga, or refuse, once both hosts have looked at their devices."""
    request, reach = turn.get(Request, name), turn.get(Reach)
    if request is None or request.offer_reached is None or not request.probed or reach is None:
        return
    turn.timer(f"enquire:{name}", None)
    instance = hosting.instance_of(turn, request.vm)
    problem = _leave_problem(facts, instance, request) or _offer_problem(facts, turn, request, instance)
    if problem or instance is None:
        requests.end(turn, request, Outcome.REFUSED, problem)
        return
    used = hosting.used_devices(turn, instance.id)
    offered = request.offer_reached
    devices = tuple(sorted(name for name in used if offered.get(name) == facts.uuids[name]))
    _open(facts, turn, request, instance, devices)


def _offer_problem(facts: HostFacts, turn: Turn, request: Request, instance: Instance | None) -> str:
    """Why the target cannot take it, by its own offer, or why this host cannot give it; empty where both can."""
    reach = turn.get(Reach)
    assert instance is not None, "checked before"
    assert reach is not None, "checked before"
    lost = sorted(hosting.used_devices(turn, instance.id) - set(reach.devices))
    if lost:
        return f"device {lost[0]} of {request.vm} is lost at {facts.host}: {reach.problems.get(lost[0], 'not configured')}"
    needed = instance.definition.resident_bytes
    if request.offer_memory_bytes < needed:
        return (
            f"no room at {request.target}: {request.vm} needs {needed >> 20} MiB of memory, "
            f"{request.offer_memory_bytes >> 20} MiB are free"
        )
    slots = hosting.slots_needed(instance.definition)
    if request.offer_slots < slots:
        return f"no room at {request.target}: {request.vm} needs {slots} swap slots, {request.offer_slots} are free"
    return ""


def _open(facts: HostFacts, turn: Turn, request: Request, instance: Instance, devices: tuple[str, ...]) -> None:
    """Row open: the guest runs on, and nobody opens a second saga on it."""
    counters = turn.get(Counters) or Counters()
    number = counters.sagas + 1
    turn.put(attrs.evolve(counters, sagas=number))
    host = facts.host
    open_numbers = [one.cast.number for one in turn.all(Progress).values() if one.cast.opener == host]
    cast = Cast(
        saga=f"{host}-{number}", opener=host, number=number, floor=min([*open_numbers, number]), vm=instance.vm,
        epoch=instance.epoch, instance=instance.id, source=host, target=request.target, devices=devices,
    )  # fmt: skip
    turn.put(attrs.evolve(request, saga=cast.saga), request.request)
    turn.put(attrs.evolve(hosting.move(instance, State.LEAVING), leaving_by=cast.saga), instance.id)
    turn.put(SourceFacts(reply_to=request.reply_to), cast.saga)
    turn.put(Progress(cast=cast, row=0, begun=0), cast.saga)
    turn.event("row_done", saga=cast.saga, vm=cast.vm, row="open", role="source", epoch=cast.epoch)
    turn.timer(f"ask:{cast.saga}", ASK_FIRST_S)
    turn.say(MANAGER, Register(), cast=cast, row="open")
