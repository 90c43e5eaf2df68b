"""RabbitMQ dies in the middle of a migration and is away for a while: nothing fails, everybody waits, and it goes on."""

import asyncio

import pytest

from actors.domain.lifecycle import Outcome
from actors.sagas.migration import ROWS
from tests.crash.cluster import Cluster
from tests.crash.judge import Asked, judge
from tests.crash.rounds import Say, Watch, place_of
from tests.support.rabbitmq import RabbitMQ

AWAY_S = 4.0
VERDICT_S = 120.0


async def outage(cluster: Cluster, row: str, away_s: float) -> Watch:
    """A migration during which the broker is away, from this row on. All must be well afterwards."""
    watch, source = Watch(cluster), place_of(cluster)
    target = "h2" if source == "h1" else "h1"
    moving = asyncio.create_task(cluster.migrate(target, VERDICT_S + away_s))
    await watch.row(row, moving)

    await cluster.broker(away_s)
    verdict = await moving
    problems = await judge(cluster, Asked(source=source, target=target, verdict=verdict))
    watch.look()

    assert (verdict.outcome, problems) == (Outcome.DONE, [])
    Say()(f"RabbitMQ away for {away_s:g} s after {row}: the guest stood still for {watch.freeze_ms or 0:.0f} ms")
    return watch


@pytest.mark.timeout(280)
async def test_a_migration_goes_on_when_the_broker_is_back_and_says_what_it_waits_for(rabbitmq: RabbitMQ) -> None:
    cluster = Cluster(rabbitmq, "fake")
    await cluster.start()
    try:
        watch = await outage(cluster, "hand over", AWAY_S)
        left = {letter.reason for letter in await cluster.dead_letters()}
    finally:
        assert await cluster.stop() == []

    waits = [entry.event for entry in watch.seen if entry.event.startswith("waits for")]
    assert any(role in sentence for sentence in waits for role in {one.role for one in ROWS})
    assert left <= {"unroutable"}
