"""A real QEMU under the preload library and a pager of its own, moved and mistreated."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from paging.device import PAGE_BYTES
from paging.errors import DeviceRefused, GuestError, TransferError
from paging.guest import Disk, Workload
from paging.qemu import QemuGuest
from paging.qemu_console import fields
from tests.paging.machines import (
    BUILDS,
    MIB,
    SMALL,
    Hosts,
    process_exists,
    process_status,
    swapped_pattern_page,
    two_hosts,
)
from tests.paging.parts import overwrite_slot


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as made:
        yield made


async def heard(guest: QemuGuest, wanted: str) -> str:
    """Wait until a guest's watcher is told this; the sentence."""
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    guest.watch(lambda what, sentence: told.put_nowait((what, sentence)))
    while (word := await told.get())[0] != wanted:
        pass
    return word[1]


@pytest.mark.parametrize("qemu", BUILDS)
async def test_a_guest_that_was_moved_finds_every_byte_as_it_was(hosts: Hosts, qemu: str):
    source = await hosts.booted(qemu=qemu)
    target, endpoint = await hosts.staged(qemu=qemu)

    halted, manifest = await hosts.delivered(source, endpoint)
    await target.load(manifest, halted.swapped)
    await target.run()
    await source.destroy()

    assert await target.verify() is None
    assert manifest.pages_granted == sum(map(len, halted.swapped.values()))
    assert manifest.pages_granted * PAGE_BYTES > SMALL.workload.fill_bytes // 2
    assert manifest.bytes_sent <= 1.05 * manifest.pages_sent * PAGE_BYTES + manifest.state_bytes
    assert (await target.counts()).resident_bytes_max <= SMALL.resident_bytes + 64 * PAGE_BYTES


async def test_a_guest_moves_from_an_old_qemu_to_a_new_one(hosts: Hosts):
    source = await hosts.booted(qemu="qemu 7.2")
    target, endpoint = await hosts.staged(qemu="qemu 10.0")

    halted, manifest = await hosts.delivered(source, endpoint)
    await target.load(manifest, halted.swapped)
    await target.run()

    assert await target.verify() is None


async def test_a_guest_whose_target_went_away_is_thawed_and_has_lost_nothing(hosts: Hosts):
    source = await hosts.booted()
    target, endpoint = await hosts.staged()
    halted, manifest = await hosts.delivered(source, endpoint)
    await target.load(manifest, halted.swapped)

    await target.destroy()
    await source.run()

    assert await source.verify() is None


async def test_a_delivery_with_other_grants_is_not_loaded(hosts: Hosts):
    source = await hosts.booted()
    target, endpoint = await hosts.staged()
    halted, manifest = await hosts.delivered(source, endpoint)
    name = hosts.device.name
    other = {name: halted.swapped[name] - halted.swapped[name].first(1)}

    with pytest.raises(TransferError, match=name):
        await target.load(manifest, other)


async def test_qemu_runs_as_nobody_in_a_sandbox(hosts: Hosts):
    source = await hosts.booted()

    qemu, _ = source.pids
    status = process_status(qemu)

    assert status["Uid"].split() == ["65534"] * 4
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == 0


async def test_pages_that_are_rewritten_while_they_leave_are_never_wrong(hosts: Hosts):
    # The working set is larger than the limit: pages go out all the time while the guest writes to them.
    storm = Workload(fill_bytes=8 * MIB, hot_bytes=8 * MIB, writes_per_s=20_000, checks_per_s=2_000)
    source = await hosts.booted(attrs.evolve(SMALL, resident_bytes=4 * MIB, workload=storm))

    while (await source.counts()).evicted < 12_000:
        said = fields(await source.ask("counters", "counters"))
        assert said["bad"] == 0

    assert await source.verify() is None


async def test_a_pager_that_is_killed_again_and_again_costs_the_guest_no_byte(hosts: Hosts):
    busy = attrs.evolve(SMALL, workload=attrs.evolve(SMALL.workload, hot_bytes=0, writes_per_s=3000, checks_per_s=1000))
    source = await hosts.booted(busy)

    for _ in range(4):
        _, pager = source.pids
        assert pager is not None
        os.kill(pager, signal.SIGKILL)
        # Answered only by the guest itself, so by way of the next pager.
        await source.ask("rate 3000 1000", "rate")
        while source.pids[1] == pager or (await source.counts()).evicted < 200:
            await source.ask("counters", "counters")

    assert await source.verify() is None


async def test_a_damaged_slot_holds_the_guest_and_is_named(hosts: Hosts):
    quiet = attrs.evolve(SMALL, workload=attrs.evolve(SMALL.workload, writes_per_s=0, checks_per_s=0))
    source = await hosts.booted(quiet)
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    source.watch(lambda what, sentence: told.put_nowait((what, sentence)))
    page, entry = swapped_pattern_page(source)
    before = overwrite_slot(hosts.device, entry.slot, b"\xa5", at=1000)

    checking = asyncio.create_task(source.verify())
    what, sentence = await told.get()

    assert what == "stalled"
    assert f"page {page} in slot {entry.slot} of device cold" in sentence
    with pytest.raises(GuestError, match="cannot be halted"):
        await source.halt()
    overwrite_slot(hosts.device, entry.slot, before, at=1000)
    assert (await told.get())[0] == "unstalled"
    assert await checking is None


@pytest.mark.parametrize("url", ["/var/lib/disk.img", "file:///var/lib/disk.img", "nvme://0000:00:04.0/1", "vhost-user:///run/v.sock"])
async def test_a_disk_that_would_pin_memory_is_refused_by_name(hosts: Hosts, url: str):
    guest = hosts.guest("a", attrs.evolve(SMALL, disks=(Disk(url=url),)))

    with pytest.raises(DeviceRefused, match=r"disk 0 .* is refused"):
        await guest.boot()

    assert guest.pids == (None, None)


async def test_a_running_machine_is_adopted_by_the_process_that_comes_after(hosts: Hosts):
    before = await hosts.booted()
    qemu, pager = before.pids
    await hosts.lose(before)

    after = hosts.successor(before)
    assert await after.adopt()

    assert after.pids[0] == qemu
    assert after.pids[1] == pager
    assert await after.verify() is None


async def test_a_halted_machine_is_adopted_with_its_device_state_and_moves(hosts: Hosts):
    before = await hosts.booted()
    halted = await before.halt()
    await hosts.lose(before)
    source = hosts.successor(before)
    target, endpoint = await hosts.staged()

    assert await source.adopt()
    again, manifest = await hosts.delivered(source, endpoint)
    await target.load(manifest, again.swapped)
    await target.run()

    assert again.swapped == halted.swapped
    assert await target.verify() is None


async def test_where_there_is_no_machine_nothing_is_adopted(hosts: Hosts):
    assert not await hosts.guest("a").adopt()

    lost = await hosts.booted()
    qemu, _ = lost.pids
    assert qemu is not None
    os.kill(qemu, signal.SIGKILL)
    await heard(lost, "died")

    assert not await hosts.successor(lost).adopt()


async def test_what_an_earlier_process_left_behind_is_killed_and_removed(hosts: Hosts):
    lost = await hosts.booted()
    pids = lost.pids

    await hosts.lose(lost)
    await hosts.successor(lost).destroy()

    assert not any(map(process_exists, pids))
    assert not lost.seat.directory.exists()


async def test_a_machine_that_dies_is_reported_with_its_last_words(hosts: Hosts):
    source = await hosts.booted()
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    source.watch(lambda what, sentence: told.put_nowait((what, sentence)))
    qemu, _ = source.pids
    assert qemu is not None

    os.kill(qemu, signal.SIGKILL)

    assert await told.get() == ("died", "web: QEMU ended with -9; its last words: none")
