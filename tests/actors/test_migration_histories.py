"""Random histories of the real actors: whatever is lost, doubled, reordered or crashes, the promises of PROTOCOL 9 hold."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from actors import hypervisor, resource_manager, swap_device
from actors.domain import hosting
from actors.errors import Defect
from actors.runtime.saga import Now, Row
from actors.sagas import cleanup, migration
from tests.actors.world import Violation, play

SEEDS = 100


def test_random_histories_hold_every_invariant_and_end():
    seen: dict[str, int] = {}
    for seed in range(SEEDS):
        counts = play(seed).counts
        for name, count in counts.items():
            seen[name] = seen.get(name, 0) + count

    rows = {f"row_done {row.name}" for row in migration.ROWS}
    assert rows <= set(seen), f"rows never played: {rows - set(seen)}"
    assert {"cleaned", "unlisted", "unshared"} <= set(seen)
    assert {"verdict done", "verdict undone", "verdict refused", "verdict already done", "undone undo", "crash"} <= set(seen)


@pytest.mark.parametrize("seed", range(5))
def test_without_faults_every_request_gets_its_verdict_and_nothing_is_undone_but_by_cancel(seed: int):
    world = play(seed, faults=False)

    assert all(request in world.verdicts for request in world.asks)
    undone = [one for one in world.verdicts.values() if one.outcome == "undone"]
    assert all("cancelled" in one.reason for one in undone)


def _row(name: str, **changes: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """A defect: this row behaves otherwise."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        rows: tuple[Row[Any], ...] = tuple(attrs.evolve(row, **changes) if row.name == name else row for row in migration.ROWS)
        patch.setattr(migration, "MIGRATION", attrs.evolve(migration.MIGRATION, rows=rows))
        for module in (hypervisor, resource_manager, swap_device):
            patch.setattr(module, "MIGRATION", migration.MIGRATION)

    return apply


def _undo(role: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A defect: this role undoes nothing."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        undoing = attrs.evolve(migration.UNDOINGS[role], undo=lambda _a, _t, _c, restored: restored)
        patch.setitem(migration.UNDOINGS, role, undoing)

    return apply


def _patched(module: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, value)


def _all_home(turn: Any, facts: Any) -> Any:
    owned = [one for one in turn.all(hosting.Owned).values() if facts.homes[one.device] == facts.host]
    return hosting.by_device(owned)


def _all_foreign(turn: Any, facts: Any) -> Any:
    return tuple(one for one in turn.all(hosting.Owned).values() if facts.homes[one.device] != facts.host)


DEFECTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "grant_is_never_taken_back": _undo("device"),
    "placement_stays_locked": _undo("manager"),
    "source_never_thaws": _undo("source"),
    "target_keeps_what_was_undone": _undo("target"),
    "hand_over_does_not_wait_for_the_grants": _row("hand over", ready=lambda _a, _t, _c: Now.DONE),
    "freeze_does_not_wait_for_the_halt": _row("freeze", ready=lambda _a, _t, _c: Now.DONE),
    "prepare_does_not_wait_for_the_machine": _row("prepare", ready=lambda _a, _t, _c: Now.DONE),
    "commit_moves_nothing": _row("commit", ready=lambda _a, _t, _c: Now.DONE),
    "devices_are_not_listed_at_register": _row("register", ready=lambda _a, _t, _c: Now.DONE),
    "forget_does_not_lend": _row("forget", ready=lambda _a, _t, _c: Now.DONE),
    "close_leaves_the_device_pending": _row("close", ready=lambda _a, _t, _c: Now.DONE),
    "slots_are_armed_twice": _patched(hosting, "free_slots", _all_home),
    "nothing_is_given_back": _patched(hosting, "idle_foreign", lambda _t, _f: ()),
    "slots_of_open_sagas_are_idle": _patched(hosting, "idle_foreign", _all_foreign),
    "owner_keeps_what_was_taken": _patched(cleanup, "taken", lambda _t, _b: None),
    "home_does_not_regain": _patched(cleanup, "regain", lambda _t, _b: None),
    "manager_does_not_record": _patched(cleanup, "record", lambda _t, _h, _b: None),
    "slots_gained_are_not_recorded": _patched(hosting, "gain", lambda _t, _h: None),
}


def _play_many(seeds: int) -> None:
    for seed in range(seeds):
        play(seed)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_caught(defect: str, monkeypatch: pytest.MonkeyPatch):
    DEFECTS[defect](monkeypatch)

    caught = (Violation, AssertionError, Defect, LookupError, ValueError, AttributeError)
    with pytest.raises(caught):
        _play_many(40)
