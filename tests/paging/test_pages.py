"""The pager's core: what is written is read again, whatever goes wrong on the way."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paging.device import PAGE_BYTES, DevicePath
from paging.errors import DeviceError, OutOfSlots, PagingError, SlotUnreadable
from paging.slots import SlotSet
from paging.swap_table import Phase
from tests.paging.parts import EIO, ENOSPC, Desk, make_device, overwrite_slot

ARMED = SlotSet.span(20, 200)


@pytest.fixture
def where(tmp_path: Path) -> DevicePath:
    return make_device(tmp_path, "a", 300)


@pytest.fixture
def desk(tmp_path: Path, where: DevicePath) -> Desk:
    return Desk(tmp_path / "vm", [where])


def test_memory_is_as_written_after_much_paging(desk: Desk):
    desk.run(150, a=ARMED)
    chance = random.Random(2)

    for step in range(600):
        page = chance.randrange(200)
        desk.write(page) if step % 3 else desk.read(page)
        if step % 5 == 0:
            desk.evict()

    assert desk.wrong_pages() == []
    assert desk.pages.counts().evicted > 200


def test_total_is_resident_and_swapped_and_zero(desk: Desk):
    desk.run(150, a=ARMED)

    counts = desk.pages.counts()

    assert (counts.total, counts.resident + counts.swapped, counts.zero) == (200, 150, 50)
    assert counts.resident <= desk.limit
    assert counts.faults == 150
    assert 0 < counts.page_in_us_p50 <= counts.page_in_us_p99


def test_resident_pages_never_exceed_the_limit_and_a_batch(desk: Desk):
    desk.pages.arm({"a": ARMED})
    desk.pages.start()

    for page in range(200):  # nobody evicts but the fault path
        desk.write(page)
    assert desk.wrong_pages() == []

    assert desk.memory.placed_max <= desk.limit + desk.batch
    assert desk.pages.counts().resident_bytes_max <= (desk.limit + desk.batch) * PAGE_BYTES


def test_only_armed_slots_are_written(desk: Desk):
    desk.run(150, a=ARMED)

    assert desk.devices["a"].slots_written <= set(ARMED)
    assert desk.pages.swapped()["a"] <= ARMED


def test_contiguous_memory_goes_to_contiguous_slots(desk: Desk):
    desk.run(150, a=ARMED)

    assert len(list(desk.table.runs(desk.table.devices))) <= 2


def test_a_zero_page_takes_no_slot(desk: Desk):
    desk.pages.arm({"a": ARMED})
    desk.pages.start()
    for page in range(120):
        desk.write(page, bytes(PAGE_BYTES))
        desk.evict()

    assert desk.pages.counts().swapped == 0
    assert not desk.devices["a"].slots_written
    assert desk.wrong_pages() == []


def test_the_slot_of_a_page_that_came_in_is_free_again(desk: Desk):
    desk.run(150, a=ARMED)
    free = desk.pages.pool.free()

    desk.read(desk.swapped_page())

    assert desk.pages.pool.free() == free + 1


def test_a_slot_that_is_not_armed_any_more_is_read_and_never_written(desk: Desk):
    desk.run(120, a=ARMED)
    foreign = desk.pages.swapped()["a"]
    desk.devices["a"].slots_written.clear()

    desk.pages.arm({"a": SlotSet.span(220, 80)})
    for page in range(120):
        desk.write(page)
        desk.evict()

    assert not desk.devices["a"].slots_written & set(foreign)
    assert desk.wrong_pages() == []


@pytest.mark.parametrize("armed", [{"b": SlotSet([1])}, {"a": SlotSet([300])}])
def test_arms_that_cannot_be_are_refused_and_change_nothing(desk: Desk, armed: dict[str, SlotSet]):
    desk.run(100, a=ARMED)
    free = desk.pages.pool.free()

    with pytest.raises(PagingError, match=r"vm\.a@h\.1: armed with slots"):
        desk.pages.arm(armed)
    assert desk.pages.pool.free() == free


def test_without_slots_the_guest_keeps_what_it_has_and_is_held_at_the_mark(desk: Desk):
    desk.run(0, a=SlotSet.span(0, 10))

    for page in range(desk.limit + desk.batch + 10):
        desk.write(page)
    with pytest.raises(OutOfSlots, match="no armed slot is free"):
        desk.write(199)

    counts = desk.pages.counts()
    assert counts.resident == desk.limit + desk.batch
    assert counts.swapped == 10
    assert counts.stalled is not None
    assert isinstance(desk.pages.trouble, OutOfSlots)

    desk.pages.arm({"a": ARMED})  # rescue
    assert desk.pages.retry() == 0
    assert desk.pages.counts().stalled is None
    assert desk.wrong_pages() == []


def test_without_slots_zero_pages_still_make_room(desk: Desk):
    desk.run(0, a=SlotSet.span(0, 10))
    for page in range(40):
        desk.write(page)

    for page in range(40, 200):
        assert desk.read(page) == bytes(PAGE_BYTES)

    assert desk.wrong_pages() == []


@pytest.mark.parametrize("number", [EIO, ENOSPC])
def test_an_eviction_that_fails_leaves_the_pages_resident_and_writable(desk: Desk, number: int):
    desk.run(desk.limit, a=ARMED)
    desk.write(desk.limit)
    desk.devices["a"].write_errno = number

    assert desk.pages.evict() == 0

    assert isinstance(desk.pages.trouble, DeviceError)
    assert desk.pages.counts().swapped == 0
    assert desk.pages.pool.free() == len(ARMED)
    for page in range(desk.limit + 1):
        desk.memory.poke(page, 0, desk.truth[page])  # no fence is left

    desk.devices["a"].write_errno = None
    assert desk.pages.evict() == desk.batch
    assert desk.pages.trouble is None
    assert desk.wrong_pages() == []


def test_a_torn_write_is_never_seen(desk: Desk):
    desk.run(desk.limit, a=ARMED)
    desk.devices["a"].torn_bytes, desk.devices["a"].write_errno = 700, EIO
    desk.write(desk.limit)
    desk.pages.evict()
    desk.devices["a"].torn_bytes = desk.devices["a"].write_errno = None

    desk.restart()

    assert desk.wrong_pages() == []


def flip_a_bit(desk: Desk, where: DevicePath, slot: int) -> Callable[[], None]:
    before = overwrite_slot(where, slot, b"\xaa", at=1234)
    return lambda: void(overwrite_slot(where, slot, before, at=1234))


def write_half(desk: Desk, where: DevicePath, slot: int) -> Callable[[], None]:
    before = overwrite_slot(where, slot, bytes(PAGE_BYTES // 2))
    return lambda: void(overwrite_slot(where, slot, before))


def refuse_reads(desk: Desk, where: DevicePath, slot: int) -> Callable[[], None]:
    desk.devices["a"].read_errno = EIO
    return lambda: setattr(desk.devices["a"], "read_errno", None)


def void(_: object) -> None:
    return None


@pytest.mark.parametrize("damage", [flip_a_bit, write_half, refuse_reads])
def test_a_slot_that_cannot_be_believed_is_never_shown_and_named(
    desk: Desk, where: DevicePath, damage: Callable[[Desk, DevicePath, int], Callable[[], None]]
):
    desk.run(150, a=ARMED)
    page = desk.swapped_page()
    entry = desk.table.at(page)
    assert entry is not None
    repair = damage(desk, where, entry.slot)

    with pytest.raises(SlotUnreadable) as stall:
        desk.read(page)

    assert (stall.value.page, stall.value.slot, stall.value.device) == (page, entry.slot, "a")
    assert not desk.memory.is_resident(page)
    assert desk.pages.counts().stalled == str(stall.value)
    assert desk.pages.retry() == 1
    assert desk.table.at(page) == entry

    repair()
    assert desk.pages.retry() == 0
    assert desk.wrong_pages() == []


def test_while_frozen_pages_come_by_copying_and_the_table_stays(desk: Desk):
    desk.run(150, a=ARMED)
    desk.pages.freeze()
    digest, free = desk.table.digest(), desk.pages.pool.free()

    for page in range(200):
        assert desk.read(page) == desk.truth.get(page, bytes(PAGE_BYTES))
    assert not desk.pages.over
    assert desk.pages.evict() == 0

    assert (desk.table.digest(), desk.pages.pool.free()) == (digest, free)
    assert desk.memory.placed_max <= desk.limit + desk.batch

    desk.pages.thaw()
    desk.evict()
    assert desk.wrong_pages() == []


def test_what_the_machine_wrote_while_frozen_is_not_lost_for_room(desk: Desk):
    desk.run(150, a=ARMED)
    desk.pages.freeze()
    dirty = desk.swapped_page()
    desk.write(dirty)

    for page in range(150):
        desk.read(page)

    assert desk.read(dirty) == desk.truth[dirty]
    desk.pages.thaw()
    assert desk.wrong_pages() == []


def test_phases_follow_each_other_as_they_should(desk: Desk):
    with pytest.raises(PagingError, match="is empty and cannot become frozen"):
        desk.pages.freeze()
    desk.run(60, a=ARMED)
    desk.pages.freeze()
    desk.pages.freeze()

    with pytest.raises(PagingError, match="is frozen and cannot become loaded"):
        desk.pages.settle()
    desk.pages.thaw()
    desk.pages.thaw()
    assert desk.table.phase is Phase.RUNNING


def test_a_new_pager_finds_everything_as_the_old_one_left_it(desk: Desk):
    desk.run(150, a=ARMED)
    counts = desk.pages.counts()

    desk.restart()

    found = desk.pages.counts()
    assert (found.resident, found.swapped, found.zero) == (counts.resident, counts.swapped, counts.zero)
    assert desk.wrong_pages() == []


class Killed(Exception):
    """The end of the pager's process."""


STEPS_OUT = ["fence", "read", "write", "enter_slots", "drop"]
STEPS_IN = ["device_read", "place", "clear"]


def kill_at(desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pager dies just after this step of the next page-out or page-in."""
    device = desk.devices["a"]
    owner, name = {
        "write": (device, "write"), "device_read": (device, "read"), "enter_slots": (desk.table, "enter_slots"),
        "clear": (desk.table, "clear"),
    }.get(step, (desk.memory, step))  # fmt: skip
    done = getattr(owner, name)

    def die(*arguments: object) -> None:
        done(*arguments)
        raise Killed

    monkeypatch.setattr(owner, name, die)


@pytest.mark.parametrize("step", STEPS_OUT + STEPS_IN)
def test_a_pager_may_die_at_any_step(desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch):
    desk.run(150, a=ARMED)
    while not desk.pages.over:
        desk.write(desk.swapped_page())
    kill_at(desk, step, monkeypatch)
    with pytest.raises(Killed):
        desk.pages.evict() if step in STEPS_OUT else desk.pages.fault(desk.swapped_page())
    monkeypatch.undo()

    desk.memory.release((0, 200))  # the kernel's part of a restart
    desk.restart()

    both = desk.table.swapped() & desk.memory.resident()
    assert not both.any(), "resident wins"
    swapped = desk.pages.counts().swapped
    assert desk.pages.pool.free() == len(ARMED) - swapped, "no slot leaks"
    assert desk.wrong_pages() == []


def test_in_a_staged_guest_the_table_wins_over_ram(desk: Desk):
    desk.pages.arm({"a": ARMED})
    desk.pages.clear()
    desk.devices["a"].write(20, [b"x" * PAGE_BYTES])
    desk.table.enter_slots(np.array([5]), desk.devices["a"].identity.uuid, np.array([20]), np.array([1], dtype=np.uint32))
    desk.memory.fill(5, b"old" + bytes(PAGE_BYTES - 3))
    desk.memory.fill(6, b"new" + bytes(PAGE_BYTES - 3))

    desk.restart()

    assert not desk.memory.is_resident(5)
    assert desk.memory.is_resident(6)
    assert desk.table.at(5) is not None


@pytest.mark.parametrize("phase", [Phase.LOADED, Phase.FROZEN])
def test_in_a_guest_that_stands_still_a_restart_changes_nothing(desk: Desk, phase: Phase):
    desk.run(150, a=ARMED)
    desk.pages.freeze()
    desk.table.enter(phase)
    desk.read(desk.swapped_page())
    digest, resident = desk.table.digest(), desk.memory.resident().tolist()

    desk.restart()

    assert (desk.table.digest(), desk.memory.resident().tolist()) == (digest, resident)


def test_a_second_event_for_one_fault_is_answered_and_changes_nothing(desk: Desk):
    desk.run(60, a=ARMED)
    resident = int(desk.memory.resident().nonzero()[0][0])
    desk.memory.fence((resident, 1))
    counts = desk.pages.counts()

    desk.pages.fault(resident)

    desk.memory.poke(resident, 0, desk.truth[resident])
    assert desk.pages.counts() == counts
