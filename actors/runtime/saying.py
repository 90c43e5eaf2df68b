"""Say: publish the words of a turn, confirmed. What fails is counted and logged only: what must be heard is said again from
the record, by the timer of its saga."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from bus.broker import Broker
from bus.envelope import Envelope
from bus.errors import Transient, Unroutable

_FAILURES: Mapping[type[Exception], str] = {Transient: "say_failed", Unroutable: "say_unroutable"}

_log = structlog.get_logger("swapferry.shell")


class Speaker:
    """Says words on the bus."""

    def __init__(self, broker: Broker, counts: Counter[str]) -> None:
        self._broker = broker
        self._counts = counts

    async def say_all(self, words: Sequence[Envelope]) -> None:
        """Words to one target one after another, in order; different targets do not wait for each other."""
        targets: dict[str, list[Envelope]] = {}
        for word in words:
            targets.setdefault(word.target, []).append(word)
        if len(targets) <= 1:
            await self._say_in_order(words)
        else:
            await asyncio.gather(*map(self._say_in_order, targets.values()))

    async def say(self, word: Envelope) -> bool:
        """Publish it; whether the broker took it."""
        try:
            await self._broker.publish(word)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message that was heard must still be acked
            self._note(word, error)
            return False
        self._counts["said"] += 1
        return True

    async def _say_in_order(self, words: Sequence[Envelope]) -> None:
        """Until the first failure: the next would most likely wait for the same deadline, and come out of order."""
        for index, word in enumerate(words):
            if not await self.say(word):
                self._counts["unsaid"] += len(words) - index - 1
                return

    def _note(self, word: Envelope, error: Exception) -> None:
        failure = _FAILURES.get(type(error), "say_impossible")
        self._counts[failure] += 1
        _log.warning(failure, actor=word.source, target=word.target, type=word.type, error=str(error), **about(word))


def about(envelope: Envelope) -> dict[str, Any]:
    """The saga that a message belongs to, as fields of a log line; the message may be one that nobody could read."""
    return {"saga": envelope.correlation, "vm": (envelope.cast or {}).get("vm"), "row": envelope.row}
