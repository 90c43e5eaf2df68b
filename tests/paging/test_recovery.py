"""What outlives what: a pager its node, a guest its pager, a guest's object its machine. With real processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from paging.errors import GuestError, MachineGone, PagingError, TransferError
from paging.guest import Workload
from paging.process_identity import identify, is_running
from paging.qemu import QemuGuest
from paging.slots import SlotSet
from tests.paging.machines import MIB, SLOTS, SMALL, Hosts, two_hosts
from tests.paging.parts import make_device

TINY = attrs.evolve(
    SMALL, memory_bytes=16 * MIB, resident_bytes=3 * MIB,
    workload=Workload(fill_bytes=6 * MIB, writes_per_s=1500, checks_per_s=500, seed=5),
)  # fmt: skip
QUIET = attrs.evolve(TINY, workload=attrs.evolve(TINY.workload, writes_per_s=0, checks_per_s=0))
NODE = """
import asyncio, sys
from pathlib import Path
from paging.device import DevicePath
from paging.guest import Seat
from paging.qemu import QemuGuest
from paging.slots import SlotSet
from tests.paging.test_recovery import TINY

async def main():
    device = DevicePath(name="cold", path=Path(sys.argv[2]), uuid=sys.argv[3])
    seat = Seat(instance="vm.web@a.1", definition=TINY, directory=Path(sys.argv[1]), devices=(device,))
    guest = QemuGuest(seat, accelerator="tcg")
    await guest.arm({"cold": SlotSet.span(0, 10000)})
    await guest.boot()
    print("booted", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as hosts:
        yield hosts


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def telling(guest: QemuGuest) -> "asyncio.Queue[tuple[str, str]]":
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    guest.watch(lambda what, sentence: told.put_nowait((what, sentence)))
    return told


async def outlived(guest: QemuGuest) -> None:
    """Kill the guest's pager; return when the guest has gone on with the next one, and worked on memory that was out."""
    before = (await guest.counts()).evicted
    restarts = guest.pager_restarts
    assert before > 0
    kill(guest.pids[1])
    while guest.pager_restarts == restarts or (await guest.counts()).evicted < 50:
        await guest.ask("counters", "counters")


async def test_a_guest_outlives_its_pager_under_load(hosts: Hosts):
    guest = await hosts.booted(TINY)

    for _ in range(5):
        await outlived(guest)

    assert await guest.verify() is None
    assert len(guest.pager_takeovers_s) == 5


async def test_a_killed_node_finds_its_guest_and_the_same_pager_again(hosts: Hosts):
    directory = hosts.directory / "node"
    words = [sys.executable, "-c", NODE, str(directory), str(hosts.device.path), hosts.device.uuid]
    node = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert node.stdout is not None
    assert await node.stdout.readline() == b"booted\n"
    pager = identify(int((directory / "pager.pid").read_text().split()[0]))

    node.kill()
    await node.wait()
    guest = hosts.guest("a", TINY)
    guest.seat = attrs.evolve(guest.seat, directory=directory)
    guest = hosts.successor(guest)

    assert await guest.adopt()
    assert is_running(pager)
    assert guest.pids[1] == pager.pid
    await guest.boot()
    assert await guest.verify() is None
    await outlived(guest)
    assert await guest.verify() is None


async def test_a_killed_node_that_finds_no_pager_starts_one(hosts: Hosts):
    before = await hosts.booted(TINY)
    pager = before.pids[1]
    await hosts.lose(before)
    kill(pager)

    after = hosts.successor(before)

    assert await after.adopt()
    assert after.pids[1] != pager
    assert await after.verify() is None


@pytest.mark.parametrize("lost_at", ["staged", "delivered", "loaded"])
async def test_a_staged_guest_is_taken_over_with_its_endpoint_and_what_was_delivered(hosts: Hosts, lost_at: str):
    source = await hosts.booted(TINY)
    before, endpoint = await hosts.staged(TINY)
    manifest = None
    if lost_at != "staged":
        halted, manifest = await hosts.delivered(source, endpoint)
        if lost_at == "loaded":
            await before.load(manifest, halted.swapped)
    await hosts.lose(before)

    target = hosts.successor(before)
    assert await target.adopt()
    if lost_at != "loaded":
        assert await target.stage() == endpoint
    halted = await source.halt()
    if manifest is None:
        manifest = await source.send(endpoint, frozenset({"cold"}))
    await target.load(manifest, halted.swapped)
    await target.run()

    assert await target.verify() is None


async def test_a_target_whose_pager_dies_while_it_is_filled_is_lost_and_the_source_goes_on(hosts: Hosts):
    source = await hosts.booted(TINY)
    target, endpoint = await hosts.staged(TINY)
    told = telling(target)
    halted, manifest = await hosts.delivered(source, endpoint)

    kill(target.pids[1])
    what, sentence = await told.get()

    assert what == "died"
    assert "its pager ended" in sentence
    for step in (target.stage(), target.load(manifest, halted.swapped), target.counts()):
        with pytest.raises(MachineGone, match="its pager ended"):
            await step
    with pytest.raises(TransferError):
        await source.send(endpoint, frozenset({"cold"}))
    await target.destroy()
    await source.run()
    assert await source.verify() is None


async def test_a_pager_that_dies_while_it_sends_fails_the_step_and_nothing_else(hosts: Hosts):
    source = await hosts.booted(TINY)
    target, endpoint = await hosts.staged(TINY)
    halted = await source.halt()
    os.kill(source.pids[1] or 0, signal.SIGSTOP)
    sending = asyncio.ensure_future(source.send(endpoint, frozenset({"cold"})))
    await asyncio.sleep(0)

    kill(source.pids[1])

    with pytest.raises(GuestError, match="has ended"):
        await sending
    assert (await source.halt()).swapped == halted.swapped == await source.swapped()
    manifest = await source.send(endpoint, frozenset({"cold"}))
    await target.load(manifest, halted.swapped)
    await target.run()
    assert await target.verify() is None


@pytest.mark.parametrize("phase", ["frozen", "loaded"])
async def test_a_guest_that_stands_still_outlives_its_pager_unchanged(hosts: Hosts, phase: str):
    guest = await hosts.booted(TINY)
    halted = await guest.halt()
    if phase == "loaded":
        guest, endpoint = await hosts.staged(TINY)
        manifest = await hosts.guests[0].send(endpoint, frozenset({"cold"}))
        await guest.load(manifest, halted.swapped)
    counts = await guest.counts()

    pager = guest.pids[1]
    kill(pager)
    while guest.pids[1] == pager:
        await guest.counts()

    assert await guest.swapped() == halted.swapped
    assert (await guest.counts()).resident == counts.resident
    await guest.run()
    assert await guest.verify() is None


async def test_a_dead_machine_is_told_once_and_every_step_says_so_until_it_is_booted_anew(hosts: Hosts):
    guest = await hosts.booted(QUIET)
    told = telling(guest)
    asked = asyncio.ensure_future(guest.ask("nothing", "nothing at all"))
    await asyncio.sleep(0)

    kill(guest.pids[0])

    with pytest.raises(MachineGone, match="QEMU ended with -9"):
        await asked
    assert await told.get() == ("died", "web: QEMU ended with -9; its last words: none")
    for step in (guest.counts, guest.swapped, guest.halt, guest.run, guest.verify, guest.stage, guest.boot):
        with pytest.raises(MachineGone):
            await step()
    with pytest.raises(MachineGone):
        await guest.clean({"cold": SlotSet.span(0, 1)}, 1)

    await guest.destroy()
    with pytest.raises(PagingError):
        await guest.run()
    await guest.boot()
    assert await guest.verify() is None
    assert told.empty()


async def test_a_halt_that_a_dying_machine_cuts_short_says_that_it_is_gone(hosts: Hosts):
    guest = await hosts.booted(QUIET)
    os.kill(guest.pids[0] or 0, signal.SIGSTOP)
    halting = asyncio.ensure_future(guest.halt())
    await asyncio.sleep(0)

    kill(guest.pids[0])

    with pytest.raises(MachineGone):
        await halting


async def test_a_pager_lets_go_of_a_device_that_is_cleaned_up(hosts: Hosts, tmp_path: Path):
    own = make_device(tmp_path, "own", SLOTS)
    guest = hosts.guest("a", QUIET)
    guest.seat = attrs.evolve(guest.seat, devices=(hosts.device, own))
    await guest.arm({"cold": SlotSet.span(0, SLOTS)})
    await guest.boot()
    foreign = await guest.swapped()

    await guest.arm({"own": SlotSet.span(0, SLOTS)})
    await guest.clean(foreign, 50_000)
    while opened_by(guest, hosts.device.path):
        assert is_running(identify(guest.pids[1] or 0))

    assert set(await guest.swapped()) == {"own"}
    assert opened_by(guest, own.path) == 1
    assert await guest.verify() is None


def opened_by(guest: QemuGuest, path: Path) -> int:
    """How many descriptors of this file the guest's pager has."""
    found = 0
    for link in Path(f"/proc/{guest.pids[1]}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += link.readlink() == path
    return found
