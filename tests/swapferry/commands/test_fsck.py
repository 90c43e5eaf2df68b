"""fsck on what a run has kept: a leaked, doubled or orphaned slot is planted, found, and mended where that can be proven."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from actors.domain.holdings import Holding
from actors.domain.hosting import Armed, Brought, Lent, Owned, SourceFacts, put_owned
from actors.domain.ledger import Right
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import MANAGER, Cast, hypervisor, swap_device
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress
from paging.slots import SlotSet
from paging.superblock import format_device
from paging.swap_table import SwapTable
from tests.swapferry.commands.clusters import MOVED, command, damage

Damage = Callable[[Path], None]


def granted(turn: Turn) -> Owned:
    return next(one for one in turn.all(Owned).values() if one.device == "san0")


def plant(store: str, actor: str, change: Callable[[Turn], None]) -> Damage:
    return lambda kept: damage(kept / store, actor, change)


def forget_home_slots(turn: Turn) -> None:
    owned = turn.get(Owned, "san0/1")
    assert owned is not None
    put_owned(turn, "san0", 1, owned.slots - SlotSet.span(8000, 100))


def own_what_is_lent(turn: Turn) -> None:
    (lent,) = turn.all(Lent).values()
    owned = turn.get(Owned, "san0/1")
    assert owned is not None
    put_owned(turn, "san0", 1, owned.slots | lent.slots)
    turn.drop(Lent, lent.key)


def forget_granted(turn: Turn) -> None:
    own, brought = granted(turn), turn.get(Brought, MOVED)
    assert brought is not None
    put_owned(turn, "san0", own.generation, own.slots - brought.slots["san0"].first(7))


def own_strange_slots(turn: Turn) -> None:
    put_owned(turn, "san0", 1, SlotSet.span(8000, 9))


def no_owner(turn: Turn) -> None:
    right = turn.get(Right, "1")
    assert right is not None
    turn.put(attrs.evolve(right, slots=right.slots - SlotSet.span(8100, 5)), "1")


def two_generations(turn: Turn) -> None:
    right, later = turn.get(Right, "1"), turn.get(Right, "2")
    assert right is not None
    assert later is not None
    turn.put(attrs.evolve(right, slots=right.slots | later.slots.first(3)), "1")


def armed_to_a_ghost(turn: Turn) -> None:
    turn.put(Armed(slots={"san0": SlotSet.span(8000, 64)}), "ghost@h1.boot-9")


def unlisted(turn: Turn) -> None:
    turn.drop(Shared, "san0")


def pending(turn: Turn) -> None:
    shared = turn.get(Shared, "san0")
    assert shared is not None
    turn.put(attrs.evolve(shared, pending=("h1-77",)), "san0")


def locked(turn: Turn) -> None:
    place = turn.get(Placement, "web1")
    assert place is not None
    turn.put(attrs.evolve(place, lock="h1-77"), "web1")


PROVABLE = {
    "home slots that the home forgot": (plant("h1.db", hypervisor("h1"), forget_home_slots), "leaked", "san0"),
    "lent slots that the home believes its own": (plant("h1.db", hypervisor("h1"), own_what_is_lent), "orphaned", "san0"),
    "granted slots that the target forgot": (plant("h2.db", hypervisor("h2"), forget_granted), "leaked", "san0"),
    "strange slots that the target believes its own": (plant("h2.db", hypervisor("h2"), own_strange_slots), "orphaned", "san0"),
    "slots that no generation has": (plant("h1.db", swap_device("san0"), no_owner), "leaked", "san0"),
    "slots that two generations have": (plant("h1.db", swap_device("san0"), two_generations), "doubled", "san0"),
    "slots armed to nobody": (plant("h1.db", hypervisor("h1"), armed_to_a_ghost), "leaked", "san0"),
    "a device that is not listed": (plant("h1.db", MANAGER, unlisted), "differs", "san0"),
    "a device that waits for a saga that is over": (plant("h1.db", MANAGER, pending), "stuck", "san0"),
    "a placement locked by a saga that is over": (plant("h1.db", MANAGER, locked), "stuck", ""),
}


def troubles(told: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["trouble"], one["device"]) for one in told["findings"]}


def test_after_a_run_that_went_well_nothing_is_wrong(kept: Path) -> None:
    code, told = command("fsck", "--dir", kept)

    assert (code, told["clean"], told["findings"]) == (0, True, [])


@pytest.mark.parametrize(("plant", "trouble", "device"), PROVABLE.values(), ids=PROVABLE.keys())
def test_what_was_planted_is_found_then_foretold_then_mended(kept: Path, plant: Damage, trouble: str, device: str) -> None:
    plant(kept)

    found = command("fsck", "--dir", kept)
    foretold = command("fsck", "--dir", kept, "--repair", "--dry-run")
    unchanged = command("fsck", "--dir", kept)
    mended = command("fsck", "--dir", kept, "--repair")
    after = command("fsck", "--dir", kept)

    assert found[0] == foretold[0] == 1
    assert (trouble, device) in troubles(found[1])
    assert foretold[1]["repairs"]
    assert not foretold[1]["mended"]
    assert unchanged == found
    assert (mended[0], mended[1]["mended"], mended[1]["repairs"]) == (0, True, foretold[1]["repairs"])
    assert (after[0], after[1]["findings"]) == (0, [])


def grant_away_what_is_used(turn: Turn) -> None:
    """The ledger gives armed slots of a living instance to somebody else."""
    right = turn.get(Right, "1")
    assert right is not None
    turn.put(attrs.evolve(right, slots=right.slots - SlotSet.span(0, 10)), "1")
    turn.put(Right(owner="h1", slots=SlotSet.span(0, 10)), "9")


def test_slots_that_somebody_uses_are_not_taken_away(kept: Path) -> None:
    damage(kept / "h2.db", swap_device("local2"), first_ledger)
    damage(kept / "h2.db", swap_device("local2"), grant_away_what_is_used)

    code, told = command("fsck", "--dir", kept, "--repair")

    assert code == 1
    assert any("h2 uses" in one["remedy"] for one in told["unproven"])


def first_ledger(turn: Turn) -> None:
    turn.put(Right(owner="h2", slots=SlotSet.span(0, 8192)), "1")


def test_a_swap_table_that_names_strange_slots_is_found_and_left_to_people(kept: Path) -> None:
    uuid = "5d3c0b0e-6a51-4f0e-9f35-0c4c3a1d7e10"
    table = SwapTable.create(kept / "swap-table", pages=16, instance=MOVED, boot_id="b", devices=[uuid])
    table.enter_slots(np.arange(4), uuid, np.arange(8000, 8004), np.zeros(4, dtype=np.uint32))
    table.close()
    format_device(kept / "san0.slots", 64, device_uuid=uuid)

    code, told = command("fsck", "--dir", kept, "--repair")

    assert code == 1
    assert ("orphaned", "san0") in troubles(told)
    assert any("stop that VM" in one["remedy"] for one in told["unproven"])


def test_what_an_open_saga_names_is_not_judged(kept: Path) -> None:
    def saga_opens(turn: Turn) -> None:
        forget_home_slots(turn)
        cast = Cast(
            saga="h1-9", opener="h1", number=9, floor=9, vm="other", epoch=1, instance="other@h1.boot-1", source="h1",
            target="h2", devices=("san0",),
        )  # fmt: skip
        grants = (Holding(device="san0", generation=1, slots=SlotSet.span(8000, 100)),)
        turn.put(Progress(cast=cast, row=3, begun=3), "h1-9")
        turn.put(SourceFacts(grants=grants, halted=True), "h1-9")

    damage(kept / "h1.db", hypervisor("h1"), saga_opens)

    code, told = command("fsck", "--dir", kept)

    assert (code, told["findings"], told["open_sagas"]) == (0, [], ["h1-9"])


def test_nothing_is_mended_while_a_node_works_on_a_store(kept: Path) -> None:
    with (kept / "h1.db.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, told = command("fsck", "--dir", kept, "--repair")

    assert code == 1
    assert "another node works on this store" in told["reason"]


@pytest.mark.parametrize("arguments", [["--repair"], ["--dry-run"], ["--dir", "nowhere"]], ids=" ".join)
def test_bad_usage_ends_with_2(arguments: list[str]) -> None:
    assert command("fsck", *arguments)[0] == 2
