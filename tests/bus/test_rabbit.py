"""What only the RabbitMQ adapter can get wrong: refusals, silence, and a queue that vanishes under it."""

import asyncio
import contextlib
import socket

import aio_pika
import pytest

from bus.errors import Transient, Unroutable, Unusable
from bus.rabbit import RabbitBroker
from bus.topology import Topology
from tests.bus.worlds import RabbitWorld, letter


@pytest.fixture
async def world(rabbitmq):
    world = RabbitWorld(rabbitmq)
    yield world
    await world.close()


def _ignore(_):
    pass


async def test_a_port_that_nobody_listens_on_is_transient():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    broker = RabbitBroker(f"amqp://guest:guest@127.0.0.1:{port}/", open_timeout_s=0.3)

    with pytest.raises(Transient, match=f"no connection to .*{port}"):
        await broker.open("h1", _ignore)


async def test_a_port_that_accepts_and_says_nothing_is_transient():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        broker = RabbitBroker(f"amqp://guest:guest@127.0.0.1:{mute.getsockname()[1]}/", open_timeout_s=0.3)

        with pytest.raises(Transient, match="no connection"):
            await broker.open("h1", _ignore)


async def test_a_wrong_password_is_said_at_once_and_not_shown(rabbitmq):
    broker = RabbitBroker(rabbitmq.url.replace("guest:guest", "guest:hush-hush"))

    with pytest.raises(Unusable, match="refuses this user") as refused:
        await broker.open("h1", _ignore)

    assert "hush-hush" not in str(refused.value)


async def test_an_unknown_virtual_host_is_named_as_a_possible_cause(rabbitmq):
    broker = RabbitBroker(f"{rabbitmq.url}nowhere", open_timeout_s=1.0)

    with pytest.raises(Transient, match="nowhere broke off the handshake; does its virtual host exist"):
        await broker.open("h1", _ignore)


async def test_a_queue_with_other_properties_is_said_at_once(world):
    await world.node("h1")
    other = RabbitBroker(world.server.url, topology=Topology(prefix=world.topology.prefix, delivery_limit=7))

    with pytest.raises(Unusable, match="other properties"):
        await other.open("h1", _ignore)


async def test_the_version_of_the_server_is_known_after_opening(world):
    node = await world.node("h1")

    assert await node.broker.server_version() >= (3, 10)


async def test_a_node_whose_queue_was_deleted_makes_it_again_and_binds_it(world):
    node = await world.node("h1", "hypervisor.h1")
    async with await aio_pika.connect(world.server.url) as connection, connection.channel() as channel:
        await channel.queue_delete(world.topology.node_queue("h1").name)

    async with asyncio.timeout(60):
        while not node.held:
            with contextlib.suppress(Unroutable, Transient):  # until it is back
                await node.broker.publish(letter("one"))
                await node.hear()

    assert node.held[0].envelope.id == "one"


async def test_a_publish_whose_caller_gives_up_harms_no_other(world):
    node = await world.node("h1", "hypervisor.h1")
    hurried = [asyncio.create_task(node.broker.publish(letter(f"hurried {number}"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in hurried:
        task.cancel()

    await node.broker.publish(letter("patient"))

    while (delivery := await node.hear()).envelope.id != "patient":
        await delivery.ack()
