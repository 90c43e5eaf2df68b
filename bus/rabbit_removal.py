"""Takes a cluster's queues and exchanges away from a RabbitMQ again, for a cluster that lived for one run only."""

from collections.abc import Iterable

import aio_pika

from bus.errors import Transient
from bus.topology import Topology
from bus.url import check_url, without_password


async def remove(url: str, topology: Topology, nodes: Iterable[str]) -> None:
    """Delete what this topology declared for these nodes, with every message in it. Raises `Transient`.

    What does not exist counts as removed (AMQP's delete is idempotent on RabbitMQ).
    """
    checked = check_url(url)
    queues = [*(topology.node_queue(node).name for node in nodes), topology.dead_letters.name]
    try:
        connection = await aio_pika.connect(checked)
        async with connection:
            channel = await connection.channel()
            for queue in queues:
                await channel.queue_delete(queue)
            for exchange in (topology.exchange, topology.dead_exchange):
                await channel.exchange_delete(exchange)
    except (aio_pika.exceptions.AMQPError, OSError) as error:
        shown = without_password(checked)
        raise Transient(f"{shown}: the queues {topology.prefix}.* could not be removed: {error}; remove them there") from error
