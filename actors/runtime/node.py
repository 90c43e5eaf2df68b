"""A node: the actors of one host, one store, one connection to the bus.

The node starts and stops here, and messages find their mailbox. Who lives on it: `roster`; what becomes of a message: `shell`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from uuid import uuid5

import structlog

from actors.errors import Malformed
from actors.runtime.actor import Actor, Heard, Inbox, Say
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock, Random
from actors.runtime.deciding import IDS, Decider
from actors.runtime.hosted import Hosted, State
from actors.runtime.mailbox import Mailbox, Parcel
from actors.runtime.recorder import NOBODY, Recorder
from actors.runtime.roster import Roster
from actors.runtime.saying import Speaker
from actors.runtime.shell import Onlooker, Shell
from actors.runtime.showing import SHOW, Showing
from actors.runtime.store import Store
from actors.runtime.supervisor import Policy, Supervisor
from bus.broker import Broker, Delivery

MAILBOX_MAX = 64
"""well below the prefetch of a broker (256), so that the mailbox of one actor that is stuck does not fill the node's share"""
ENDED_PREFIX = "vm."
"""addresses that come and go: a late message to one that ended is dropped, not dead-lettered"""

Busy = Callable[[Heard], Say | None]

_log = structlog.get_logger("swapferry.node")


class Node(Inbox):
    """Hosts actors. Counters of what happened are in `counts`.

    `observe` is called for each turn after it was stored; `recorder` is told all that decisions are made of. `busy` makes the
    answer to a request of a user that did not fit into a mailbox (None: no answer). `mailbox_max` bounds the messages that wait
    for one actor.
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
        recorder: Recorder = NOBODY,
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
        self._busy = busy
        self._mailbox_max = mailbox_max
        supervisor = Supervisor(clock, policy or Policy())
        self._roster = Roster(broker, store, clock, random, supervisor=supervisor, recorder=recorder, counts=self.counts)
        decider, speaker = Decider(catalogue, clock, random), Speaker(broker, self.counts)
        self._shell = Shell(
            decider, store, speaker, clock, observe=observe, recorder=recorder, counts=self.counts, failed=self._roster.failed
        )
        self._roster.serve(self._shell)
        self._showing = Showing(name, catalogue, decider, store, speaker, clock, self.counts)
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
            for actor in actors:
                self.spawn(actor)
            await self._roster.settle()
            await self._roster.look_for_orphans()
        except BaseException:
            await self.kill()
            raise
        early, self._early = self._early or [], None
        for delivery in early:
            self._deliver(delivery)
        self._running = asyncio.get_running_loop().create_task(self._shell.run())
        self._running.add_done_callback(self._ended)
        for hosted in self._roster:
            self._shell.ready(hosted)

    async def stop(self) -> None:
        """Take nothing more, finish the turns under way, let go of everything. What still waits was not acked: the broker
        delivers it again to the next node of this name (giving it back now would only bring it here again)."""
        if self._over:
            return
        self._over = True
        self._roster.close()
        if self._running is not None:
            self._shell.close()
            await asyncio.wait([self._running])
        await self._shell.finish()
        await self._roster.cancel()
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
        await self._roster.cancel()
        await self._let_go()

    async def _let_go(self) -> None:
        await self._roster.let_go()
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
        hosted = self._roster.get(address)
        if hosted is not None and delivery.envelope.type == SHOW:
            self._shell.letters.start(self._showing.answer(hosted, delivery))
        elif hosted is not None:
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
        hosted = self._roster.get(address)
        if hosted is None or self._over:
            self.counts["dropped_posts"] += 1
            return
        hosted.posted += 1
        post = uuid5(IDS, f"{address}/{self._started!r}/{hosted.posted}")
        self._put(hosted, Parcel(heard=Heard(id=str(post), source=f"node.{self.name}", body=body)))

    # actors come, fail and go

    def spawn(self, actor: Actor) -> None:  # noqa: D102 - see `Inbox`
        self._roster.spawn(actor, Mailbox(self._mailbox_max))

    def retire(self, address: str) -> None:  # noqa: D102 - see `Inbox`
        self._roster.retire(address)

    # for operators and tests

    def states(self) -> Mapping[str, State]:
        """How each actor stands."""
        return self._roster.states()

    def waiting(self, address: str) -> int:
        """How many messages and rings wait in the mailbox of this actor."""
        return len(self._known(address).mailbox)

    async def settle(self) -> None:
        """Until no actor is coming or leaving."""
        await self._roster.settle()

    def stop_mailbox(self, address: str) -> None:
        """Let this actor take no message until further notice; they wait."""
        self._known(address).paused = True

    def resume_mailbox(self, address: str) -> None:
        """Let this actor take messages again."""
        hosted = self._known(address)
        hosted.paused = False
        self._shell.ready(hosted)

    def _known(self, address: str) -> Hosted:
        hosted = self._roster.get(address)
        if hosted is None:
            raise KeyError(f"no actor {address} on node {self.name}")
        return hosted
