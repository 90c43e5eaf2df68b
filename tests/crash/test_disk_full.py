"""No room on a disk: while pages are swapped out, while slots come home, and in a store. Nothing is lost, and it goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
import pytest_asyncio

from actors.domain.lifecycle import Outcome
from scenarios.snapshot import abroad
from tests.crash.cluster import HOSTS, VM, Cluster
from tests.crash.judge import Asked, judge
from tests.crash.rounds import place_of
from tests.support.rabbitmq import RabbitMQ

T = TypeVar("T")
VERDICT_S = 120.0
WITHIN_S = 30.0
STORE_FULL = "store.commit=enospc"
DEVICE_FULL = "device.write=enospc"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(rabbitmq: RabbitMQ) -> AsyncIterator[Cluster]:
    made = Cluster(rabbitmq, "fake")
    await made.start()
    yield made
    assert await made.stop() == []


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> AsyncIterator[Cluster]:
    """The guest on h1, nothing armed."""
    if place_of(running) != "h1":
        verdict = await running.migrate("h1", VERDICT_S)
        assert verdict.outcome is Outcome.DONE, verdict.reason
        assert await judge(running, None) == []
    yield running
    await running.disarm()


async def until(holds: Callable[[], Awaitable[T]]) -> T:
    """What it returns, once that is something."""
    async with asyncio.timeout(WITHIN_S):
        while not (found := await holds()):  # noqa: ASYNC110 - what is looked at is in another process
            await asyncio.sleep(0.05)
        return found


async def test_a_guest_whose_pages_cannot_be_swapped_out_goes_on_when_there_is_room(cluster: Cluster) -> None:
    before = await cluster.look()
    await cluster.arm("h1", DEVICE_FULL)
    checking = asyncio.create_task(cluster.verify(VERDICT_S))
    await asyncio.sleep(1.0)
    during = await cluster.look()

    await cluster.disarm()
    await checking
    problems = await judge(cluster, None)

    assert problems == []
    assert during.swapped + during.resident == before.swapped + before.resident, "a page went missing"
    after = await cluster.look()
    assert after.stalled is None
    assert after.resident <= before.resident + 64


async def test_slots_come_home_when_there_is_room_again(cluster: Cluster) -> None:
    await cluster.arm("h2", DEVICE_FULL)
    verdict = await cluster.migrate("h2", VERDICT_S)
    assert verdict.outcome is Outcome.DONE, verdict.reason

    async def trouble_told() -> str | None:
        return (await cluster.look()).copy_trouble

    trouble = await until(trouble_told)
    left = abroad(cluster.kept(), VM)

    await cluster.disarm()
    problems = await judge(cluster, Asked(source="h1", target="h2", verdict=verdict))

    assert trouble is not None
    assert "No space left" in trouble
    assert left > 0
    assert problems == []


@pytest.mark.parametrize("host", HOSTS)
async def test_a_migration_waits_for_room_in_a_store(cluster: Cluster, host: str) -> None:
    """h1 is source, manager and arbiter; h2 the target; h3 has nothing to do with it."""
    list(cluster.news("*.log"))
    await cluster.arm(host, STORE_FULL)
    moving = asyncio.create_task(cluster.migrate("h2", VERDICT_S))

    async def refusal_logged() -> bool:
        return any("store_refused" in line for line in cluster.news("*.log"))

    if host != "h3":
        assert await until(refusal_logged)
        assert not moving.done()

    await cluster.disarm()
    verdict = await moving
    problems = await judge(cluster, Asked(source="h1", target="h2", verdict=verdict))

    assert verdict.outcome is Outcome.DONE, verdict.reason
    assert problems == []
