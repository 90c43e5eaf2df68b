"""The bus over RabbitMQ, 3.10 to 4.x. Only files named rabbit* know aio_pika and aiormq.

Two connections, because a publisher that an alarm blocks must not stop acknowledgements. Each is a `bus.link.Link` over
a plain connection with one channel; aio_pika's robust classes restore state behind the caller's back and keep publishes
hanging.

Where the servers differ: 4.x limits quorum deliveries to 20 by default (the topology always names a limit), refuses
messages above 16 MiB, and from 4.3 keeps its own count of connection losses apart from the delivery count. 3.10 writes
the name of a new quorum queue to disk up to half a second after the declaration: a power cut within that time leaves a
queue without a leader, which answers nobody (`rabbitmqctl delete_queue` and the node's reconnect bring a new one).
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from aio_pika.exceptions import AMQPError, PublishError
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from bus.broker import Broker, Counters, DeadLetter, Deliver, Delivery
from bus.codec import decode, encode
from bus.envelope import Envelope
from bus.errors import Transient, Unreadable, Unroutable
from bus.letters import target_of
from bus.link import Link
from bus.rabbit_letters import REASON_HEADER, look, take_letter
from bus.rabbit_wire import RabbitWire, connect, declare_queue, declare_shared
from bus.topology import REASON_UNROUTABLE, Queue, Topology, check_address
from bus.url import check_url, without_password

log = structlog.get_logger(__name__)

CONSUMER_TAG = "node"

NODE_HEADER = "x-swapferry-node"


class RabbitBroker(Broker):
    """One node's connections to RabbitMQ.

    `url` must pass `bus.url.check_url`. `prefetch` is the number of deliveries that may be un-acked; a publish (and a
    bind) is confirmed within `publish_timeout_s` or raises; `open_timeout_s` is the patience of `open`.
    """

    def __init__(
        self,
        url: str,
        *,
        topology: Topology | None = None,
        prefetch: int = 256,
        publish_timeout_s: float = 5.0,
        open_timeout_s: float = 15.0,
    ) -> None:
        self.counters = Counters()
        self._url = check_url(url)
        self._topology = topology or Topology()
        self._prefetch = prefetch
        self._publish_timeout_s = publish_timeout_s
        self._open_timeout_s = open_timeout_s
        self._node = ""
        self._queue: Queue | None = None
        self._deliver: Deliver | None = None
        self._addresses: dict[str, bool] = {}
        """address -> whether it shall be bound; what an outage prevented is made up for at the next connection"""
        self._inbound = Link(without_password(self._url), functools.partial(connect, self._url, self._set_up_inbound))
        self._outbound = Link(without_password(self._url), functools.partial(connect, self._url, self._set_up_outbound))
        self._looking = asyncio.Lock()

    async def server_version(self) -> tuple[int, ...]:
        """Version of the server that is connected now, such as (3, 10, 8)."""
        wire = await self._inbound.wire()
        assert isinstance(wire, RabbitWire)
        return wire.server_version

    async def open(self, node: str, deliver: Deliver) -> None:
        """See `Broker.open`. Raises `Unusable` when the server refuses us for good (login, vhost, version, topology)."""
        self._queue = self._topology.node_queue(node)
        self._node, self._deliver = node, deliver
        deadline = _now() + self._open_timeout_s
        try:
            await self._outbound.open(f"swapferry {node} out", deadline)
            await self._inbound.open(f"swapferry {node} in", deadline)
        except BaseException:
            await self.close()
            raise

    async def bind(self, address: str) -> None:
        """See `Broker.bind`."""
        check_address(address)
        self._addresses[address] = True
        await self._inbound.call(
            lambda channel: channel.queue_bind(self._queue_name(), self._topology.exchange, routing_key=address),
            _now() + self._publish_timeout_s,
        )

    async def unbind(self, address: str) -> None:
        """See `Broker.unbind`."""
        self._addresses[address] = False
        await self._inbound.call(
            lambda channel: channel.queue_unbind(self._queue_name(), self._topology.exchange, routing_key=address),
            _now() + self._publish_timeout_s,
        )
        self._addresses.pop(address, None)

    async def publish(self, envelope: Envelope) -> None:
        """See `Broker.publish`."""
        raw = encode(envelope)
        deadline = _now() + self._publish_timeout_s
        try:
            await self._send(self._topology.exchange, envelope.target, raw, {}, deadline)
        except Unroutable:
            await self._bury(raw, REASON_UNROUTABLE, deadline)
            self.counters.returned += 1
            raise
        self.counters.published += 1

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Broker.dead_letters`. While one looks, another looker sees only what is left."""
        try:
            async with asyncio.timeout(self._publish_timeout_s), self._looking:
                wire = await self._inbound.wire()
                assert isinstance(wire, RabbitWire)
                return await look(wire.connection, self._topology.dead_letters.name, limit)
        except (TimeoutError, AMQPError) as error:
            raise Transient(f"dead letters could not be read: {error!r}") from error

    async def redrive(self, letter: str) -> None:
        """See `Broker.redrive`."""
        await self._with_letter(letter, self._say_again)

    async def drop(self, letter: str) -> None:
        """See `Broker.drop`."""
        await self._with_letter(letter, _nothing_first)

    async def _say_again(self, dead: DeadLetter) -> None:
        await self._send(self._topology.exchange, target_of(dead), dead.raw, {}, _now() + self._publish_timeout_s)
        self.counters.published += 1

    async def _with_letter(self, letter: str, first: Callable[[DeadLetter], Awaitable[None]]) -> None:
        """Take it away once what comes first has succeeded."""
        try:
            async with asyncio.timeout(2 * self._publish_timeout_s), self._looking:
                wire = await self._inbound.wire()
                assert isinstance(wire, RabbitWire)
                await take_letter(wire.connection, self._topology.dead_letters.name, letter, first)
        except (TimeoutError, AMQPError) as error:
            raise Transient(f"dead letter {letter} could not be taken: {error!r}") from error

    async def close(self) -> None:
        """See `Broker.close`."""
        self._deliver = None
        await self._inbound.close(_farewell)
        await self._outbound.close(_farewell)

    def _queue_name(self) -> str:
        if self._queue is None:
            raise Transient("this broker is not open")
        return self._queue.name

    async def _set_up_outbound(self, channel: Channel) -> None:
        await declare_shared(channel, self._topology)

    async def _set_up_inbound(self, channel: Channel) -> None:
        name = self._queue_name()
        assert self._queue is not None
        await declare_shared(channel, self._topology)
        await declare_queue(channel, self._queue)
        for address, wanted in list(self._addresses.items()):
            if wanted:  # without waiting for each answer: a node may have thousands
                await channel.queue_bind(name, self._topology.exchange, routing_key=address, nowait=True)
            else:
                await channel.queue_unbind(name, self._topology.exchange, routing_key=address)
                self._addresses.pop(address, None)
        await channel.basic_qos(prefetch_count=self._prefetch)
        await channel.basic_consume(name, functools.partial(self._on_message, channel), consumer_tag=CONSUMER_TAG)

    async def _on_message(self, channel: Channel, message: DeliveredMessage) -> None:
        """Only enqueues: aiormq runs one task for each delivery and cancels it with the channel."""
        if self._deliver is None:
            return
        try:
            envelope = decode(message.body)
        except Unreadable as error:
            self._inbound.spawn(self._refuse(channel, message, str(error)))
            return
        delivery = RabbitDelivery(self._inbound, channel, message, envelope, self._refuse)
        self.counters.redelivered += delivery.redelivered
        self._deliver(delivery)

    async def _refuse(self, channel: Channel, message: DeliveredMessage, reason: str) -> None:
        """Dead-letter it ourselves, since the broker's own reject could carry no reason; else let it come again."""
        tag = _tag_of(message)
        try:
            await self._bury(message.body, reason, _now() + self._publish_timeout_s, address=message.routing_key)
        except Transient as error:
            log.warning("bus.not_dead_lettered", node=self._node, reason=reason, error=str(error))
            self._inbound.spawn(channel.basic_nack(tag, requeue=True, wait=False))
        else:
            self._inbound.spawn(channel.basic_ack(tag, wait=False))

    async def _bury(self, raw: bytes, reason: str, deadline: float, *, address: str | None = None) -> None:
        headers = {REASON_HEADER: reason, NODE_HEADER: self._node}
        try:
            await self._send(self._topology.dead_exchange, address or "", raw, headers, deadline)
        except Unroutable:
            raise Transient(f"the dead-letter queue {self._topology.dead_letters.name} is gone") from None
        self.counters.dead_lettered += 1
        log.warning("bus.dead_lettered", node=self._node, reason=reason)

    async def _send(self, exchange: str, key: str, raw: bytes, headers: Mapping[str, str], deadline: float) -> None:
        # No message id of ours: aiormq finds the publish that a returned message belongs to by that property, and two
        # publishes of one envelope may be under way at once. It makes one up where none is.
        properties = spec.Basic.Properties(delivery_mode=2, content_type="application/msgpack", headers=dict(headers))
        await self._outbound.call(functools.partial(_publish, exchange, key, raw, properties), deadline)


Refuse = Callable[[Channel, DeliveredMessage, str], Awaitable[None]]


class RabbitDelivery(Delivery):
    """A message held by one channel; when that is gone, so is the hold."""

    def __init__(
        self, link: Link[Channel], channel: Channel, message: DeliveredMessage, envelope: Envelope, refuse: Refuse
    ) -> None:
        self.envelope = envelope
        # The flag is false when the broker itself came back; the count (quorum queues) is not.
        count = (message.header.properties.headers or {}).get("x-delivery-count", 0)
        self.redelivered = bool(message.redelivered or count)
        self._link = link
        self._channel = channel
        self._message = message
        self._refuse = refuse
        self._settled = False

    async def ack(self) -> None:
        """See `Delivery.ack`."""
        self._settle_once()
        self._link.spawn(self._channel.basic_ack(_tag_of(self._message), wait=False))

    async def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._settle_once()
        self._link.spawn(self._channel.basic_nack(_tag_of(self._message), requeue=True, wait=False))

    async def reject(self, reason: str) -> None:
        """See `Delivery.reject`; given back instead when the dead-letter queue does not confirm."""
        self._settle_once()
        await self._refuse(self._channel, self._message, reason)

    def _settle_once(self) -> None:
        assert not self._settled, f"delivery of {self.envelope.id} was settled before"
        self._settled = True


async def _publish(exchange: str, key: str, raw: bytes, properties: spec.Basic.Properties, channel: Channel) -> None:
    """One confirmed publish. Raises `Unroutable` when it comes back."""
    try:
        await channel.basic_publish(
            raw, exchange=exchange, routing_key=key, properties=properties, mandatory=True, wait=False
        )
    except PublishError:
        raise Unroutable(f"nobody has the address {key!r}") from None


async def _nothing_first(_dead: DeadLetter) -> None:
    """Dropping needs nothing else."""


async def _farewell(channel: Channel) -> None:
    await channel.basic_cancel(CONSUMER_TAG)


def _tag_of(message: DeliveredMessage) -> int:
    assert message.delivery_tag is not None, "a consumer's delivery has a tag"
    return message.delivery_tag


def _now() -> float:
    return asyncio.get_running_loop().time()
