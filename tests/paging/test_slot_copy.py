"""Slots come home: copied in the background, never twice, never a page that the guest took meanwhile."""

from pathlib import Path

import pytest

from paging.cleaner import RETRY_S, TICK_S, Cleaner
from paging.device import PAGE_BYTES
from paging.errors import OutOfSlots
from paging.policy import FAULTS_PER_S_CALM, pages_to_copy
from paging.slot_copy import SlotCopy
from paging.slots import SlotSet
from paging.swap_table import Phase
from tests.paging.parts import EIO, ENOSPC, Desk, make_device

FAST = 1_000_000
FOREIGN = SlotSet.span(0, 200)
OWN = SlotSet.span(0, 250)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A guest whose pages lie in slots of `foreign`, which are not its own any more, and that has been armed with `own`."""
    desk = Desk(tmp_path / "vm", [make_device(tmp_path, "foreign", 300), make_device(tmp_path, "own", 300)])
    desk.run(150, foreign=FOREIGN)
    desk.pages.arm({"own": OWN})
    return desk


def copier(desk: Desk) -> SlotCopy:
    copy = SlotCopy(desk.pages)
    copy.aim({"foreign": FOREIGN})
    return copy


def cleaner(desk: Desk, pages_per_s: int = FAST) -> Cleaner:
    made = Cleaner(desk.pages)
    made.want({"foreign": FOREIGN}, pages_per_s)
    return made


def run(work: Cleaner, ticks: int = 100) -> int:
    return sum(work.tick(TICK_S) for _ in range(ticks))


def free_and_used(desk: Desk) -> int:
    return desk.pages.pool.free() + len(desk.pages.swapped().get("own", ()))


def test_all_foreign_slots_are_left_and_memory_is_as_written(desk: Desk):
    away = len(desk.pages.swapped()["foreign"])
    work = cleaner(desk)

    copied = run(work)

    assert copied == away > 0
    assert set(desk.pages.swapped()) == {"own"}
    assert work.idle
    assert free_and_used(desk) == len(OWN)
    assert desk.wrong_pages() == []


def test_foreign_slots_are_only_read(desk: Desk):
    desk.devices["foreign"].slots_written.clear()

    run(cleaner(desk))
    for page in range(150):
        desk.write(page)
    desk.evict()

    assert desk.devices["foreign"].slots_written == set()


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_page_that_the_guest_takes_while_it_is_copied_is_not_switched(
    desk: Desk, what: str, monkeypatch: pytest.MonkeyPatch
):
    page = desk.swapped_page()
    copy = copier(desk)
    own = desk.devices["own"]
    write = own.write

    def taken_meanwhile(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        desk.read(page) if what == "read" else desk.write(page)

    monkeypatch.setattr(own, "write", taken_meanwhile)
    copied = copy.step(8)

    assert copied == 7
    assert desk.table.at(page) is None
    assert free_and_used(desk) == len(OWN)
    assert desk.wrong_pages() == []


def test_a_slot_that_became_anothers_while_it_was_read_is_no_trouble(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    page = desk.swapped_page()
    copy = copier(desk)
    foreign = desk.devices["foreign"]
    read = foreign.read

    def another_writes(slot: int) -> bytes:
        monkeypatch.undo()
        desk.touch(page)
        foreign.inner.write(slot, [b"\xaa" * PAGE_BYTES])
        return read(slot)

    monkeypatch.setattr(foreign, "read", another_writes)
    copy.step(8)

    assert copy.unreadable == {}
    assert desk.wrong_pages() == []


def test_a_restarted_pager_goes_on_where_its_predecessor_was(desk: Desk):
    copier(desk).step(20)
    left = len(desk.pages.swapped()["foreign"])

    desk.restart()

    assert run(cleaner(desk)) == left
    assert desk.wrong_pages() == []


@pytest.mark.parametrize("failing", ["foreign", "own"])
def test_what_a_failing_device_hinders_is_told_and_tried_again_slowly(desk: Desk, failing: str):
    device = desk.devices[failing]
    device.read_errno, device.write_errno = EIO if failing == "foreign" else None, ENOSPC if failing == "own" else None
    work = cleaner(desk)

    assert run(work, ticks=10) == 0
    trouble, left = work.trouble, work.left
    device.read_errno = device.write_errno = None
    at_once = run(work, ticks=10)
    later = run(work, ticks=int(RETRY_S / TICK_S) + 20)

    assert trouble is not None
    assert failing in trouble
    assert (at_once, later) == (0, left)
    assert work.trouble is None
    assert free_and_used(desk) == len(OWN)
    assert desk.wrong_pages() == []


def test_evictions_keep_their_slots(desk: Desk):
    desk.pages.arm({"own": SlotSet.span(0, 30)})
    copy = copier(desk)

    while copy.step(32):
        pass

    assert isinstance(copy.blocked, OutOfSlots)
    assert desk.pages.pool.free() == desk.pages.batch
    assert len(desk.pages.swapped()["own"]) == 30 - desk.pages.batch


@pytest.mark.parametrize("phase", [Phase.FROZEN, Phase.LOADED])
def test_nothing_is_copied_while_the_guest_stands_still(desk: Desk, phase: Phase):
    before = desk.pages.swapped()
    work = cleaner(desk)
    desk.table.enter(phase)

    run(work)

    assert desk.pages.swapped() == before


def test_a_rate_of_zero_stops_and_told_again_it_goes_on(desk: Desk):
    work = cleaner(desk, pages_per_s=100)
    some = run(work, ticks=10)

    work.want({"foreign": FOREIGN}, 0)
    none = run(work)
    is_idle = work.idle
    work.want({"foreign": FOREIGN}, FAST)
    rest = run(work)

    assert some == int(10 * TICK_S * 100)
    assert (none, is_idle) == (0, True)
    assert rest > 0
    assert work.left == 0


def test_copying_yields_to_a_guest_that_faults_much_but_never_stops():
    calm = pages_to_copy(0, pages_per_s=3200, faults=0, seconds=0.02)
    busy = pages_to_copy(0, pages_per_s=3200, faults=FAULTS_PER_S_CALM, seconds=0.02)

    assert calm == 64
    assert 0 < busy <= calm / 10


def test_what_was_not_copied_is_no_debt():
    carried = 0.0
    for _ in range(1000):
        carried = pages_to_copy(carried, pages_per_s=1000, faults=0, seconds=0.02)

    assert carried <= 100
