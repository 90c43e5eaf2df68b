"""The command as a user runs it: a process of its own, its exit code, what is on stdout and what on stderr."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.swapferry.scenes import SCENES, SMALL, leftovers, swapferry, told_to_end


def test_the_version_is_told(rooms: Path) -> None:
    ended = swapferry(rooms, "--version")

    assert (ended.returncode, ended.stdout.split()[0], ended.stderr) == (0, "swapferry", "")


def test_a_scenario_that_holds_ends_with_0_and_one_json_object(rooms: Path, small: Path) -> None:
    ended = swapferry(rooms, "run", small, "--guest", "fake", "--json")

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["outcome"], told["verified"], told["bus"], told["guest"]) == ("done", True, "embedded", "fake")
    assert told["pages"]["granted"] > 1024
    assert told["pages"]["sent"] + told["pages"]["granted"] + told["pages"]["zero"] == told["pages"]["total"]
    assert told["bytes_sent"] <= 1.05 * told["pages"]["resident"] * 4096
    rows = [entry["row"] for entry in told["timeline"] if entry["event"] == "done"]
    assert rows == [
        "open", "register", "welcome", "freeze", "grant", "hand over", "prepare", "commit", "resume", "forget", "close", "closed",
    ]  # fmt: skip
    assert leftovers(rooms) == []


def test_without_json_people_get_a_timeline_and_a_summary(rooms: Path, small: Path) -> None:
    ended = swapferry(rooms, "run", small, "--guest", "fake")

    assert ended.returncode == 0, ended.stderr
    assert "small: who did what when" in ended.stdout
    assert "granted, not moved" in ended.stdout
    assert ended.stderr == ""


def test_an_expectation_that_does_not_hold_ends_with_1_and_says_which(rooms: Path, small: Path) -> None:
    small.write_text(SMALL.replace('granted_min = "4MiB"', 'granted_min = "15MiB"'))

    ended = swapferry(rooms, "run", small, "--guest", "fake", "--json")

    assert ended.returncode == 1
    assert "granted: expected at least 15 MiB" in ended.stderr
    assert json.loads(ended.stdout)["outcome"] == "done"
    assert leftovers(rooms) == []


@pytest.mark.parametrize("scene", ["cancelled", "two_devices_one_unreachable"])
def test_a_scene_comes_to_the_outcome_that_it_names(rooms: Path, scene: str) -> None:
    ended = swapferry(rooms, "run", SCENES / f"{scene}.toml", "--guest", "fake", "--json")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["broken"] == []


def test_what_is_kept_is_kept(rooms: Path, small: Path) -> None:
    keep = rooms / "kept"

    ended = swapferry(rooms, "run", small, "--guest", "fake", "--json", "--keep", keep)

    assert ended.returncode == 0, ended.stderr
    assert {"h1.db", "h2.db", "san0.slots", "local2.slots", "log.jsonl"} <= {path.name for path in keep.iterdir()}
    assert leftovers(rooms) == []


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_broken_file_ends_with_2_and_names_key_found_and_allowed(rooms: Path, small: Path, command: str) -> None:
    small.write_text(SMALL.replace('resident = "4MiB"', 'resident = "much"\nresidnt = 1'))

    ended = swapferry(rooms, command, small)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert 'vm[0].resident: found "much"; allowed: a size' in ended.stderr
    assert "did you mean resident?" in ended.stderr
    assert str(small) in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "SMALL", "--guest", "paper"],
        ["run", "SMALL", "--bus", "http://127.0.0.1/"],
        ["run", "SMALL", "--bus", "amqp://user:secret@192.0.2.1/"],
        ["run", "SMALL", "--processes"],
        ["node"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2(rooms: Path, small: Path, arguments: list[str]) -> None:
    ended = swapferry(rooms, *[str(small) if argument == "SMALL" else argument for argument in arguments])

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr
    assert "secret" not in ended.stderr


def test_a_file_that_is_not_there_ends_with_2(rooms: Path) -> None:
    ended = swapferry(rooms, "run", rooms / "nowhere.toml")

    assert ended.returncode == 2
    assert "nowhere.toml" in ended.stderr


def test_check_foresees_every_migration_and_moves_nothing(rooms: Path) -> None:
    ended = swapferry(rooms, "check", SCENES / "two_devices_one_unreachable.toml", "--json")

    assert ended.returncode == 0, ended.stderr
    (move,) = json.loads(ended.stdout)["migrations"]
    assert (move["devices"], move["problem"]) == (["san0"], "")
    assert move["granted"] + move["sent"] + move["zero"] == 96 * 256
    assert leftovers(rooms) == []


def test_check_says_why_a_migration_would_be_refused(rooms: Path) -> None:
    ended = swapferry(rooms, "check", SCENES / "refused.toml", "--json")

    problems = [move["problem"] for move in json.loads(ended.stdout)["migrations"]]
    assert "runs on h1 already" in problems[0]
    assert "no room at h2" in problems[1]


DEVICE = '[[device]]\nname = "san0"\n'


def with_device(path: Path) -> str:
    return SMALL.replace(DEVICE, f'{DEVICE}path = "{path}"\n')


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "foreign superblock"),
        (b"\x53\xef" * 8192, "foreign superblock"),
    ],
    ids=["missing", "empty", "foreign"],
)
@pytest.mark.parametrize("command", [["check"], ["run", "--guest", "fake", "--json"]], ids=["check", "run"])
def test_a_device_of_no_use_ends_with_1_and_is_not_touched(
    rooms: Path, small: Path, command: list[str], content: bytes | None, why: str
) -> None:
    device = rooms / "device"
    if content is not None:
        device.write_bytes(content)
    small.write_text(with_device(device))

    ended = swapferry(rooms, *command, small)

    assert ended.returncode == 1
    assert str(device) in ended.stderr
    assert why in ended.stderr
    assert (device.read_bytes() if device.exists() else None) == content
    assert leftovers(rooms) == []


def test_a_truncated_device_ends_with_1(rooms: Path, small: Path) -> None:
    device = rooms / "device"
    format_a_device(device)
    os.truncate(device, 1 << 20)
    small.write_text(with_device(device))

    ended = swapferry(rooms, "run", small, "--guest", "fake")

    assert ended.returncode == 1
    assert "is truncated" in ended.stderr
    assert device.stat().st_size == 1 << 20


def test_a_device_that_another_run_serves_is_busy(rooms: Path, small: Path) -> None:
    device = rooms / "device"
    format_a_device(device)
    small.write_text(with_device(device))

    with subprocess.Popen(["flock", str(device), "sleep", "60"], start_new_session=True) as other:
        try:
            wait_until_locked(device)
            ended = swapferry(rooms, "run", small, "--guest", "fake")
        finally:
            os.killpg(other.pid, signal.SIGKILL)

    assert ended.returncode == 1
    assert "is busy" in ended.stderr
    assert leftovers(rooms) == []


def format_a_device(path: Path) -> None:
    from paging.superblock import format_device

    format_device(path, 8192)


def wait_until_locked(path: Path) -> None:
    while subprocess.run(["flock", "-n", str(path), "true"], check=False).returncode == 0:
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_a_run_that_is_told_to_end_leaves_nothing_behind(rooms: Path, small: Path, number: signal.Signals) -> None:
    small.write_text(SMALL + '\n[[step]]\ndo = "run_for"\nseconds = 600\n')

    code, errors = told_to_end(rooms, number, "everybody works", "run", small, "--guest", "fake")

    assert code == 128 + number
    assert f"ended by {number.name}" in errors
    assert leftovers(rooms) == []
