"""A connection to RabbitMQ with one channel: how it is made, what is declared on it, and why it may be refused."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import cast

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    AuthenticationError,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.channel import Channel
from yarl import URL

from bus.errors import Transient, Unusable
from bus.link import Wire
from bus.topology import Queue, Topology
from bus.url import without_password

HEARTBEAT_S = 10
"""a silent peer is given up after three of them"""

CONNECT_TIMEOUT_S = 10.0

SERVER_VERSION_MIN = (3, 10)
"""at-least-once dead-lettering"""


class RabbitWire(Wire[Channel]):
    """A plain connection of aio_pika with one channel that has publisher confirms and raises on returns."""

    def __init__(self, connection: AbstractConnection, channel: Channel) -> None:
        self.connection = connection
        self.channel = channel

    @classmethod
    async def make(cls, url: URL, name: str, lost: Callable[[], None]) -> "RabbitWire":
        """Connect. Raises what aio_pika raises, and `Unusable` for a server that is too old."""
        connection = await aio_pika.connect(
            url.update_query(heartbeat=HEARTBEAT_S), client_properties={"connection_name": name}
        )
        try:
            connection.close_callbacks.add(lambda *_: lost())
            channel = connection.channel(publisher_confirms=True, on_return_raises=True)
            channel.close_callbacks.add(lambda *_: lost())
            await channel.initialize()
            raw = cast("Channel", await channel.get_underlay_channel())
            raw.on_consumer_cancel_callbacks.add(lambda _: lost())  # somebody deleted our queue
            wire = cls(connection, raw)
            if wire.server_version < SERVER_VERSION_MIN:
                raise Unusable(f"{without_password(url)} is RabbitMQ {wire.server_version}; 3.10 or newer is needed")
        except BaseException:
            await connection.close()
            raise
        return wire

    @property
    def server_version(self) -> tuple[int, ...]:
        """Such as (3, 10, 8)."""
        shown = str(self.channel.connection.server_properties.get("version", "0"))
        return tuple(int(part) for part in re.findall(r"\d+", shown)[:3])

    @property
    def is_open(self) -> bool:
        """See `Wire.is_open`."""
        return not self.channel.is_closed

    async def unblocked(self) -> None:
        """See `Wire.unblocked`."""
        await self.channel.connection.ready()

    async def close(self) -> None:
        """See `Wire.close`."""
        await self.connection.close()


async def connect(url: URL, set_up: Callable[[Channel], Awaitable[None]], name: str, lost: Callable[[], None]) -> RabbitWire:
    """A wire that is set up; `lost` is called when it breaks. Raises `Unusable` when the server refuses us for good."""
    try:
        # Nothing is shared yet, so here a cancellation does no harm: the connection goes with it.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            wire = await RabbitWire.make(url, name, lost)
            try:
                await set_up(wire.channel)
            except BaseException:
                await wire.close()
                raise
    except Exception as error:
        raise _sorted(error, url) from error
    return wire


def _sorted(error: Exception, url: URL) -> Exception:
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


async def declare_shared(channel: Channel, topology: Topology) -> None:
    """Declare what all nodes share. Idempotent."""
    await channel.exchange_declare(topology.exchange, exchange_type="direct", durable=True)
    await channel.exchange_declare(topology.dead_exchange, exchange_type="fanout", durable=True)
    await declare_queue(channel, topology.dead_letters)
    await channel.queue_bind(topology.dead_letters.name, topology.dead_exchange)


async def declare_queue(channel: Channel, queue: Queue) -> None:
    """Declare a queue. Idempotent."""
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.exclusive,
        arguments=dict(queue.arguments),
    )
