"""The sharing table lists what is away from home, and what may go away."""

from actors.domain.sharing import Assigned, Shared
from paging.slots import SlotSet

HOME = "h1"


def test_slots_that_are_away_are_listed_with_their_host():
    shared = Shared().assigned(2, "h2", SlotSet([1, 2]), HOME)

    assert shared.away == {2: Assigned(host="h2", slots=SlotSet([1, 2]))}


def test_a_higher_generation_wins_slot_by_slot():
    shared = Shared().assigned(2, "h2", SlotSet([1, 2]), HOME).assigned(3, "h3", SlotSet([2]), HOME)

    assert shared.away == {2: Assigned(host="h2", slots=SlotSet([1])), 3: Assigned(host="h3", slots=SlotSet([2]))}


def test_a_late_word_of_an_older_generation_changes_nothing():
    shared = Shared().assigned(3, "h3", SlotSet([2]), HOME)

    assert shared.assigned(2, "h2", SlotSet([2]), HOME) == shared


def test_slots_that_come_home_are_not_listed():
    shared = Shared().assigned(2, "h2", SlotSet([1, 2]), HOME).assigned(5, HOME, SlotSet([1, 2]), HOME)

    assert shared.empty


def test_a_device_that_a_saga_may_take_slots_from_stays_listed():
    expecting = Shared().expecting("h1-1").expecting("h1-1")

    assert not expecting.empty
    assert expecting.relieved("h1-1").empty
