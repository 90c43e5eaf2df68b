"""The commands `run --record` and `replay`, on both buses."""

import json
from pathlib import Path

import pytest

from paging.native.build import build_shim, build_test_guest
from tests.support.rabbitmq import RabbitMQ
from tests.swapferry.scenes import SMALL, machines, swapferry

KILL = """\
wait = false

[[step]]
do = "run_for"
seconds = 0.2

[[step]]
do = "kill"
what = "node"
host = "h1"
"""
SIZES = {'"16MiB"': '"64MiB"', '"12MiB"': '"48MiB"', '"4MiB"': '"16MiB"', '"32MiB"': '"96MiB"'}
KILLED = SMALL.partition('\n[[step]]\ndo = "verify"')[0].replace("verified = true\n", "") + KILL
for small_size, qemu_size in SIZES.items():
    KILLED = KILLED.replace(small_size, qemu_size)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rooms = tmp_path_factory.mktemp("recorded")
    for name in ("ram", "work"):
        (rooms / name).mkdir()
    (rooms / "small.toml").write_text(SMALL)
    ended = swapferry(rooms, "run", rooms / "small.toml", "--guest", "fake", "--record", rooms / "run.recording")
    assert ended.returncode == 0, ended.stderr
    return rooms / "run.recording"


def test_a_recorded_run_replays_identical(tmp_path: Path, recording: Path) -> None:
    replayed = swapferry(tmp_path, "replay", recording)

    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout.startswith("identical: ")


def test_one_can_look_around_in_a_recording(tmp_path: Path, recording: Path) -> None:
    ended = swapferry(tmp_path, "replay", recording, "--timeline", "--messages", "--show", "resource-manager", "--json")

    seen = json.loads(ended.stdout)
    assert (seen["outcome"], seen["divergence"], seen["damage"]) == ("identical", None, None)
    assert "commit" in [entry["row"] for entry in seen["timeline"]]
    assert {"Migrate", "Prepare", "Report", "Wanted"} <= {message["type"] for message in seen["messages"]}
    assert seen["show"]["record"]["Placement[web1]"]["host"] == "h2"


def test_the_state_of_an_actor_is_shown_as_of_a_record(tmp_path: Path, recording: Path) -> None:
    ended = swapferry(tmp_path, "replay", recording, "--until", "30", "--show", "hypervisor.h1")

    assert ended.returncode == 0, ended.stderr
    assert "hypervisor.h1 after record 30 knows" in ended.stdout


def test_a_recording_becomes_a_scenario_for_the_simulator(tmp_path: Path, recording: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text(swapferry(tmp_path, "replay", recording, "--as-scenario").stdout)

    ended = swapferry(tmp_path, "chaos", "--scenario", script, "--profile", "rough", "--seeds", "3", "--json")

    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["seeds"], report["violations"]) == (3, [])
    assert report["coverage"]["rows"]["commit"] >= 1


def test_a_damaged_recording_ends_with_1_and_the_place(tmp_path: Path, recording: Path) -> None:
    raw = bytearray(recording.read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw)

    ended = swapferry(tmp_path, "replay", damaged)

    assert ended.returncode == 1
    assert "was changed: the checksum of its" in ended.stdout


@pytest.mark.parametrize("content", [None, b"", b"no recording"], ids=["missing", "empty", "foreign"])
def test_what_is_no_recording_ends_with_1_and_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)

    ended = swapferry(tmp_path, "replay", path)

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"swapferry: {path}")
    assert "Traceback" not in ended.stderr


def test_a_recording_that_is_there_is_not_written_over(tmp_path: Path, small: Path, recording: Path, rooms: Path) -> None:
    before = recording.read_bytes()

    ended = swapferry(rooms, "run", small, "--guest", "fake", "--record", recording)

    assert ended.returncode == 1
    assert "is there already" in ended.stderr
    assert recording.read_bytes() == before


@pytest.mark.timeout(300)
def test_a_real_migration_whose_source_node_is_killed_replays_identical_on_each_node(
    rooms: Path, tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    build_shim()
    build_test_guest()
    scenario = tmp_path / "kill.toml"
    scenario.write_text(KILLED)
    path = tmp_path / "run.recording"

    ended = swapferry(
        rooms, "run", scenario, "--bus", rabbitmq.url, "--processes", "--record", path, "--json", timeout_s=280
    )  # fmt: skip
    replays = {host: swapferry(rooms, "replay", f"{path}.{host}", "--messages") for host in ("h1", "h2")}

    # a delivery that the kill has cut short may be refused once more, and the migration be undone: both are ends
    assert json.loads(ended.stdout)["outcome"] in {"done", "undone"}, ended.stderr
    assert [replay.returncode for replay in replays.values()] == [0, 0], replays
    assert [replay.stdout.count("(node starts)") for replay in replays.values()] == [2, 1]
    assert machines(rooms) == []
