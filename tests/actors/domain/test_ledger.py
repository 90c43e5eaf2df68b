"""Rights change hands in whole, in new generations, and cover each slot once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.domain import ledger
from actors.domain.holdings import Holding
from actors.domain.ledger import Right
from paging.slots import SlotSet

SLOTS = 64


def holding(generation: int, *slots: int) -> Holding:
    return Holding(device="san0", generation=generation, slots=SlotSet(slots))


def fresh() -> dict[int, Right]:
    return {1: Right(owner="h1", slots=SlotSet.span(0, SLOTS))}


def applied(rights: dict[int, Right], changes: dict[int, Right | None]) -> dict[int, Right]:
    merged = {**rights, **changes}
    return {generation: right for generation, right in merged.items() if right is not None}


def test_granted_slots_belong_to_the_new_owner_in_the_new_generation():
    rights = applied(fresh(), ledger.given(fresh(), [holding(1, 3, 4, 9)], "h2", 2))

    assert rights[2] == Right(owner="h2", slots=SlotSet([3, 4, 9]))
    assert ledger.holds(rights, "h2", [holding(2, 3, 4, 9)])
    assert not ledger.holds(rights, "h1", [holding(1, 3)])


@pytest.mark.parametrize(
    ("owner", "asked"),
    [("h2", holding(1, 3)), ("h1", holding(2, 3)), ("h1", holding(1, 3, SLOTS))],
    ids=["not the owner", "another generation", "beyond the device"],
)
def test_slots_that_are_not_held_are_not_held(owner: str, asked: Holding):
    assert not ledger.holds(fresh(), owner, [asked])


def test_a_right_of_which_nothing_is_left_leaves_the_ledger():
    rights = applied(fresh(), ledger.given(fresh(), [holding(1, *range(SLOTS))], "h2", 2))

    assert set(rights) == {2}


def test_a_generation_that_is_not_new_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError, match="not new"):
        ledger.given(fresh(), [holding(1, 3)], "h2", 1)


@given(st.lists(st.tuples(st.sampled_from(["h1", "h2", "h3"]), st.sets(st.integers(0, SLOTS - 1), min_size=1)), max_size=20))
def test_whatever_changes_hands_each_slot_has_one_owner(grants: list[tuple[str, set[int]]]):
    rights, generation = fresh(), 1
    for owner, slots in grants:
        generation += 1
        wanted = SlotSet(slots)
        held = [
            Holding(device="san0", generation=known, slots=right.slots & wanted)
            for known, right in rights.items()
            if right.slots & wanted
        ]
        rights = applied(rights, ledger.given(rights, held, owner, generation))

        assert rights[generation] == Right(owner=owner, slots=wanted)
        assert ledger.covers(rights, SLOTS)
