"""A short run of the crash rounds, and that their judge sees what is wrong."""

import os
from pathlib import Path

import pytest

from paging.device import PAGE_BYTES
from paging.native.build import build_shim, build_test_guest
from tests.crash.cluster import Cluster
from tests.crash.judge import judge
from tests.crash.rounds import Planned, Say, run
from tests.crash.strikes import CLEANUP, Strike
from tests.support.rabbitmq import RabbitMQ

ROUNDS = (
    Planned("short/0", "fake", [Strike(what="point", role="manager", point="shell.after_store@commit")]),
    Planned("short/1", "fake", [Strike(what="point", role="source", point="driver.after_effect@frozen")]),
    Planned("short/2", "fake", [Strike(what="point", role="any", point="shell.before_store@Return")]),
    Planned("short/3", "fake", [Strike(what="node", role="source", moment=CLEANUP, after_s=0.2)]),
    Planned("short/4", "fake", [Strike(what="stop", role="target", moment="prepare", lasts_s=1.0)]),
    Planned(
        "short/5", "fake",
        [
            Strike(what="cancel", role="any", moment="freeze"),
            Strike(what="point", role="any", point="shell.after_obey@undo device"),
        ],
    ),
    Planned("short/6", "qemu", [Strike(what="pager", role="target", moment="resume")]),
    Planned("short/7", "qemu", [Strike(what="point", role="target", point="shell.after_obey@prepare")]),
)  # fmt: skip


@pytest.mark.timeout(280)
async def test_nothing_is_lost_whoever_dies(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    build_shim()
    build_test_guest()

    tally = await run(ROUNDS, [rabbitmq, rabbitmq], tmp_path, Say())

    assert [(one.seed, one.problems) for one in tally.violated] == []
    assert tally.deaths >= 5
    for line in tally.lines():
        Say()(line)


async def test_a_judge_sees_a_page_that_was_lost(rabbitmq: RabbitMQ) -> None:
    cluster = Cluster(rabbitmq, "fake")
    await cluster.start()
    try:
        for path in cluster.rooms.work.glob("dh1.slots"):
            with path.open("r+b") as device:
                size = os.fstat(device.fileno()).st_size
                device.seek(PAGE_BYTES)
                device.write(os.urandom(size - PAGE_BYTES))

        problems = await judge(cluster, None)
    finally:
        await cluster.stop()

    assert any(problem.startswith("memory:") for problem in problems)
