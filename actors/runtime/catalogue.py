"""Which body types there are, by name and version: typed bodies <-> envelopes.

The name of a type is its class name, its version the class attribute `VERSION` (1 where there is none). Generic: the concrete
types are in `actors.messages`.
"""

from collections.abc import Iterable
from typing import Any

from actors.errors import Malformed
from actors.runtime import values
from actors.runtime.actor import Heard, Say
from bus.envelope import Envelope


class Catalogue:
    """All body types of this program, and the type of the cast."""

    def __init__(self, bodies: Iterable[type], cast: type) -> None:
        self._cast = cast
        self._bodies: dict[str, type] = {}
        values.prepare(cast)
        for kind in bodies:
            if kind.__name__ in self._bodies:
                raise ValueError(f"two body types are named {kind.__name__}")
            values.prepare(kind)
            self._bodies[kind.__name__] = kind

    def decode(self, envelope: Envelope) -> Heard:
        """The message as an actor hears it. Raises `Malformed` for an unknown type or version, and for a body or a cast that
        is not what its type says."""
        kind = self._bodies.get(envelope.type)
        if kind is None:
            raise Malformed(f"unknown type {envelope.type!r}")
        if envelope.type_v != version(kind):
            raise Malformed(f"{envelope.type}: version {envelope.type_v!r} is unknown here, known is {version(kind)}")
        cast = None if envelope.cast is None else values.from_plain(self._cast, envelope.cast)
        body: Any = values.from_plain(kind, envelope.body)
        return Heard(id=envelope.id, source=envelope.source, body=body, cast=cast)

    def encode(self, say: Say, *, source: str, id: str, causation: str, sent_at: float) -> Envelope:  # noqa: A002 - its field
        """The envelope of something to be said."""
        kind = type(say.body)
        if self._bodies.get(kind.__name__) is not kind:
            raise TypeError(f"{kind.__name__} is not in the catalogue of bodies")
        return Envelope(
            id=id,
            type=kind.__name__,
            type_v=version(kind),
            source=source,
            target=say.target,
            body=values.to_plain(say.body),
            cast=None if say.cast is None else values.to_plain(say.cast),
            row=say.row,
            epoch=getattr(say.cast, "epoch", None),
            correlation=correlation(say.cast, say.body),
            causation=causation,
            sent_at=sent_at,
        )


def version(kind: type) -> int:
    """The version of a body type."""
    return getattr(kind, "VERSION", 1)


def correlation(cast: Any, body: Any) -> str | None:
    """What holds a conversation together: the saga's id, or the id of a user's request."""
    saga = getattr(cast, "saga", None)
    if saga is None:
        request = getattr(body, "request", None)
        return None if request is None else str(request)
    return ".".join(str(part) for part in saga) if isinstance(saga, tuple) else str(saga)
