"""The resource manager: keeps placements and the sharing table, and plays the pivot.

Users ask it, because it knows where a VM is; a request goes to the same host every time it is asked.
"""

from collections.abc import Callable, Mapping

import attrs

from actors import fencing
from actors.domain.lifecycle import Outcome
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.errors import Defect
from actors.fencing import DeadHost
from actors.messages import (
    MANAGER,
    Abort,
    Boot,
    Booted,
    Cancel,
    Cast,
    Clean,
    Close,
    Commit,
    Dead,
    Define,
    Fenced,
    Inspect,
    Inspected,
    Migrate,
    Regained,
    Register,
    Surveyed,
    Unshare,
    Verdict,
    hypervisor,
)
from actors.runtime.actor import Actor, Tick, Turn
from actors.runtime.saga import Floor, Progress
from actors.sagas import cleanup
from actors.sagas.manager import ManagerFacts
from actors.sagas.migration import MIGRATION

ASKED_MAX = 1024
"""requests whose host is remembered"""


@attrs.frozen(kw_only=True)
class Asked:
    """Which host a user's request was passed on to."""

    host: str
    order: int


@attrs.frozen(kw_only=True)
class Starting:
    """Who waits for a VM to start."""

    request: str
    reply_to: str


class ResourceManager(Actor):
    """One per cluster. `homes` names the home of each device, `hosts` all hosts."""

    address = MANAGER
    kinds = (Placement, Shared, Asked, Starting, ManagerFacts, DeadHost, Progress, Floor)
    hears = (
        Define, Migrate, Cancel, Clean, Inspect, Dead, Register, Commit, Close, Abort, Booted, Regained, Unshare, Surveyed,
        Fenced,
    )  # fmt: skip

    def __init__(self, homes: Mapping[str, str], hosts: frozenset[str]) -> None:
        self.homes, self.hosts = homes, hosts

    def about(self) -> Mapping[str, object]:
        """The cluster."""
        return {"homes": dict(self.homes), "hosts": sorted(self.hosts)}

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        cast, body = turn.heard.cast, turn.heard.body
        if isinstance(body, Tick):
            self._tick(turn, body)
        elif cast is not None:
            self._saga(turn, cast)
        else:
            self._reactions[type(body)](self, turn, body)

    def _saga(self, turn: Turn, cast: Cast) -> None:
        unknown = [device for device in cast.devices if device not in self.homes]
        if unknown or cast.vm not in turn.all(Placement):
            raise Defect(f"saga {cast.saga} names what does not exist: VM {cast.vm}, devices {unknown}")
        if not MIGRATION.current(turn, cast):
            return
        cast, body = fencing.informed(turn, cast), turn.heard.body
        if isinstance(body, Abort):
            MIGRATION.undo(self, turn, cast, body.reason, (), opener_is_me=False)
        else:
            MIGRATION.play(self, turn, cast)

    # -- users

    def _define(self, turn: Turn, body: Define) -> None:
        vm = body.definition.vm
        place, starting = turn.get(Placement, vm), turn.get(Starting, vm)
        user = turn.heard.source
        problem = self._host_problem(turn, body.host)
        if place is None and problem:
            self._refuse(turn, user, body, problem)
        elif place is None:
            turn.put(Placement(host=body.host, definition=body.definition, booting=True), vm)
            turn.put(Starting(request=body.request, reply_to=user), vm)
            self._boot(turn)
        elif starting is None or starting.request != body.request:
            self._refuse(turn, user, body, f"VM {vm} exists already")
        elif place.failed:
            self._refuse(turn, user, body, place.failed)
        elif not place.booting:
            runs = f"{vm} runs on {place.host}"
            _verdict(turn, user, Verdict(request=body.request, vm=vm, outcome=Outcome.DONE, reason=runs))

    def _host_problem(self, turn: Turn, host: str) -> str:
        if host not in self.hosts:
            return f"unknown host {host}"
        return f"{host} was declared dead" if host in fencing.dead_hosts(turn) else ""

    def _migrate(self, turn: Turn, body: Migrate) -> None:
        place = turn.get(Placement, body.vm)
        if place is None:
            self._refuse(turn, body.reply_to, body, f"unknown VM {body.vm}")
        elif problem := self._host_problem(turn, body.target):
            self._refuse(turn, body.reply_to, body, problem)
        else:
            self._pass_on(turn, body, place)

    def _cancel(self, turn: Turn, body: Cancel) -> None:
        place = turn.get(Placement, body.vm)
        if place is None:
            self._refuse(turn, body.reply_to, body, f"unknown VM {body.vm}")
        else:
            self._pass_on(turn, body, place)

    def _pass_on(self, turn: Turn, body: Migrate | Cancel, place: Placement) -> None:
        """Let the VM's host answer; for a host that is dead the placement does."""
        host = self._host_for(turn, body.request, body.vm, place)
        if host not in fencing.dead_hosts(turn):
            turn.say(hypervisor(host), body)
            return
        if place.host in fencing.dead_hosts(turn) or place.lock:
            return
        moved = isinstance(body, Migrate) and place.host == body.target
        outcome = Outcome.DONE if moved else Outcome.UNDONE
        reason = f"{host} was declared dead; {body.vm} is placed on {place.host}"
        _verdict(turn, body.reply_to, Verdict(request=body.request, vm=body.vm, outcome=outcome, reason=reason))

    def _inspect(self, turn: Turn, body: Inspect) -> None:
        place = turn.get(Placement, body.vm)
        if place is None:
            words = f"unknown VM {body.vm}"
            turn.say(body.reply_to, Inspected(request=body.request, vm=body.vm, instance="", host="", ok=False, words=words))
        else:
            turn.say(hypervisor(place.host), body)

    def _clean(self, turn: Turn, body: Clean) -> None:
        place = turn.get(Placement, body.vm)
        if place is None:
            self._refuse(turn, body.reply_to, body, f"unknown VM {body.vm}")
        else:
            turn.say(hypervisor(place.host), body)

    def _host_for(self, turn: Turn, request: str, vm: str, place: Placement) -> str:
        """The host that serves this request: the source of the VM's open saga, else where the VM is placed; the same for
        ever, because a move changes the placement while its request is still open."""
        known = turn.get(Asked, request)
        if known is not None:
            return known.host
        close = MIGRATION.index("close")
        opened = [one.cast for one in turn.all(Progress).values() if one.cast.vm == vm and one.row < close]
        host = opened[-1].source if opened else place.host
        asked = turn.all(Asked)
        order = max((one.order for one in asked.values()), default=0) + 1
        turn.put(Asked(host=host, order=order), request)
        if len(asked) >= ASKED_MAX:
            turn.drop(Asked, min(asked, key=lambda key: asked[key].order))
        return host

    def _refuse(self, turn: Turn, user: str, body: Define | Migrate | Cancel | Clean, reason: str) -> None:
        vm = body.definition.vm if isinstance(body, Define) else body.vm
        _verdict(turn, user, Verdict(request=body.request, vm=vm, outcome=Outcome.REFUSED, reason=reason))

    # -- placing VMs

    def _boot(self, turn: Turn) -> None:
        """Tell the hosts of all placed VMs that have not confirmed, until they do."""
        booting = {vm: place for vm, place in turn.all(Placement).items() if place.booting}
        for vm, place in booting.items():
            turn.say(hypervisor(place.host), Boot(vm=vm, epoch=place.epoch, definition=place.definition))
        if booting:
            turn.timer("boot", 2.0)

    def _tick(self, turn: Turn, tick: Tick) -> None:
        if tick.timer == "dead":
            fencing.go_on(self, turn, self.homes, self.hosts, tick.count)
        else:
            self._boot(turn)

    def _booted(self, turn: Turn, body: Booted) -> None:
        place, starting = turn.get(Placement, body.vm), turn.get(Starting, body.vm)
        if place is None or place.epoch != body.epoch or not place.booting:
            return
        if body.refused and fencing.next_heir(turn, body.vm, place, self.hosts):
            return
        turn.put(attrs.evolve(place, booting=False, failed=body.refused), body.vm)
        if starting is not None:
            outcome = Outcome.REFUSED if body.refused else Outcome.DONE
            reason = body.refused or f"{body.vm} runs on {place.host}"
            verdict = Verdict(request=starting.request, vm=body.vm, outcome=outcome, reason=reason)
            _verdict(turn, starting.reply_to, verdict)

    _reactions: Mapping[type, Callable[..., None]] = {
        Define: _define,
        Migrate: _migrate,
        Cancel: _cancel,
        Clean: _clean,
        Inspect: _inspect,
        Booted: _booted,
        Regained: lambda self, turn, body: cleanup.record(turn, self.homes, body),
        Dead: lambda self, turn, body: fencing.declare(self, turn, self.hosts, body),
        Fenced: lambda self, turn, body: fencing.fenced(turn, body),  # noqa: ARG005
        Surveyed: lambda self, turn, body: fencing.surveyed(turn, self.homes, body),
        Unshare: lambda self, turn, body: cleanup.unlist(turn, body),  # noqa: ARG005 - one shape for all
    }


def _verdict(turn: Turn, user: str, verdict: Verdict) -> None:
    turn.say(user, verdict)
    turn.event("verdict", request=verdict.request, vm=verdict.vm, outcome=str(verdict.outcome), reason=verdict.reason)
