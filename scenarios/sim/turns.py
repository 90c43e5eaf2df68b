"""Watches the shell of every node from outside: which step each turn has come to, and where in it a node shall die.

The shell itself is the real one. What is seen here: the actor decides and obeys (wrapped), the store commits, the broker is
asked to publish and to ack. From these the order *store, obey, say, ack* is checked, and each of the gaps between them can be
the node's last.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

import attrs

from actors.messages import (
    Named,
    Recorded,
    Regained,
    Return,
    Survey,
    Surveyed,
    Taken,
    Unshare,
    Unshared,
)
from actors.runtime.actor import Actor, Decision, Heard, Key, Record, Tick, Turn
from actors.runtime.store import Change
from actors.sagas.migration import ROWS
from bus.envelope import Envelope
from scenarios.sim.faults import CRASH_POINTS
from scenarios.sim.fortune import Fortune
from scenarios.sim.process import Process

BEFORE_STORE, STORE_TO_OBEY, OBEY_TO_SAY, SAY_TO_ACK = CRASH_POINTS

WORDS: Mapping[type, str] = {
    Named: "named", Return: "take", Taken: "taken", Survey: "survey", Surveyed: "regain", Regained: "record",
    Recorded: "recorded", Unshare: "unlist", Unshared: "unshared",
}  # fmt: skip
UNDOS = ("undo manager", "undo device", "undo source", "undo target")
HOMECOMING = frozenset((*WORDS.values(), "housekeeping"))
LABELS: tuple[str, ...] = (*(row.name for row in ROWS), *UNDOS, *WORDS.values(), "housekeeping")
"""the rows of the coverage table: those of the migration, their undoing, and the words of the cleanup"""


class Stage(IntEnum):
    """How far a turn has come."""

    DECIDED = 0
    STORED = 1
    OBEYED = 2
    SAID = 3


@attrs.define(eq=False)
class Seen:
    """A turn under way."""

    heard: str
    label: str
    stores: bool
    words: int
    posted: bool
    unsaid: dict[str, list[str]]
    """target -> types of the words that are still to be said to it, in order"""
    stage: Stage = Stage.DECIDED
    published: int = 0


class Turns:
    """All turns under way in a world. `broken` is told what the shell did in a wrong order."""

    def __init__(self, fortune: Fortune, broken: Callable[[str, str], None], drops: Callable[[Process], int]) -> None:
        """`drops` says how many messages a node has acked without a turn, by its own account."""
        self._fortune, self._broken, self._drops = fortune, broken, drops
        self._dropped: Counter[Process] = Counter()
        self._open: dict[tuple[Process, str], Seen] = {}
        self._arrived: dict[tuple[Process, str], dict[str, list[int]]] = {}
        self._arrivals = 0
        self._turned: dict[tuple[Process, str], int] = {}
        self._unobeyed: dict[tuple[Process, str], dict[str, None]] = {}
        pick = fortune.random
        self.favourite = (pick.choice(LABELS), pick.choice(CRASH_POINTS))
        self.done: Counter[str] = Counter()
        """while faults could happen"""
        self.crashes: Counter[tuple[str, str]] = Counter()

    def forget(self, process: Process) -> None:
        """The process is dead."""
        del self._dropped[process]
        for kept in (self._open, self._arrived, self._turned, self._unobeyed):
            for key in [key for key in kept if key[0] is process]:
                del kept[key]

    # what happens to a turn

    def delivered(self, process: Process, envelope: Envelope) -> None:
        """A message was handed to its node."""
        self._arrivals += 1
        arrived = self._arrived.setdefault((process, envelope.target), {})
        arrived.setdefault(envelope.id, []).append(self._arrivals)

    def _in_turn(self, process: Process, address: str, heard: str) -> None:
        """An actor takes its messages in the order in which they arrived, one at a time."""
        under_way = self._open.get((process, address))
        if under_way is not None and Stage.DECIDED < under_way.stage < Stage.OBEYED:
            self._broken("turns", f"{address} heard {heard} while its turn of {under_way.heard} was under way")
        arrived = self._arrived.get((process, address), {}).get(heard)
        put_back = self._unobeyed.setdefault((process, address), {})
        if not arrived or heard in put_back:  # the store had refused its group
            return
        put_back[heard] = None
        before = self._turned.get((process, address), 0)
        while arrived and arrived[0] < before:
            arrived.pop(0)  # that copy did not fit into the mailbox
        if not arrived:
            self._broken("turns", f"{address} heard {heard} after what had arrived later")
            return
        self._turned[process, address] = arrived.pop(0)

    def decided(self, process: Process, address: str, turn: Turn) -> None:
        """An actor has decided."""
        decision = turn.decision()
        heard = turn.heard
        self._in_turn(process, address, heard.id)
        self._open[process, address] = Seen(
            heard=heard.id,
            label=label_of(turn),
            stores=bool(decision.changes or decision.timers or isinstance(heard.body, Tick)),
            words=len(decision.says),
            posted=isinstance(heard.body, Tick) or heard.source.startswith("node."),
            unsaid=_words(decision),
        )

    def committing(self, process: Process, changes: Sequence[Change]) -> None:
        """The store is about to write a group."""
        for change in changes:
            self._point(process, self._open.get((process, change.actor)), BEFORE_STORE)

    def committed(self, process: Process, changes: Sequence[Change]) -> None:
        """It has."""
        for change in changes:
            seen = self._open.get((process, change.actor))
            if seen is not None:
                seen.stage = Stage.STORED
        for change in changes:
            self._point(process, self._open.get((process, change.actor)), STORE_TO_OBEY)

    def obeying(self, process: Process, address: str) -> None:
        """The machine is about to follow."""
        seen = self._open.get((process, address))
        if seen is None:
            return
        if seen.stores and seen.stage < Stage.STORED:
            self._broken("turns", f"{address} obeyed {seen.heard} before it was stored")
        if not seen.stores:
            self._point(process, seen, BEFORE_STORE)
            self._point(process, seen, STORE_TO_OBEY)

    def obeyed(self, process: Process, address: str) -> None:
        """It follows."""
        seen = self._open.get((process, address))
        if seen is None or seen.stage >= Stage.OBEYED:
            return
        seen.stage = Stage.OBEYED
        self._unobeyed.get((process, address), {}).pop(seen.heard, None)
        if seen.label and not self._fortune.over:
            self.done[seen.label] += 1
        self._point(process, seen, OBEY_TO_SAY)
        if seen.posted and not seen.words:
            self._point(process, seen, SAY_TO_ACK)

    def saying(self, process: Process, envelope: Envelope) -> None:
        """A word of a turn is about to go out."""
        seen = self._open.get((process, envelope.source))
        if seen is None or envelope.causation != seen.heard or str(envelope.body.get("reason", "")).startswith("busy"):
            return  # the answer to a request that did not fit into a mailbox belongs to no turn
        if seen.stage < Stage.OBEYED:
            self._broken("turns", f"{envelope.source} said {envelope.type} before its record was stored and obeyed")
        seen.published += 1
        unsaid = seen.unsaid.get(envelope.target, [])
        if not unsaid or unsaid.pop(0) != envelope.type:
            self._broken("turns", f"{envelope.source} said {envelope.type} to {envelope.target} out of turn")

    def said(self, process: Process, envelope: Envelope) -> None:
        """The broker has it."""
        seen = self._open.get((process, envelope.source))
        if seen is not None and envelope.causation == seen.heard and seen.published >= seen.words and seen.posted:
            self._point(process, seen, SAY_TO_ACK)

    def acking(self, process: Process, envelope: Envelope) -> None:
        """The message of a turn is about to be acked."""
        seen = self._open.get((process, envelope.target))
        if seen is None or seen.heard != envelope.id or seen.stage < Stage.OBEYED or (seen.words and not seen.published):
            self._dropped[process] += 1
            if envelope.target.startswith("user.") or self._dropped[process] <= self._drops(process):
                return
            self._broken("turns", f"{envelope.target} acked {envelope.type} before its turn was stored, obeyed and said")
            return
        self._point(process, seen, SAY_TO_ACK)
        self._open.pop((process, envelope.target), None)

    def _point(self, process: Process, seen: Seen | None, point: str) -> None:
        if seen is None or not process.alive:
            return
        profile = self._fortune.profile
        chance = profile.crash_favourite if (seen.label, point) == self.favourite else profile.crash
        if self._fortune.happens(f"crash {point}", chance):
            if seen.label:
                self.crashes[seen.label, point] += 1
            process.die()


class Watched(Actor):
    """An actor, unchanged, whose turns are seen."""

    def __init__(self, actor: Actor, process: Process, turns: Turns) -> None:
        self.actor, self.address, self.kinds, self.hears = actor, actor.address, actor.kinds, actor.hears
        self._process, self._turns = process, turns
        self.record: Record | None = None
        """what the actor has in memory"""

    def decide(self, turn: Turn) -> None:
        """See `Actor.decide`."""
        self.actor.decide(turn)
        self._turns.decided(self._process, self.address, turn)

    def before(self, record: Record, heard: Heard) -> None:
        """See `Actor.before`."""
        self.actor.before(record, heard)

    def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:
        """See `Actor.obey`."""
        self.record = record
        self._turns.obeying(self._process, self.address)
        self.actor.obey(record, changes)
        self._turns.obeyed(self._process, self.address)

    async def stop(self) -> None:
        """See `Actor.stop`."""
        await self.actor.stop()


def _words(decision: Decision) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for say in decision.says:
        words.setdefault(say.target, []).append(type(say.body).__name__)
    return words


def label_of(turn: Turn) -> str:
    """Which line of the coverage table this turn belongs to; empty for the others."""
    for event in turn.decision().events:
        if event.name == "row_done":
            return str(event.fields["row"])
        if event.name == "undone":
            return f"undo {event.fields['role']}"
    body = turn.heard.body
    if isinstance(body, Tick):
        return "housekeeping" if body.timer == "housekeeping" else ""
    return WORDS.get(type(body), "")
