"""Values as a recording keeps them: plain data without secrets, and digests of what an actor knows.

A token that opens a data channel is replaced by a word made of it and of the recording's salt: the same token is the same
word everywhere in one recording, and the word leads back to nobody's token. A replay hears the words, and leaves them be; so
digests are over the same data on both sides.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import attrs
import msgpack

from actors.runtime.actor import Decision, Heard, Key, Record
from actors.runtime.values import to_plain_with
from paging.guest import Endpoint

REDACTED = "redacted:"
DIGEST_BYTES = 16


class Plain:
    """Makes values plain for one recording."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self.of = to_plain_with({Endpoint: self._endpoint})

    def heard(self, heard: Heard) -> dict[str, Any]:
        """A message as it was heard."""
        body = heard.body
        cast = None if heard.cast is None else self.of(heard.cast)
        return {"id": heard.id, "source": heard.source, "type": type(body).__name__, "body": self.of(body), "cast": cast}

    def decision(self, decision: Decision) -> dict[str, Any]:
        """What a turn came to."""
        return {
            "changes": self.filed(decision.changes),
            "says": [
                {
                    "target": say.target,
                    "type": type(say.body).__name__,
                    "body": self.of(say.body),
                    "cast": None if say.cast is None else self.of(say.cast),
                    "row": say.row,
                }
                for say in decision.says
            ],
            "timers": dict(decision.timers),
            "events": [{"name": event.name, "fields": self.of(dict(event.fields))} for event in decision.events],
        }

    def filed(self, values: Mapping[Key, object | None]) -> list[list[Any]]:
        """Values with the names of their classes and their keys, in their order; None for one that was taken away."""
        return [[kind.__name__, key, None if value is None else self.of(value)] for (kind, key), value in values.items()]

    def _endpoint(self, endpoint: Endpoint) -> dict[str, Any]:
        return attrs.asdict(endpoint) | {"token": self._word(endpoint.token)}

    def _word(self, token: str) -> str:
        if token.startswith(REDACTED):
            return token
        return REDACTED + blake2b(token.encode(), key=self._salt, digest_size=DIGEST_BYTES).hexdigest()


class Fingerprint:
    """A digest of all that an actor knows, kept up to date at the cost of what changes: the sum of its values' digests."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str], int] = {}
        self._sum = 0

    def after(self, filed: list[list[Any]]) -> bytes:
        """The digest as it would be with these changes."""
        total = self._sum
        for kind, key, value in filed:
            total += _digest(kind, key, value) - self._digests.get((kind, key), 0)
        return _bytes(total)

    def apply(self, filed: list[list[Any]]) -> None:
        """File these changes."""
        for kind, key, value in filed:
            digest = _digest(kind, key, value)
            self._sum += digest - self._digests.pop((kind, key), 0)
            if value is not None:
                self._digests[kind, key] = digest

    @property
    def digest(self) -> bytes:
        """Of everything."""
        return _bytes(self._sum)


def fingerprint(plain: Plain, record: Record) -> Fingerprint:
    """The fingerprint of a whole record."""
    made = Fingerprint()
    made.apply(plain.filed(dict(record.items())))
    return made


def _digest(kind: str, key: str, value: Any) -> int:
    if value is None:
        return 0
    raw = msgpack.packb([kind, key, _sorted(value)])
    return int.from_bytes(blake2b(raw, digest_size=DIGEST_BYTES).digest(), "big")


def _bytes(total: int) -> bytes:
    return (total % (1 << 8 * DIGEST_BYTES)).to_bytes(DIGEST_BYTES, "big")


def _sorted(value: Any) -> Any:
    """The same with the keys of all maps in order: equal maps have equal bytes."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
