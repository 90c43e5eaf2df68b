"""Which slots a pager may write."""

from hypothesis import given
from hypothesis import strategies as st

from paging.slot_pool import SlotPool
from paging.slots import SlotSet


def pool_of(*slots: int, used: tuple[int, ...] = ()) -> SlotPool:
    pool = SlotPool()
    pool.arm({"a": SlotSet(slots)}, {"a": SlotSet(used)})
    return pool


def test_slots_come_in_one_run_where_there_is_one():
    pool = pool_of(1, 2, 5, 6, 7, 8, 20)

    assert pool.take(4) == ("a", 5, 4)


def test_the_longest_run_seen_is_taken_where_none_is_long_enough():
    pool = pool_of(1, 3, 4, 9)

    assert pool.take(3) == ("a", 3, 2)


def test_there_is_nothing_to_take_without_arms():
    assert SlotPool().take(1) is None
    assert pool_of(4, used=(4,)).take(1) is None


def test_used_slots_are_not_taken_and_free_ones_return():
    pool = pool_of(1, 2, 3, used=(2,))
    assert {pool.take(9), pool.take(9)} == {("a", 1, 1), ("a", 3, 1)}

    pool.give("a", 2)

    assert pool.take(1) == ("a", 2, 1)


def test_a_slot_that_was_given_back_is_not_the_next_to_be_tried():
    pool = pool_of(1, 2, 3)
    assert pool.take(1) == ("a", 1, 1)
    pool.give("a", 1)

    assert pool.take(1) == ("a", 2, 1)


def test_a_foreign_slot_is_never_free():
    pool = pool_of(1, used=(9,))

    pool.give("a", 9)
    pool.give("elsewhere", 1)

    assert pool.take(5) == ("a", 1, 1)
    assert pool.take(5) is None


@given(st.sets(st.integers(0, 80)), st.sets(st.integers(0, 80)), st.lists(st.integers(1, 20), max_size=20))
def test_every_slot_is_handed_out_once(armed: set[int], used: set[int], asks: list[int]):
    pool = pool_of(*armed, used=tuple(used))
    taken: list[int] = []
    for ask in asks:
        run = pool.take(ask)
        if run is not None:
            assert 1 <= run[2] <= ask
            taken += range(run[1], run[1] + run[2])

    assert len(set(taken)) == len(taken)
    assert set(taken) <= armed - used
    assert pool.free() == len(armed - used) - len(taken)
