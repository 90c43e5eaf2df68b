"""The swap table: what it says, that it outlives its writer, and that it refuses to be something else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paging.slots import SlotSet
from paging.swap_table import Phase, Process, SwapTable, TableUnusable, table_bytes
from tests.paging.parts import BOOT_ID

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"


def make(path: Path, pages: int = 100) -> SwapTable:
    return SwapTable.create(path, pages=pages, instance="vm.a@h.1", boot_id=BOOT_ID, devices=[A], process=Process(77, 88))


def name(table: SwapTable, device: str, pages: list[int], slots: list[int]) -> None:
    table.enter_slots(np.array(pages), device, np.array(slots), np.array(pages, dtype=np.uint32) * 1000)


@pytest.fixture
def table(tmp_path: Path) -> SwapTable:
    return make(tmp_path / "table")


def test_a_new_table_is_empty(table: SwapTable):
    assert table.phase is Phase.EMPTY
    assert not table.swapped().any()
    assert table.at(5) is None
    assert not table.slots()


def test_an_entry_says_device_slot_and_checksum(table: SwapTable):
    name(table, B, [7], [1 << 40])

    entry = table.at(7)

    assert entry is not None
    assert (entry.device, entry.slot, entry.checksum) == (B, 1 << 40, 7000)
    assert table.devices == (A, B)


def test_what_the_pager_wrote_is_there_when_it_is_gone(table: SwapTable):
    name(table, A, [1, 2, 3, 9], [11, 12, 13, 14])
    table.enter(Phase.FROZEN)

    found = SwapTable.inspect(table.path)

    assert found.digest() == table.digest()
    assert (found.phase, found.instance, found.boot_id, found.process) == (Phase.FROZEN, "vm.a@h.1", BOOT_ID, Process(77, 88))


def test_one_that_looks_sees_changes_and_cannot_make_any(table: SwapTable):
    looking = SwapTable.inspect(table.path)

    table.enter(Phase.RUNNING)
    name(table, A, [4], [40])

    assert looking.phase is Phase.RUNNING
    assert looking.slots() == {A: SlotSet([40])}
    with pytest.raises(ValueError, match="read-only"):
        looking.clear_pages(np.array([4]))


def test_a_page_that_came_in_has_no_entry_and_no_checksum(table: SwapTable):
    name(table, A, [4, 5], [40, 41])

    table.clear(4)
    table.clear_pages(np.array([5]))

    assert not table.entries.any()
    assert not table.checksums.any()


def test_runs_break_where_page_slot_or_device_breaks(table: SwapTable):
    name(table, A, [1, 2, 3, 5, 6], [10, 11, 20, 21, 22])
    name(table, B, [4], [21])

    runs = [(run.page, run.device, run.slot, run.count) for run in table.runs([A, B])]

    assert runs == [(1, A, 10, 2), (3, A, 20, 1), (5, A, 21, 2), (4, B, 21, 1)]
    assert [run.page for run in table.runs([B])] == [4]


@given(st.dictionaries(st.integers(0, 99), st.tuples(st.sampled_from([A, B]), st.integers(0, 300)), max_size=40))
def test_runs_are_the_whole_table(tmp_path_factory: pytest.TempPathFactory, entries: dict[int, tuple[str, int]]):
    table = make(tmp_path_factory.mktemp("table") / "table")
    for page, (device, slot) in entries.items():
        name(table, device, [page], [slot])

    spelled = {run.page + i: (run.device, run.slot + i) for run in table.runs([A, B]) for i in range(run.count)}

    assert spelled == entries
    named = {(device, slot) for device, slots in table.slots().items() for slot in slots}
    assert named == set(entries.values())


def test_the_digest_is_of_the_entries_and_not_of_the_order_of_devices(tmp_path: Path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    name(one, A, [1], [10])
    name(one, B, [2], [20])
    two.device_index(B)
    name(two, B, [2], [20])
    name(two, A, [1], [10])

    assert one.digest() == two.digest()
    two.checksums[2] += 1
    assert one.digest() != two.digest()


def test_a_table_is_never_made_over_another(table: SwapTable):
    with pytest.raises(TableUnusable, match=r"cannot be created.*remove the old instance"):
        make(table.path)


@pytest.mark.parametrize(
    ("at", "content", "complaint"),
    [
        (0, b"NOTATABLE", "is no swap table"),
        (8, b"\x09", "version 9"),
        (60, b"\xff\xff", "damaged header"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(table: SwapTable, at: int, content: bytes, complaint: str):
    with table.path.open("r+b") as file:
        file.seek(at)
        file.write(content)

    with pytest.raises(TableUnusable, match=complaint) as refusal:
        SwapTable.open(table.path)
    assert str(table.path) in str(refusal.value)


@pytest.mark.parametrize("size", [0, 100, 4096, table_bytes(100) - 1, table_bytes(100) + 4096])
def test_a_table_of_another_size_is_refused(table: SwapTable, size: int):
    with table.path.open("r+b") as file:
        file.truncate(size)

    with pytest.raises(TableUnusable, match="bytes"):
        SwapTable.open(table.path)


def test_a_table_that_is_missing_is_refused_with_its_path(tmp_path: Path):
    with pytest.raises(TableUnusable, match=r"nowhere cannot be opened"):
        SwapTable.open(tmp_path / "nowhere")
