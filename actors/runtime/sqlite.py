"""The store of a node in one SQLite file: records, timers, and an incarnation that only grows.

WAL with `synchronous=FULL`: SQLite syncs the log before `COMMIT` returns, so that what was committed survives power loss
(sqlite.org/pragma.html#pragma_synchronous; NORMAL would lose the last commits in WAL). All statements run in one worker
thread, so that a sync does not stop the event loop. Two nodes on one store would both believe to be its actors: an flock on
a file beside it refuses the second.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgpack

from actors.errors import Defect, Malformed, StoreError
from actors.runtime import values
from actors.runtime.actor import Key
from actors.runtime.book import Book
from actors.runtime.store import Change, Store, TimerRow
from paging.fault_points import fault_point

T = TypeVar("T")
Row = tuple[Any, ...]

SCHEMA_VERSION = 2
_FILE_MODE = 0o600  # a record may hold a token
_BUSY_S = 5.0
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS records (
        actor TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
        since REAL NOT NULL DEFAULT 0, PRIMARY KEY (actor, kind, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS timers (
        actor TEXT NOT NULL, name TEXT NOT NULL, due REAL NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (actor, name)
    ) WITHOUT ROWID;
"""
_PUT = (
    "INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "since = CASE WHEN value = excluded.value THEN since ELSE excluded.since END, value = excluded.value"
)
_ADD_SINCE = "ALTER TABLE records ADD COLUMN since REAL NOT NULL DEFAULT 0"
_DROP = "DELETE FROM records WHERE actor = ? AND kind = ? AND key = ?"
_SET_TIMER = "INSERT INTO timers VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET due = excluded.due, count = excluded.count"
_STOP_TIMER = "DELETE FROM timers WHERE actor = ? AND name = ?"


class SqliteStore(Store):
    """The store in this file; `incarnation` counts its openings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incarnation = 0
        self._database: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._worker: ThreadPoolExecutor | None = None

    async def open(self) -> None:  # noqa: D102 - see the port
        self._worker = ThreadPoolExecutor(1, "store")
        try:
            await self._work(self._open)
        except BaseException:
            await self.close()
            raise

    async def load(self, actor: str, kinds: Sequence[type]) -> tuple[Mapping[Key, object], Mapping[str, TimerRow]]:  # noqa: D102
        records, timers = await self._work(lambda: self._load(actor))
        known = {kind.__name__: kind for kind in kinds}
        filed = {self._key(actor, known, kind, key): value for kind, key, value in records}
        loaded = {key: _read(actor, key, value) for key, value in filed.items()}
        return loaded, {name: TimerRow(due=due, count=count) for name, due, count in timers}

    async def commit(self, changes: Sequence[Change]) -> None:  # noqa: D102
        statements = _statements(changes)  # encoded here: what cannot be encoded must not look like a broken store
        await self._work(lambda: self._write(statements))

    async def forget(self, actor: str) -> None:  # noqa: D102
        statements = [(f"DELETE FROM {table} WHERE actor = ?", [(actor,)]) for table in ("records", "timers")]
        await self._work(lambda: self._write(statements))

    async def since(self, actor: str) -> Mapping[tuple[str, str], float]:  # noqa: D102
        select = "SELECT kind, key, since FROM records WHERE actor = ?"
        rows = await self._work(lambda: self._opened.execute(select, (actor,)).fetchall())
        return {(kind, key): since for kind, key, since in rows}

    async def note(self, name: str) -> int | None:
        """A number that the node keeps beside the records of its actors."""
        select = "SELECT value FROM meta WHERE name = ?"
        row = await self._work(lambda: self._opened.execute(select, (f"note:{name}",)).fetchone())
        return None if row is None else int(row[0])

    async def set_note(self, name: str, value: int) -> None:
        """Keep it."""
        await self._work(lambda: self._write([("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(f"note:{name}", value)])]))

    async def actors(self) -> Sequence[str]:  # noqa: D102
        select = "SELECT actor FROM records UNION SELECT actor FROM timers ORDER BY actor"
        return [actor for (actor,) in await self._work(lambda: self._opened.execute(select).fetchall())]

    async def close(self) -> None:  # noqa: D102
        worker, self._worker = self._worker, None
        if worker is None:
            return
        await asyncio.get_running_loop().run_in_executor(worker, self._close)
        worker.shutdown(wait=False)

    # in the worker thread

    def _open(self) -> None:
        self._lock = self._take_lock()
        _create(self.path)
        self._database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._recognise()
        (mode,) = self._opened.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: this file system gives SQLite no write-ahead log; put the store on a local disk")
        self._opened.execute("PRAGMA synchronous = FULL")
        self._migrate()

    def _take_lock(self) -> int:
        beside = self.path.with_name(self.path.name + ".lock")
        lock = os.open(beside, os.O_RDWR | os.O_CREAT, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            remedy = "stop that node, or give this one a store file of its own"
            raise StoreError(f"{self.path}: another node works on this store ({beside} is locked); {remedy}") from error
        return lock

    def _recognise(self) -> None:
        """Before anything is written: a database of somebody else is left as it is."""
        tables = {name for (name,) in self._opened.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables and "meta" not in tables:
            raise StoreError(f"{self.path}: this database is no store of swapferry; give another path")

    def _migrate(self) -> None:
        self._opened.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            self._opened.execute(statement)
        meta = dict(self._opened.execute("SELECT name, value FROM meta").fetchall())
        version = meta.get("version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer swapferry (schema {version}, this one knows {SCHEMA_VERSION}); use that one"
            )
        if version == 1 and "version" in meta:
            self._opened.execute(_ADD_SINCE)
        self.incarnation = meta.get("incarnation", 0) + 1
        rows = [("version", SCHEMA_VERSION), ("incarnation", self.incarnation)]
        self._opened.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        self._opened.execute("COMMIT")

    def _load(self, actor: str) -> tuple[list[Row], list[Row]]:
        select = self._opened.execute
        return (
            select("SELECT kind, key, value FROM records WHERE actor = ? ORDER BY kind, key", (actor,)).fetchall(),
            select("SELECT name, due, count FROM timers WHERE actor = ? ORDER BY due, name", (actor,)).fetchall(),
        )

    def _write(self, statements: Iterable[tuple[str, Sequence[Row]]]) -> None:
        self._opened.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in statements:
                self._opened.executemany(statement, rows)
            fault_point("store.commit")
            self._opened.execute("COMMIT")
        except BaseException:
            if self._opened.in_transaction:  # some errors roll back by themselves
                self._opened.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # between the threads

    async def _work(self, job: Callable[[], T]) -> T:
        if self._worker is None:
            raise StoreError(f"{self.path}: the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, job)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}; {_remedy(error)}") from error

    @property
    def _opened(self) -> sqlite3.Connection:
        assert self._database is not None, "the worker is there only while the file is open"
        return self._database

    @staticmethod
    def _key(actor: str, known: Mapping[str, type], kind: str, key: str) -> Key:
        if kind not in known:
            raise Defect(f"{actor}: its record holds {kind}[{key!r}], known are {', '.join(sorted(known)) or 'none'}")
        return known[kind], key


def read_store(path: Path) -> dict[str, dict[tuple[str, str], Any]]:
    """All records as plain data: {actor: {(kind name, key): value}}. Reads one consistent state, also while a node works on
    the file. Raises `StoreError`."""
    read: dict[str, dict[tuple[str, str], Any]] = {}
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            for actor, kind, key, value in database.execute("SELECT actor, kind, key, value FROM records ORDER BY 1, 2, 3"):
                read.setdefault(actor, {})[kind, key] = _unpack(value)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; {_remedy(error)}") from error
    return read


def read_books(path: Path) -> list[Book]:
    """Everything as people look at it; one consistent state, also while a node works on the file. Raises `StoreError`."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as database:
            database.execute("BEGIN")
            meta = dict(database.execute("SELECT name, value FROM meta").fetchall())
            since = "since" if meta.get("version", 1) > 1 else "0.0"
            records = database.execute(f"SELECT actor, kind, key, value, {since} FROM records ORDER BY 1, 2, 3").fetchall()
            timers = database.execute("SELECT actor, name, due, count FROM timers").fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; {_remedy(error)}") from error
    return [
        Book(
            actor=actor, node=path.stem, state="kept", about={},
            records={(kind, key): _unpack(value) for one, kind, key, value, _ in records if one == actor},
            since={(kind, key): at for one, kind, key, _, at in records if one == actor},
            timers={name: TimerRow(due=due, count=count) for one, name, due, count in timers if one == actor},
            incarnation=meta.get("incarnation", 0),
        )
        for actor in sorted({row[0] for row in [*records, *timers]})
    ]  # fmt: skip


def _create(path: Path) -> None:
    """Before SQLite does: its log and its shared memory take over the mode of the file."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, _FILE_MODE)
    try:
        os.fchmod(file, _FILE_MODE)
    finally:
        os.close(file)


def _statements(changes: Sequence[Change]) -> list[tuple[str, list[Row]]]:
    put: list[Row] = []
    drop: list[Row] = []
    timers: list[Row] = []
    stopped: list[Row] = []
    for change in changes:
        for (kind, key), value in change.values.items():
            if value is None:
                drop.append((change.actor, kind.__name__, key))
            else:
                put.append((change.actor, kind.__name__, key, msgpack.packb(values.to_plain(value)), change.at))
        for name, timer in change.timers.items():
            if timer is None:
                stopped.append((change.actor, name))
            else:
                timers.append((change.actor, name, timer.due, timer.count))
    statements = [(_PUT, put), (_DROP, drop), (_SET_TIMER, timers), (_STOP_TIMER, stopped)]
    return [(statement, rows) for statement, rows in statements if rows]


def _read(actor: str, key: Key, value: bytes) -> object:
    kind, name = key
    try:
        return values.from_plain(kind, _unpack(value))
    except Malformed as error:
        raise Defect(f"{actor}: its record {kind.__name__}[{name!r}] cannot be read: {error}") from error


def _unpack(value: bytes) -> Any:
    return msgpack.unpackb(value, strict_map_key=False)


def _remedy(error: Exception) -> str:
    match getattr(error, "sqlite_errorname", type(error).__name__):
        case "SQLITE_FULL":
            return "make room on its disk"
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT":
            return "this is no store of swapferry or it is damaged: move it away and restore the last copy"
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return "another program writes to it: let it finish"
        case _:
            return "check the path, its rights and its disk"
