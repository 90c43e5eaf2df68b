"""The bus over RabbitMQ, 3.10 to 4.x. The only file that knows aio_pika and aiormq.

Two connections, because a publisher that an alarm blocks must not stop acknowledgements. Each is a `_Link`: plain
connection, one channel, made anew by our own loop when it is lost; aio_pika's robust classes restore state behind the
caller's back and keep publishes hanging. No AMQP call on a shared channel is ever cancelled: a call runs in a task of
its own that is watched from outside, and when it is late the whole connection is given up.

Where the servers differ: 4.x limits quorum deliveries to 20 by default (the topology always names a limit), refuses
messages above 16 MiB, and from 4.3 keeps its own count of connection losses apart from the delivery count. 3.10 writes
the name of a new quorum queue to disk up to half a second after the declaration: a power cut within that time leaves a
queue without a leader, which answers nobody (`rabbitmqctl delete_queue` and the node's reconnect bring a new one).
"""

import asyncio
import contextlib
import functools
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential
from yarl import URL

from bus.broker import Broker, Counters, DeadLetter, Deliver, Delivery
from bus.codec import decode, encode
from bus.envelope import Envelope
from bus.errors import Transient, Unreadable, Unroutable, Unusable
from bus.topology import REASON_DELIVERY_LIMIT, REASON_UNROUTABLE, Queue, Topology, check_address
from bus.url import check_url, without_password

T = TypeVar("T")
log = structlog.get_logger(__name__)

HEARTBEAT_S = 10
"""a silent peer is given up after three of them"""

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 3.0

SERVER_VERSION_MIN = (3, 10)
"""at-least-once dead-lettering"""

CONSUMER_TAG = "node"

REASON_HEADER = "x-swapferry-reason"
NODE_HEADER = "x-swapferry-node"

BROKER_REASONS = {"delivery_limit": REASON_DELIVERY_LIMIT}
"""the broker's words for why it dead-lettered (header x-first-death-reason) in ours; others are taken as they are"""


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
        self._inbound = _Link(self._url, self._set_up_inbound)
        self._outbound = _Link(self._url, self._set_up_outbound)
        self._looking = asyncio.Lock()

    @property
    def server_version(self) -> tuple[int, ...]:
        """Version of the server at the last connect, such as (3, 10, 8)."""
        return self._inbound.server_version

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
        except _Returned:
            await self._bury(raw, REASON_UNROUTABLE, deadline)
            self.counters.returned += 1
            raise Unroutable(f"nobody has the address {envelope.target!r}") from None
        self.counters.published += 1

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """See `Broker.dead_letters`. While one looks, another looker sees only what is left."""
        try:
            async with asyncio.timeout(self._publish_timeout_s), self._looking:
                connection = await self._inbound.connected()
                return await _look(connection, self._topology.dead_letters.name, limit)
        except (TimeoutError, AMQPError) as error:
            raise Transient(f"dead letters could not be read: {error!r}") from error

    async def close(self) -> None:
        """See `Broker.close`."""
        self._deliver = None
        await self._inbound.close()
        await self._outbound.close()

    def _queue_name(self) -> str:
        if self._queue is None:
            raise Transient("this broker is not open")
        return self._queue.name

    async def _set_up_outbound(self, channel: Channel) -> None:
        await _declare_shared(channel, self._topology)

    async def _set_up_inbound(self, channel: Channel) -> None:
        name = self._queue_name()
        assert self._queue is not None
        await _declare_shared(channel, self._topology)
        await _declare_queue(channel, self._queue)
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
        except _Returned:
            raise Transient(f"the dead-letter queue {self._topology.dead_letters.name} is gone") from None
        self.counters.dead_lettered += 1
        log.warning("bus.dead_lettered", node=self._node, reason=reason)

    async def _send(self, exchange: str, key: str, raw: bytes, headers: Mapping[str, str], deadline: float) -> None:
        # No message id of ours: aiormq finds the publish that a returned message belongs to by that property, and two
        # publishes of one envelope may be under way at once. It makes one up where none is.
        properties = spec.Basic.Properties(delivery_mode=2, content_type="application/msgpack", headers=dict(headers))
        await self._outbound.call(
            lambda channel: channel.basic_publish(
                raw, exchange=exchange, routing_key=key, properties=properties, mandatory=True, wait=False
            ),
            deadline,
        )


Refuse = Callable[[Channel, DeliveredMessage, str], Awaitable[None]]


class RabbitDelivery(Delivery):
    """A message held by one channel; when that is gone, so is the hold."""

    def __init__(
        self, link: "_Link", channel: Channel, message: DeliveredMessage, envelope: Envelope, refuse: Refuse
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


class _Returned(Exception):
    """A mandatory message found no queue."""


class _Link:
    """One connection with one shared channel, made again whenever it is lost."""

    def __init__(self, url: URL, set_up: Callable[[Channel], Awaitable[None]]) -> None:
        self.server_version: tuple[int, ...] = ()
        self._url = url
        self._set_up = set_up
        self._name = ""
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._was_ready = False
        self._last_error: BaseException | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        """first come, first sent: callers that waited for a connection keep their order (rule 5)"""

    async def open(self, name: str, deadline: float) -> None:
        """Connect and stay connected. Raises `Transient` at the deadline, `Unusable` when it can never work."""
        self._name = name
        keeper = self._keeper = asyncio.create_task(self._keep())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({keeper, ready}, timeout=deadline - _now(), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if keeper.done():
            await keeper
        if not self._ready.is_set():
            raise Transient(f"no connection to {without_password(self._url)}: {self._last_error}")

    async def close(self) -> None:
        """Send what is under way, then let the connection go. Closing takes what aiormq has not yet written with it, so
        a call with an answer goes last."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        self._ready.clear()
        if self._channel is not None:
            self.spawn(self._channel.basic_cancel(CONSUMER_TAG))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        await self._drop()

    async def connected(self) -> AbstractConnection:
        """The connection, once there is one."""
        await self._ready.wait()
        assert self._connection is not None
        return self._connection

    async def call(self, make: Callable[[Channel], Coroutine[Any, Any, T]], deadline: float) -> T:
        """Run an AMQP call on the channel when it is usable. Raises `Transient` at the deadline or on any failure."""
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                task = self.spawn(make(await self._usable()))
        except TimeoutError:
            raise Transient(f"{without_password(self._url)} is away or blocks publishers") from None
        await asyncio.wait({task}, timeout=deadline - _now())
        if not task.done():
            await self._give_up()
            raise Transient(f"{without_password(self._url)} did not answer in time; what was said may still arrive")
        return _result(task)

    def spawn(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run an AMQP call that nobody may cancel; whether it fails is its watcher's business, if it has one."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("bus.call_failed", link=self._name, error=repr(task.exception()))

    async def _usable(self) -> Channel:
        """The channel of a connection that is up and not blocked by an alarm."""
        while True:
            if self._keeper is None:
                raise Transient("this broker is not open")
            await self._ready.wait()
            connection, channel = self._connection, self._channel
            if connection is not None and connection.transport is not None and channel is not None:
                await connection.transport.connection.ready()
                if channel is self._channel and not channel.is_closed:
                    return channel
            await asyncio.sleep(0)  # lost meanwhile; the keeper is about to notice

    async def _give_up(self) -> None:
        """A call is late: the server hangs, or an alarm blocks us. Only the latter gets better by itself."""
        connection = self._connection
        if connection is None or connection.transport is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await connection.transport.connection.ready()
            self._lost.set()

    async def _keep(self) -> None:
        while True:
            await AsyncRetrying(
                retry=retry_if_exception(self._gets_better),
                wait=wait_random_exponential(multiplier=0.1, max=3.0),
                before_sleep=self._log_retry,
                reraise=True,
            )(self._connect)
            self._was_ready = True
            self._ready.set()
            log.info("bus.connected", link=self._name, version=self.server_version)
            await self._lost.wait()
            self._ready.clear()
            log.warning("bus.lost", link=self._name)
            await self._drop()

    def _gets_better(self, error: BaseException) -> bool:
        return isinstance(error, Exception) and (self._was_ready or not isinstance(error, Unusable))

    def _log_retry(self, state: RetryCallState) -> None:
        self._last_error = state.outcome.exception() if state.outcome else None
        log.info("bus.connect_again", link=self._name, attempt=state.attempt_number, error=repr(self._last_error))

    async def _connect(self) -> None:
        lost = self._lost = asyncio.Event()  # its own for each connection: an old one may close late
        try:
            # Nothing is shared yet, so here a cancellation does no harm: the connection goes with it.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._connection = await aio_pika.connect(
                    self._url.update_query(heartbeat=HEARTBEAT_S), client_properties={"connection_name": self._name}
                )
                self._connection.close_callbacks.add(lambda *_: lost.set())
                self._check_version(self._connection)
                channel = self._connection.channel(publisher_confirms=True, on_return_raises=True)
                channel.close_callbacks.add(lambda *_: lost.set())
                await channel.initialize()
                self._channel = cast("Channel", await channel.get_underlay_channel())
                self._channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())
                await self._set_up(self._channel)
        except BaseException as error:
            await self._drop()
            raise _sorted(error, self._url) from error

    def _check_version(self, connection: AbstractConnection) -> None:
        assert connection.transport is not None
        shown = str(connection.transport.connection.server_properties.get("version", "0"))
        self.server_version = tuple(int(part) for part in re.findall(r"\d+", shown)[:3])
        if self.server_version < SERVER_VERSION_MIN:
            raise Unusable(f"{without_password(self._url)} is RabbitMQ {shown}; 3.10 or newer is needed")

    async def _drop(self) -> None:
        """Close the connection; a server that hangs may keep the closing, not us."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await asyncio.wait({self.spawn(connection.close())}, timeout=CLOSE_TIMEOUT_S)


def _sorted(error: BaseException, url: URL) -> BaseException:
    """A failure to connect by what can be done about it."""
    shown = without_password(url)
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return Unusable(f"{shown} refuses this user: {error}")
    if isinstance(error, InvalidFrameError):  # aiormq keeps the server's code to itself, so it may be for good or not
        return Transient(f"{shown} broke off the handshake; does its virtual host exist, and may this user enter it?")
    if isinstance(error, TimeoutError):
        remedy = "if it runs, look for a queue without a leader: rabbitmq-queues quorum_status QUEUE"
        return Transient(f"{shown} did not answer within {CONNECT_TIMEOUT_S} s; {remedy}")
    if isinstance(error, ChannelPreconditionFailed):
        return Unusable(f"{shown} has a queue or exchange of that name with other properties; delete it there: {error}")
    return error


def _result(task: asyncio.Task[T]) -> T:
    """What a finished call came to. aiormq ends calls of a lost connection by cancelling, or by any error."""
    if task.cancelled():
        raise Transient("the connection was lost before the answer")
    error = task.exception()
    if isinstance(error, PublishError):
        raise _Returned
    if error is not None:
        raise Transient(f"the broker did not take it: {error!r}") from error
    return task.result()


async def _declare_shared(channel: Channel, topology: Topology) -> None:
    await channel.exchange_declare(topology.exchange, exchange_type="direct", durable=True)
    await channel.exchange_declare(topology.dead_exchange, exchange_type="fanout", durable=True)
    await _declare_queue(channel, topology.dead_letters)
    await channel.queue_bind(topology.dead_letters.name, topology.dead_exchange)


async def _declare_queue(channel: Channel, queue: Queue) -> None:
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.exclusive,
        arguments=dict(queue.arguments),
    )


async def _look(connection: AbstractConnection, queue_name: str, limit: int) -> list[DeadLetter]:
    """Get without acknowledging, then give all back: they return to the head of the queue in their order."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    try:
        queue = await channel.get_queue(queue_name, ensure=False)
        letters: list[DeadLetter] = []
        last = None
        while len(letters) < limit and (message := await queue.get(fail=False)) is not None:
            last = message
            letters.append(_dead_letter(message.body, message.headers))
        if last is not None:
            await last.nack(multiple=True, requeue=True)
        return letters
    finally:
        await channel.close()


def _dead_letter(raw: bytes, headers: Mapping[str, Any]) -> DeadLetter:
    word = str(headers.get("x-first-death-reason", "unknown"))
    reason = str(headers.get(REASON_HEADER, BROKER_REASONS.get(word, word)))
    try:
        envelope = decode(raw)
    except Unreadable:
        return DeadLetter(reason=reason, raw=raw, headers=dict(headers))
    return DeadLetter(reason=reason, raw=raw, envelope=envelope, headers=dict(headers))


def _tag_of(message: DeliveredMessage) -> int:
    assert message.delivery_tag is not None, "a consumer's delivery has a tag"
    return message.delivery_tag


def _now() -> float:
    return asyncio.get_running_loop().time()
