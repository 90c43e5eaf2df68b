"""Dead letters on RabbitMQ: looked at by getting without acknowledging, on a channel of its own, and giving all back.

While somebody looks, others see only what is left.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from bus.broker import DeadLetter
from bus.codec import decode
from bus.errors import Unreadable
from bus.letters import absent
from bus.topology import REASON_DELIVERY_LIMIT

REASON_HEADER = "x-swapferry-reason"

BROKER_REASONS = {"delivery_limit": REASON_DELIVERY_LIMIT}
"""the broker's words for why it dead-lettered (header x-first-death-reason) in ours; others are taken as they are"""


ALL = 0
"""delivery tag of everything that is not acknowledged; naming one that is would close the channel"""
Take = Callable[[], Awaitable[AbstractIncomingMessage | None]]

ORDERED_MAX = 2_000
"""How many letters are given back in their order. A quorum queue puts what comes back behind what came back before, so all
that may have been looked at must be taken out, or what is left of it would come first (seen on 3.10.8)."""


async def look(connection: AbstractConnection, queue_name: str, limit: int) -> list[DeadLetter]:
    """The oldest of them."""
    letters: list[DeadLetter] = []
    async with _taken_out(connection, queue_name) as take:
        while len(letters) < limit and (message := await take()) is not None:
            letters.append(_dead_letter(message.body, message.headers))
    return letters


async def take_letter(
    connection: AbstractConnection, queue_name: str, letter: str, first: Callable[[DeadLetter], Awaitable[None]]
) -> None:
    """Take the oldest letter of this id away, after `first` was done with it. Raises `Absent` and what `first` raises."""
    async with _taken_out(connection, queue_name) as take:
        while (message := await take()) is not None:
            dead = _dead_letter(message.body, message.headers)
            if dead.id == letter:
                await first(dead)
                await message.ack()
                return
    raise absent(letter)


@asynccontextmanager
async def _taken_out(connection: AbstractConnection, queue_name: str) -> AsyncIterator[Take]:
    """What is taken in here and not acknowledged is given back in the end, in its order."""
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    last: AbstractIncomingMessage | None = None
    count = 0

    async def take() -> AbstractIncomingMessage | None:
        nonlocal last, count
        message = await queue.get(fail=False)
        if message is not None:
            last, count = message, count + 1
        return message

    try:
        queue = await channel.get_queue(queue_name, ensure=False)
        yield take
    finally:
        while count < ORDERED_MAX and await take() is not None:
            pass
        if last is not None:
            await last.channel.basic_nack(ALL, multiple=True, requeue=True)
        await channel.close()


def _dead_letter(raw: bytes, headers: Mapping[str, Any]) -> DeadLetter:
    word = str(headers.get("x-first-death-reason", "unknown"))
    reason = str(headers.get(REASON_HEADER, BROKER_REASONS.get(word, word)))
    try:
        envelope = decode(raw)
    except Unreadable:
        return DeadLetter(reason=reason, raw=raw, headers=dict(headers))
    return DeadLetter(reason=reason, raw=raw, envelope=envelope, headers=dict(headers))
