"""The manager's store is lost: its record is made again from hosts and ledgers, and nothing is guessed."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from actors.domain.hosting import Instance
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import MANAGER, Cast, hypervisor, swap_device
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress
from actors.runtime.sqlite import read_store
from actors.runtime.values import from_plain
from actors.sagas.migration import MIGRATION
from tests.swapferry.commands.clusters import MOVED, command, damage

CAST = Cast(
    saga="h2-1", opener="h2", number=1, floor=1, vm="web1", epoch=2, instance=MOVED, source="h2", target="h1", devices=("san0",),
)  # fmt: skip


def manager(kept: Path) -> dict[tuple[str, str], Any]:
    return read_store(kept / "h1.db").get(MANAGER, {})


def lose_manager(kept: Path) -> None:
    def drop_all(turn: Turn) -> None:
        for kind in (Placement, Shared, Progress):
            for key in turn.all(kind):
                turn.drop(kind, key)

    damage(kept / "h1.db", MANAGER, drop_all)


def rebuild(kept: Path, *options: str, store: str = "h1.db") -> tuple[int, dict[str, Any]]:
    return command("rebuild-manager", "--dir", kept, "--store", kept / store, *options)


def test_placements_and_sharing_table_are_as_before(kept: Path) -> None:
    before = {key: value for key, value in manager(kept).items() if key[0] in ("Placement", "Shared")}
    lose_manager(kept)

    foretold = rebuild(kept, "--dry-run")
    still_lost = {key for key in manager(kept) if key[0] in ("Placement", "Shared")}
    code, told = rebuild(kept)

    assert (foretold[0], foretold[1]["written"], still_lost) == (0, False, set())
    assert (code, told["placements"]) == (0, [{"vm": "web1", "host": "h2", "epoch": 2}])
    assert {key: value for key, value in manager(kept).items() if key[0] in ("Placement", "Shared")} == before
    assert command("fsck", "--dir", kept)[0] == 0


def test_a_record_that_is_there_is_not_replaced(kept: Path) -> None:
    before = manager(kept)

    code, told = rebuild(kept)

    assert code == 1
    assert "nothing to rebuild" in told["reason"]
    assert manager(kept) == before


def test_a_host_whose_store_was_not_read_may_run_a_vm(kept: Path, tmp_path: Path) -> None:
    lose_manager(kept)
    (kept / "h2.db").rename(tmp_path / "elsewhere.db")
    for suffix in ("-wal", "-shm"):
        (kept / f"h2.db{suffix}").unlink(missing_ok=True)

    refused = rebuild(kept)
    without = rebuild(kept, "--without", "h2")

    assert refused[0] == 1
    assert "h2: a VM may run there" in refused[1]["reason"]
    assert (without[0], without[1]["declare_dead"]) == (0, ["h2"])


def open_saga(kept: Path, at_target: Progress | None, at_device: Progress | None = None) -> None:
    lose_manager(kept)
    damage(kept / "h2.db", hypervisor("h2"), lambda turn: turn.put(Progress(cast=CAST, row=3, begun=3), "h2-1"))
    if at_target is not None:
        damage(kept / "h1.db", hypervisor("h1"), lambda turn: turn.put(at_target, "h2-1"))
    if at_device is not None:
        damage(kept / "h1.db", swap_device("san0"), lambda turn: turn.put(at_device, "h2-1"))


def test_a_saga_of_which_nobody_heard_the_end_is_undone_only_when_nothing_is_under_way(kept: Path) -> None:
    open_saga(kept, Progress(cast=CAST, row=6, begun=6))

    refused = rebuild(kept)
    undone = rebuild(kept, "--undo-undecided")

    assert refused[0] == 1
    assert "queues are empty" in refused[1]["reason"]
    assert undone[1]["sagas"] == [{"saga": "h2-1", "stage": "undone"}]
    assert undone[1]["placements"] == [{"vm": "web1", "host": "h2", "epoch": 2}]


def test_a_saga_of_which_somebody_heard_the_undo_is_undone(kept: Path) -> None:
    heard = Progress(cast=CAST, row=4, begun=4, undone=True, reason="cancelled by the user")
    open_saga(kept, Progress(cast=CAST, row=6, begun=6), heard)

    _, told = rebuild(kept)

    assert told["sagas"] == [{"saga": "h2-1", "stage": "undone"}]
    assert manager(kept)["Progress", "h2-1"]["reason"] == "cancelled by the user"


def test_a_saga_whose_target_was_told_to_resume_is_committed(kept: Path) -> None:
    open_saga(kept, Progress(cast=CAST, row=MIGRATION.index("resume"), begun=MIGRATION.index("resume")))
    (plain,) = [value for key, value in read_store(kept / "h2.db")[hypervisor("h2")].items() if key == ("Instance", MOVED)]

    def runs(turn: Turn) -> None:
        there = attrs.evolve(from_plain(Instance, plain), id="web1@h1.h2-1", epoch=3, brought_by="h2-1", leaving_by="")
        turn.put(there, there.id)

    damage(kept / "h1.db", hypervisor("h1"), runs)

    _, told = rebuild(kept)

    assert told["sagas"] == [{"saga": "h2-1", "stage": "committed"}]
    assert told["placements"] == [{"vm": "web1", "host": "h1", "epoch": 3}]


def test_a_store_that_was_not_read_cannot_be_written(kept: Path) -> None:
    lose_manager(kept)

    assert rebuild(kept, store="h7.db")[0] == 1


@pytest.mark.parametrize("missing", [["--store", "x.db"], ["--dir", "."]], ids=" ".join)
def test_bad_usage_ends_with_2(missing: list[str]) -> None:
    assert command("rebuild-manager", *missing)[0] == 2
