"""The algebra of slot sets and their wire form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paging.slots import RANGE_BYTES, SlotSet, union

slots = st.sets(st.integers(0, 500), max_size=60)


@given(slots, slots)
def test_slot_sets_follow_the_algebra_of_sets(one: set[int], two: set[int]):
    a, b = SlotSet(one), SlotSet(two)

    assert set(a | b) == one | two
    assert set(a & b) == one & two
    assert set(a - b) == one - two
    assert (a <= b) == (one <= two)
    assert union([a, b]) == a | b
    assert len(a) == len(one)
    assert bool(a) == bool(one)


@given(slots)
def test_a_slot_set_survives_the_wire(some: set[int]):
    sent = SlotSet(some)

    received = SlotSet.from_wire(sent.to_wire())

    assert received == sent
    assert received.digest() == sent.digest()
    assert hash(received) == hash(sent)


@given(slots, slots)
def test_only_equal_sets_share_a_digest(one: set[int], two: set[int]):
    assert (SlotSet(one).digest() == SlotSet(two).digest()) == (one == two)


@given(slots, st.integers(1, 5))
def test_chunks_are_the_set_in_pieces_of_bounded_ranges(some: set[int], ranges_max: int):
    chunks = SlotSet(some).chunks(ranges_max)

    assert union(chunks) == SlotSet(some)
    assert sum(map(len, chunks)) == len(some)
    assert all(len(chunk.ranges()) <= ranges_max for chunk in chunks)


@given(slots, st.integers(0, 70))
def test_the_first_slots_are_the_lowest(some: set[int], count: int):
    assert list(SlotSet(some).first(count)) == sorted(some)[:count]


def test_the_wire_grows_with_ranges_and_not_with_slots():
    assert len(SlotSet.span(5, 1_000_000).to_wire()) == RANGE_BYTES


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"\0" * 7, id="half a range"),
        pytest.param(bytes([1, 0, 0, 0, 0, 0, 0, 0]), id="an empty range"),
        pytest.param(bytes([5, 0, 0, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0]), id="overlapping"),
        pytest.param(bytes([5, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0]), id="touching"),
        pytest.param(bytes([9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]), id="descending"),
        pytest.param(b"\xff\xff\xff\xff\x02\x00\x00\x00", id="beyond the last slot"),
    ],
)
def test_wire_forms_that_are_no_ranges_are_refused(wire: bytes):
    with pytest.raises(ValueError, match="slot ranges"):
        SlotSet.from_wire(wire)
