"""Who lives on a node: actors are loaded, bound, restarted by their supervisor, given up, and taken down.

All of this happens in tasks of its own, because it is asked for from inside a turn (`Inbox.spawn`, `Inbox.retire`).
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping

import structlog

from actors.errors import StoreError
from actors.runtime.actor import Actor, Record
from actors.runtime.clock import Clock, Random
from actors.runtime.errands import Errands
from actors.runtime.hosted import Hosted, State
from actors.runtime.mailbox import Mailbox
from actors.runtime.recorder import Recorder
from actors.runtime.shell import STORE_PAUSE_S, Shell
from actors.runtime.store import Store
from actors.runtime.supervisor import Supervisor, Verdict
from bus.broker import Broker
from bus.errors import BusError, Transient

BIND_PAUSE_S = 1.0
RING_PAUSE_S = 20.0
"""A ring cannot be dead-lettered: one that causes a defect comes again after this time, too seldom for giving the actor up"""

_log = structlog.get_logger("swapferry.node")


class Roster:
    """The actors of one node."""

    def __init__(
        self, broker: Broker, store: Store, clock: Clock, random: Random, *,
        supervisor: Supervisor, recorder: Recorder, counts: Counter[str],
    ) -> None:  # fmt: skip
        self._broker = broker
        self._store = store
        self._clock = clock
        self._random = random
        self._supervisor = supervisor
        self._recorder = recorder
        self._counts = counts
        self._hosted: dict[str, Hosted] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._moves = Errands()
        self._binds = Errands()
        self._closed = False

    def serve(self, shell: Shell) -> None:
        """The shell that runs the turns of these actors."""
        self._shell = shell

    def get(self, address: str) -> Hosted | None:
        """The actor of this address."""
        return self._hosted.get(address)

    def states(self) -> Mapping[str, State]:
        """How each actor stands."""
        return {address: hosted.state for address, hosted in self._hosted.items()}

    def __iter__(self) -> Iterator[Hosted]:
        return iter(list(self._hosted.values()))

    def spawn(self, actor: Actor, mailbox: Mailbox) -> None:
        """See `Inbox.spawn`."""
        if actor.address in self._hosted or self._closed:
            return
        hosted = Hosted(actor=actor, mailbox=mailbox)
        self._hosted[actor.address] = hosted
        self._moves.start(self._bring_up(hosted))

    def retire(self, address: str) -> None:
        """See `Inbox.retire`."""
        hosted = self._hosted.pop(address, None)
        if hosted is None:
            return
        hosted.state = State.RETIRED
        self._supervisor.forget(address)
        self._recorder.retired(address)
        for parcel in hosted.mailbox.drain():
            self._shell.drop(parcel, "dropped_late", actor=address)
        self._leaving[address] = self._moves.start(self._take_down(hosted))

    def failed(self, hosted: Hosted, error: Exception) -> None:
        """This actor met a defect: restart it, or give it up."""
        if hosted.state is State.RETIRED or self._closed:
            return
        hosted.state = State.LOADING
        if self._supervisor.failed(hosted.address) is Verdict.RESTART:
            self._moves.start(self._restart(hosted))
        else:
            self._moves.start(self._give_up(hosted, error))

    async def settle(self) -> None:
        """Until no actor is coming or leaving."""
        await self._moves.wait()

    async def look_for_orphans(self) -> None:
        """A record whose actor nobody started is kept: who should have started it may have failed."""
        for address in await self._store.actors():
            if address not in self._hosted:
                _log.warning("record_without_actor", actor=address)

    def close(self) -> None:
        """Let nobody come or fail any more."""
        self._closed = True

    async def cancel(self) -> None:
        """Stop all coming and leaving where it stands."""
        self.close()
        await self._moves.cancel()
        await self._binds.cancel()

    async def let_go(self) -> None:
        """Let every actor give its tasks and descriptors back."""
        for hosted in self:
            await self._stop_actor(hosted)

    async def _bring_up(self, hosted: Hosted, rings_not_before: float = 0.0) -> None:
        try:
            await self._after_predecessor(hosted)
            await self._load(hosted)
            await self._bind(hosted)
            if hosted.state is not State.LOADING:  # retired meanwhile
                return
            hosted.actor.obey(hosted.record, dict(hosted.record.items()))
        except Exception as error:  # noqa: BLE001 - a defect of this actor; the others go on
            _log.error("actor_defect", actor=hosted.address, error=repr(error), exc_info=error)
            self._counts["defects"] += 1
            self.failed(hosted, error)
            return
        hosted.state = State.RUNNING
        _log.info("actor_started", actor=hosted.address)
        self._shell.arm(hosted, rings_not_before)
        self._shell.ready(hosted)

    async def _after_predecessor(self, hosted: Hosted) -> None:
        """An actor of the same address may still be leaving: its record must be gone first."""
        leaving = self._leaving.get(hosted.address)
        if leaving is not None:
            await asyncio.wait([leaving])

    async def _load(self, hosted: Hosted) -> None:
        while True:
            try:
                values, timers = await self._store.load(hosted.address, hosted.actor.kinds)
            except StoreError as error:
                _log.error("store_refused", actor=hosted.address, error=str(error), pause_s=STORE_PAUSE_S)
                await self._shell.pause(STORE_PAUSE_S)
            else:
                hosted.record = Record(values)
                hosted.timers = dict(timers)
                self._recorder.loaded(hosted.address, hosted.record)
                return

    async def _bind(self, hosted: Hosted) -> None:
        try:
            await self._broker.bind(hosted.address)
        except Transient as error:  # the actor can work meanwhile, with what is posted to it
            _log.warning("bind_failed", actor=hosted.address, error=str(error))
            self._binds.start(self._bind_later(hosted))

    async def _bind_later(self, hosted: Hosted) -> None:
        await self._shell.pause(BIND_PAUSE_S * (1.0 + self._random.random()))
        if hosted.state is not State.RETIRED:
            await self._bind(hosted)

    async def _take_down(self, hosted: Hosted) -> None:
        await hosted.at_rest()
        await self._stop_actor(hosted)
        try:
            await self._broker.unbind(hosted.address)
        except BusError as error:  # what still comes is dropped as late
            _log.warning("unbind_failed", actor=hosted.address, error=str(error))
        await self._forget(hosted.address)
        self._leaving.pop(hosted.address, None)
        _log.info("actor_retired", actor=hosted.address)

    async def _forget(self, address: str) -> None:
        forgotten = False
        while not forgotten and not self._closed:
            try:
                await self._store.forget(address)
                forgotten = True
            except StoreError as error:
                _log.error("store_refused", actor=address, error=str(error), pause_s=STORE_PAUSE_S)
                await self._shell.pause(STORE_PAUSE_S)

    async def _restart(self, hosted: Hosted) -> None:
        await hosted.at_rest()
        await self._stop_actor(hosted)
        self._counts["restarts"] += 1
        _log.warning("actor_restarted", actor=hosted.address)
        await self._bring_up(hosted, self._clock.now() + RING_PAUSE_S)

    async def _give_up(self, hosted: Hosted, error: Exception) -> None:
        hosted.state = State.STOPPED
        self._counts["given_up"] += 1
        _log.critical("actor_given_up", actor=hosted.address, error=repr(error), remedy="mend the cause, restart the node")
        for parcel in hosted.mailbox.drain():
            self._shell.drop(parcel, "dropped_stopped", actor=hosted.address)
        await hosted.at_rest()
        await self._stop_actor(hosted)

    async def _stop_actor(self, hosted: Hosted) -> None:
        try:
            await hosted.actor.stop()
        except Exception as error:  # noqa: BLE001 - one actor that cannot let go must not keep the others
            _log.error("actor_stop_failed", actor=hosted.address, error=repr(error), exc_info=error)
