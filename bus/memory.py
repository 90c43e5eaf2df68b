"""The bus inside one process: the same rules as RabbitMQ, without a server. Default for one machine, and for tests.

Messages really become bytes and values again, so what crosses this bus could cross the other. No thread, no clock, no
random: it runs on whatever loop it is given, and a deadline is a timer of that loop. Not for two processes.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import attrs
import structlog

from bus.broker import Broker, Counters, DeadLetter, Deliver, Delivery
from bus.codec import decode, encode
from bus.envelope import Envelope
from bus.errors import Transient, Unreadable, Unroutable
from bus.letters import absent, target_of
from bus.topology import DEAD_LETTERS_MAX, REASON_DELIVERY_LIMIT, REASON_UNROUTABLE, Queue, Topology, check_address

log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class _Message:
    raw: bytes
    returns: int = 0


class _Queue:
    """Messages of one node. Those that came back are delivered before those that never went, as quorum queues do."""

    def __init__(self, shape: Queue) -> None:
        self.shape = shape
        self.fresh: deque[_Message] = deque()
        self.returned: deque[_Message] = deque()
        self.consumers: list[MemoryBroker] = []
        """the first one is served, the others stand by"""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned)

    def take(self) -> _Message:
        return (self.returned or self.fresh).popleft()


class MemoryBus:
    """What the brokers of one process share: queues, bindings, dead letters, and the troubles a test wants."""

    def __init__(self, topology: Topology | None = None) -> None:
        self.topology = topology or Topology()
        self.up = asyncio.Event()
        self.up.set()
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self._queues: dict[str, _Queue] = {}
        self._bindings: dict[str, dict[str, None]] = {}
        self._dead: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_MAX)
        self._brokers: list[MemoryBroker] = []

    # What a test may do to it

    def stop(self) -> None:
        """An outage: every connection is lost, queues of hosts stay, queues of users are gone."""
        self.up.clear()
        for broker in self._brokers:
            self.detach(broker)

    def start(self) -> None:
        """The outage is over; every open broker is connected again, with its bindings."""
        self.up.set()
        for broker in self._brokers:
            self.attach(broker)

    def block(self) -> None:
        """An alarm (memory, disk): publishers wait, consumers go on."""
        self.unblocked.clear()

    def unblock(self) -> None:
        """The alarm is over."""
        self.unblocked.set()

    def inject(self, address: str, raw: bytes) -> None:
        """Put bytes on the bus that no codec has seen. Raises `Unroutable`."""
        self.route(address, raw)

    # What the brokers do with it

    def enter(self, broker: "MemoryBroker") -> None:
        """A broker opens. Raises `Transient` when an exclusive queue is in use."""
        self.attach(broker)
        self._brokers.append(broker)

    def leave(self, broker: "MemoryBroker") -> None:
        """A broker closes; what it held goes back."""
        self.detach(broker)
        if broker in self._brokers:
            self._brokers.remove(broker)

    def attach(self, broker: "MemoryBroker") -> None:
        """Connect: declare the queue, bind, consume."""
        shape = self.topology.node_queue(broker.node)
        queue = self._queues.setdefault(shape.name, _Queue(shape))
        if shape.exclusive and queue.consumers:
            raise Transient(f"node {broker.node} is connected already; its queue is exclusive")
        queue.consumers.append(broker)
        for address, wanted in broker.addresses.items():
            (self.bind if wanted else self.unbind)(address, broker)
        self.wake(queue)

    def detach(self, broker: "MemoryBroker") -> None:
        """Disconnect: un-acked messages go back, counted as deliveries."""
        queue = self.queue_of(broker)
        if queue is None or broker not in queue.consumers:
            return
        queue.consumers.remove(broker)
        for message in broker.forget_unacked():
            self.give_back(queue, message)
        if queue.shape.durable:
            self.wake(queue)
        else:
            self._delete(queue)

    def queue_of(self, broker: "MemoryBroker") -> _Queue | None:
        """The queue that this broker consumes from, while it exists."""
        return self._queues.get(self.topology.node_queue(broker.node).name)

    def bind(self, address: str, broker: "MemoryBroker") -> None:
        """Messages for the address come to this broker's queue; to several, if several bind it, as on RabbitMQ."""
        self._bindings.setdefault(address, {})[self.topology.node_queue(broker.node).name] = None

    def unbind(self, address: str, broker: "MemoryBroker") -> None:
        """They no longer do."""
        bound = self._bindings.get(address, {})
        bound.pop(self.topology.node_queue(broker.node).name, None)
        if not bound:
            self._bindings.pop(address, None)

    def route(self, address: str, raw: bytes) -> None:
        """Put bytes into every queue bound to the address. Raises `Unroutable`, or `Transient` when one is full."""
        queues = [self._queues[name] for name in self._bindings.get(address, {})]
        if not queues:
            raise Unroutable(f"nobody has the address {address!r}")
        for queue in queues:
            if queue.shape.messages_max is not None and len(queue) >= queue.shape.messages_max:
                raise Transient(f"queue {queue.shape.name} is full ({len(queue)} messages)")
        for queue in queues:
            queue.fresh.append(_Message(raw))
            self.wake(queue)

    def give_back(self, queue: _Queue, message: _Message) -> None:
        """A message was delivered and not acked: it is delivered again, or is a dead letter by now (rule 7)."""
        message.returns += 1
        limit = queue.shape.delivery_limit
        if limit is not None and message.returns > limit:
            self.bury(message.raw, REASON_DELIVERY_LIMIT)
        else:
            queue.returned.append(message)

    def bury(self, raw: bytes, reason: str) -> None:
        """Put bytes into the dead-letter queue."""
        self._dead.append(DeadLetter(reason=reason, raw=raw, envelope=_read_or_none(raw)))

    def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest of them."""
        return list(self._dead)[:limit]

    def dead_letter(self, letter: str) -> DeadLetter:
        """The oldest of this id. Raises `Absent`."""
        for dead in self._dead:
            if dead.id == letter:
                return dead
        raise absent(letter)

    def forget(self, dead: DeadLetter) -> None:
        """Take it away."""
        self._dead.remove(dead)

    def wake(self, queue: _Queue) -> None:
        """Let the queue be served in a later turn of the loop, never inside the caller's."""
        asyncio.get_running_loop().call_soon(self._serve, queue)

    def _serve(self, queue: _Queue) -> None:
        while len(queue) and queue.consumers and queue.consumers[0].has_room():
            queue.consumers[0].take(queue, queue.take())

    def _delete(self, queue: _Queue) -> None:
        del self._queues[queue.shape.name]
        for address in [address for address, names in self._bindings.items() if queue.shape.name in names]:
            del self._bindings[address][queue.shape.name]
            if not self._bindings[address]:
                del self._bindings[address]


class MemoryBroker(Broker):
    """One node's connection to a `MemoryBus`.

    `prefetch` is the number of deliveries that may be un-acked, `publish_timeout_s` the deadline of a publish in
    seconds of the running loop.
    """

    def __init__(self, bus: MemoryBus, *, prefetch: int = 256, publish_timeout_s: float = 5.0) -> None:
        self.counters = Counters()
        self.node = ""
        self.addresses: dict[str, bool] = {}
        """address -> whether it shall be bound; what an outage prevented is made up for at the next connection"""
        self._bus = bus
        self._prefetch = prefetch
        self._publish_timeout_s = publish_timeout_s
        self._deliver: Deliver | None = None
        self._unacked: dict[MemoryDelivery, None] = {}
        self._connection = 0
        """grows with each loss, so that a publish knows whether its confirm could still reach it"""

    async def open(self, node: str, deliver: Deliver) -> None:
        """See `Broker.open`."""
        self._bus.topology.node_queue(node)
        await self._within_deadline(self._bus.up)
        self.node, self._deliver = node, deliver
        try:
            self._bus.enter(self)
        except Transient:
            self._deliver = None
            raise

    async def bind(self, address: str) -> None:
        """See `Broker.bind`."""
        check_address(address)
        self.addresses[address] = True
        await self._within_deadline(self._bus.up)
        self._bus.bind(address, self)

    async def unbind(self, address: str) -> None:
        """See `Broker.unbind`."""
        self.addresses[address] = False
        await self._within_deadline(self._bus.up)
        self._bus.unbind(address, self)
        self.addresses.pop(address, None)

    async def publish(self, envelope: Envelope) -> None:
        """See `Broker.publish`."""
        raw = encode(envelope)
        await self.until_publishing()
        connection = self._connection
        try:
            self._bus.route(envelope.target, raw)
        except Unroutable:
            self.bury(raw, REASON_UNROUTABLE)
            self.counters.returned += 1
            raise
        await asyncio.sleep(0)  # the confirm is under way
        if connection != self._connection:
            raise Transient(f"the connection was lost before message {envelope.id} was confirmed; it may arrive")
        self.counters.published += 1

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Broker.dead_letters`."""
        await self._within_deadline(self._bus.up)
        return self._bus.dead_letters(limit)

    async def redrive(self, letter: str) -> None:
        """See `Broker.redrive`."""
        await self.until_publishing()
        dead = self._bus.dead_letter(letter)
        self._bus.route(target_of(dead), dead.raw)
        self._bus.forget(dead)

    async def drop(self, letter: str) -> None:
        """See `Broker.drop`."""
        await self._within_deadline(self._bus.up)
        self._bus.forget(self._bus.dead_letter(letter))

    async def close(self) -> None:
        """See `Broker.close`."""
        if self._deliver is not None:
            self._deliver = None
            self._bus.leave(self)

    async def until_publishing(self) -> None:
        """Wait until the bus takes messages. Raises `Transient` at the deadline, or when this broker is not open."""
        if self._deliver is None:
            raise Transient("this broker is not open")
        await self._within_deadline(self._bus.up, self._bus.unblocked)

    def has_room(self) -> bool:
        """Whether another delivery may be un-acked."""
        return len(self._unacked) < self._prefetch

    def take(self, queue: _Queue, message: _Message) -> None:
        """Hand a message to the node, or bury what cannot be read."""
        assert self._deliver is not None, "only open brokers consume"
        try:
            envelope = decode(message.raw)
        except Unreadable as error:
            self.bury(message.raw, str(error))
            return
        delivery = MemoryDelivery(self, queue, message, envelope)
        self._unacked[delivery] = None
        self.counters.redelivered += delivery.redelivered
        self._deliver(delivery)

    def bury(self, raw: bytes, reason: str) -> None:
        """Put bytes into the dead-letter queue."""
        self._bus.bury(raw, reason)
        self.counters.dead_lettered += 1
        log.warning("bus.dead_lettered", node=self.node, reason=reason)

    def settle(self, delivery: "MemoryDelivery") -> bool:
        """Forget a delivery; false when it was lost with its connection before."""
        if delivery not in self._unacked:
            return False
        del self._unacked[delivery]
        self._bus.wake(delivery.queue)
        return True

    def requeue(self, delivery: "MemoryDelivery") -> None:
        """Give a delivery back."""
        if self.settle(delivery):
            self._bus.give_back(delivery.queue, delivery.message)

    def forget_unacked(self) -> Sequence[_Message]:
        """The connection is lost: what was un-acked, in the order of its delivery."""
        messages = [delivery.message for delivery in self._unacked]
        self._unacked.clear()
        self._connection += 1
        return messages

    async def _within_deadline(self, *conditions: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._publish_timeout_s):
                while not all(condition.is_set() for condition in conditions):
                    for condition in conditions:
                        await condition.wait()
        except TimeoutError:
            raise Transient(f"the bus was away or blocked for {self._publish_timeout_s} s") from None


class MemoryDelivery(Delivery):
    """A message held by one connection of a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, queue: _Queue, message: _Message, envelope: Envelope) -> None:
        self.envelope = envelope
        self.redelivered = message.returns > 0
        self.queue = queue
        self.message = message
        self._broker = broker
        self._settled = False

    async def ack(self) -> None:
        """See `Delivery.ack`."""
        self._settle_once()
        self._broker.settle(self)

    async def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._settle_once()
        self._broker.requeue(self)

    async def reject(self, reason: str) -> None:
        """See `Delivery.reject`; given back instead when the bus takes no messages until the deadline."""
        self._settle_once()
        try:
            await self._broker.until_publishing()
        except Transient:
            self._broker.requeue(self)
            return
        self._broker.bury(self.message.raw, reason)
        self._broker.settle(self)

    def _settle_once(self) -> None:
        assert not self._settled, f"delivery of {self.envelope.id} was settled before"
        self._settled = True


def _read_or_none(raw: bytes) -> Envelope | None:
    try:
        return decode(raw)
    except Unreadable:
        return None
