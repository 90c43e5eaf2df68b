"""What users asked of a hypervisor, and how it ended. Asking twice with one request id is asking once (PROTOCOL 12)."""

from collections.abc import Mapping

import attrs

from actors.domain import hosting
from actors.domain.hosting import Counters, HostFacts, SourceFacts
from actors.domain.lifecycle import Outcome
from actors.messages import Cancel, Cast, Verdict
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress
from actors.sagas.abort import abort

REMEMBERED_MAX = 512
"""ended requests that are answered again from the record; older ones are forgotten"""


@attrs.frozen(kw_only=True)
class Request:
    """A user's wish: to move a VM, or to cancel its move."""

    request: str
    vm: str
    reply_to: str
    target: str = ""
    """where to; empty: this is a cancel"""
    order: int = 0
    saga: str = ""
    """the saga that serves it, once there is one"""
    offer_reached: Mapping[str, str] | None = None
    offer_memory_bytes: int = 0
    offer_slots: int = 0
    probed: bool = False
    """this host's own reach was read since the request came"""
    ending: Outcome | None = None
    """how the saga ended; the verdict waits until the guest runs again"""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def enquiring(self) -> bool:
        """True while the target has been asked and no saga is open."""
        return bool(self.target) and not self.saga and self.outcome is None


def answer(turn: Turn, request: Request) -> None:
    """Tell the user how it ended, if it did."""
    if request.outcome is not None:
        body = Verdict(request=request.request, vm=request.vm, outcome=request.outcome, reason=request.reason, saga=request.saga)
        turn.say(request.reply_to, body)


def ask_again(turn: Turn, request: Request, reply_to: str) -> Request:
    """The same wish again, perhaps from another address: the answer goes to where it was asked last."""
    again = attrs.evolve(request, reply_to=reply_to)
    if again != request:
        turn.put(again, request.request)
    return again


def end(turn: Turn, request: Request, outcome: Outcome, reason: str) -> None:
    """Record how a request ended, tell the user, and forget the oldest of those that ended long ago."""
    ended = attrs.evolve(request, outcome=outcome, reason=reason)
    turn.put(ended, request.request)
    turn.event("verdict", request=request.request, vm=request.vm, outcome=str(outcome), reason=reason, saga=request.saga)
    answer(turn, ended)
    over = sorted((one.order, key) for key, one in turn.all(Request).items() if one.outcome is not None)
    for _, key in over[: max(0, len(over) - REMEMBERED_MAX)]:
        turn.drop(Request, key)


def open_request(turn: Turn, name: str, vm: str, reply_to: str, target: str = "") -> Request:
    """Note that somebody asked."""
    counters = turn.get(Counters) or Counters()
    turn.put(attrs.evolve(counters, requests=counters.requests + 1))
    request = Request(request=name, vm=vm, reply_to=reply_to, target=target, order=counters.requests)
    turn.put(request, name)
    return request


def cancel(facts: HostFacts, turn: Turn, body: Cancel) -> None:
    """A user wants a move undone: ask for it if there is one, else say how things are."""
    known = turn.get(Request, body.request)
    if known is not None:
        cancel_again(turn, ask_again(turn, known, body.reply_to))
        return
    request = open_request(turn, body.request, body.vm, body.reply_to)
    enquiring = [one for one in turn.all(Request).values() if one.vm == body.vm and one.enquiring]
    mine = [one for one in turn.all(Progress).values() if one.cast.vm == body.vm and one.cast.opener == facts.host]
    instance = hosting.instance_of(turn, body.vm)
    if mine:
        request = attrs.evolve(request, saga=mine[-1].cast.saga)
        turn.put(request, request.request)
        cancel_again(turn, request)
    elif enquiring:
        for one in enquiring:
            end(turn, one, Outcome.UNDONE, "cancelled before it began")
            turn.timer(f"enquire:{one.request}", None)
        end(turn, request, Outcome.UNDONE, "cancelled before it began")
    elif instance is not None and instance.brought_by and not instance.leaving_by:
        reason = f"the last migration of {body.vm} (saga {instance.brought_by}) is done; it runs on {facts.host}"
        end(turn, request, Outcome.ALREADY_DONE, reason)
    else:
        end(turn, request, Outcome.REFUSED, f"{body.vm} is not migrating")


def cancel_again(turn: Turn, request: Request) -> None:
    """Ask the keeper of the pivot to undo; the verdict comes when the saga has ended."""
    progress = turn.get(Progress, request.saga) if request.saga else None
    if progress is not None and request.outcome is None:
        say = abort(progress.cast, "cancelled by the user")
        turn.say(say.target, say.body, cast=say.cast, row="cancel")
    answer(turn, request)


def end_saga(turn: Turn, cast: Cast) -> None:
    """The saga is closed: drop its record, and let the users know."""
    progress = turn.get(Progress, cast.saga)
    if progress is None:
        return
    ending = Outcome.UNDONE if progress.undone else Outcome.DONE
    for request in turn.all(Request).values():
        if request.saga == cast.saga and request.outcome is None:
            turn.put(attrs.evolve(request, ending=ending, reason=progress.reason), request.request)
    turn.drop(Progress, cast.saga)
    turn.drop(SourceFacts, cast.saga)
    turn.timer(f"ask:{cast.saga}", None)
    settle(turn)


def settle(turn: Turn) -> None:
    """Give the verdicts that are due. "Undone" is said when the guest runs again."""
    for request in turn.all(Request).values():
        if request.ending is None or request.outcome is not None:
            continue
        instance = hosting.instance_of(turn, request.vm)
        if request.ending is Outcome.UNDONE and instance is not None and not instance.reached:
            continue
        if request.target:
            reason = request.reason or f"{request.vm} runs on {request.target}"
            end(turn, request, request.ending, reason)
        else:
            done = request.ending is Outcome.DONE
            outcome = Outcome.ALREADY_DONE if done else Outcome.UNDONE
            reason = "it had committed before the cancel came" if done else request.reason
            end(turn, request, outcome, reason)
