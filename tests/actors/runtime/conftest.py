from collections.abc import AsyncIterator

import pytest

from bus.memory import MemoryBroker, MemoryBus
from tests.actors.runtime.parts import World


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
