"""A node: the actors of one host, one store, one connection to the bus.

Here actors start, stop and fail, and messages find their mailbox; what happens to a message then is in `shell`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from uuid import uuid5

import structlog

from actors.errors import Malformed, StoreError
from actors.runtime.actor import Actor, Heard, Inbox, Record, Say
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock, Random
from actors.runtime.deciding import IDS, Decider
from actors.runtime.errands import Errands
from actors.runtime.hosted import Hosted, State
from actors.runtime.mailbox import Mailbox, Parcel
from actors.runtime.saying import Speaker
from actors.runtime.shell import STORE_PAUSE_S, Onlooker, Shell
from actors.runtime.store import Store
from actors.runtime.supervisor import Policy, Supervisor, Verdict
from bus.broker import Broker, Delivery
from bus.errors import BusError, Transient

MAILBOX_MAX = 64
"""well below the prefetch of a broker (256), so that the mailbox of one actor that is stuck does not fill the node's share"""
BIND_PAUSE_S = 1.0
RING_PAUSE_S = 20.0
"""A ring cannot be dead-lettered: one that causes a defect comes again after this time, too seldom for giving the actor up"""
ENDED_PREFIX = "vm."
"""addresses that come and go: a late message to one that ended is dropped, not dead-lettered"""

Busy = Callable[[Heard], Say | None]

_log = structlog.get_logger("swapferry.node")


class Node(Inbox):
    """Hosts actors. Counters of what happened are in `counts`.

    `observe` is called for each turn after it was stored. `busy` makes the answer to a request of a user that did not fit into
    a mailbox (None: no answer). `mailbox_max` bounds the messages that wait for one actor.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: Broker,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        random: Random,
        observe: Onlooker | None = None,
        busy: Busy | None = None,
        mailbox_max: int = MAILBOX_MAX,
        policy: Policy | None = None,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self._broker = broker
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._random = random
        self._busy = busy
        self._mailbox_max = mailbox_max
        self._supervisor = Supervisor(clock, policy or Policy())
        decider, speaker = Decider(catalogue, clock, random), Speaker(broker, self.counts)
        self._shell = Shell(decider, store, speaker, clock, observe=observe, counts=self.counts, failed=self._failed)
        self._hosted: dict[str, Hosted] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._moves = Errands()
        self._binds = Errands()
        self._early: list[Delivery] | None = []
        self._running: asyncio.Task[None] | None = None
        self._started = 0.0
        self._over = False

    # life of the node

    async def start(self, actors: Iterable[Actor] = ()) -> None:
        """Open store and broker, load these actors (and those they spawn) and let them obey; then take messages. Raises
        `StoreError` or `Transient`; nothing is left open then."""
        self._started = self._clock.now()
        try:
            await self._store.open()
            await self._broker.open(self.name, self._deliver)
        except BaseException:
            await self.kill()
            raise
        for actor in actors:
            self.spawn(actor)
        await self._moves.wait()
        await self._look_for_orphans()
        early, self._early = self._early or [], None
        for delivery in early:
            self._deliver(delivery)
        self._running = asyncio.get_running_loop().create_task(self._shell.run())
        self._running.add_done_callback(self._ended)
        for hosted in self._hosted.values():
            self._shell.ready(hosted)

    async def _look_for_orphans(self) -> None:
        """A record whose actor nobody started is kept: who should have started it may have failed."""
        for address in await self._store.actors():
            if address not in self._hosted:
                _log.warning("record_without_actor", actor=address, node=self.name)

    async def stop(self) -> None:
        """Take nothing more, finish the turns under way, let go of everything. What still waits was not acked: the broker
        delivers it again to the next node of this name (giving it back now would only bring it here again)."""
        if self._over:
            return
        self._over = True
        if self._running is not None:
            self._shell.close()
            await asyncio.wait([self._running])
        await self._shell.finish()
        await self._cancel_moves()
        await self._shell.letters.wait()
        await self._let_go()

    async def kill(self) -> None:
        """Stop between any two steps and finish nothing, as a crash does (but let go of the machine, so that the same process
        may start the node again)."""
        self._over = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._shell.abort()
        await self._cancel_moves()
        await self._let_go()

    async def _cancel_moves(self) -> None:
        await self._moves.cancel()
        await self._binds.cancel()

    async def _let_go(self) -> None:
        for hosted in self._hosted.values():
            await self._stop_actor(hosted)
        await self._broker.close()
        await self._store.close()

    def _ended(self, running: "asyncio.Task[None]") -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            _log.critical("shell_failed", node=self.name, error=repr(error), exc_info=error)

    # messages find their mailbox

    def _deliver(self, delivery: Delivery) -> None:
        if self._over:
            return
        if self._early is not None:  # not all actors are loaded yet
            self._early.append(delivery)
            return
        address = delivery.envelope.target
        parcel = Parcel(delivery=delivery)
        hosted = self._hosted.get(address)
        if hosted is not None:
            self._put(hosted, parcel)
        elif address.startswith(ENDED_PREFIX):
            self._shell.drop(parcel, "dropped_late", actor=address, type=delivery.envelope.type)
        else:
            self._shell.refuse(address, parcel, f"no actor {address} on node {self.name}")

    def _put(self, hosted: Hosted, parcel: Parcel) -> None:
        if hosted.state is State.STOPPED:
            self._shell.drop(parcel, "dropped_stopped", actor=hosted.address)
        elif hosted.mailbox.put(parcel):
            self._shell.ready(hosted)
        else:
            self._overflow(hosted, parcel)

    def _overflow(self, hosted: Hosted, parcel: Parcel) -> None:
        self._shell.drop(parcel, "dropped_full", actor=hosted.address)
        if parcel.delivery is None or self._busy is None:
            return
        try:
            heard = self._catalogue.decode(parcel.delivery.envelope)
        except Malformed:
            return
        if hasattr(heard.body, "request") and (say := self._busy(heard)) is not None:
            self._shell.reply(hosted.address, heard, say)

    def post(self, address: str, body: object) -> None:  # noqa: D102 - see `Inbox`
        hosted = self._hosted.get(address)
        if hosted is None or self._over:
            self.counts["dropped_posts"] += 1
            return
        hosted.posted += 1
        post = uuid5(IDS, f"{address}/{self._started!r}/{hosted.posted}")
        self._put(hosted, Parcel(heard=Heard(id=str(post), source=f"node.{self.name}", body=body)))

    # actors come, fail and go

    def spawn(self, actor: Actor) -> None:  # noqa: D102 - see `Inbox`
        if actor.address in self._hosted or self._over:
            return
        hosted = Hosted(actor=actor, mailbox=Mailbox(self._mailbox_max))
        self._hosted[actor.address] = hosted
        self._moves.start(self._bring_up(hosted))

    def retire(self, address: str) -> None:  # noqa: D102 - see `Inbox`
        hosted = self._hosted.pop(address, None)
        if hosted is None:
            return
        hosted.state = State.RETIRED
        self._supervisor.forget(address)
        for parcel in hosted.mailbox.drain():
            self._shell.drop(parcel, "dropped_late", actor=address)
        self._leaving[address] = self._moves.start(self._take_down(hosted))

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
            self.counts["defects"] += 1
            self._failed(hosted, error)
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
        while not forgotten and not self._over:
            try:
                await self._store.forget(address)
                forgotten = True
            except StoreError as error:
                _log.error("store_refused", actor=address, error=str(error), pause_s=STORE_PAUSE_S)
                await self._shell.pause(STORE_PAUSE_S)

    def _failed(self, hosted: Hosted, error: Exception) -> None:
        if hosted.state is State.RETIRED or self._over:
            return
        hosted.state = State.LOADING
        if self._supervisor.failed(hosted.address) is Verdict.RESTART:
            self._moves.start(self._restart(hosted))
        else:
            self._moves.start(self._give_up(hosted, error))

    async def _restart(self, hosted: Hosted) -> None:
        await hosted.at_rest()
        await self._stop_actor(hosted)
        self.counts["restarts"] += 1
        _log.warning("actor_restarted", actor=hosted.address)
        await self._bring_up(hosted, self._clock.now() + RING_PAUSE_S)

    async def _give_up(self, hosted: Hosted, error: Exception) -> None:
        hosted.state = State.STOPPED
        self.counts["given_up"] += 1
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

    # for operators and tests

    def states(self) -> Mapping[str, State]:
        """How each actor stands."""
        return {address: hosted.state for address, hosted in self._hosted.items()}

    def waiting(self, address: str) -> int:
        """How many messages and rings wait in the mailbox of this actor."""
        return len(self._hosted[address].mailbox)

    async def settle(self) -> None:
        """Until no actor is coming or leaving."""
        await self._moves.wait()

    def stop_mailbox(self, address: str) -> None:
        """Let this actor take no message until further notice; they wait."""
        self._hosted[address].paused = True

    def resume_mailbox(self, address: str) -> None:
        """Let this actor take messages again."""
        hosted = self._hosted[address]
        hosted.paused = False
        self._shell.ready(hosted)
