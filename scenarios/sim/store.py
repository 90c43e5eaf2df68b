"""The store of the simulated world: a disk that outlives its node, written as `actors.runtime.sqlite` writes, in transactions.

Values become the same bytes as there. A crash comes between any two statements; what was not committed as a whole is not there.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgpack

from actors.errors import Defect, StoreError
from actors.runtime import values
from actors.runtime.actor import Key, Record
from actors.runtime.store import Change, Store, TimerRow
from scenarios.sim.fortune import Fortune
from scenarios.sim.process import Process

Put = tuple[str, str, str, bytes | None]
"""(actor, kind, key, value), no value: drop"""
Commits = Callable[[Process, Sequence[Change]], None]


@attrs.define(eq=False)
class Disk:
    """What one node's store file holds. `truth` is the same, typed, for the checkers."""

    node: str
    rows: dict[str, dict[tuple[str, str], bytes]] = attrs.field(factory=dict)
    timers: dict[str, dict[str, TimerRow]] = attrs.field(factory=dict)
    truth: dict[str, Record] = attrs.field(factory=dict)
    full: bool = False
    locked: Process | None = None
    commits: int = 0

    def record(self, actor: str) -> Record:
        """What is durable of this actor."""
        return self.truth.setdefault(actor, Record())


class SimStore(Store):
    """One node's way to its disk. `before` and `after` are told of each commit: the node may die there."""

    def __init__(self, disk: Disk, process: Process, fortune: Fortune, *, before: Commits, after: Commits) -> None:
        self.disk = disk
        self._process, self._fortune, self._before, self._after = process, fortune, before, after

    async def open(self) -> None:
        """See `Store.open`."""
        holder = self.disk.locked
        if holder is not None and holder.alive and holder is not self._process:
            raise StoreError(f"{self.disk.node}: another node works on this store")
        self.disk.locked = self._process

    async def load(self, actor: str, kinds: Sequence[type]) -> tuple[Mapping[Key, object], Mapping[str, TimerRow]]:
        """See `Store.load`."""
        await asyncio.sleep(self._fortune.travel_s())
        known = {kind.__name__: kind for kind in kinds}
        found: dict[Key, object] = {}
        for (kind, key), raw in sorted(self.disk.rows.get(actor, {}).items()):
            if kind not in known:
                raise Defect(f"{actor}: its record holds {kind}[{key!r}]")
            found[known[kind], key] = values.from_plain(known[kind], msgpack.unpackb(raw, strict_map_key=False))
        timers = self.disk.timers.get(actor, {})
        return found, dict(sorted(timers.items(), key=lambda item: (item[1].due, item[0])))

    async def commit(self, changes: Sequence[Change]) -> None:
        """See `Store.commit`."""
        statements = list(statements_of(changes))
        await asyncio.sleep(self._fortune.travel_s())
        if self.disk.full:
            raise StoreError(f"{self.disk.node}: the disk is full; make room on it")
        self._before(self._process, changes)
        self.write(statements)
        for change in changes:
            self.disk.record(change.actor).apply(change.values)
        self.set_timers(changes)
        self.disk.commits += 1
        self._after(self._process, changes)

    def write(self, statements: Sequence[Put]) -> None:
        """All of them."""
        for actor, kind, key, raw in statements:
            rows = self.disk.rows.setdefault(actor, {})
            if raw is None:
                rows.pop((kind, key), None)
            else:
                rows[kind, key] = raw

    def set_timers(self, changes: Sequence[Change]) -> None:
        """And their timers."""
        for change in changes:
            timers = self.disk.timers.setdefault(change.actor, {})
            for name, row in change.timers.items():
                if row is None:
                    timers.pop(name, None)
                else:
                    timers[name] = row

    async def forget(self, actor: str) -> None:
        """See `Store.forget`."""
        await asyncio.sleep(self._fortune.travel_s())
        if self.disk.full:
            raise StoreError(f"{self.disk.node}: the disk is full; make room on it")
        for kept in (self.disk.rows, self.disk.timers, self.disk.truth):
            kept.pop(actor, None)

    async def actors(self) -> Sequence[str]:
        """See `Store.actors`."""
        return sorted(actor for actor, rows in self.disk.rows.items() if rows)

    async def close(self) -> None:
        """See `Store.close`."""
        if self.disk.locked is self._process:
            self.disk.locked = None


def statements_of(changes: Sequence[Change]) -> list[Put]:
    """What is written, as bytes."""
    found: list[Put] = []
    for change in changes:
        for (kind, key), value in change.values.items():
            raw: Any = None if value is None else msgpack.packb(values.to_plain(value))
            found.append((change.actor, kind.__name__, key, raw))
    return found
