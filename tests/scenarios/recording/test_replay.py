"""A run that was recorded is decided again: identical, or told where not; what is not whole is told for what it is."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from actors.domain import hosting, ledger
from actors.errors import Defect
from actors.runtime.actor import Record, Turn
from actors.runtime.clock import RealClock
from actors.sagas.migration import MIGRATION
from bus.errors import RecordingError
from bus.recording import Kind, Whole, Writer, read
from scenarios.host import HostPlan, facts_for
from scenarios.recording.entries import FORMAT
from scenarios.recording.plain import REDACTED
from scenarios.recording.recorder import Recording
from scenarios.recording.views import DAMAGED, DIVERGED, IDENTICAL, Seen, see
from tests.scenarios.recording.runs import VERSION, recorded_run


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_run(tmp_path_factory.mktemp("run"))


def records(path: Path) -> list[Any]:
    return [found.data for found in read(path) if isinstance(found, Whole)]


def written_again(path: Path, data: list[Any]) -> Path:
    writer = Writer(path)
    for record in data:
        writer.append(record)
    writer.close()
    return path


def replayed(path: Path) -> Seen:
    return see(path, VERSION)


def test_a_run_that_is_replayed_is_identical(recording: Path) -> None:
    seen = replayed(recording)

    assert (seen.outcome, seen.notes) == (IDENTICAL, ())
    assert {"resource-manager", "hypervisor.h1", "hypervisor.h2", "swap-device.san0", "vm.web1@h1.boot-1"} <= set(seen.actors)
    done = [entry.row for entry in seen.timeline if entry.event == "done"]
    assert done == [row.name for row in MIGRATION.rows]


@pytest.mark.parametrize(("host", "row"), [("h1", "freeze"), ("h1", "grant"), ("h2", "prepare"), ("h1", "commit")])
def test_a_run_whose_node_was_killed_in_the_middle_is_identical(tmp_path: Path, host: str, row: str) -> None:
    path = recorded_run(tmp_path, kill=host, after=row)

    seen = replayed(path)

    assert (seen.outcome, seen.notes) == (IDENTICAL, ())
    starts = [message.actor for message in seen.messages if message.type == "(node starts)"]
    assert sorted(starts) == sorted(["h1", "h2", host])


def test_no_secret_is_in_a_recording(recording: Path) -> None:
    tokens = [value for record in records(recording) for value in _tokens(record)]

    assert tokens
    assert all(token.startswith(REDACTED) for token in tokens)
    assert len(set(tokens)) == 1


def _tokens(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "token" in value:
            yield value["token"]
        for item in value.values():
            yield from _tokens(item)
    elif isinstance(value, list):
        for item in value:
            yield from _tokens(item)


def test_an_actor_that_decides_otherwise_is_named_with_the_field(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_owned = hosting.put_owned

    def wrong(turn: Turn, device: str, generation: int, slots: Any) -> None:
        put_owned(turn, device, generation + (device == "san0" and generation > 1), slots)

    monkeypatch.setattr(hosting, "put_owned", wrong)

    seen = replayed(recording)

    assert seen.outcome == DIVERGED
    assert seen.replay.divergence is not None
    found = seen.replay.divergence
    assert (found.actor, found.node, found.message) == ("hypervisor.h2", "h2", "Prepare")
    fields = {difference.field: difference for difference in found.differences}
    assert "record.Owned[san0/2]" in fields
    assert fields["record.Owned[san0/3]"].recorded == "nothing"


def test_an_actor_that_meets_a_defect_only_now_is_named(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise Defect("no ledger")

    monkeypatch.setattr(ledger, "given", broken)

    seen = replayed(recording)

    assert seen.replay.divergence is not None
    found = seen.replay.divergence
    assert (found.actor, found.message) == ("swap-device.san0", "Grant")
    assert [str(one) for one in found.differences] == ["turn: recorded a decision, replayed Defect: no ledger"]


def test_a_decision_that_was_recorded_otherwise_is_told_field_by_field(recording: Path, tmp_path: Path) -> None:
    data = records(recording)
    index = next(i for i, record in enumerate(data) if record["entry"] == "Decided" and record["actor"] == "resource-manager")
    placement = next(change for change in data[index]["decision"]["changes"] if change[0] == "Placement")
    placement[2]["host"] = "h2"

    seen = replayed(written_again(tmp_path / "changed", data))

    assert seen.replay.divergence is not None
    assert seen.replay.divergence.number == index
    assert [str(one) for one in seen.replay.divergence.differences] == [
        "record.Placement[web1].host: recorded 'h2', replayed 'h1'"
    ]


def test_a_record_that_was_loaded_with_something_else_is_told(recording: Path, tmp_path: Path) -> None:
    data = records(recording)
    loaded = next(record for record in data if record["entry"] == "Loaded" and record["actor"] == "resource-manager")

    seen = replayed(written_again(tmp_path / "forgot", [*data[:-1], loaded]))

    assert seen.replay.divergence is not None
    found = seen.replay.divergence
    assert (found.actor, found.number) == ("resource-manager", len(data) - 1)
    placement = next(one for one in found.differences if one.field == "record.Placement[web1]")
    assert placement.recorded == "nothing"


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "lost"])
def test_a_decision_that_a_crash_overtook_may_be_stored_or_lost(recording: Path, tmp_path: Path, stored: bool) -> None:
    data = records(recording)
    mine = [record for record in data if record.get("actor") == "resource-manager" and record["entry"] in {"Loaded", "Decided"}]
    empty, decided = mine[:2]
    loaded = empty | {"digest": decided["digest"], "values": decided["decision"]["changes"]}

    seen = replayed(written_again(tmp_path / "crash", [*data[:2], empty, decided, loaded if stored else empty]))

    assert seen.outcome == IDENTICAL
    assert bool(seen.record("resource-manager")) == stored


def test_a_changed_byte_is_told_with_its_place(recording: Path, tmp_path: Path) -> None:
    offsets = {found.number: found.offset for found in read(recording)}
    raw = bytearray(recording.read_bytes())
    raw[offsets[40] + 30] ^= 0x10
    path = tmp_path / "changed"
    path.write_bytes(raw)

    seen = replayed(path)

    assert seen.outcome == DAMAGED
    assert seen.replay.damage is not None
    assert (seen.replay.damage.kind, seen.replay.damage.number) == (Kind.CHANGED, 40)
    assert f"record 40 at byte {offsets[40]} was changed" in seen.notes[0]
    assert seen.replay.records == 40


def test_a_missing_record_is_told_with_its_number(recording: Path, tmp_path: Path) -> None:
    offsets = {found.number: found.offset for found in read(recording)}
    raw = recording.read_bytes()
    path = tmp_path / "short"
    path.write_bytes(raw[: offsets[40]] + raw[offsets[41] :])

    seen = replayed(path)

    assert seen.outcome == DAMAGED
    assert seen.notes == (f"record 40 at byte {offsets[40]} is missing: record 41 stands there",)


def test_a_truncated_tail_is_told_and_the_rest_replayed(recording: Path, tmp_path: Path) -> None:
    offsets = {found.number: found.offset for found in read(recording)}
    path = tmp_path / "torn"
    path.write_bytes(recording.read_bytes()[: offsets[60] + 21])

    seen = replayed(path)

    assert (seen.outcome, seen.replay.records) == (IDENTICAL, 60)
    assert "record 60" in seen.notes[0]
    assert "whole up to record 59" in seen.notes[0]


def test_a_recording_whose_program_was_killed_is_replayed_and_told(recording: Path, tmp_path: Path) -> None:
    seen = replayed(written_again(tmp_path / "killed", records(recording)[:-1]))

    assert seen.outcome == IDENTICAL
    assert "killed" in seen.notes[0]


def test_an_actor_can_be_looked_at_where_the_replay_ends(recording: Path) -> None:
    data = records(recording)
    heard = next(i for i, record in enumerate(data) if record.get("heard", {}).get("type") == "Commit")
    stored = next(i for i in range(heard, len(data)) if "resource-manager" in data[i].get("actors", ()))

    before = see(recording, VERSION, until=stored - 1).record("resource-manager")
    after = see(recording, VERSION, until=stored).record("resource-manager")

    assert before is not None
    assert after is not None
    assert before["Placement[web1]"]["host"] == "h1"
    assert after["Placement[web1]"]["host"] == "h2"
    assert see(recording, VERSION, until=stored).record("nobody") is None


def test_another_format_is_refused_with_its_version(recording: Path, tmp_path: Path) -> None:
    data = records(recording)
    data[0] |= {"format": FORMAT + 1, "program": "9.9"}

    with pytest.raises(RecordingError, match=r"recorded in format 2 by swapferry 9\.9; this one reads format 1"):
        replayed(written_again(tmp_path / "newer", data))


def test_a_message_that_this_version_does_not_know_is_why_it_does_not_replay(recording: Path, tmp_path: Path) -> None:
    data = records(recording)
    index = next(i for i, record in enumerate(data) if record["entry"] == "Decided" and record["heard"]["type"] == "Define")
    data[index]["heard"]["body"]["colour"] = "red"
    path = written_again(tmp_path / "older", data)

    with pytest.raises(RecordingError, match=rf"record {index}, recorded by swapferry {VERSION}.*unknown field 'colour'"):
        replayed(path)


def test_another_version_that_decides_alike_is_only_noted(recording: Path) -> None:
    seen = see(recording, "0.0.next")

    assert seen.outcome == IDENTICAL
    assert seen.notes == (f"recorded by swapferry {VERSION}, replayed by 0.0.next: another version may decide otherwise",)


def test_a_recording_is_whole_msgpack_to_anybody(recording: Path) -> None:
    assert all(msgpack.unpackb(msgpack.packb(record)) == record for record in records(recording))


def test_a_recording_that_cannot_be_written_ends_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = HostPlan(facts=facts_for("h1", 1 << 24, {}), paths=(), hosts=frozenset({"h1"}), manager=True)
    recording = Recording(tmp_path / "recording", RealClock(), VERSION)
    recorder = recording.node(plan)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        recorder.loaded("resource-manager", Record())
    recorder.retired("resource-manager")
    recording.close()

    assert [record["entry"] for record in records(tmp_path / "recording")] == ["Begun", "Started"]
