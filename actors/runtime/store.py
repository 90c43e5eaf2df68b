"""The port `Store`: where a node keeps the records and the timers of its actors. Adapter: `runtime.sqlite`.

Everything of one `commit` is durable together or not at all; it is durable when `commit` returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import attrs

from actors.runtime.actor import Key


@attrs.frozen(kw_only=True)
class TimerRow:
    """A timer of an actor: when it rings (Unix seconds) and how often it rang in a row before."""

    due: float
    count: int


@attrs.frozen(kw_only=True)
class Change:
    """What one actor's turn changes."""

    actor: str
    values: Mapping[Key, object | None]
    timers: Mapping[str, TimerRow | None] = attrs.field(factory=dict)
    at: float = 0.0
    """when the turn was (Unix seconds): a value that is another now is so since then"""


class Store(ABC):
    """One node's durable memory."""

    incarnation: int = 0
    """counts its openings, and so only grows"""

    @abstractmethod
    async def open(self) -> None:
        """Open or create it, take its lock. Raises `StoreError` (locked, newer, broken)."""

    @abstractmethod
    async def load(self, actor: str, kinds: Sequence[type]) -> tuple[Mapping[Key, object], Mapping[str, TimerRow]]:
        """All that an actor knows. Raises `Defect` for a stored kind that is not among `kinds`."""

    @abstractmethod
    async def commit(self, changes: Sequence[Change]) -> None:
        """Write a group of turns in one transaction. Raises `StoreError`; then nothing of it was written."""

    @abstractmethod
    async def forget(self, actor: str) -> None:
        """Drop all that an actor knew."""

    async def since(self, actor: str) -> Mapping[tuple[str, str], float]:  # noqa: ARG002 - a store need not keep times
        """Since when each value of this actor is as it is: (kind name, key) -> Unix seconds. For people, never for decisions."""
        return {}

    @abstractmethod
    async def actors(self) -> Sequence[str]:
        """Addresses that have a record here."""

    @abstractmethod
    async def close(self) -> None:
        """Close it and give its lock back. Idempotent."""
