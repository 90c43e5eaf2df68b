"""Messages per second through the full actor shell on RabbitMQ, beside raw aio-pika, in the same run.

shell: 64 actors on two nodes play ping-pong in pairs. Each message is decoded, decided, stored (SQLite WAL, synchronous=FULL, a
       store per node), obeyed, answered with a confirmed publish, and acked.
raw:   aio-pika publish + confirm + consume + ack, persistent, two quorum queues, nothing decided or stored.

Both run in this one process, with the same number of messages in flight and messages of the same size, in turns; the table shows
the medians of the rounds. A shared machine changes its speed from minute to minute: so rounds are short and many, and the
ratio is the median of the ratios of neighbours.

    python -m benchmarks.bus [--bus URL] [--actors 64] [--seconds 3] [--rounds 5] [--json]
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import statistics
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import attrs
import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection

from actors.runtime.actor import Actor, Turn
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import RealClock
from actors.runtime.node import Node
from actors.runtime.sqlite import SqliteStore
from bus.codec import encode
from bus.envelope import Envelope
from bus.rabbit import RabbitBroker
from bus.topology import Topology

AIM = 0.5
NODES = 2


@attrs.frozen(kw_only=True)
class Cast:
    """As large as that of a migration."""

    saga: str
    vm: str
    epoch: int
    source: str
    target: str
    devices: tuple[str, ...]


CAST = Cast(saga="h1-7", vm="web1", epoch=3, source="h1", target="h2", devices=("san0", "san1"))


@attrs.frozen(kw_only=True)
class Ball:
    """What is thrown; `hit` grows with each throw."""

    hit: int
    chunk: int = 0
    of: int = 1
    slots: bytes = b"\0" * 64


@attrs.frozen(kw_only=True)
class Hits:
    """The record of a player."""

    last: int
    heard: int


class Player(Actor):
    """Stores each ball's number and throws it back."""

    kinds = (Hits,)
    hears = (Ball,)

    def __init__(self, address: str, opposite: str) -> None:
        self.address = address
        self._opposite = opposite

    def decide(self, turn: Turn) -> None:
        """Count it and throw it back."""
        ball = turn.heard.body
        hits = turn.get(Hits) or Hits(last=0, heard=0)
        turn.put(Hits(last=ball.hit, heard=hits.heard + 1))
        turn.say(self._opposite, Ball(hit=ball.hit + 1), cast=turn.heard.cast, row="throw")


def player(node: int, number: int) -> str:
    return f"hypervisor.n{node}-p{number}"


CATALOGUE = Catalogue([Ball], Cast)


def first_ball(number: int) -> Envelope:
    """The ball that player `number` of node 1 hears first."""
    return Envelope(
        id=str(uuid.uuid4()),
        type="Ball",
        source=player(0, number),
        target=player(1, number),
        body={"hit": 0, "chunk": 0, "of": 1, "slots": b"\0" * 64},
        cast={"saga": "h1-7", "vm": "web1", "epoch": 3, "source": "h1", "target": "h2", "devices": ["san0", "san1"]},
        row="throw",
        epoch=3,
        correlation="h1-7",
        causation=str(uuid.uuid4()),
        sent_at=1.0,
    )


@contextlib.asynccontextmanager
async def nodes_of(url: str, directory: Path, actors: int, prefix: str) -> AsyncIterator[list[Node]]:
    nodes = []
    for index in range(NODES):
        broker = RabbitBroker(url, topology=Topology(prefix=prefix), prefetch=4 * actors)
        store = SqliteStore(directory / f"n{index}-{prefix}.store")
        clock, chance = RealClock(), random.Random(index)
        nodes.append(Node(f"n{index}", broker=broker, store=store, catalogue=CATALOGUE, clock=clock, random=chance))
    for index, node in enumerate(nodes):
        players = range(actors // NODES)
        await node.start([Player(player(index, number), player(1 - index, number)) for number in players])
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.kill()


async def shell_rate(url: str, actors: int, seconds: float) -> dict[str, float]:
    """Messages heard per second, and turns per transaction."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="swapferry-bench-") as directory:
        async with nodes_of(url, Path(directory), actors, prefix) as nodes:
            thrower = RabbitBroker(url, topology=Topology(prefix=prefix))
            await thrower.open("user.thrower", lambda delivery: None)  # noqa: ARG005
            for index in range(actors):
                await thrower.publish(first_ball(index // NODES))
            await thrower.close()
            return await measure(nodes, seconds)


async def measure(nodes: list[Node], seconds: float) -> dict[str, float]:
    def sums() -> tuple[int, int]:
        return sum(node.counts["heard"] for node in nodes), sum(node.counts["commits"] for node in nodes)

    loop = asyncio.get_running_loop()
    await asyncio.sleep(1.0)
    (heard, commits), started = sums(), loop.time()
    await asyncio.sleep(seconds)
    heard_after, commits_after = sums()
    took_s = loop.time() - started
    return {"rate": (heard_after - heard) / took_s, "group": (heard_after - heard) / max(1, commits_after - commits)}


class RawLine:
    """One quorum queue, and the balls that go through it."""

    def __init__(self, name: str, body: bytes) -> None:
        self.consumed = 0
        self._name = name
        self._body = body
        self._arrived: dict[str, asyncio.Event] = {}

    async def open(self, publishing: AbstractRobustConnection, consuming: AbstractRobustConnection, prefetch: int) -> None:
        channel = await consuming.channel()
        await channel.set_qos(prefetch_count=prefetch)
        self._queue = await channel.declare_queue(self._name, durable=True, arguments={"x-queue-type": "quorum"})
        await self._queue.consume(self._consume)
        self._exchange = (await publishing.channel(publisher_confirms=True)).default_exchange

    async def _consume(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        self.consumed += 1
        assert message.correlation_id is not None
        self._arrived[message.correlation_id].set()

    async def throw(self, ball: str) -> None:
        """One message in flight, again and again."""
        arrived = self._arrived[ball] = asyncio.Event()
        while True:
            message = aio_pika.Message(self._body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, correlation_id=ball)
            await self._exchange.publish(message, routing_key=self._name, mandatory=True)
            await arrived.wait()
            arrived.clear()

    async def close(self) -> None:
        await self._queue.delete(if_unused=False, if_empty=False)


async def raw_rate(url: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Messages consumed per second."""
    body = encode(first_ball(0))
    async with await aio_pika.connect_robust(url) as publishing, await aio_pika.connect_robust(url) as consuming:
        lines = [RawLine(f"bench-{uuid.uuid4().hex[:8]}", body) for _ in range(NODES)]
        for line in lines:
            await line.open(publishing, consuming, 4 * in_flight)
        balls = [asyncio.create_task(lines[ball % NODES].throw(str(ball))) for ball in range(in_flight)]
        await asyncio.sleep(1.0)
        consumed, started = sum(line.consumed for line in lines), asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        rate = (sum(line.consumed for line in lines) - consumed) / (asyncio.get_running_loop().time() - started)
        for ball in balls:
            ball.cancel()
        await asyncio.gather(*balls, return_exceptions=True)
        for line in lines:
            await line.close()
    return {"rate": rate}


async def compare(url: str, actors: int, seconds: float, rounds: int) -> dict[str, Any]:
    raw, shell = [], []
    for _ in range(rounds):
        raw.append(await raw_rate(url, actors, seconds))
        shell.append(await shell_rate(url, actors, seconds))
    raw_per_s = statistics.median(result["rate"] for result in raw)
    shell_per_s = statistics.median(result["rate"] for result in shell)
    ratio = statistics.median(ours["rate"] / theirs["rate"] for ours, theirs in zip(shell, raw, strict=True))
    return {
        "actors": actors,
        "nodes": NODES,
        "in_flight": actors,
        "rounds": rounds,
        "message_bytes": len(encode(first_ball(0))),
        "raw_per_s": round(raw_per_s),
        "shell_per_s": round(shell_per_s),
        "turns_per_commit": round(statistics.median(result["group"] for result in shell), 1),
        "ratio": round(ratio, 2),
        "aim": AIM,
        "reached": ratio >= AIM,
    }


@contextlib.contextmanager
def bus_at(url: str | None) -> Iterator[str]:
    """The RabbitMQ of this URL, or one of our own."""
    if url is not None:
        yield url
        return
    from tests.support.rabbitmq import RabbitMQ  # noqa: PLC0415 - only where no URL was given

    with RabbitMQ() as server:
        yield server.url


def show(result: dict[str, Any]) -> None:
    flying = f"{result['in_flight']} messages of {result['message_bytes']} bytes in flight"
    print(f"{result['actors']} actors on {result['nodes']} nodes, {flying}, {result['rounds']} rounds")
    print(f"{'raw aio-pika: publish, confirm, consume, ack':<56}{result['raw_per_s']:>8} msg/s")
    print(f"{'full shell: decode, decide, store, obey, say, ack':<56}{result['shell_per_s']:>8} msg/s")
    print(f"{'turns in one transaction':<56}{result['turns_per_commit']:>8}")
    verdict = "reached" if result["reached"] else "missed"
    print(f"{'ratio':<56}{result['ratio']:>8}       (aim {result['aim']}: {verdict})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bus", help="AMQP URL; without it a RabbitMQ is started for this run")
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with bus_at(options.bus) as url:
        result = asyncio.run(compare(url, options.actors, options.seconds, options.rounds))
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
