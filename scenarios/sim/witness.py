"""Sees what goes over the bus and what actors decide, and knows at once when it is against a rule of `checkers`.

What it remembers is only what a rule needs: how far each conversation has come, which rows were done, how requests ended.
"""

from collections.abc import Callable

from actors.messages import MANAGER
from actors.runtime.actor import Event
from actors.runtime.observed import Observed
from bus.broker import DeadLetter
from bus.envelope import Envelope
from bus.topology import REASON_UNROUTABLE
from scenarios.sim.network import Message, Onlooker
from scenarios.sim.process import Process
from scenarios.sim.turns import Turns


class Witness(Onlooker):
    """`fail` is told (checker, sentence); `process_of` finds the process that an address lives in now."""

    def __init__(
        self,
        turns: Turns,
        fail: Callable[[str, str], None],
        tell: Callable[[str], None],
        process_of: Callable[[str], Process | None],
    ) -> None:
        self._turns, self._fail, self._tell, self._process_of = turns, fail, tell, process_of
        self._heard: dict[tuple[str, str], int] = {}
        self._rows: dict[tuple[str, str, str], int] = {}
        self._undone: dict[str, str] = {}
        self._ended: dict[str, str] = {}

    # on the bus

    def published(self, envelope: Envelope) -> None:  # noqa: D102 - see `Onlooker`
        if (process := self._process_of(envelope.source)) is not None:
            self._turns.saying(process, envelope)

    def said(self, process: Process, envelope: Envelope) -> None:  # noqa: D102
        self._turns.said(process, envelope)

    def acking(self, process: Process, envelope: Envelope) -> None:  # noqa: D102
        self._turns.acking(process, envelope)

    def delivered(self, process: Process, message: Message, envelope: Envelope) -> None:  # noqa: D102
        self._turns.delivered(process, envelope)
        if message.returns or not message.number:
            return
        pair = (message.source, message.target)
        if message.number <= self._heard.get(pair, 0):
            self._fail("order", f"{process.name} was handed {envelope.type} of {pair[0]} to {pair[1]} out of order")
        self._heard[pair] = message.number

    def buried(self, letter: DeadLetter) -> None:  # noqa: D102
        self._tell(f"dead letter: {letter.reason}")
        if letter.reason.startswith("defect of"):
            self._fail("defects", letter.reason)
        elif letter.envelope is not None and letter.reason != REASON_UNROUTABLE:
            self._fail("dead letters", f"{letter.envelope.type} for {letter.envelope.target}: {letter.reason}")

    # in the turns

    def judge(self, seen: Observed) -> None:
        """A turn was stored."""
        for event in seen.events:
            match event.name:
                case "row_done":
                    self._row_done(seen.actor, event)
                case "undone":
                    self._was_undone(seen.actor, str(event.fields["saga"]))
                case "verdict":
                    self._verdict(event)
                case _:
                    pass

    def _row_done(self, actor: str, event: Event) -> None:
        saga, row = str(event.fields["saga"]), str(event.fields["row"])
        times = self._rows[actor, saga, row] = self._rows.get((actor, saga, row), 0) + 1
        if times > 1:
            self._fail("once", f"{actor} did row {row} of saga {saga} {times} times")
        if row == "commit" and saga in self._undone:
            self._fail("undone", f"saga {saga} was committed after {self._undone[saga]} had undone it")

    def _was_undone(self, actor: str, saga: str) -> None:
        self._undone[saga] = actor
        if self._committed(saga):
            self._fail("undone", f"{actor} undid saga {saga}, which had committed")

    def _verdict(self, event: Event) -> None:
        request, outcome = str(event.fields["request"]), str(event.fields["outcome"])
        saga = str(event.fields.get("saga", ""))
        if self._ended.setdefault(request, outcome) != outcome:
            self._fail("verdicts", f"request {request} ended as {self._ended[request]} and as {outcome}")
        if outcome == "undone" and self._committed(saga):
            self._fail("undone", f"request {request} was told that saga {saga} was undone, it had committed")
        if outcome == "done" and saga in self._undone:
            self._fail("undone", f"request {request} was told that saga {saga} was done, it was undone")

    def _committed(self, saga: str) -> bool:
        return (MANAGER, saga, "commit") in self._rows
