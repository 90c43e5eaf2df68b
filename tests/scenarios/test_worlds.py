"""A world in one process, played by hand: where a saga stops when a part of it stops, and what a user is told."""

import asyncio
import os
from pathlib import Path

from actors.domain.lifecycle import Outcome
from actors.messages import Cancel, Inspect, Inspected, Migrate, Verdict
from actors.runtime.clock import RealClock
from paging.superblock import slot_offset
from scenarios.load import load
from scenarios.runner import Runner
from tests.scenarios.worlds import Small, small_world, world_of
from tests.swapferry.scenes import SMALL

VM = "vm.web1@h1.boot-1"


def rows_done(small: Small) -> list[str]:
    return [entry.row for entry in small.world.entries() if entry.event == "done"]


async def until_asked_again(small: Small) -> None:
    """The opener of the saga has noticed that it waits."""
    while not any("waits for" in entry.event for entry in small.world.entries()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def migrated(small: Small, vm: str = "web1") -> Verdict:
    client = small.world.client
    request = Migrate(request=client.new_request(), vm=vm, target="h2", reply_to=client.address)
    verdict = await client.ask(request, 60)
    assert isinstance(verdict, Verdict)
    return verdict


async def test_stopping_the_mailbox_of_the_instance_stops_the_saga_at_freeze(tmp_path: Path) -> None:
    async with small_world(tmp_path) as small:
        (source,) = [host.node for host in small.world.hosts if host.plan.facts.host == "h1"]
        source.stop_mailbox(VM)

        moving = asyncio.create_task(migrated(small))
        await until_asked_again(small)
        assert rows_done(small) == ["open", "register", "welcome"]

        source.resume_mailbox(VM)
        verdict = await moving

        assert verdict.outcome is Outcome.DONE
        assert rows_done(small)[3] == "freeze"


async def test_a_user_is_told_that_there_is_no_such_vm(tmp_path: Path) -> None:
    async with small_world(tmp_path) as small:
        verdict = await migrated(small, "web2")

        assert (verdict.outcome, verdict.reason) == (Outcome.REFUSED, "unknown VM web2")


async def test_a_request_that_is_asked_twice_is_one_migration(tmp_path: Path) -> None:
    async with small_world(tmp_path) as small:
        client = small.world.client
        request = Migrate(request="once", vm="web1", target="h2", reply_to=client.address)

        first = await client.ask(request, 60)
        second = await client.ask(request, 60)

        assert first == second
        assert rows_done(small).count("commit") == 1


async def test_an_inspection_tells_where_the_memory_lies(tmp_path: Path) -> None:
    async with small_world(tmp_path) as small:
        client = small.world.client

        seen = await client.ask(Inspect(request="look", vm="web1", verify=True, reply_to=client.address), 60)

        assert isinstance(seen, Inspected)
        assert (seen.host, seen.ok, seen.words) == ("h1", True, "")
        assert seen.counts is not None
        assert seen.counts.resident + seen.counts.swapped + seen.counts.zero == seen.counts.total


async def test_a_guest_with_a_damaged_slot_is_held_and_the_run_says_which(tmp_path: Path) -> None:
    path = tmp_path / "damaged.toml"
    first, verify = 'do = "migrate"\n', 'do = "run_for"\nseconds = 0.1\n\n[[step]]\ndo = "verify"\nvm = "web1"\n\n[[step]]\n'
    path.write_text(SMALL.replace(first, verify + first))
    scenario = load(path)

    def damage(doing: str, _share: float | None = None) -> None:
        """Behind everybody's back, when pages have been swapped out."""
        if doing.startswith("everybody works"):
            overwrite(tmp_path / "san0.slots", range(8192))

    world, parts = world_of(scenario, tmp_path)
    report = await Runner(scenario, world, RealClock(), damage).run("embedded", "fake")
    parts.close()

    assert report.outcome == "failed"
    assert "web1 is held: page " in report.broken[0]
    assert "of device san0" in report.broken[0]
    assert report.played.verified is None


async def test_a_late_message_of_an_undone_saga_changes_nothing(tmp_path: Path) -> None:
    async with small_world(tmp_path) as small:
        faults = small.world.faults
        faults.hold("Freeze")
        moving = asyncio.create_task(migrated(small))
        await faults.held("Freeze")
        cancel = Cancel(request="cancel", vm="web1", reply_to=small.world.client.address)

        told = await small.world.client.ask(cancel, 60)
        undone = await moving
        await faults.release("Freeze")
        again = await migrated(small)

        assert isinstance(told, Verdict)
        assert (told.outcome, undone.outcome, again.outcome) == (Outcome.UNDONE, Outcome.UNDONE, Outcome.DONE)
        assert "cancelled" in undone.reason


def overwrite(path: Path, slots: range) -> None:
    with path.open("r+b") as device:
        for slot in slots:
            os.pwrite(device.fileno(), b"\xa5" * 64, slot_offset(slot))
