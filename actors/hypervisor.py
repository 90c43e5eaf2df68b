"""The hypervisor of a host: its instances, its slots, and its rows of the sagas, as source or as target.

Its record decides; the instances on its node follow it. What it does in a migration stands in `sagas.source` and
`sagas.target`; here is what it hears, and how users, machines and sagas meet.
"""

from collections.abc import Callable, Mapping

import attrs

from actors import requests
from actors.domain import hosting
from actors.domain.holdings import cut
from actors.domain.hosting import Armed, Brought, Counters, HostFacts, Instance, Owned, Reach, SourceFacts, TargetFacts, want
from actors.domain.lifecycle import Level, Outcome, State
from actors.errors import Defect
from actors.messages import (
    MANAGER,
    Boot,
    Booted,
    Cancel,
    Cast,
    Closed,
    Enquire,
    Forget,
    Freeze,
    Granted,
    Inspect,
    Inspected,
    Migrate,
    Noticed,
    Offer,
    Prepare,
    Reached,
    Report,
    Resume,
    Undo,
    Wanted,
    Welcome,
    hypervisor,
    vm_instance,
)
from actors.requests import Request
from actors.runtime.actor import Actor, Inbox, Key, Record, Tick, Turn
from actors.runtime.saga import Floor, Progress
from actors.sagas import source
from actors.sagas.migration import MIGRATION, abort

ASK_FIRST_S = 1.0
ASK_LAST_S = 30.0
ENQUIRIES_MAX = 12
"""a target that does not answer so many enquiries is not there"""

Probe = Callable[[], Reached]
"""Reads the superblocks of all devices that this host may reach; quick, blocking."""


@attrs.frozen(kw_only=True)
class Enquiry:
    """Somebody wants to know what this host reaches and has room for; answered when the devices were looked at."""

    request: str
    source: str


class Hypervisor(Actor):
    """One host. `start` makes the actor of an instance; `probe` looks at the devices."""

    kinds = (*hosting.KINDS, Request, Enquiry, Progress, Floor)
    hears = (
        Migrate, Cancel, Inspect, Enquire, Offer, Welcome, Freeze, Granted, Prepare, Resume, Forget, Closed, Undo, Boot,
        Report, Noticed, Reached,
    )  # fmt: skip

    def __init__(self, facts: HostFacts, inbox: Inbox, start: Callable[[Instance], Actor], probe: Probe) -> None:
        self.facts = facts
        self.address = hypervisor(facts.host)
        self._inbox, self._start, self._probe = inbox, start, probe

    # -- deciding (pure)

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        if turn.get(Counters) is None:
            turn.put(Counters())
            hosting.found_slots(turn, self.facts)
        heard = turn.heard
        if isinstance(heard.body, Tick):
            self._tick(turn, heard.body)
        elif heard.cast is not None:
            self._saga(turn, heard.cast)
        else:
            self._reactions[type(heard.body)](self, turn, heard.body)

    def _saga(self, turn: Turn, cast: Cast) -> None:
        if not MIGRATION.current(turn, cast):
            return
        mine = cast.opener == self.facts.host
        body = turn.heard.body
        if isinstance(body, Undo):
            MIGRATION.undo(self, turn, cast, body.reason, body.restored, opener_is_me=mine)
        else:
            MIGRATION.play(self, turn, cast, opener_is_me=mine)

    def _tick(self, turn: Turn, tick: Tick) -> None:
        what, _, name = tick.timer.partition(":")
        if what == "ask":
            self._ask_again(turn, name, tick.count)
        elif what == "enquire":
            self._enquire_again(turn, name, tick.count)
        elif what == "levels":
            self._levels_again(turn, tick.count)

    def _ask_again(self, turn: Turn, saga: str, count: int) -> None:
        """The opener's repeated question, the one retry timer of a saga: also asks the pivot, who knows what was decided."""
        progress = turn.get(Progress, saga)
        if progress is None:
            return
        turn.timer(f"ask:{saga}", min(ASK_LAST_S, ASK_FIRST_S * 2 ** min(count + 1, 8)))
        cast = progress.cast
        if count >= 1:
            waiting = MIGRATION.rows[min(max(progress.row, progress.begun) + 1, len(MIGRATION.rows) - 1)]
            turn.event("saga_waits", saga=saga, vm=cast.vm, row=waiting.name, waits_for=waiting.role, asked=count + 1)
        for say in source.say_register(self, turn, cast):
            turn.say(say.target, say.body, cast=say.cast, row="ask")
        if progress.row > 0 or progress.undone:
            MIGRATION.repeat(self, turn, cast)

    # -- users

    def _migrate(self, turn: Turn, body: Migrate) -> None:
        known = turn.get(Request, body.request)
        if known is not None:
            requests.answer(turn, known)
            return
        request = self._new_request(turn, body.request, body.vm, body.reply_to, body.target)
        instance = self._instance_of(turn, body.vm)
        problem = self._migrate_problem(instance, body)
        if problem:
            requests.end(turn, request, Outcome.REFUSED, problem)
            return
        turn.say(hypervisor(body.target), Enquire(request=body.request))
        turn.timer(f"enquire:{body.request}", ASK_FIRST_S)

    def _new_request(self, turn: Turn, name: str, vm: str, reply_to: str, target: str = "") -> Request:
        counters = turn.get(Counters) or Counters()
        turn.put(attrs.evolve(counters, requests=counters.requests + 1))
        request = Request(request=name, vm=vm, reply_to=reply_to, target=target, order=counters.requests)
        turn.put(request, name)
        return request

    def _instance_of(self, turn: Turn, vm: str) -> Instance | None:
        """The instance of this VM that runs here, or ran until a saga halted it."""
        found = [one for one in turn.all(Instance).values() if one.vm == vm]
        active = [one for one in found if one.state not in (State.STAGED, State.ENDING)]
        return max(active, key=lambda one: one.epoch, default=None)

    def _migrate_problem(self, instance: Instance | None, body: Migrate) -> str:
        if instance is None:
            return f"{body.vm} does not run on {self.facts.host}"
        if body.target == self.facts.host:
            return f"{body.vm} runs on {self.facts.host} already"
        if instance.leaving_by or instance.state is not State.RUNNING:
            return f"{body.vm} is already migrating in saga {instance.leaving_by}"
        if instance.lost:
            return f"{body.vm} has died: {instance.failed}"
        if instance.stalled:
            return f"{body.vm} is held: {instance.stalled}"
        if not instance.reached:
            return f"{body.vm} is still starting"
        return ""

    def _cancel(self, turn: Turn, body: Cancel) -> None:
        known = turn.get(Request, body.request)
        if known is not None:
            self._cancel_again(turn, known)
            return
        request = self._new_request(turn, body.request, body.vm, body.reply_to)
        enquiring = [one for one in turn.all(Request).values() if one.vm == body.vm and one.enquiring]
        mine = [one for one in turn.all(Progress).values() if one.cast.vm == body.vm and one.cast.opener == self.facts.host]
        instance = self._instance_of(turn, body.vm)
        if mine:
            request = attrs.evolve(request, saga=mine[-1].cast.saga)
            turn.put(request, request.request)
            self._cancel_again(turn, request)
        elif enquiring:
            for one in enquiring:
                requests.end(turn, one, Outcome.UNDONE, "cancelled before it began")
                turn.timer(f"enquire:{one.request}", None)
            requests.end(turn, request, Outcome.UNDONE, "cancelled before it began")
        elif instance is not None and instance.brought_by and not instance.leaving_by:
            reason = f"the last migration of {body.vm} (saga {instance.brought_by}) is done; it runs on {self.facts.host}"
            requests.end(turn, request, Outcome.ALREADY_DONE, reason)
        else:
            requests.end(turn, request, Outcome.REFUSED, f"{body.vm} is not migrating")

    def _cancel_again(self, turn: Turn, request: Request) -> None:
        """Ask the keeper of the pivot to undo; the verdict comes when the saga has ended."""
        progress = turn.get(Progress, request.saga) if request.saga else None
        if progress is not None and request.outcome is None:
            say = abort(progress.cast, "cancelled by the user")
            turn.say(say.target, say.body, cast=say.cast, row="cancel")
        requests.answer(turn, request)

    def _inspect(self, turn: Turn, body: Inspect) -> None:
        instance = self._instance_of(turn, body.vm)
        if instance is None:
            words = f"{body.vm} does not run on {self.facts.host}"
            answer = Inspected(request=body.request, vm=body.vm, instance="", host=self.facts.host, ok=False, words=words)
            turn.say(body.reply_to, answer)
        else:
            turn.say(vm_instance(instance.id), body)

    # -- enquiries before a saga

    def _enquire(self, turn: Turn, body: Enquire) -> None:
        turn.put(Enquiry(request=body.request, source=turn.heard.source), body.request)

    def _reached(self, turn: Turn, body: Reached) -> None:
        turn.put(Reach(devices=body.devices, problems=body.problems))
        slots = sum(len(one) for one in hosting.free_slots(turn, self.facts).values())
        for key, enquiry in turn.all(Enquiry).items():
            room = hosting.memory_free(turn, self.facts)
            turn.say(
                enquiry.source,
                Offer(request=enquiry.request, reached=dict(body.devices), memory_bytes=max(0, room), slots=slots),
            )
            turn.drop(Enquiry, key)
        for request in turn.all(Request).values():
            if request.enquiring and not request.probed:
                turn.put(attrs.evolve(request, probed=True), request.request)
                self._consider(turn, request.request)

    def _offer(self, turn: Turn, body: Offer) -> None:
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
        self._consider(turn, body.request)

    def _enquire_again(self, turn: Turn, name: str, count: int) -> None:
        request = turn.get(Request, name)
        if request is None or not request.enquiring:
            return
        if count + 1 >= ENQUIRIES_MAX:
            reason = f"{request.target} does not answer (asked {count + 1} times); is its node up?"
            requests.end(turn, request, Outcome.REFUSED, reason)
            return
        turn.say(hypervisor(request.target), Enquire(request=name))
        turn.put(request, name)
        turn.timer(f"enquire:{name}", ASK_FIRST_S)

    def _consider(self, turn: Turn, name: str) -> None:
        """Open the saga, or refuse, once both hosts have looked at their devices."""
        request, reach = turn.get(Request, name), turn.get(Reach)
        if request is None or request.offer_reached is None or not request.probed or reach is None:
            return
        turn.timer(f"enquire:{name}", None)
        instance = self._instance_of(turn, request.vm)
        again = Migrate(request=name, vm=request.vm, target=request.target, reply_to=request.reply_to)
        problem = self._migrate_problem(instance, again) or self._offer_problem(turn, request, instance)
        if problem or instance is None:
            requests.end(turn, request, Outcome.REFUSED, problem)
            return
        used = hosting.used_devices(turn, instance.id)
        offered = request.offer_reached
        devices = tuple(sorted(name for name in used if offered.get(name) == self.facts.uuids[name]))
        self._open(turn, attrs.evolve(request), instance, devices)

    def _offer_problem(self, turn: Turn, request: Request, instance: Instance | None) -> str:
        reach = turn.get(Reach)
        assert instance is not None, "checked before"
        assert reach is not None, "checked before"
        lost = sorted(hosting.used_devices(turn, instance.id) - set(reach.devices))
        if lost:
            return f"device {lost[0]} of {request.vm} is lost at {self.facts.host}: {reach.problems.get(lost[0], 'not configured')}"
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

    def _open(self, turn: Turn, request: Request, instance: Instance, devices: tuple[str, ...]) -> None:
        """Row open: the guest runs on, and nobody opens a second saga on it."""
        counters = turn.get(Counters) or Counters()
        number = counters.sagas + 1
        turn.put(attrs.evolve(counters, sagas=number))
        host = self.facts.host
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
        MIGRATION.repeat(self, turn, cast)

    def end_saga(self, turn: Turn, cast: Cast) -> None:
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
        self._settle(turn)

    def _settle(self, turn: Turn) -> None:
        """Give the verdicts that are due. "Undone" is said when the guest runs again."""
        for request in turn.all(Request).values():
            if request.ending is None or request.outcome is not None:
                continue
            instance = self._instance_of(turn, request.vm)
            if request.ending is Outcome.UNDONE and instance is not None and not instance.reached:
                continue
            if request.target:
                reason = request.reason or f"{request.vm} runs on {request.target}"
                requests.end(turn, request, request.ending, reason)
            else:
                done = request.ending is Outcome.DONE
                outcome = Outcome.ALREADY_DONE if done else Outcome.UNDONE
                reason = "it had committed before the cancel came" if done else request.reason
                requests.end(turn, request, outcome, reason)

    # -- machines

    def _report(self, turn: Turn, body: Report) -> None:
        instance = turn.get(Instance, body.instance)
        if instance is None or body.revision != instance.revision or instance.reached:
            return
        if body.failed:
            turn.event("machine_failed", vm=instance.vm, instance=instance.id, level=str(body.level), reason=body.failed)
            turn.put(attrs.evolve(instance, failed=body.failed), instance.id)
            self._booted(turn, turn.get(Instance, instance.id) or instance)
        else:
            instance = attrs.evolve(instance, reported=body.revision, failed="")
            turn.put(instance, instance.id)
            turn.event("machine", vm=instance.vm, instance=instance.id, level=str(body.level), saga=instance.leaving_by)
            self._keep_report(turn, instance, body)
            self._booted(turn, instance)
        for saga in (instance.leaving_by, instance.brought_by):
            if saga:
                MIGRATION.advance(self, turn, saga)
        self._settle(turn)

    def _keep_report(self, turn: Turn, instance: Instance, body: Report) -> None:
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

    def _levels_again(self, turn: Turn, count: int) -> None:
        """Machines that have not reported are told again."""
        late = [one for one in turn.all(Instance).values() if not one.reached]
        for instance in late:
            turn.put(instance, instance.id)
            if count >= 2:
                turn.event(
                    "machine_waits", vm=instance.vm, instance=instance.id, level=str(instance.wanted),
                    told=count + 1, reason=instance.failed, saga=instance.leaving_by or instance.brought_by,
                )  # fmt: skip
        if late:
            turn.timer("levels", min(5.0, 1.0 + count))

    def _noticed(self, turn: Turn, body: Noticed) -> None:
        instance = turn.get(Instance, body.instance)
        if instance is None:
            return
        turn.event(f"machine_{body.what}", vm=instance.vm, instance=instance.id, reason=body.sentence)
        if body.what == "died" and instance.state is not State.ENDING:
            turn.put(attrs.evolve(instance, lost=True, failed=body.sentence), instance.id)
            for saga in (instance.leaving_by, instance.brought_by):
                MIGRATION.advance(self, turn, saga)
        elif body.what in ("stalled", "unstalled"):
            stalled = body.sentence if body.what == "stalled" else ""
            turn.put(attrs.evolve(instance, stalled=stalled), instance.id)

    # -- placing a VM

    def _boot(self, turn: Turn, body: Boot) -> None:
        name = hosting.instance_id(body.vm, self.facts.host, f"boot-{body.epoch}")
        instance = turn.get(Instance, name)
        if instance is not None:
            self._booted(turn, instance)
            return
        problem = hosting.room_problem(turn, self.facts, body.definition)
        if problem:
            turn.say(MANAGER, Booted(vm=body.vm, epoch=body.epoch, refused=problem))
            return
        armed = hosting.arm(turn, self.facts, body.definition) or {}
        turn.put(Armed(slots=armed), name)
        fresh = Instance(
            id=name, vm=body.vm, epoch=body.epoch, definition=body.definition, state=State.RUNNING,
            wanted=Level.BOOTED, revision=0,
        )  # fmt: skip
        want(turn, fresh, Level.BOOTED)

    def _booted(self, turn: Turn, instance: Instance) -> None:
        """Tell the manager that a placed VM runs, or why it does not."""
        if instance.wanted is not Level.BOOTED or instance.brought_by:
            return
        if instance.reached:
            turn.say(MANAGER, Booted(vm=instance.vm, epoch=instance.epoch))
        elif instance.failed:
            turn.say(MANAGER, Booted(vm=instance.vm, epoch=instance.epoch, refused=instance.failed))

    _reactions: Mapping[type, Callable[..., None]] = {
        Migrate: _migrate, Cancel: _cancel, Inspect: _inspect, Enquire: _enquire, Offer: _offer, Reached: _reached,
        Report: _report, Noticed: _noticed, Boot: _boot,
    }  # fmt: skip

    # -- obeying

    def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:
        """Look at the devices when somebody asks; start, tell and retire the instances as the record has them."""
        asks = (Enquiry, Request)
        if any(isinstance(value, asks) and _needs_probe(value) for value in changes.values()):
            self._inbox.post(self.address, self._probe())
        for (kind, key), value in changes.items():
            if kind not in (Instance, Armed):
                continue
            instance = record.get(Instance, key)
            if instance is not None:
                self._inbox.spawn(self._start(instance))
                if not instance.reached:
                    self._inbox.post(vm_instance(key), wanted_of(record, instance))
            elif kind is Instance and value is None:
                self._inbox.retire(vm_instance(key))


def _needs_probe(value: object) -> bool:
    return isinstance(value, Enquiry) or (isinstance(value, Request) and value.enquiring and not value.probed)


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
    )
