"""The bus of the simulated world: the rules of `bus.broker` over a network that loses, doubles, delays and parts.

The broker itself never loses what it has confirmed. Everything crosses as bytes of the real codec.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from bus.broker import Broker, Counters, DeadLetter, Deliver, Delivery
from bus.codec import decode, encode
from bus.envelope import Envelope
from bus.errors import Transient, Unreadable, Unroutable
from bus.topology import DELIVERY_LIMIT, REASON_DELIVERY_LIMIT, REASON_UNROUTABLE, check_address, check_node
from scenarios.sim.fortune import Fortune
from scenarios.sim.process import Process

PUBLISH_TIMEOUT_S = 2.0
RECONNECT_S = 0.25
PREFETCH = 256


@attrs.define(eq=False)
class Message:
    """Bytes in a queue. `number` counts what one source put there for one target."""

    raw: bytes
    source: str = ""
    target: str = ""
    number: int = 0
    returns: int = 0


@attrs.define(eq=False)
class Queue:
    """The queue of one node, and who consumes it now."""

    node: str
    durable: bool
    fresh: deque[Message] = attrs.field(factory=deque)
    returned: deque[Message] = attrs.field(factory=deque)
    consumer: "SimBroker | None" = None

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned)


class Onlooker:
    """Who checks what goes over the bus (`checkers`). Does nothing itself."""

    def published(self, envelope: Envelope) -> None:
        """A node begins to say this."""

    def said(self, process: Process, envelope: Envelope) -> None:
        """The broker confirmed it; its node learns of that now."""

    def delivered(self, process: Process, message: Message, envelope: Envelope) -> None:
        """A node is handed this."""

    def acking(self, process: Process, envelope: Envelope) -> None:
        """A node is done with this."""

    def buried(self, letter: DeadLetter) -> None:
        """This came to the dead letters."""


class SimNetwork:
    """What all nodes of a world share: queues, bindings, dead letters, and who reaches whom."""

    def __init__(self, fortune: Fortune, onlooker: Onlooker) -> None:
        self.fortune, self.onlooker = fortune, onlooker
        self.dead: list[DeadLetter] = []
        self.landed = self.settled = 0
        """messages that the broker took over, and those that it was allowed to forget"""
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[str, dict[str, None]] = {}
        self._cut: dict[str, None] = {}
        self._parted: dict[tuple[str, str], None] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._world = Process("the wire")

    # what the faults do to it

    def cut(self, node: str) -> None:
        """This node loses the broker until `mend`."""
        self._cut[node] = None
        self.drop(node)

    def mend(self, node: str) -> None:
        """It has the broker again, a moment later."""
        self._cut.pop(node, None)

    def drop(self, node: str) -> None:
        """The connection of this node breaks; what it had not acked comes again."""
        queue = self._queues.get(node)
        if queue is not None and queue.consumer is not None:
            queue.consumer.lose()

    def part(self, one: str, other: str) -> None:
        """These hosts cannot reach each other until `join`."""
        self._parted[one, other] = self._parted[other, one] = None

    def join(self, one: str, other: str) -> None:
        """They can again."""
        for pair in ((one, other), (other, one)):
            self._parted.pop(pair, None)

    def mend_all(self) -> None:
        """Everybody reaches everybody."""
        self._cut.clear()
        self._parted.clear()

    def reaches(self, one: str, other: str) -> bool:
        """Whether a connection from host to host holds now."""
        return (one, other) not in self._parted

    def is_cut(self, node: str) -> bool:
        """Whether this node has lost the broker."""
        return node in self._cut

    def inject(self, node: str, raw: bytes) -> None:
        """Bytes that no codec has seen arrive for this node."""
        queue = self._queues.get(node)
        if queue is not None:
            self.landed += 1
            queue.fresh.append(Message(raw))
            self.serve(queue)

    def under_way(self) -> int:
        """Messages that lie in queues or in the hands of nodes."""
        return sum(len(queue) + (queue.consumer.holds if queue.consumer else 0) for queue in self._queues.values())

    # what the brokers do with it

    def attach(self, broker: "SimBroker") -> Queue:
        """A broker connects; who consumed before has lost the queue."""
        name = broker.node
        queue = self._queues.setdefault(name, Queue(name, durable=not name.startswith("user.")))
        if queue.consumer is not None and queue.consumer is not broker:
            queue.consumer.lose()
        queue.consumer = broker
        for address in broker.addresses:
            self.bind(address, name)
        self.serve(queue)
        return queue

    def detach(self, queue: Queue, unacked: Sequence[Message]) -> None:
        """A connection is gone: what was un-acked goes back, in its order."""
        queue.consumer = None
        for message in reversed(unacked):
            message.returns += 1
            if message.returns > DELIVERY_LIMIT:
                self.settled += 1
                self.bury(message.raw, REASON_DELIVERY_LIMIT)
            else:
                queue.returned.appendleft(message)

    def bind(self, address: str, node: str) -> None:
        """Messages for this address come to this node."""
        self._bindings.setdefault(address, {})[node] = None

    def unbind(self, address: str, node: str) -> None:
        """They no longer do."""
        self._bindings.get(address, {}).pop(node, None)

    def later(self, after_s: float, callback: Callable[..., None], *args: object) -> None:
        """Something on the wire arrives, whatever has become of who sent it."""
        self._world.call_at(asyncio.get_running_loop().time() + after_s, callback, *args)

    def land(self, envelope: Envelope, raw: bytes, confirm: "asyncio.Future[None] | None") -> None:
        """Bytes arrive at the broker."""
        queues = [self._queues[node] for node in self._bindings.get(envelope.target, {}) if node in self._queues]
        if not queues:
            self.bury(raw, REASON_UNROUTABLE)
            if confirm is not None and not confirm.done():
                confirm.set_exception(Unroutable(f"nobody has the address {envelope.target!r}"))
                confirm.exception()  # who asked for it may be dead
            return
        pair = (envelope.source, envelope.target)
        self._numbers[pair] = self._numbers.get(pair, 0) + 1
        for queue in queues:
            self.landed += 1
            queue.fresh.append(Message(raw, *pair, self._numbers[pair] if confirm is not None else 0))
            self.serve(queue)
        if confirm is not None and not confirm.done():
            confirm.set_result(None)

    def serve(self, queue: Queue) -> None:
        """Hand over what the consumer has room for."""
        if queue.consumer is not None:
            queue.consumer.take_from(queue)

    def bury(self, raw: bytes, reason: str) -> None:
        """To the dead letters."""
        try:
            envelope = decode(raw)
        except Unreadable:
            envelope = None
        letter = DeadLetter(reason=reason, raw=raw, envelope=envelope)
        self.dead.append(letter)
        self.onlooker.buried(letter)


class SimBroker(Broker):
    """One node's connection to the simulated bus, owned by one process."""

    def __init__(self, network: SimNetwork, process: Process) -> None:
        self.counters = Counters()
        self.node = ""
        self.addresses: dict[str, None] = {}
        self.network, self.process = network, process
        self._queue: Queue | None = None
        self._deliver: Deliver | None = None
        self._unacked: dict[SimDelivery, None] = {}
        self._arrives = 0.0

    @property
    def holds(self) -> int:
        """Messages handed over and not settled."""
        return len(self._unacked)

    async def open(self, node: str, deliver: Deliver) -> None:
        """See `Broker.open`."""
        check_node(node)
        self.node = node
        await self._connected()
        self._deliver = deliver
        self._queue = self.network.attach(self)

    async def bind(self, address: str) -> None:
        """See `Broker.bind`."""
        check_address(address)
        self.addresses[address] = None
        await self._connected()
        self.network.bind(address, self.node)

    async def unbind(self, address: str) -> None:
        """See `Broker.unbind`."""
        self.addresses.pop(address, None)
        await self._connected()
        self.network.unbind(address, self.node)

    async def publish(self, envelope: Envelope) -> None:
        """See `Broker.publish`."""
        network, fortune = self.network, self.network.fortune
        network.onlooker.published(envelope)
        raw = encode(envelope)
        await self._connected()
        if fortune.strikes("publish lost"):
            await self._never(envelope)
        after_s = fortune.late_s() if fortune.strikes("late") else fortune.travel_s()
        if fortune.strikes("duplicate"):
            network.later(after_s + fortune.late_s(), network.land, envelope, raw, None)
        if fortune.strikes("confirm lost"):
            network.later(after_s, network.land, envelope, raw, None)
            await self._never(envelope)
        await self._landed(envelope, raw, after_s)
        self.counters.published += 1
        network.onlooker.said(self.process, envelope)

    async def _landed(self, envelope: Envelope, raw: bytes, after_s: float) -> None:
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if after_s >= PUBLISH_TIMEOUT_S:
            self.network.later(after_s, self.network.land, envelope, raw, None)
            await self._never(envelope)
        self.network.later(after_s, self.network.land, envelope, raw, confirm)
        try:
            await confirm
        except Unroutable:
            self.counters.returned += 1
            raise

    async def _never(self, envelope: Envelope) -> None:
        await asyncio.sleep(PUBLISH_TIMEOUT_S)
        raise Transient(f"message {envelope.id} was not confirmed in {PUBLISH_TIMEOUT_S:g} s; it may arrive")

    async def _connected(self) -> None:
        waited = 0.0
        while self.network.is_cut(self.node) or (self._deliver is not None and self._queue is None):
            if waited >= PUBLISH_TIMEOUT_S:
                raise Transient(f"the bus was away for {PUBLISH_TIMEOUT_S:g} s")
            await asyncio.sleep(RECONNECT_S)
            waited += RECONNECT_S

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Broker.dead_letters`."""
        return self.network.dead[:limit]

    async def close(self) -> None:
        """See `Broker.close`."""
        self._deliver = None
        self.leave()

    def leave(self) -> None:
        """The connection is gone for good."""
        self._deliver = None
        self.lose()

    def lose(self) -> None:
        """The connection breaks. An open broker connects again by itself when it can."""
        queue, self._queue = self._queue, None
        if queue is None:
            return
        unacked = [delivery.message for delivery in self._unacked]
        self._unacked.clear()
        self.network.detach(queue, unacked)
        if self._deliver is not None:
            self.process.call_at(asyncio.get_running_loop().time() + RECONNECT_S, self._reconnect)

    def _reconnect(self) -> None:
        if self._deliver is None or self._queue is not None:
            return
        if self.network.is_cut(self.node):
            self.process.call_at(asyncio.get_running_loop().time() + RECONNECT_S, self._reconnect)
        else:
            self._queue = self.network.attach(self)

    def take_from(self, queue: Queue) -> None:
        """Let messages be on their way to the node, in the order of the queue."""
        now = asyncio.get_running_loop().time()
        while len(queue) and len(self._unacked) < PREFETCH:
            message = (queue.returned or queue.fresh).popleft()
            try:
                envelope = decode(message.raw)
            except Unreadable as error:
                self.network.settled += 1
                self.bury(message.raw, str(error))
                continue
            delivery = SimDelivery(self, message, envelope)
            self._unacked[delivery] = None
            self._arrives = max(self._arrives, now + self.network.fortune.travel_s())
            self.process.call_at(self._arrives, self._hand_over, delivery)

    def _hand_over(self, delivery: "SimDelivery") -> None:
        if delivery not in self._unacked or self._deliver is None:
            return
        self.counters.redelivered += delivery.redelivered
        self.network.onlooker.delivered(self.process, delivery.message, delivery.envelope)
        self._deliver(delivery)

    def bury(self, raw: bytes, reason: str) -> None:
        """To the dead letters."""
        self.counters.dead_lettered += 1
        self.network.bury(raw, reason)

    def settle(self, delivery: "SimDelivery") -> bool:
        """The broker forgets it; false where its connection was lost before."""
        if delivery not in self._unacked:
            return False
        del self._unacked[delivery]
        self.network.settled += 1
        if self._queue is not None and len(self._queue):
            self.take_from(self._queue)
        return True


class SimDelivery(Delivery):
    """A message in the hands of a node."""

    def __init__(self, broker: SimBroker, message: Message, envelope: Envelope) -> None:
        self.envelope, self.message, self.redelivered = envelope, message, message.returns > 0
        self._broker = broker
        self._settled = False

    async def ack(self) -> None:
        """See `Delivery.ack`."""
        self._settle_once()
        network = self._broker.network
        network.onlooker.acking(self._broker.process, self.envelope)
        if network.fortune.strikes("ack lost"):
            self._broker.lose()
        self._broker.settle(self)

    async def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._settle_once()
        queue = self._broker._queue
        if self._broker.settle(self) and queue is not None:
            self.message.returns += 1
            self._broker.network.settled -= 1
            queue.returned.append(self.message)
            self._broker.network.serve(queue)

    async def reject(self, reason: str) -> None:
        """See `Delivery.reject`."""
        self._settle_once()
        if self._broker.settle(self):
            self._broker.bury(self.message.raw, reason)

    def _settle_once(self) -> None:
        assert not self._settled, f"delivery of {self.envelope.id} was settled before"
        self._settled = True
