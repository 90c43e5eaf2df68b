"""An actor that lives on this node, with everything that the shell keeps for it."""

import asyncio
from enum import Enum

import attrs

from actors.runtime.actor import Actor, Record, Tick
from actors.runtime.mailbox import Mailbox
from actors.runtime.store import TimerRow


class State(Enum):
    """How an actor stands. Only a running one takes messages out of its mailbox; all but the last two let them wait."""

    LOADING = "loading"
    RUNNING = "running"
    STOPPED = "stopped"
    """given up by its supervisor"""
    RETIRED = "retired"


@attrs.define(eq=False, kw_only=True)
class Hosted:
    """One actor of this node. `busy` from the taking of a message until its ack; then no other message is taken."""

    actor: Actor
    mailbox: Mailbox
    record: Record = attrs.field(factory=Record)
    timers: dict[str, TimerRow] = attrs.field(factory=dict)
    state: State = State.LOADING
    paused: bool = False
    posted: int = 0
    hears: frozenset[type] = attrs.field(init=False)
    _at_rest: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    busy: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.hears = frozenset(self.actor.hears) | {Tick}
        self._at_rest.set()

    @property
    def address(self) -> str:
        """The actor's address."""
        return self.actor.address

    @property
    def ready(self) -> bool:
        """Whether a message can be taken now."""
        return self.state is State.RUNNING and not self.busy and not self.paused and len(self.mailbox) > 0

    def take_turn(self) -> None:
        """A turn begins."""
        self.busy = True
        self._at_rest.clear()

    def end_turn(self) -> None:
        """The turn is over."""
        self.busy = False
        self._at_rest.set()

    async def at_rest(self) -> None:
        """Until no turn is under way."""
        await self._at_rest.wait()
