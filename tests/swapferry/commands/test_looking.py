"""The commands that only look, on what a run has kept: in a process of their own, and in this one."""

import json
from pathlib import Path

import attrs

from actors.domain.hosting import Instance, SourceFacts
from actors.domain.lifecycle import Level, State
from actors.messages import MANAGER, Cast, hypervisor
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress
from tests.swapferry.commands.clusters import MOVED, command, damage
from tests.swapferry.scenes import swapferry

CAST = Cast(
    saga="h1-9", opener="h1", number=9, floor=9, vm="web1", epoch=2, instance=MOVED, source="h1", target="h2", devices=("san0",),
)  # fmt: skip


def test_devices_tells_who_owns_what(rooms: Path, kept: Path) -> None:
    ended = swapferry(rooms, "devices", "--dir", kept, "--json")

    assert ended.returncode == 0, ended.stderr
    devices = {one["device"]: one for one in json.loads(ended.stdout)["devices"]}
    san0, local2 = devices["san0"], devices["local2"]
    assert (san0["home"], san0["slots"], san0["shared"], san0["pending"]) == ("h1", 8192, True, [])
    assert san0["granted"] == san0["lent"] == sum(one["slots"] for one in san0["owners"] if one["owner"] == "h2") > 0
    assert sum(one["slots"] for one in san0["owners"]) == 8192
    assert (local2["granted"], local2["shared"]) == (0, False)


def test_people_get_tables(rooms: Path, kept: Path) -> None:
    ended = swapferry(rooms, "devices", "san0", "--dir", kept)

    assert ended.returncode == 0, ended.stderr
    assert "san0 of h1: 8,192 slots" in ended.stdout
    assert "generation" in ended.stdout


def test_slots_tells_what_a_vm_has_by_device_and_generation(kept: Path) -> None:
    code, told = command("slots", "web1", "--dir", kept)

    assert code == 0
    found = {(one["device"], one["home"], one["kind"], one["generation"]): one["slots"] for one in told["slots"]}
    assert found.keys() == {("local2", "h2", "own", 1), ("san0", "h1", "granted", 2)}
    assert all(found.values())


def test_depends_tells_for_a_device_a_host_and_a_vm(kept: Path) -> None:
    by_device, by_host, by_vm = (command("depends", name, "--dir", kept)[1]["depends"] for name in ("san0", "h1", "web1"))

    (one,) = by_device
    assert (one["vm"], one["host"], one["kind"], one["seconds_left"]) == ("web1", "h2", "granted", None)
    assert by_host == by_device
    assert {each["device"] for each in by_vm} == {"san0", "local2"}


def test_the_time_that_is_left_follows_from_the_rate(kept: Path) -> None:
    def clean(turn: Turn) -> None:
        instance = turn.get(Instance, MOVED)
        assert instance is not None
        turn.put(attrs.evolve(instance, clean_pages_per_s=10), MOVED)

    damage(kept / "h2.db", hypervisor("h2"), clean)

    (one,) = command("depends", "san0", "--dir", kept)[1]["depends"]
    assert one["seconds_left"] == one["slots"] / 10


def test_a_name_that_nobody_knows_ends_with_1_and_names_those_that_are_known(rooms: Path, kept: Path) -> None:
    ended = swapferry(rooms, "depends", "san7", "--dir", kept)

    assert ended.returncode == 1
    assert "san0" in ended.stderr
    assert command("slots", "web7", "--dir", kept)[0] == 1
    assert command("devices", "san7", "--dir", kept)[0] == 1


def test_no_saga_is_open_after_a_run(kept: Path) -> None:
    assert command("sagas", "--dir", kept)[1]["sagas"] == []
    assert command("sagas", "h1-1", "--dir", kept)[0] == 1


def test_an_open_saga_tells_its_row_and_for_whom_it_waits(kept: Path) -> None:
    def opened(turn: Turn) -> None:
        turn.put(Progress(cast=CAST, row=3, begun=3), "h1-9")
        turn.put(SourceFacts(halted=True), "h1-9")

    def registered(turn: Turn) -> None:
        turn.put(Progress(cast=CAST, row=1, begun=1), "h1-9")

    damage(kept / "h1.db", hypervisor("h1"), opened)
    damage(kept / "h1.db", MANAGER, registered)

    code, told = command("sagas", "h1-9", "--dir", kept)

    (saga,) = told["sagas"]
    assert code == 0
    assert (saga["vm"], saga["stage"], saga["done"], saga["row"]) == ("web1", "open", "freeze", "grant")
    assert saga["waits_for"] == ["swap-device.san0"]
    assert {player["actor"]: player["done"] for player in saga["players"]} == {
        MANAGER: "register", hypervisor("h1"): "freeze",
    }  # fmt: skip


def test_a_saga_that_is_undone_tells_how_far_the_way_back_is(kept: Path) -> None:
    damage(kept / "h1.db", hypervisor("h1"), lambda turn: turn.put(Progress(cast=CAST, row=3, begun=3), "h1-9"))
    undone = Progress(cast=CAST, row=1, begun=1, undone=True, reason="cancelled by the user")
    damage(kept / "h1.db", MANAGER, lambda turn: turn.put(undone, "h1-9"))

    (saga,) = command("sagas", "--dir", kept)[1]["sagas"]

    assert (saga["stage"], saga["row"], saga["waits_for"]) == ("undone", "undo", ["swap-device.san0"])
    assert "cancelled by the user" in saga["because"]


def test_a_row_that_waits_for_its_machine_says_so(kept: Path) -> None:
    def leaving(turn: Turn) -> None:
        instance = turn.get(Instance, MOVED)
        assert instance is not None
        waits = attrs.evolve(instance, state=State.FREEZING, wanted=Level.FROZEN, revision=9, leaving_by="h2-9")
        turn.put(waits, MOVED)
        cast = attrs.evolve(CAST, saga="h2-9", opener="h2", source="h2", target="h1")
        turn.put(Progress(cast=cast, row=0, begun=3), "h2-9")

    damage(kept / "h2.db", hypervisor("h2"), leaving)

    (saga,) = command("sagas", "--dir", kept)[1]["sagas"]
    (player,) = saga["players"]
    assert (player["begun"], saga["because"]) == ("freeze", f"machine {MOVED} is not yet frozen")


def test_a_directory_without_stores_ends_with_1(tmp_path: Path) -> None:
    code, told = command("sagas", "--dir", tmp_path)

    assert code == 1
    assert "no store" in told["reason"]


def test_an_embedded_bus_cannot_be_asked() -> None:
    assert command("sagas", "--bus", "embedded")[0] == 2
