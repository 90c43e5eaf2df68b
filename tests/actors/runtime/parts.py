"""What the tests of the shell are made of: a few bodies, an actor whose steps can be watched, and a world to run it in."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from actors.errors import Defect, StoreError
from actors.runtime.actor import Actor, Heard, Key, Record, Say, Tick, Turn
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock, RealClock
from actors.runtime.node import Node
from actors.runtime.observed import Observed
from actors.runtime.sqlite import SqliteStore
from actors.runtime.store import Change
from bus.broker import Broker, DeadLetter, Deliver, Delivery
from bus.envelope import Envelope
from bus.errors import Transient

A, B, PEER = "hypervisor.a", "hypervisor.b", "user.peer"
WITHIN_S = 60.0
"""patience of a test that waits for something; never reached when it passes"""


@attrs.frozen(kw_only=True)
class Cast:
    saga: str
    vm: str
    epoch: int


@attrs.frozen(kw_only=True)
class Poke:
    number: int
    reply_to: str = PEER


@attrs.frozen(kw_only=True)
class Poked:
    numbers: frozenset[int]


@attrs.frozen(kw_only=True)
class Break:
    how: str


@attrs.frozen(kw_only=True)
class Ask:
    request: str
    reply_to: str = PEER


@attrs.frozen(kw_only=True)
class Refused:
    request: str
    reason: str


@attrs.frozen(kw_only=True)
class SetTimer:
    name: str
    after_s: float | None


@attrs.frozen(kw_only=True)
class Unheard:
    pass


@attrs.frozen(kw_only=True)
class Tally:
    """The record: which numbers were poked, whom to tell."""

    numbers: frozenset[int] = frozenset()
    reply_to: str = PEER


@attrs.frozen(kw_only=True)
class Rings:
    counts: tuple[int, ...] = ()
    again: int = 0


class Unstorable:
    """No attrs class, no plain data."""


CATALOGUE = Catalogue([Poke, Poked, Break, Ask, Refused, SetTimer, Unheard], Cast)


def busy(heard: Heard) -> Say | None:
    return Say(target=heard.body.reply_to, body=Refused(request=heard.body.request, reason="busy"))


class Tallier(Actor):
    """Counts pokes in its record and tells the total; writes each of its steps into a journal."""

    kinds = (Tally, Rings)
    hears = (Poke, Break, Ask, SetTimer)

    def __init__(self, address: str, journal: list[str] | None = None) -> None:
        self.address = address
        self.journal = [] if journal is None else journal
        self.obeys_badly = False
        self.stopped = 0

    def before(self, record: Record, heard: Heard) -> None:  # noqa: ARG002
        self.journal.append("before")

    def decide(self, turn: Turn) -> None:
        self.journal.append("decide")
        match turn.heard.body:
            case Poke() as poke:
                tally = turn.get(Tally) or Tally()
                turn.put(Tally(numbers=tally.numbers | {poke.number}, reply_to=poke.reply_to))
                turn.event("poked", number=poke.number)
                self._tell(turn)
            case Break(how="put"):
                turn.put(Unstorable())
            case Break(how="say"):
                turn.put(Tally(numbers=frozenset({666})))
                turn.say(PEER, Unstorable())
            case Break(how="obey"):
                self.obeys_badly = True
                turn.put(Tally(numbers=frozenset({7})))
            case Break() as broken:
                turn.put(Tally(numbers=frozenset({666})))
                raise Defect(f"cannot bear {broken.how}")
            case SetTimer() as timer:
                turn.timer(timer.name, timer.after_s)
            case Tick() as tick:
                self._rang(turn, tick)

    def _rang(self, turn: Turn, tick: Tick) -> None:
        rings = turn.get(Rings) or Rings()
        turn.put(Rings(counts=(*rings.counts, tick.count)))
        if tick.timer.startswith("again") and tick.count < 3:
            turn.timer(tick.timer, 0.0)
        if tick.timer == "tell":
            self._tell(turn)

    def _tell(self, turn: Turn) -> None:
        tally = turn.get(Tally)
        assert tally is not None
        turn.say(tally.reply_to, Poked(numbers=tally.numbers), cast=turn.heard.cast, row="poked")

    def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:  # noqa: ARG002
        self.journal.append("obey")
        if self.obeys_badly:
            self.obeys_badly = False
            raise ValueError("the machine does not follow")

    async def stop(self) -> None:
        self.stopped += 1


class Watch:
    """Collects what was observed and lets a test wait for it."""

    def __init__(self) -> None:
        self.turns: list[Observed] = []
        self._news = asyncio.Event()

    def __call__(self, seen: Observed) -> None:
        self.turns.append(seen)
        self.tell()

    def tell(self) -> None:
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.02):  # some facts have no news: look again
                        await self._news.wait()
                except TimeoutError:
                    pass


class Halt:
    """A place where a node can be made to stand still, so that it can be killed just there."""

    def __init__(self) -> None:
        self.armed = False
        self.reached = asyncio.Event()

    async def here(self) -> None:
        if self.armed:
            self.reached.set()
            await asyncio.Event().wait()


class HaltingStore(SqliteStore):
    """The real store, with halts around a commit, and a count of commits."""

    def __init__(self, path: Path, journal: list[str] | None = None) -> None:
        super().__init__(path)
        self.journal = [] if journal is None else journal
        self.before_commit = Halt()
        self.after_commit = Halt()
        self.groups: list[Sequence[Change]] = []
        self.refusals = 0

    async def commit(self, changes: Sequence[Change]) -> None:
        await self.before_commit.here()
        if self.refusals:
            self.refusals -= 1
            raise StoreError("no room")
        await super().commit(changes)
        self.journal.append("store")
        self.groups.append(changes)
        await self.after_commit.here()


class HaltingBroker(Broker):
    """A real broker behind halts around publish and ack."""

    def __init__(self, inner: Broker, journal: list[str] | None = None) -> None:
        self.inner = inner
        self.journal = [] if journal is None else journal
        self.before_say = Halt()
        self.before_ack = Halt()
        self.transient = 0

    async def open(self, node: str, deliver: Deliver) -> None:
        await self.inner.open(node, lambda delivery: deliver(HaltingDelivery(delivery, self)))

    async def publish(self, envelope: Envelope) -> None:
        await self.before_say.here()
        if self.transient:
            self.transient -= 1
            raise Transient("the broker is away")
        await self.inner.publish(envelope)
        self.journal.append("say")

    async def bind(self, address: str) -> None:
        await self.inner.bind(address)

    async def unbind(self, address: str) -> None:
        await self.inner.unbind(address)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return await self.inner.dead_letters(limit)

    async def close(self) -> None:
        await self.inner.close()


class HaltingDelivery(Delivery):
    def __init__(self, inner: Delivery, broker: HaltingBroker) -> None:
        self.envelope = inner.envelope
        self.redelivered = inner.redelivered
        self._inner = inner
        self._broker = broker

    async def ack(self) -> None:
        await self._broker.before_ack.here()
        await self._inner.ack()
        self._broker.journal.append("ack")

    async def requeue(self) -> None:
        await self._inner.requeue()

    async def reject(self, reason: str) -> None:
        await self._inner.reject(reason)


class Peer:
    """Somebody on another node: says what a test wants and hears what is said to it."""

    def __init__(self, broker: Broker, watch: Watch) -> None:
        self.broker = broker
        self.heard: list[Heard] = []
        self.envelopes: list[Envelope] = []
        self._watch = watch
        self._count = 0
        self._acks: list[asyncio.Task[None]] = []

    async def open(self, address: str = PEER) -> None:
        await self.broker.open(PEER, self._hear)
        await self.broker.bind(address)

    def envelope(self, target: str, body: object, cast: Cast | None = None, message: str | None = None) -> Envelope:
        self._count += 1
        say = Say(target=target, body=body, cast=cast)
        return CATALOGUE.encode(say, source=PEER, id=message or f"peer-{self._count}", causation="test", sent_at=0.0)

    async def say(self, target: str, body: object, cast: Cast | None = None, message: str | None = None) -> Envelope:
        envelope = self.envelope(target, body, cast, message)
        await self.broker.publish(envelope)
        return envelope

    def _hear(self, delivery: Delivery) -> None:
        self.envelopes.append(delivery.envelope)
        self.heard.append(CATALOGUE.decode(delivery.envelope))
        self._acks.append(asyncio.create_task(delivery.ack()))
        self._watch.tell()

    @property
    def bodies(self) -> list[object]:
        return [heard.body for heard in self.heard]

    async def dead_reasons(self, count: int = 0) -> list[str]:
        """The reasons of all dead letters, once there are so many."""
        async with asyncio.timeout(WITHIN_S):
            # nobody announces dead letters
            while len(letters := await self.broker.dead_letters()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return [letter.reason for letter in letters]


class Steady:
    """No jitter: the middle of [0, 1)."""

    def random(self) -> float:
        return 0.5


class World:
    """One node under test and a peer, on one bus."""

    def __init__(self, path: Path, connect: Callable[[], Broker], **options: object) -> None:
        self.path = path
        self.watch = Watch()
        self.journal: list[str] = []
        self.connect = connect
        self.options = options
        self.peer = Peer(connect(), self.watch)
        self.nodes: list[Node] = []
        self.make()

    def make(self) -> Node:
        """A node that was not started yet; the last one is `node`."""
        self.store = HaltingStore(self.path, self.journal)
        self.broker = HaltingBroker(self.connect(), self.journal)
        clock: Clock = RealClock()
        parts: dict[str, object] = {
            "broker": self.broker,
            "store": self.store,
            "catalogue": CATALOGUE,
            "clock": clock,
            "random": random.Random(1),
            "observe": self.watch,
            "busy": busy,
        }
        self.node = Node("n1", **{**parts, **self.options})
        self.nodes.append(self.node)
        return self.node

    async def open(self, *actors: Actor) -> None:
        await self.peer.open()
        await self.node.start(actors)

    async def close(self) -> None:
        for node in self.nodes:
            await node.kill()
        await self.peer.broker.close()

    async def record(self, address: str, kind: type, key: str = "") -> object:
        """What the store holds, read through a second pair of eyes."""
        from actors.runtime import values
        from actors.runtime.sqlite import read_store

        plain = read_store(self.path).get(address, {}).get((kind.__name__, key))
        return None if plain is None else values.from_plain(kind, plain)
