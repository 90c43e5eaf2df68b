"""The two buses behind one face, so that one contract suite can trouble both in the same way."""

import asyncio
import itertools
from abc import ABC, abstractmethod

import aio_pika

from bus.broker import Broker, DeadLetter, Delivery
from bus.envelope import Envelope
from bus.memory import MemoryBroker, MemoryBus
from bus.rabbit import RabbitBroker
from bus.topology import Topology
from tests.support.rabbitmq import RabbitMQ

PATIENCE_S = 60.0
"""no test waits this long; it only turns a hang into a failure"""

_prefixes = itertools.count()


class Node:
    """A broker and what was delivered to it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.held: list[Delivery] = []
        self._inbox: asyncio.Queue[Delivery] = asyncio.Queue()

    def deliver(self, delivery: Delivery) -> None:
        """The callback: it only enqueues."""
        self.held.append(delivery)
        self._inbox.put_nowait(delivery)

    async def hear(self) -> Delivery:
        """The next delivery."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._inbox.get()

    async def hear_and_ack(self, count: int) -> list[str]:
        """The ids of the next deliveries, acked."""
        ids = []
        for _ in range(count):
            delivery = await self.hear()
            await delivery.ack()
            ids.append(delivery.envelope.id)
        return ids


class World(ABC):
    """A bus, nodes on it, and its troubles."""

    def __init__(self, delivery_limit: int) -> None:
        self.topology = Topology(prefix=f"test-{next(_prefixes)}", delivery_limit=delivery_limit)
        self._nodes: list[Node] = []

    async def node(self, name: str, *addresses: str, prefetch: int = 256, publish_timeout_s: float = PATIENCE_S) -> Node:
        """A node that is open and bound."""
        node = Node(self.make(prefetch, publish_timeout_s))
        self._nodes.append(node)
        await node.broker.open(name, node.deliver)
        for address in addresses:
            await node.broker.bind(address)
        return node

    async def dead_letters(self, node: Node, count: int) -> list[DeadLetter]:
        """The dead letters, once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while True:  # nothing tells when a message became a dead letter
                letters = await node.broker.dead_letters()
                if len(letters) >= count:
                    return list(letters)
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Close all nodes."""
        for node in self._nodes:
            await node.broker.close()

    @abstractmethod
    def make(self, prefetch: int, publish_timeout_s: float) -> Broker:
        """A broker that is not open."""

    @abstractmethod
    async def inject(self, address: str, raw: bytes) -> None:
        """Put bytes on the bus that no codec has seen."""

    @abstractmethod
    async def stop(self) -> None:
        """An outage begins, abruptly."""

    @abstractmethod
    async def start(self) -> None:
        """It ends."""

    @abstractmethod
    async def block(self) -> None:
        """An alarm begins."""

    @abstractmethod
    async def unblock(self) -> None:
        """It ends."""


class MemoryWorld(World):
    """Everything in this process."""

    def __init__(self, delivery_limit: int = 100) -> None:
        super().__init__(delivery_limit)
        self.bus = MemoryBus(self.topology)

    def make(self, prefetch: int, publish_timeout_s: float) -> Broker:
        return MemoryBroker(self.bus, prefetch=prefetch, publish_timeout_s=publish_timeout_s)

    async def inject(self, address: str, raw: bytes) -> None:
        self.bus.inject(address, raw)

    async def stop(self) -> None:
        self.bus.stop()

    async def start(self) -> None:
        self.bus.start()

    async def block(self) -> None:
        self.bus.block()

    async def unblock(self) -> None:
        self.bus.unblock()


class RabbitWorld(World):
    """A real server."""

    def __init__(self, server: RabbitMQ, delivery_limit: int = 100) -> None:
        super().__init__(delivery_limit)
        self.server = server

    def make(self, prefetch: int, publish_timeout_s: float) -> Broker:
        return RabbitBroker(self.server.url, topology=self.topology, prefetch=prefetch, publish_timeout_s=publish_timeout_s)

    async def inject(self, address: str, raw: bytes) -> None:
        async with await aio_pika.connect(self.server.url) as connection, connection.channel() as channel:
            exchange = await channel.get_exchange(self.topology.exchange, ensure=False)
            await exchange.publish(aio_pika.Message(raw), routing_key=address)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.write_names)
        await asyncio.to_thread(self.server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def block(self) -> None:
        await asyncio.to_thread(self.server.control, "set_vm_memory_high_watermark", "0")

    async def unblock(self) -> None:
        await asyncio.to_thread(self.server.control, "set_vm_memory_high_watermark", "0.4")


def letter(identity: str, target: str = "hypervisor.h1", **changes: object) -> Envelope:
    """An envelope for a test."""
    fields = {"id": identity, "type": "Test", "source": "user.tester", "target": target, "body": {"text": "hello"}}
    return Envelope(**(fields | changes))
