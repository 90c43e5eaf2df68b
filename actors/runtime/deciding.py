"""Receive, before, decide: from a parcel in a mailbox to a decision that is not stored yet.

Everything that a turn says is turned into envelopes here, before anything is stored: a body that cannot travel is a defect of its
own turn, like any other.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid5

import attrs

from actors.errors import Malformed
from actors.runtime.actor import Decision, Heard, Say, Tick, Turn
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock, Random
from actors.runtime.hosted import Hosted
from actors.runtime.mailbox import Parcel
from actors.runtime.store import Change, TimerRow
from bus.envelope import Envelope

IDS = UUID("6f6c1b8e-0d3b-5c0e-9a52-5b1f0a7c4f11")
"""the namespace of all message ids of swapferry"""
TIMER_JITTER = 0.2


@attrs.frozen(kw_only=True, eq=False)
class Decided:
    """A turn that came to a decision and is not stored yet."""

    hosted: Hosted
    parcel: Parcel
    heard: Heard
    decision: Decision
    words: Sequence[Envelope]
    change: Change


class Decider:
    """Lets actors decide, each message in a turn of its own."""

    def __init__(self, catalogue: Catalogue, clock: Clock, random: Random) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._random = random

    def take(self, hosted: Hosted) -> Parcel:
        """The next message of an actor that is ready; rings come first, they are few."""
        while (timer := hosted.mailbox.take_ring()) is not None:
            if (row := hosted.timers.get(timer)) is not None:
                return Parcel(heard=_tick(hosted.address, timer, row))
        parcel = hosted.mailbox.take()
        assert parcel is not None, "only the mailbox of a ready actor is asked; a stopped timer is silenced in it"
        return parcel

    def decide(self, hosted: Hosted, parcel: Parcel) -> Decided:
        """Raises `Malformed` for what the actor cannot hear, and whatever the actor raises."""
        heard = self.hear(hosted, parcel)
        hosted.actor.before(hosted.record, heard)
        turn = Turn(hosted.record, heard)
        hosted.actor.decide(turn)
        decision = turn.decision()
        timers = self._timers(hosted, heard, decision)
        change = Change(actor=hosted.address, values=decision.changes, timers=timers, at=self._clock.now())
        words = [self.word(hosted.address, heard.id, index, say) for index, say in enumerate(decision.says)]
        return Decided(hosted=hosted, parcel=parcel, heard=heard, decision=decision, words=words, change=change)

    def word(self, address: str, heard: str, index: int, say: Say) -> Envelope:
        """The envelope of what is said; hearing the same message again gives the same id."""
        word = str(uuid5(IDS, f"{heard}/{index}"))
        return self._catalogue.encode(say, source=address, id=word, causation=heard, sent_at=self._clock.now())

    def hear(self, hosted: Hosted, parcel: Parcel) -> Heard:
        """What is in a parcel. Raises `Malformed` for what the actor cannot hear."""
        heard = parcel.heard
        if heard is None:
            assert parcel.delivery is not None, "a parcel comes from the bus or from this node"
            heard = self._catalogue.decode(parcel.delivery.envelope)
        if type(heard.body) not in hosted.hears:
            raise Malformed(f"{hosted.address} does not hear {type(heard.body).__name__}")
        return heard

    def _timers(self, hosted: Hosted, heard: Heard, decision: Decision) -> Mapping[str, TimerRow | None]:
        """The rows of the timers that change. One that is set anew in the turn of its own tick goes on counting."""
        rang = heard.body if isinstance(heard.body, Tick) else None
        rows: dict[str, TimerRow | None] = {} if rang is None else {rang.timer: None}
        for name, after_s in decision.timers.items():
            if after_s is not None:
                count = rang.count if rang is not None and rang.timer == name else 0
                rows[name] = TimerRow(due=self._clock.now() + after_s * self._jitter(), count=count)
            elif name in hosted.timers:
                rows[name] = None
        return rows

    def _jitter(self) -> float:
        return 1.0 + TIMER_JITTER * (2.0 * self._random.random() - 1.0)


def _tick(address: str, timer: str, row: TimerRow) -> Heard:
    """What is heard when a timer rings: the same again after a crash."""
    ring = f"{address}/{timer}/{row.due!r}/{row.count}"
    return Heard(id=str(uuid5(IDS, ring)), source=address, body=Tick(timer=timer, count=row.count + 1))
