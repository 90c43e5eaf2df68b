"""What an actor is: an address, a durable record, and a pure decision for each message it hears.

A decision has no await, no clock, no random and no I/O in it: `decide(turn)` reads the record and the message from the
`Turn` and writes to it what shall change, what shall be said, and which timers shall run. The shell (`runtime.node`)
stores that, lets the machine obey, publishes and acks, always in this order. So the same actor code runs under RabbitMQ
and inside the simulator.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

import attrs

T = TypeVar("T")
Key = tuple[type, str]


class Record:
    """What one actor knows, as frozen values filed by their class and a key. Only the shell changes it."""

    def __init__(self, values: Mapping[Key, object] | None = None) -> None:
        self._filed: dict[type, dict[str, object]] = {}
        self.apply(values or {})

    def apply(self, changes: Mapping[Key, object | None]) -> None:
        """File what a decision changed; None takes a value away."""
        for (kind, key), value in changes.items():
            values = self._filed.setdefault(kind, {})
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value

    def get(self, kind: type[T], key: str = "") -> T | None:
        """The value of this kind under this key."""
        return cast("T | None", self._filed.get(kind, {}).get(key))

    def all(self, kind: type[T]) -> Mapping[str, T]:
        """All values of this kind."""
        return cast("Mapping[str, T]", MappingProxyType(self._filed.get(kind, {})))

    def items(self) -> Iterator[tuple[Key, object]]:
        """Everything that is filed."""
        for kind, values in self._filed.items():
            for key, value in values.items():
                yield (kind, key), value


@attrs.frozen(kw_only=True)
class Heard:
    """A message as an actor hears it: the body is a typed value of `actors.messages`."""

    id: str
    source: str
    body: Any
    cast: Any = None
    """`actors.messages.Cast` or None outside a saga"""


@attrs.frozen(kw_only=True)
class Say:
    """Something to be said; the shell makes an envelope of it (id = uuid5(heard id, index))."""

    target: str
    body: Any
    cast: Any = None
    row: str | None = None


@attrs.frozen(kw_only=True)
class Event:
    """Something an operator may want to read: a stable name and fields. Goes to the log, the timeline and the metrics."""

    name: str
    fields: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Tick:
    """A timer went off. `count` is how often it did in a row, this time included (the shell keeps it)."""

    timer: str
    count: int


@attrs.frozen(kw_only=True)
class Decision:
    """What one turn came to."""

    changes: Mapping[Key, object | None]
    says: tuple[Say, ...]
    timers: Mapping[str, float | None]
    """timer name -> seconds from now, None: stop it. A timer that rings is gone unless the turn sets it again."""
    events: tuple[Event, ...]


class Turn:
    """One message and one record, and what an actor makes of them."""

    def __init__(self, record: Record, heard: Heard) -> None:
        self._record = record
        self.heard = heard
        self._changes: dict[Key, object | None] = {}
        self._says: list[Say] = []
        self._timers: dict[str, float | None] = {}
        self._events: list[Event] = []

    def get(self, kind: type[T], key: str = "") -> T | None:
        """The value of this kind under this key, as this turn left it."""
        if (kind, key) in self._changes:
            return cast("T | None", self._changes[kind, key])
        return self._record.get(kind, key)

    def all(self, kind: type[T]) -> dict[str, T]:
        """All values of this kind, as this turn left them."""
        values = dict(self._record.all(kind))
        for (changed, key), value in self._changes.items():
            if changed is kind:
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = cast("T", value)
        return values

    def put(self, value: object, key: str = "") -> None:
        """File a value under its class and this key."""
        self._changes[type(value), key] = value

    def drop(self, kind: type, key: str = "") -> None:
        """Take a value away."""
        self._changes[kind, key] = None

    def say(self, target: str, body: object, *, cast: object = None, row: str | None = None) -> None:
        """Let this be said after the record is stored."""
        self._says.append(Say(target=target, body=body, cast=cast, row=row))

    def timer(self, name: str, after_s: float | None) -> None:
        """Let a `Tick` come after so many seconds (the shell adds jitter); None stops the timer."""
        self._timers[name] = after_s

    def event(self, name: str, **fields: Any) -> None:
        """Let an operator see this."""
        self._events.append(Event(name=name, fields=fields))

    def decision(self) -> Decision:
        """What the turn came to."""
        return Decision(changes=self._changes, says=tuple(self._says), timers=self._timers, events=tuple(self._events))


class Actor(ABC):
    """An address and its decisions. What it knows is in its `Record`, kept by the shell; the object itself is stateless
    but for what `obey` needs to reach the machine."""

    address: str
    kinds: tuple[type, ...] = ()
    """attrs classes that its record holds (all others are a `Defect` at load)"""
    hears: tuple[type, ...] = ()
    """body types it accepts; anything else for it is dead-lettered as malformed"""

    @abstractmethod
    def decide(self, turn: Turn) -> None:
        """React to `turn.heard` (a body of `hears`, or a `Tick`). Pure. Raises `Defect` for what must not be."""

    def before(self, record: Record, heard: Heard) -> None:  # noqa: B027 - an optional step of the shell
        """Effects that must precede their record and that nobody can see yet; safe to repeat, safe to lose."""

    def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:  # noqa: B027 - an optional step
        """Let the machine follow the record. Called after each commit with what changed, and once after loading with
        everything. Idempotent, never waits: longer work is a task of the actor's driver that reports by a message
        (`Inbox`)."""

    def about(self) -> Mapping[str, Any]:
        """What configuration says of this actor, as plain data, for whoever looks at it from outside."""
        return {}

    async def seen(self) -> Mapping[str, Any]:
        """How its machine is at this moment, as plain data, for whoever looks at it from outside."""
        return {}

    async def stop(self) -> None:  # noqa: B027 - most actors hold nothing
        """The node stops or the actor is restarted: let go of tasks and descriptors. Guests go on."""


class Inbox(ABC):
    """How a driver on this node tells an actor of the same node what the machine did, and how an actor starts others."""

    @abstractmethod
    def post(self, address: str, body: object) -> None:
        """Put a message into an actor's mailbox, from this node, without the bus. Dropped and counted when the mailbox
        is full or the actor is gone: what is posted is always a level that will be posted again."""

    @abstractmethod
    def spawn(self, actor: Actor) -> None:
        """Start an actor on this node (idempotent by address): load its record, bind its address, obey, take messages."""

    @abstractmethod
    def retire(self, address: str) -> None:
        """Stop an actor for good: unbind its address, drop its record and timers. Idempotent."""
