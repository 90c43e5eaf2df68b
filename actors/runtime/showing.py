"""Answers operators who look at an actor: the node does it, beside the turns, so that looking disturbs nobody and works for an
actor that was given up too."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from actors.errors import Malformed, StoreError
from actors.messages.showing import Show
from actors.runtime.actor import Say
from actors.runtime.book import Book, cut
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock
from actors.runtime.deciding import Decider
from actors.runtime.hosted import Hosted
from actors.runtime.saying import Speaker
from actors.runtime.store import Store
from actors.runtime.values import to_plain
from bus.broker import Delivery

SHOW = Show.__name__

_log = structlog.get_logger("swapferry.node")


SEEN_WITHIN_S = 3.0


class Showing:
    """Of one node."""

    def __init__(  # noqa: PLR0917 - its parts
        self, node: str, catalogue: Catalogue, decider: Decider, store: Store, speaker: Speaker, clock: Clock,
        counts: Counter[str],
    ) -> None:  # fmt: skip
        self._node, self._catalogue, self._decider, self._clock = node, catalogue, decider, clock
        self._store, self._speaker, self._counts = store, speaker, counts

    async def answer(self, hosted: Hosted, delivery: Delivery) -> None:
        """Say what this actor knows to whoever asks."""
        try:
            heard = self._catalogue.decode(delivery.envelope)
        except Malformed as error:
            await delivery.reject(str(error))
            return
        deadline = delivery.envelope.deadline
        if deadline is not None and deadline < self._clock.now():
            await delivery.ack()
            return
        self._counts["shown"] += 1
        says = cut(heard.body.request, hosted.address, (await self._book(hosted)).to_bytes())
        words = [
            self._decider.word(hosted.address, heard.id, index, Say(target=heard.body.reply_to, body=body))
            for index, body in enumerate(says)
        ]
        await self._speaker.say_all(words)
        await delivery.ack()

    async def _book(self, hosted: Hosted) -> Book:
        try:
            since = await self._store.since(hosted.address)
        except StoreError as error:  # a full disk must not keep anybody from looking
            _log.warning("times_unknown", actor=hosted.address, error=str(error))
            since = {}
        return Book(
            actor=hosted.address,
            node=self._node,
            state=hosted.state.value,
            about=hosted.actor.about(),
            records={(kind.__name__, key): to_plain(value) for (kind, key), value in hosted.record.items()},
            since=since,
            timers=dict(hosted.timers),
            seen=await _seen(hosted),
            incarnation=self._store.incarnation,
        )


async def _seen(hosted: Hosted) -> Mapping[str, Any]:
    """A machine that hangs, or is gone, must not keep anybody from reading the record."""
    try:
        async with asyncio.timeout(SEEN_WITHIN_S):
            return await hosted.actor.seen()
    except TimeoutError:
        return {"problem": f"its machine does not answer within {SEEN_WITHIN_S:g} s"}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what there is to see
        return {"problem": str(error) or type(error).__name__}
