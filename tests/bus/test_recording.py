"""The file of a recording: what was appended is read again, and each kind of damage is told for what it is, and where."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import RecordingError
from bus.recording import HEAD_BYTES, MAGIC, Damage, Kind, Whole, Writer, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
QUICK = settings(max_examples=40, deadline=None)
RECORDS = st.lists(PLAIN, min_size=1, max_size=12)


def written(path: Path, records: Sequence[Any]) -> list[int]:
    """Append these records; returns where each begins, and the end of the file."""
    writer = Writer(path)
    for record in records:
        writer.append(record)
    writer.close()
    return [*(found.offset for found in read(path)), path.stat().st_size]


def whole(path: Path) -> list[Any]:
    return [found.data for found in read(path) if isinstance(found, Whole)]


def damage(path: Path) -> Damage | None:
    *_, last = [None, *read(path)]
    return last if isinstance(last, Damage) else None


@QUICK
@given(records=RECORDS)
def test_what_was_appended_is_read_again(records: list[Any]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        written(path, records)

        assert whole(path) == records
        assert damage(path) is None


@QUICK
@given(records=RECORDS, data=st.data())
def test_a_changed_byte_is_found_in_its_record_and_what_precedes_it_is_read(records: list[Any], data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        offsets = written(path, records)
        raw = bytearray(path.read_bytes())
        place = data.draw(st.integers(len(MAGIC), len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)

        found = damage(path)

        number = max(index for index, offset in enumerate(offsets[:-1]) if offset <= place)
        assert found is not None
        assert (found.kind, found.number, found.offset) == (Kind.CHANGED, number, offsets[number])
        assert whole(path) == records[:number]


@QUICK
@given(records=RECORDS, data=st.data())
def test_a_file_that_was_cut_is_read_to_its_last_whole_record(records: list[Any], data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        offsets = written(path, records)
        length = data.draw(st.integers(len(MAGIC), offsets[-1]))
        path.write_bytes(path.read_bytes()[:length])

        found = damage(path)

        readable = sum(offset <= length for offset in offsets[1:])
        assert whole(path) == records[:readable]
        if length in offsets:
            assert found is None
        else:
            assert found is not None
            assert (found.kind, found.number) == (Kind.TRUNCATED, readable)


@QUICK
@given(records=st.lists(PLAIN, min_size=2, max_size=8), data=st.data())
def test_a_record_that_is_missing_is_named(records: list[Any], data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        offsets = written(path, records)
        gone = data.draw(st.integers(0, len(records) - 2))
        raw = path.read_bytes()
        path.write_bytes(raw[: offsets[gone]] + raw[offsets[gone + 1] :])

        found = damage(path)

        assert found is not None
        assert (found.kind, found.number) == (Kind.MISSING, gone)
        assert f"record {gone + 1} stands there" in found.sentence


def test_a_later_program_cuts_off_the_torn_record_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    written(path, ["one", "two"])
    path.write_bytes(path.read_bytes()[:-2])

    writer = Writer(path)
    number = writer.append("three")
    writer.close()

    assert (writer.first, number) == ("one", 1)
    assert whole(path) == ["one", "three"]


def test_a_damaged_recording_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    written(path, ["one", "two"])
    raw = bytearray(path.read_bytes())
    raw[len(MAGIC) + HEAD_BYTES] ^= 1
    path.write_bytes(raw)

    with pytest.raises(RecordingError, match=r"record 0 at byte 20 was changed.*give another path"):
        Writer(path)


def test_two_programs_cannot_write_one_recording(tmp_path: Path) -> None:
    first = Writer(tmp_path / "recording")

    with pytest.raises(RecordingError, match="somebody else records there"):
        Writer(tmp_path / "recording")

    first.close()


@pytest.mark.parametrize("content", [b"something else", b"swapferry"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)

    with pytest.raises(RecordingError, match="is no recording of swapferry"):
        Writer(path)

    assert path.read_bytes() == content


def test_what_is_no_plain_data_is_not_appended(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "recording")
    with pytest.raises(TypeError):
        writer.append(object())

    writer.append("plain")
    writer.close()

    assert whole(tmp_path / "recording") == ["plain"]
