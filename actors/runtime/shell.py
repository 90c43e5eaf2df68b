"""The actor shell: receive -> before -> decide and store -> obey -> say -> ack, always in this order.

| step | what makes it safe |
|---|---|
| before | nobody sees its effects yet; it may be repeated and lost |
| decide | pure; each message in a turn of its own, so that a defect takes back nothing of the others |
| store | one transaction for the turns of all actors that have a message (group commit); at most one message of each actor |
| obey | the machine follows the record; done again for the whole record at restart |
| say | a function of the record: a timer of the saga says it again, so a failed publish is only counted |
| ack | only now the broker forgets the message; a crash before it means that the message comes again |

The next group is decided while the words of the last are still being said, but an actor takes no message before its last one
is acked: so its words leave in the order of its decisions.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from actors.errors import Malformed, StoreError
from actors.runtime.actor import Heard, Say, Tick
from actors.runtime.alarms import Alarms
from actors.runtime.clock import Clock
from actors.runtime.deciding import Decided, Decider
from actors.runtime.errands import Errands
from actors.runtime.hosted import Hosted, State
from actors.runtime.mailbox import Parcel
from actors.runtime.observed import Observed, log, observed, what_it_was
from actors.runtime.recorder import Recorder
from actors.runtime.saying import Speaker, about
from actors.runtime.store import Store
from paging.fault_points import fault_point, is_armed

STORE_PAUSE_S = 1.0
GROUP_TURNS_MAX = 256

_log = structlog.get_logger("swapferry.shell")


class Onlooker(Protocol):
    """Who watches the turns."""

    def __call__(self, seen: Observed) -> None:
        """A turn was stored."""


class _Round:
    """One round of the event loop: everybody else who can run does, and what the sockets hold is read."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Shell:
    """Runs the turns of all actors of one node. `failed` is told which actor met a defect."""

    def __init__(
        self,
        decider: Decider,
        store: Store,
        speaker: Speaker,
        clock: Clock,
        *,
        observe: Onlooker | None,
        recorder: Recorder,
        counts: Counter[str],
        failed: Callable[[Hosted, Exception], None],
    ) -> None:
        self._decider = decider
        self._store = store
        self._speaker = speaker
        self._clock = clock
        self._onlooker = observe
        self._recorder = recorder
        self._counts = counts
        self._failed = failed
        self._alarms: Alarms[Hosted] = Alarms(clock, self._ring)
        self._ready: dict[Hosted, None] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._turns = Errands()
        self.letters = Errands()
        """acks, rejections and answers outside of turns"""

    # what the node tells the shell

    def ready(self, hosted: Hosted) -> None:
        """Look at the mailbox of this actor: it may have a message that can be taken."""
        if hosted.ready:
            self._ready[hosted] = None
            self._wake.set()

    def arm(self, hosted: Hosted, not_before: float = 0.0) -> None:
        """Let the timers of a loaded actor ring, none before this time (Unix seconds)."""
        for name, timer in hosted.timers.items():
            self._alarms.set(max(timer.due, not_before), hosted, name)

    async def run(self) -> None:
        """Take messages in groups until `finish` is called."""
        while not self._stopping.is_set():
            await self._wake.wait()
            await self._all_that_arrive()
            self._wake.clear()
            group = self._decide_group()
            if self._ready:
                self._wake.set()
            if group and await self._stored(group):
                self._carry_out(group)

    async def finish(self) -> None:
        """Take nothing more; return when the turns under way are said and acked. The mailboxes keep what they hold."""
        self.close()
        await self._turns.wait()

    async def abort(self) -> None:
        """Stop between any two steps, as a crash does."""
        self.close()
        await self._turns.cancel()
        await self.letters.cancel()

    def close(self) -> None:
        """Take nothing more."""
        self._stopping.set()
        self._wake.set()
        self._ready.clear()
        self._alarms.close()

    # receive, before, decide

    async def _all_that_arrive(self) -> None:
        """Messages come in bursts, one in each round of the event loop: let them all into one group, but wait for none."""
        known = 0
        while known < len(self._ready) < GROUP_TURNS_MAX:
            known = len(self._ready)
            await _Round()

    def _decide_group(self) -> list[Decided]:
        group: list[Decided] = []
        while self._ready and len(group) < GROUP_TURNS_MAX and not self._stopping.is_set():
            hosted = next(iter(self._ready))
            del self._ready[hosted]
            if (decided := self._next_turn(hosted)) is not None:
                self._counts["heard"] += 1
                hosted.take_turn()
                group.append(decided)
        return group

    def _next_turn(self, hosted: Hosted) -> Decided | None:
        while hosted.ready:
            parcel = self._decider.take(hosted)
            try:
                decided = self._decider.decide(hosted, parcel)
            except Malformed as error:
                self.refuse(hosted.address, parcel, str(error))
            except Exception as error:  # noqa: BLE001 - whatever an actor raises is its defect, never the node's
                with suppress(Malformed):
                    self._recorder.failed(hosted.address, self._decider.hear(hosted, parcel), error)
                self.defect(hosted, parcel, error)
            else:
                self._recorder.decided(hosted.address, decided.heard, decided.decision)
                return decided
        return None

    # store

    async def _stored(self, group: Sequence[Decided]) -> bool:
        changes = [decided.change for decided in group if decided.change.values or decided.change.timers]
        _fault("shell.before_store", group)
        if not changes:
            return True
        try:
            await self._store.commit(changes)
        except StoreError as error:
            self._counts["store_refused"] += 1
            _log.error("store_refused", turns=len(group), error=str(error), pause_s=STORE_PAUSE_S)
            await self._put_back(group)
            return False
        except Exception as error:  # noqa: BLE001 - a value that cannot be stored is the defect of one turn of the group
            await self._store_singly(group, error)
            return False
        self._counts["commits"] += 1
        _fault("shell.after_store", group)
        return True

    async def _put_back(self, group: Sequence[Decided]) -> None:
        """Nothing was written, nothing is said: the same messages are decided anew, in their order, after a pause."""
        await self.pause(STORE_PAUSE_S)
        for decided in group:
            self._take_back(decided.hosted, decided)
            decided.hosted.end_turn()
            self.ready(decided.hosted)

    def _take_back(self, hosted: Hosted, decided: Decided) -> None:
        body = decided.heard.body
        if hosted.state is State.RETIRED:
            self.drop(decided.parcel, "dropped_late", actor=hosted.address)
        elif isinstance(body, Tick):
            hosted.mailbox.ring(body.timer)
        else:
            hosted.mailbox.put_back(decided.parcel)

    async def _store_singly(self, group: Sequence[Decided], error: Exception) -> None:
        if len(group) == 1:
            (decided,) = group
            self.defect(decided.hosted, decided.parcel, error)
            decided.hosted.end_turn()
            return
        for decided in group:
            if await self._stored([decided]):
                self._carry_out([decided])

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the node stops."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([stopping], timeout=seconds)
        finally:
            stopping.cancel()

    # obey, say, ack

    def _carry_out(self, group: Sequence[Decided]) -> None:
        self._recorder.stored([decided.hosted.address for decided in group])
        for decided in group:
            try:
                self._obey(decided)
            except Exception as error:  # noqa: BLE001 - as above
                self.defect(decided.hosted, decided.parcel, error)
                decided.hosted.end_turn()
            else:
                _fault("shell.after_obey", [decided])
                self._turns.start(self._say_and_ack(decided))

    def _obey(self, decided: Decided) -> None:
        hosted = decided.hosted
        hosted.record.apply(decided.decision.changes)
        for name, row in decided.change.timers.items():
            hosted.mailbox.silence(name)
            if row is None:
                hosted.timers.pop(name, None)
            else:
                hosted.timers[name] = row
                self._alarms.set(row.due, hosted, name)
        self._show(decided)
        hosted.actor.obey(hosted.record, decided.decision.changes)

    def _show(self, decided: Decided) -> None:
        decision = decided.decision
        seen = observed(self._clock.now(), decided.hosted.address, decided.heard, decision.events, decision.says)
        log(seen)
        if self._onlooker is None:
            return
        try:
            self._onlooker(seen)
        except Exception as error:  # noqa: BLE001 - who only looks on must not stop a turn
            _log.error("onlooker_failed", error=repr(error), exc_info=error)

    async def _say_and_ack(self, decided: Decided) -> None:
        try:
            await self._speaker.say_all(decided.words)
            _fault("shell.after_say", [decided])
            if decided.parcel.delivery is not None:
                await decided.parcel.delivery.ack()
        finally:
            decided.hosted.end_turn()
            self.ready(decided.hosted)

    # what does not come to a turn, or fails in it

    def reply(self, address: str, heard: Heard, say: Say) -> None:
        """Say something that no turn decided (a user's request that did not fit into the mailbox)."""
        self.letters.start(self._speaker.say(self._decider.word(address, heard.id, 0, say)))

    def drop(self, parcel: Parcel, why: str, **fields: Any) -> None:
        """Ack it, count it, forget it: the protocol asks again."""
        self._counts[why] += 1
        _log.info("message_dropped", why=why, **fields)
        if parcel.delivery is not None:
            self.letters.start(parcel.delivery.ack())

    def refuse(self, address: str, parcel: Parcel, reason: str) -> None:
        """Put it into the dead-letter queue with this reason."""
        self._counts["dead_lettered"] += 1
        delivery = parcel.delivery
        if delivery is None:
            _log.warning("message_refused", actor=address, reason=reason)
            return
        letter = delivery.envelope
        _log.warning("message_dead_lettered", actor=address, reason=reason, message=letter.id, type=letter.type, **about(letter))
        self.letters.start(delivery.reject(reason))

    def defect(self, hosted: Hosted, parcel: Parcel, error: Exception) -> None:
        """A turn failed: its message is dead-lettered, its actor is the supervisor's."""
        self._counts["defects"] += 1
        reason = f"defect of {hosted.address}: {error or type(error).__name__}"
        context = {} if parcel.delivery is None else about(parcel.delivery.envelope)
        _log.error("actor_defect", actor=hosted.address, error=repr(error), exc_info=error, **context)
        self.refuse(hosted.address, parcel, reason)
        self._failed(hosted, error)

    def _ring(self, hosted: Hosted, timer: str) -> None:
        row = hosted.timers.get(timer)
        if row is not None and row.due <= self._clock.now():  # else it was stopped or set anew meanwhile
            hosted.mailbox.ring(timer)
            self.ready(hosted)


def _fault(name: str, group: Sequence[Decided]) -> None:
    """Where a test may let the node end or stand still: between two steps, at the turn of its choice (`what_it_was`)."""
    if is_armed(name):
        for decided in group:
            fault_point(name, what_it_was(decided.heard, decided.decision.events))
