"""What operators get to see of an actor: since when, without secrets, whole."""

import sqlite3

import attrs
import msgpack
import pytest

from actors.errors import Malformed
from actors.runtime.book import PIECE_BYTES, STRUCK_OUT, Book, Pieces, cut
from actors.runtime.sqlite import SqliteStore, read_books
from actors.runtime.store import Change, TimerRow


@attrs.frozen
class Note:
    text: str


@attrs.frozen
class Other:
    text: str


@pytest.fixture
async def store(tmp_path):
    opened = SqliteStore(tmp_path / "h1.db")
    await opened.open()
    yield opened
    await opened.close()


def a_book(**changes):
    fields = {
        "actor": "hypervisor.h1", "node": "h1", "state": "running", "about": {"homes": {"san0": "h1"}},
        "records": {("Note", "k"): {"text": "x", "endpoint": {"host": "h2", "token": "secret"}, "raw": b"\x00"}},
        "since": {("Note", "k"): 3.5}, "timers": {"ask": TimerRow(due=9.0, count=2)}, "incarnation": 4,
    }  # fmt: skip
    return Book(**(fields | changes))


async def test_a_value_that_is_stored_again_as_it_was_keeps_its_time(store):
    await store.commit([Change(actor="a", values={(Note, "k"): Note("one")}, at=1.0)])
    await store.commit([Change(actor="a", values={(Note, "k"): Note("one")}, at=2.0)])
    assert await store.since("a") == {("Note", "k"): 1.0}

    await store.commit([Change(actor="a", values={(Note, "k"): Note("two")}, at=3.0)])

    assert await store.since("a") == {("Note", "k"): 3.0}


async def test_a_store_can_be_read_while_it_is_open(store):
    await store.commit([Change(actor="a", values={(Note, "k"): Note("one")}, timers={"t": TimerRow(due=7.0, count=1)}, at=1.0)])

    (book,) = read_books(store.path)

    assert (book.actor, book.node, book.state, book.incarnation) == ("a", "h1", "kept", 1)
    assert book.since == {("Note", "k"): 1.0}
    assert book.timers == {"t": TimerRow(due=7.0, count=1)}
    assert book.record([Note]).get(Note, "k") == Note("one")


async def test_a_store_without_times_is_read_and_then_has_them(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
        database.execute("INSERT INTO meta VALUES ('version', 1), ('incarnation', 3)")
        database.execute(
            "CREATE TABLE records (actor TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, "
            "PRIMARY KEY (actor, kind, key)) WITHOUT ROWID"
        )
        database.execute("INSERT INTO records VALUES ('a', 'Note', 'k', ?)", (msgpack.packb({"text": "one"}),))
        database.execute(
            "CREATE TABLE timers (actor TEXT NOT NULL, name TEXT NOT NULL, due REAL NOT NULL, count INTEGER NOT NULL, "
            "PRIMARY KEY (actor, name)) WITHOUT ROWID"
        )
    assert read_books(path)[0].since == {("Note", "k"): 0.0}

    store = SqliteStore(path)
    await store.open()
    await store.commit([Change(actor="a", values={(Note, "k"): Note("two")}, at=5.0)])

    assert (await store.since("a"), store.incarnation) == ({("Note", "k"): 5.0}, 4)
    await store.close()


def test_a_book_comes_as_it_went_but_for_its_secrets():
    came = Book.from_bytes(a_book().to_bytes())

    endpoint = came.records["Note", "k"].pop("endpoint")
    assert endpoint == {"host": "h2", "token": STRUCK_OUT}
    assert came == a_book(records={("Note", "k"): {"text": "x", "raw": b"\x00"}})


def test_pieces_of_two_answers_do_not_mix():
    one, two = b"1" * (2 * PIECE_BYTES + 1), b"2" * (PIECE_BYTES + 1)
    first, second = cut("r", "a", one), cut("r", "a", two)
    pieces = Pieces()

    joined = [pieces.add(piece) for piece in (first[2], second[0], first[0], second[1], first[1])]

    assert joined == [None, None, None, two, one]


@pytest.mark.parametrize("data", [b"\xc1", b"\x01", b""])
def test_a_book_that_is_none_is_malformed(data):
    with pytest.raises(Malformed):
        Book.from_bytes(data)


def test_a_record_of_another_version_is_named():
    with pytest.raises(Malformed, match="holds Note"):
        a_book().record([Other])
