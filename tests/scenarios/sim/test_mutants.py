"""A few of the defects, those that show soon: the simulator must catch them. `make mutants` hunts all of them."""

import pytest

from tests.scenarios.sim.defects import DEFECTS
from tests.scenarios.sim.mutants import caught

SOON = {
    "rows_are_done_again": {"once"},
    "slots_are_armed_twice": {"writers", "pages", "leaks"},
    "failed_write_goes_unnoticed": {"pages"},
    "ack_before_store": {"turns"},
    "say_before_store": {"turns"},
    "obey_before_store": {"turns"},
    "mailbox_is_a_stack": {"turns"},
    "early_messages_are_lost": {"delivery"},
    "keys_collide": {"defects", "store"},
    "unacked_is_lost": {"delivery"},
    "queue_is_a_stack": {"order"},
}
SEEDS = 9


@pytest.mark.parametrize("name", SOON)
def test_a_defect_is_caught(name: str, monkeypatch: pytest.MonkeyPatch):
    DEFECTS[name].apply(monkeypatch)

    broken = next((found for seed in range(SEEDS) if (found := caught(seed)) is not None), None)

    assert broken is not None, f"{SEEDS} worlds did not show that {DEFECTS[name].what}"
    assert broken.checker in SOON[name]


def test_there_are_many_defects_and_some_are_in_the_shell_the_store_and_the_bus():
    assert len(DEFECTS) >= 40
