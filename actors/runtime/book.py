"""The book of an actor: what it knows, since when, and which of its timers run, as somebody outside gets to read it.

It travels as bytes in pieces, since a record may be larger than a message. Secrets do not leave the node: a token is struck out.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgpack

from actors.errors import Malformed
from actors.messages.showing import Shown
from actors.runtime import values
from actors.runtime.actor import Record
from actors.runtime.store import TimerRow

PIECE_BYTES = 160 * 1024
STRUCK_OUT = "<redacted>"
_SECRETS = frozenset({"token"})

Filing = tuple[str, str]
"""(kind name, key)"""


@attrs.frozen(kw_only=True)
class Book:
    """One actor as its node knows it."""

    actor: str
    node: str
    state: str
    """how the actor stands on its node; "kept" where it was read from a file"""
    about: Mapping[str, Any]
    """what configuration says of it"""
    records: Mapping[Filing, Any]
    """plain data"""
    since: Mapping[Filing, float]
    """Unix seconds since when a value is as it is; 0: not known"""
    timers: Mapping[str, TimerRow]
    seen: Mapping[str, Any] = attrs.field(factory=dict)
    """how its machine was when somebody looked; `problem` where that could not be seen"""
    incarnation: int = 0
    """of the node's store"""

    def record(self, kinds: Iterable[type]) -> Record:
        """The typed record. Raises `Malformed` for what these kinds do not have."""
        known = {kind.__name__: kind for kind in kinds}
        unknown = sorted({kind for kind, _ in self.records} - set(known))
        if unknown:
            remedy = "use the version of swapferry that its node has"
            raise Malformed(f"{self.actor}: its record holds {', '.join(unknown)}; {remedy}")
        return Record({(known[kind], key): values.from_plain(known[kind], plain) for (kind, key), plain in self.records.items()})

    def to_bytes(self) -> bytes:
        """For the way."""
        records = [[kind, key, _struck(plain), self.since.get((kind, key), 0.0)] for (kind, key), plain in self.records.items()]
        timers = {name: [row.due, row.count] for name, row in self.timers.items()}
        about, seen = values.to_plain(dict(self.about)), dict(self.seen)
        packed: bytes = msgpack.packb([self.actor, self.node, self.state, about, records, timers, seen, self.incarnation])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Book":
        """What `to_bytes` made. Raises `Malformed`."""
        try:
            actor, node, state, about, records, timers, seen, incarnation = msgpack.unpackb(data, strict_map_key=False)
            return cls(
                actor=actor, node=node, state=state, about=about,
                records={(kind, key): plain for kind, key, plain, _ in records},
                since={(kind, key): since for kind, key, _, since in records},
                timers={name: TimerRow(due=due, count=count) for name, (due, count) in timers.items()},
                seen=seen, incarnation=incarnation,
            )  # fmt: skip
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise Malformed(f"a book that cannot be read: {error}") from error


def cut(request: str, actor: str, data: bytes) -> list[Shown]:
    """Bytes in pieces that fit into messages."""
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)] or [b""]
    return [
        Shown(request=request, actor=actor, digest=digest, chunk=chunk, of=len(pieces), data=piece)
        for chunk, piece in enumerate(pieces)
    ]


class Pieces:
    """Puts pieces together again. What was asked twice may be answered twice, and differently."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, bytes]] = {}

    def add(self, shown: Shown) -> bytes | None:
        """All bytes, once every piece of one answer is here."""
        found = self._found.setdefault(shown.digest, {})
        found[shown.chunk] = shown.data
        return b"".join(found[chunk] for chunk in range(shown.of)) if len(found) == shown.of else None


def _struck(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: STRUCK_OUT if name in _SECRETS else _struck(one) for name, one in plain.items()}
    return [_struck(one) for one in plain] if isinstance(plain, list) else plain
