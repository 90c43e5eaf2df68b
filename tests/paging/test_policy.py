"""Which pages leave first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paging.policy import Clock, runs_of


def chosen(clock: Clock, count: int) -> list[int]:
    """Choose, and let them leave."""
    pages = [first + index for first, length in clock.choose(count) for index in range(length)]
    clock.left(pages)
    return pages


def clock_of(*pages: int, limit: int = 100, size: int = 1000) -> Clock:
    clock = Clock(size, limit)
    for page in pages:
        clock.placed(page)
    return clock


def test_pages_leave_in_the_order_in_which_they_came():
    clock = clock_of(30, 10, 20)

    assert [chosen(clock, 1) for _ in range(3)] == [[30], [10], [20]]
    assert clock.choose(5) == []


def test_neighbours_leave_together():
    clock = clock_of(50, 7, 51, 9, 52)

    assert clock.choose(3) == [(50, 3)]


def test_a_neighbour_that_came_much_later_stays():
    clock = clock_of(50, *range(200, 400), 51)

    assert chosen(clock, 2) == [50, 200]


def test_a_page_that_came_back_soon_is_passed_once():
    clock = clock_of(1, 10, 20, limit=10)
    assert chosen(clock, 1) == [1]

    clock.placed(1)

    assert [chosen(clock, 1) for _ in range(3)] == [[10], [20], [1]]


def test_a_page_that_came_back_late_is_not_passed():
    clock = clock_of(1, *range(100, 120), limit=10)
    chosen(clock, 20)
    clock.placed(1)
    clock.placed(300)

    assert [chosen(clock, 1) for _ in range(3)] == [[119], [1], [300]]


def test_pages_that_could_not_leave_are_last():
    clock = clock_of(1, 10, 20)
    assert clock.choose(1) == [(1, 1)]

    clock.kept([1])

    assert [chosen(clock, 1) for _ in range(3)] == [[10], [20], [1]]


def test_all_pages_can_leave_even_if_each_had_a_second_chance():
    clock = clock_of(*range(0, 40, 2))
    chosen(clock, 20)
    for page in range(0, 40, 2):
        clock.placed(page)

    assert sorted(chosen(clock, 20)) == list(range(0, 40, 2))
    assert clock.count == 0


@given(st.lists(st.tuples(st.sampled_from(["place", "choose", "keep"]), st.integers(0, 60)), max_size=200))
def test_the_clock_knows_who_is_resident_and_chooses_only_those(steps: list[tuple[str, int]]):
    clock, twin, resident = Clock(61, 8), Clock(61, 8), set()
    for step, number in steps:
        if step == "place" and number not in resident:
            clock.placed(number)
            twin.placed(number)
            resident.add(number)
        elif step in {"choose", "keep"}:
            runs = clock.choose(number)
            assert twin.choose(number) == runs, "the choice depends on nothing but what happened"
            pages = [first + index for first, count in runs for index in range(count)]
            assert len(set(pages)) == len(pages) == min(number, len(resident))
            assert set(pages) <= resident
            for each in (clock, twin):
                (each.left if step == "choose" else each.kept)(pages)
            resident -= set(pages) if step == "choose" else set()
        assert set(np.flatnonzero(clock.resident()).tolist()) == resident
        assert clock.count == len(resident)


def test_runs_of_pages():
    assert runs_of([]) == []
    assert runs_of([3]) == [(3, 1)]
    assert runs_of([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 1), (9, 2)]
