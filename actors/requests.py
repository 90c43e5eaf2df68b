"""What users asked of a hypervisor, and how it ended. Asking twice with one request id is asking once (PROTOCOL 12)."""

import attrs

from actors.domain.lifecycle import Outcome
from actors.messages import Verdict
from actors.runtime.actor import Turn

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
    offer_reached: dict[str, str] | None = None
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
        body = Verdict(
            request=request.request, vm=request.vm, outcome=request.outcome, reason=request.reason, saga=request.saga
        )
        turn.say(request.reply_to, body)


def end(turn: Turn, request: Request, outcome: Outcome, reason: str) -> None:
    """Record how a request ended, tell the user, and forget the oldest of those that ended long ago."""
    ended = attrs.evolve(request, outcome=outcome, reason=reason)
    turn.put(ended, request.request)
    turn.event("verdict", request=request.request, vm=request.vm, outcome=str(outcome), reason=reason, saga=request.saga)
    answer(turn, ended)
    over = sorted((one.order, key) for key, one in turn.all(Request).items() if one.outcome is not None)
    for _, key in over[: max(0, len(over) - REMEMBERED_MAX)]:
        turn.drop(Request, key)
