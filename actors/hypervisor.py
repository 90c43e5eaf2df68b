"""The hypervisor of a host: its instances, its slots, and its rows of the sagas, as source or as target.

Its record decides; the instances on its node follow it. What it does in a migration stands in `sagas.source` and
`sagas.target`, what comes before one in `moving`, what machines report in `machines`; here is who hears what.
"""

from collections.abc import Callable, Mapping

from actors import machines, moving, requests
from actors.domain import hosting
from actors.domain.hosting import Armed, Brought, Counters, HostFacts, Instance
from actors.domain.lifecycle import State
from actors.messages import (
    Boot,
    Cancel,
    Cast,
    Clean,
    Closed,
    Enquire,
    Forget,
    Freeze,
    Granted,
    Inspect,
    Inspected,
    Migrate,
    Named,
    Noticed,
    Offer,
    Prepare,
    Reached,
    Recorded,
    Report,
    Resume,
    Surveyed,
    Taken,
    Undo,
    Unshared,
    Welcome,
    hypervisor,
    vm_instance,
)
from actors.moving import Enquiry
from actors.requests import Request
from actors.runtime.actor import Actor, Inbox, Key, Record, Tick, Turn
from actors.runtime.saga import Floor, Progress
from actors.runtime.values import to_plain
from actors.sagas import cleanup, source
from actors.sagas.migration import MIGRATION

ASK_LAST_S = 30.0
ASK_FROZEN_S = 1.0
"""while the guest stands still: what was lost must not keep it so for longer than need be"""

Probe = Callable[[], Reached]
"""Reads the superblocks of all devices that this host may reach; quick, blocking."""


class Hypervisor(Actor):
    """One host. `start` makes the actor of an instance; `probe` looks at the devices."""

    kinds = (*hosting.KINDS, Request, Enquiry, Progress, Floor)
    hears = (
        Migrate, Cancel, Clean, Inspect, Enquire, Offer, Welcome, Freeze, Granted, Prepare, Resume, Forget, Closed, Undo, Boot,
        Report, Noticed, Reached, Named, Taken, Surveyed, Recorded, Unshared,
    )  # fmt: skip

    def __init__(self, facts: HostFacts, inbox: Inbox, start: Callable[[Instance], Actor], probe: Probe) -> None:
        self.facts = facts
        self.address = hypervisor(facts.host)
        self._inbox, self._start, self._probe = inbox, start, probe

    def about(self) -> Mapping[str, object]:
        """The host's facts."""
        plain: Mapping[str, object] = to_plain(self.facts)
        return plain

    # -- deciding (pure)

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        if turn.get(Counters) is None:
            turn.put(Counters())
            hosting.found_slots(turn, self.facts)
        heard = turn.heard
        if heard.cast is not None:
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
            moving.enquire_again(turn, name, tick.count)
        elif what == "housekeeping":
            cleanup.housekeeping(self.facts, turn, tick.count)
        else:
            machines.levels_again(turn, tick.count)

    def _ask_again(self, turn: Turn, saga: str, count: int) -> None:
        """The opener's repeated question, the one retry timer of a saga: also asks the pivot, who knows what was decided."""
        progress = turn.get(Progress, saga)
        if progress is None:
            return
        cast = progress.cast
        instance = turn.get(Instance, cast.instance)
        waits = instance is not None and instance.state in (State.FREEZING, State.FROZEN)
        last_s = ASK_FROZEN_S if waits else ASK_LAST_S
        turn.timer(f"ask:{saga}", min(last_s, moving.ASK_FIRST_S * 2 ** min(count, 8)))
        if count >= 2:
            waiting = MIGRATION.rows[min(max(progress.row, progress.begun - 1) + 1, len(MIGRATION.rows) - 1)]
            turn.event("saga_waits", saga=saga, vm=cast.vm, row=waiting.name, waits_for=waiting.role, asked=count)
        for say in source.say_register(self, turn, cast):
            turn.say(say.target, say.body, cast=say.cast, row="ask")
        if progress.row > 0 or progress.undone:
            MIGRATION.repeat(self, turn, cast)

    def _go_on(self, turn: Turn, sagas: tuple[str, ...]) -> None:
        """Something that rows may wait for has come."""
        for saga in sagas:
            MIGRATION.advance(self, turn, saga)
        requests.settle(turn)

    def _inspect(self, turn: Turn, body: Inspect) -> None:
        instance = hosting.instance_of(turn, body.vm)
        if instance is None:
            words = f"{body.vm} does not run on {self.facts.host}"
            answer = Inspected(request=body.request, vm=body.vm, instance="", host=self.facts.host, ok=False, words=words)
            turn.say(body.reply_to, answer)
        else:
            turn.say(vm_instance(instance.id), body)

    _reactions: Mapping[type, Callable[..., None]] = {
        Tick: _tick,
        Inspect: _inspect,
        Migrate: lambda self, turn, body: moving.migrate(self.facts, turn, body),
        Enquire: lambda self, turn, body: moving.enquire(turn, body),  # noqa: ARG005 - one shape for all
        Offer: lambda self, turn, body: moving.offer(self.facts, turn, body),
        Reached: lambda self, turn, body: moving.reached(self.facts, turn, body),
        Cancel: lambda self, turn, body: requests.cancel(self.facts, turn, body),
        Report: lambda self, turn, body: self._go_on(turn, machines.report(turn, body)),
        Noticed: lambda self, turn, body: self._go_on(turn, machines.noticed(turn, body)),
        Boot: lambda self, turn, body: machines.boot(self.facts, turn, body),
        Clean: lambda self, turn, body: machines.clean(turn, body),  # noqa: ARG005
        Named: lambda self, turn, body: cleanup.named(turn, body),  # noqa: ARG005 - one shape for all
        Taken: lambda self, turn, body: cleanup.taken(turn, body),  # noqa: ARG005
        Surveyed: lambda self, turn, body: cleanup.regain(turn, body),  # noqa: ARG005
        Recorded: lambda self, turn, body: cleanup.recorded(turn, body),  # noqa: ARG005
        Unshared: lambda self, turn, body: cleanup.unshared(turn, body),  # noqa: ARG005
    }

    # -- obeying

    def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:
        """Look at the devices when somebody asks; start, tell and retire the instances as the record has them."""
        if any(_needs_probe(value) for value in changes.values()):
            self._inbox.post(self.address, self._probe())
        for (kind, key), value in changes.items():
            if kind not in (Instance, Armed, Brought):
                continue
            instance = record.get(Instance, key)
            if instance is not None:
                self._inbox.spawn(self._start(instance))
                self._inbox.post(vm_instance(key), machines.wanted_of(record, instance))
            elif kind is Instance and value is None:
                self._inbox.retire(vm_instance(key))


def _needs_probe(value: object) -> bool:
    return isinstance(value, Enquiry) or (isinstance(value, Request) and value.enquiring and not value.probed)
