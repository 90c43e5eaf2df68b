import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from bus.broker import Broker
from bus.memory import MemoryBroker, MemoryBus
from bus.rabbit import RabbitBroker
from bus.topology import Topology
from tests.actors.runtime.parts import World

_prefixes = itertools.count()


@pytest.fixture
async def bus() -> MemoryBus:
    """The embedded bus."""
    return MemoryBus()


@pytest.fixture
async def world(tmp_path, bus: MemoryBus) -> AsyncIterator[World]:
    """A node and a peer on the embedded bus."""
    made = World(tmp_path / "n1.store", lambda: MemoryBroker(bus))
    yield made
    await made.close()


@pytest.fixture(params=["memory", "rabbit"])
async def either_world(request, tmp_path) -> AsyncIterator[World]:
    """The same on the embedded bus and on RabbitMQ."""
    made = World(tmp_path / "n1.store", connector(request))
    yield made
    await made.close()


def connector(request) -> Callable[[], Broker]:
    if request.param == "memory":
        bus = MemoryBus()
        return lambda: MemoryBroker(bus)
    server, topology = request.getfixturevalue("rabbitmq"), Topology(prefix=f"runtime-{next(_prefixes)}")
    return lambda: RabbitBroker(server.url, topology=topology, publish_timeout_s=30.0)
