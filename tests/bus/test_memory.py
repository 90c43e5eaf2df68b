"""What the in-memory bus lets a test do that a real server does not."""

import asyncio

import attrs
import pytest

from bus.errors import Transient
from bus.topology import Topology
from tests.bus.worlds import MemoryWorld, letter


@pytest.fixture
async def world():
    world = MemoryWorld()
    yield world
    await world.close()


async def test_a_message_whose_confirm_was_lost_may_have_arrived(world):
    node = await world.node("h1", "hypervisor.h1")
    said = asyncio.create_task(node.broker.publish(letter("one")))
    await asyncio.sleep(0)

    await world.stop()
    await world.start()

    with pytest.raises(Transient, match="may arrive"):
        await said
    assert await node.hear_and_ack(1) == ["one"]


async def test_a_full_queue_is_the_publishers_trouble(world, monkeypatch):
    shape = attrs.evolve(world.topology.node_queue("h1"), messages_max=2)
    monkeypatch.setattr(Topology, "node_queue", lambda *_: shape)
    node = await world.node("h1", "hypervisor.h1", prefetch=1)
    for name in ("held", "one", "two"):
        await node.broker.publish(letter(name))
        await asyncio.sleep(0)

    with pytest.raises(Transient, match="full"):
        await node.broker.publish(letter("three"))


async def test_nothing_is_delivered_inside_the_publishers_call(world):
    node = await world.node("h1", "hypervisor.h1")

    world.bus.inject("hypervisor.h1", b"\xc1")

    assert node.broker.counters.dead_lettered == 0
    await world.dead_letters(node, 1)


async def test_two_readers_of_one_message_share_no_value(world):
    first, second = await world.node("h1", "user.u1"), await world.node("h2", "user.u1")

    await first.broker.publish(letter("one", "user.u1", body={"list": [1]}))

    one, other = await first.hear(), await second.hear()
    one.envelope.body["list"].append(2)
    assert other.envelope.body == {"list": [1]}
