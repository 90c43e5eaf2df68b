"""The store: together or not at all, one node at a time, readable while a node works."""

import asyncio
import os
import resource
import sqlite3
import stat
from pathlib import Path

import attrs
import pytest

from actors.errors import Defect, StoreError
from actors.runtime.sqlite import SqliteStore, read_store
from actors.runtime.store import Change, TimerRow
from paging.slots import SlotSet


@attrs.frozen(kw_only=True)
class Note:
    text: str
    slots: SlotSet = attrs.field(factory=SlotSet)


@attrs.frozen(kw_only=True)
class Other:
    number: int


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "h1.store"


@pytest.fixture
async def store(path):
    made = SqliteStore(path)
    await made.open()
    yield made
    await made.close()


def note(actor: str, key: str, text: str) -> Change:
    return Change(actor=actor, values={(Note, key): Note(text=text)})


async def reopened(store: SqliteStore) -> SqliteStore:
    await store.close()
    await store.open()
    return store


async def test_what_was_committed_is_there_after_opening_again(store):
    value = Note(text="x", slots=SlotSet([1, 2, 9]))
    timers = {"ask": TimerRow(due=1700000000.25, count=3)}
    await store.commit([Change(actor="a", values={(Note, "k"): value, (Other, ""): Other(number=4)}, timers=timers)])

    loaded = await (await reopened(store)).load("a", [Note, Other])

    assert loaded == ({(Note, "k"): value, (Other, ""): Other(number=4)}, timers)


async def test_none_takes_a_value_or_a_timer_away(store):
    await store.commit([Change(actor="a", values={(Note, "k"): Note(text="x")}, timers={"t": TimerRow(due=1.0, count=0)})])

    await store.commit([Change(actor="a", values={(Note, "k"): None}, timers={"t": None})])

    assert await store.load("a", [Note]) == ({}, {})


async def test_actors_do_not_see_each_other_and_one_is_forgotten_alone(store):
    await store.commit([note("a", "k", "of a"), note("b", "k", "of b")])
    assert await store.actors() == ["a", "b"]

    await store.forget("a")

    assert await store.load("a", [Note]) == ({}, {})
    assert await store.load("b", [Note]) == ({(Note, "k"): Note(text="of b")}, {})
    assert await store.actors() == ["b"]


async def test_a_stored_kind_that_the_actor_does_not_know_is_a_defect(store):
    await store.commit([note("a", "k", "x")])

    with pytest.raises(Defect, match=r"a: its record holds Note\['k'\], known are Other"):
        await store.load("a", [Other])


async def test_a_stored_value_that_its_kind_cannot_read_is_a_defect(store):
    @attrs.frozen
    class Note:  # an older or newer one of the same name
        number: int

    await store.commit([Change(actor="a", values={(Note, "k"): Note(1)})])

    with pytest.raises(Defect, match=r"its record Note\['k'\] cannot be read: Note"):
        await store.load("a", [globals()["Note"]])


async def test_a_group_with_a_value_that_cannot_be_stored_writes_nothing(store):
    with pytest.raises(TypeError):
        await store.commit([note("a", "k", "x"), Change(actor="b", values={(object, ""): object()})])

    assert await store.actors() == []


async def test_when_the_disk_is_full_nothing_is_written_and_later_everything_goes_on(store, path):
    await store.commit([note("a", "k", "before")])
    big = [note("a", str(number), "x" * 1000) for number in range(100)]
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow fails its writes as a full disk does (Python ignores SIGXFSZ).
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f"{path}-wal").st_size + 8192, unlimited[1]))
    try:
        with pytest.raises(StoreError, match=r"h1\.store: .+; (make room|check)"):
            await store.commit(big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert list(read_store(path)["a"]) == [("Note", "k")]

    await store.commit(big)

    assert len(read_store(path)["a"]) == 101


async def test_a_store_survives_a_process_that_dies_without_closing_it(path):
    code = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from actors.runtime.sqlite import SqliteStore; from actors.runtime.store import Change\n"
        "from tests.actors.runtime.test_sqlite import note\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1])); await store.open()\n"
        "    await store.commit([note('a', 'k', 'x')]); os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), cwd=Path(__file__).parents[3])
    assert await process.wait() == 9

    store = SqliteStore(path)
    await store.open()
    loaded, _ = await store.load("a", [Note])
    await store.close()

    assert loaded == {(Note, "k"): Note(text="x")}


async def test_a_second_opener_is_refused_with_file_and_remedy_until_the_first_closes(store, path):
    second = SqliteStore(path)

    with pytest.raises(StoreError, match=r"h1\.store: another node works on this store .* is locked\); stop that node"):
        await second.open()
    await store.close()
    await second.open()

    await second.close()


async def test_the_incarnation_only_grows(store):
    first = store.incarnation

    await reopened(store)

    assert store.incarnation == first + 1


async def test_the_files_can_be_read_by_their_owner_only(store, path):
    await store.commit([note("a", "k", "secret")])

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert set(modes.values()) == {0o600}, modes


async def test_records_can_be_read_while_a_node_works_and_after_it_stopped(store, path):
    await store.commit([note("a", "k", "x")])
    while_open = read_store(path)
    await store.close()

    assert while_open == read_store(path) == {"a": {("Note", "k"): {"text": "x", "slots": b""}}}


async def test_a_newer_schema_is_refused(store, path):
    await store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    database.close()

    with pytest.raises(StoreError, match=r"h1\.store: written by a newer swapferry \(schema 99"):
        await store.open()


@pytest.mark.parametrize("content", [b"no database" * 1000, None])
async def test_a_file_that_is_no_store_is_refused_and_left_as_it_was(path, content: bytes | None):
    if content is None:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE birds (name TEXT)")
        database.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()

    with pytest.raises(StoreError, match=r"h1\.store: .*no store of swapferry"):
        await SqliteStore(path).open()

    assert path.read_bytes() == before


async def test_a_place_where_no_file_can_be_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere/h1\.store.*; check the path"):
        await SqliteStore(tmp_path / "nowhere" / "h1.store").open()
    with pytest.raises(StoreError, match=r"absent\.store: .*; check the path"):
        read_store(tmp_path / "absent.store")


async def test_closing_twice_is_closing_once_and_a_closed_store_says_so(store):
    await store.close()
    await store.close()

    with pytest.raises(StoreError, match="the store is closed"):
        await store.commit([note("a", "k", "x")])
