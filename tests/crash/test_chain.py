"""A real guest goes h1 -> h2 -> h3 -> h1, each time before its slots are home, and a node is killed after each move."""

import asyncio

import pytest

from actors.domain.lifecycle import Outcome
from paging.native.build import build_shim, build_test_guest
from scenarios.snapshot import abroad
from tests.crash.cluster import VM, Cluster
from tests.crash.judge import judge
from tests.support.rabbitmq import RabbitMQ

SLOW_PAGES_PER_S = 300
"""of some 1000 swapped pages: every move but the last finds slots of an earlier home"""
VERDICT_S = 120.0


@pytest.mark.timeout(280)
async def test_a_chain_of_moves_with_interrupted_cleanups_ends_with_every_slot_home(rabbitmq: RabbitMQ) -> None:
    build_shim()
    build_test_guest()
    cluster = Cluster(rabbitmq, "qemu", SLOW_PAGES_PER_S)
    await cluster.start()
    try:
        for target in ("h2", "h3", "h1"):
            verdict = await cluster.migrate(target, VERDICT_S)
            assert verdict.outcome is Outcome.DONE, verdict.reason
            if target != "h1":
                assert abroad(cluster.kept(), VM), "the cleanup was to be interrupted, and had ended"
            cluster.node(target)
            await asyncio.sleep(0)
            await cluster.all_ready()

        problems = await judge(cluster, None)
        runs = cluster.running()
    finally:
        ended = await cluster.stop()

    assert problems == []
    assert runs == ["h1"]
    assert ended == []
