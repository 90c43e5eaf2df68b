"""Faults on purpose: what is armed happens, at its place and at its turn; nothing else does, and nothing is lost by it."""

import asyncio
import errno
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest

from paging import fault_points
from paging.device import PAGE_BYTES
from paging.device_on_demand import DeviceOnDemand
from paging.errors import DeviceError, PagingError
from paging.fault_points import POINTS, arm, fault_point, lasting, specification
from paging.faulty_device import FaultyDevice
from paging.slots import SlotSet
from tests.paging.machines import MIB, SLOTS, SMALL, Hosts, two_hosts
from tests.paging.parts import Desk, make_device

PAGER_POINTS = sorted(name for name in POINTS if name.startswith(("evict.", "page_in.", "copy.")))
TINY = attrs.evolve(
    SMALL, memory_bytes=16 * MIB, resident_bytes=3 * MIB,
    workload=attrs.evolve(SMALL.workload, fill_bytes=6 * MIB, hot_bytes=0, writes_per_s=1500, checks_per_s=500),
)  # fmt: skip


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    async with two_hosts(tmp_path) as hosts:
        yield hosts


def test_nothing_happens_where_nothing_is_armed():
    arm("evict.after_write=crash")

    for name in POINTS:
        if name != "evict.after_write":
            fault_point(name)


@pytest.mark.parametrize(
    "wrong", ["nowhere=crash", "evict.after_write=explode", "evict.after_write", "device.read=eio:no", "evict.after_read=enospc"]
)
def test_what_cannot_happen_is_refused_and_nothing_is_armed(wrong: str):
    with pytest.raises(PagingError):
        arm(f"device.read=eio,{wrong}")

    assert specification() == ""
    fault_point("device.read")


def test_an_error_comes_from_its_nth_time_on():
    arm("device.read=enospc:3")

    fault_point("device.read")
    fault_point("device.read")
    for _ in range(2):
        with pytest.raises(OSError, match=r"fault point device\.read") as raised:
            fault_point("device.read")
        assert raised.value.errno == errno.ENOSPC


def test_a_place_with_a_detail_is_met_only_there():
    arm("driver.before_effect@loaded=error")

    fault_point("driver.before_effect", "staged")
    with pytest.raises(OSError, match=r"driver\.before_effect"):
        fault_point("driver.before_effect", "loaded")


def test_a_successor_has_no_fault_that_happens_once():
    arm("evict.after_write=crash:7,device.read=eio,page_in.after_clear=pause")

    assert lasting() == "device.read=eio"


@pytest.mark.parametrize(("action", "seen"), [("crash", -signal.SIGKILL), ("pause", None)])
def test_a_process_ends_or_stands_still_at_its_place(action: str, seen: int | None):
    program = f"from paging import fault_points as f; f.arm('copy.after_read={action}'); f.fault_point('copy.after_read')"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        if seen is None:
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert process.poll() is None
            process.send_signal(signal.SIGCONT)
            seen = 0

        assert process.wait(30) == seen


@pytest.mark.parametrize("action", ["eio", "enospc", "short", "slow"])
def test_memory_is_as_written_whatever_its_device_does_to_a_write(tmp_path: Path, action: str):
    desk = Desk(tmp_path / "vm", [make_device(tmp_path, "a", 300)])
    for uuid, device in desk.pages.devices.items():
        desk.pages.devices[uuid] = FaultyDevice(device)
    desk.run(100, a=SlotSet.span(0, 300))

    arm(f"device.write={action}")
    for page in range(40):
        desk.write(page) if desk.pages.clock.count < desk.limit + desk.batch or action == "slow" else None
    desk.pages.evict()
    trouble = desk.pages.trouble
    arm("")

    assert isinstance(trouble, DeviceError) == (action != "slow")
    assert desk.wrong_pages() == []


def test_a_device_that_is_not_used_is_closed_and_opens_again(tmp_path: Path):
    where = make_device(tmp_path, "a", 10)
    device = DeviceOnDemand(where)
    device.write(3, [b"\x11" * PAGE_BYTES])

    device.close()
    is_open = device.is_open
    content = device.read(3)

    assert not is_open
    assert content == b"\x11" * PAGE_BYTES
    device.close()
    where.path.rename(tmp_path / "gone")
    with pytest.raises(OSError, match=r"a\.swap") as raised:
        device.read(3)
    assert raised.value.errno == errno.ENODEV


async def test_a_pager_may_die_at_every_point_and_costs_the_guest_no_byte(hosts: Hosts):
    guest = await hosts.booted(TINY)
    foreign = (await guest.swapped())["cold"]
    await guest.arm({"cold": SlotSet.span(SLOTS // 2, SLOTS // 2)})

    for restarts, point in enumerate(PAGER_POINTS, 1):
        if point.startswith("copy."):
            # Pages that are out now lie in slots which it has to leave next.
            foreign = (await guest.swapped())["cold"]
            half = SlotSet.span(0, SLOTS // 2)
            await guest.arm({"cold": half if foreign - half else SlotSet.span(SLOTS // 2, SLOTS // 2)})
        arm(f"{point}=crash:3")
        while guest.pager_restarts < restarts:
            await guest.clean({"cold": foreign}, 5000)
            await guest.ask("counters", "counters")
        arm("")

    assert await guest.verify() is None


async def test_a_full_device_holds_the_guest_with_a_reason_and_lets_it_go_on(hosts: Hosts):
    guest = await hosts.booted(TINY)
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    guest.watch(lambda what, sentence: told.put_nowait((what, sentence)))

    arm("device.write=enospc")
    what, sentence = await told.get()
    arm("")

    assert what == "stalled"
    assert "No space left on device" in sentence
    while (await told.get())[0] != "unstalled":
        pass
    assert await guest.verify() is None


def test_every_point_has_a_sentence():
    assert all(" " in sentence for sentence in POINTS.values())
    assert set(fault_points.FAILING) <= set(POINTS)
