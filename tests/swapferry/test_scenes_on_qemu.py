"""The scenes with real machines: each comes to the outcome that it names, on either QEMU and on either bus."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from paging.native import QEMU10
from paging.native.build import build_shim, build_test_guest, fetch_qemu10
from tests.support.rabbitmq import RabbitMQ
from tests.swapferry.scenes import SCENES, leftovers, machines, rows, swapferry, told_to_end

MIB = 1 << 20
ALL = sorted(path.stem for path in SCENES.glob("*.toml"))
QEMU_TIMEOUT_S = 280


@pytest.fixture(autouse=True, scope="module")
def built() -> None:
    build_shim()
    build_test_guest()


@pytest.fixture(params=["qemu 7.2", "qemu 10.0"])
def qemu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The system's QEMU, and the newer one beside it."""
    if request.param == "qemu 10.0":
        fetch_qemu10()
        monkeypatch.setenv("SWAPFERRY_QEMU_ROOT", str(QEMU10))
    return str(request.param)


def play(rooms: Path, scene: str, *more: str) -> dict[str, Any]:
    ended = swapferry(rooms, "run", SCENES / f"{scene}.toml", "--json", *more, timeout_s=QEMU_TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    assert told["broken"] == []
    return told


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("scene", [scene for scene in ALL if scene != "first_migration"])
def test_a_scene_comes_to_the_outcome_that_it_names(rooms: Path, scene: str) -> None:
    told = play(rooms, scene)

    assert told["verified"] is True
    assert leftovers(rooms) == []
    assert machines(rooms) == []


def check_first_migration(rooms: Path, told: dict[str, Any]) -> None:
    pages = told["pages"]
    assert (told["outcome"], told["verified"]) == ("done", True)
    assert pages["granted"] * 4096 >= 100 * MIB
    assert pages["swapped"] >= 0.75 * (pages["total"] - pages["zero"])
    assert told["bytes_sent"] <= 1.05 * pages["resident"] * 4096
    assert told["resident_max"] <= 96 * MIB + 64 * 4096
    assert told["faults_after_move"] > 0
    assert leftovers(rooms) == []
    assert machines(rooms) == []


@pytest.mark.timeout(600)
def test_most_of_a_guest_of_512_mib_is_granted_and_not_moved_on_either_bus_and_either_qemu(
    rooms: Path, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = play(rooms, "first_migration")
    check_first_migration(rooms, embedded)

    fetch_qemu10()
    monkeypatch.setenv("SWAPFERRY_QEMU_ROOT", str(QEMU10))
    apart = play(rooms, "first_migration", "--bus", rabbitmq.url, "--processes")
    check_first_migration(rooms, apart)

    assert rows(apart) == rows(embedded)


@pytest.mark.parametrize("when", ["starting web1", "migrating web1 to h2", "everybody works"])
def test_a_run_that_is_told_to_end_leaves_no_machine_behind(rooms: Path, when: str) -> None:
    scene = rooms / "long.toml"
    scene.write_text((SCENES / "cancelled.toml").read_text() + '\n[[step]]\ndo = "run_for"\nseconds = 600\n')

    code, errors = told_to_end(rooms, signal.SIGTERM, when, "run", scene)

    assert code == 128 + signal.SIGTERM, errors
    assert leftovers(rooms) == []
    assert machines(rooms) == []
