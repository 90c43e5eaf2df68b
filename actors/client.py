"""A user on the bus: asks the resource manager, and asks again with the same request id until the answer comes.

Asking twice with one id is asking once, so a lost question or a lost answer costs a second and nothing else.
"""

import asyncio
import uuid
from typing import Any

import attrs
import structlog

from actors.errors import ActorError, Malformed
from actors.messages import BODIES, MANAGER, Cast, Inspected, Show, Shown, Verdict
from actors.runtime.actor import Say
from actors.runtime.book import Book, Pieces
from actors.runtime.catalogue import Catalogue
from actors.runtime.clock import Clock
from actors.runtime.errands import Errands
from bus.broker import Broker, Delivery
from bus.errors import BusError, Unroutable

Answer = Verdict | Inspected | bytes
"""bytes: what was shown in pieces"""
ASK_AGAIN_S = 1.0
_log = structlog.get_logger("swapferry.client")
_REQUESTS = uuid.UUID("6f3c1f0a-51fb-4b0e-9d5c-6f6f1f2e7a11")


class NoAnswer(ActorError):
    """Nobody answered a request before its deadline. It may still be carried out: ask again with the same id."""


class Client:
    """One user with one address. `name` must be unique on the bus; it begins every request id."""

    def __init__(self, broker: Broker, name: str, clock: Clock, *, ask_again_s: float = ASK_AGAIN_S) -> None:
        self.address = f"user.{name}"
        self._broker, self._name, self._clock, self._ask_again_s = broker, name, clock, ask_again_s
        self._catalogue = Catalogue(BODIES, Cast)
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._pieces: dict[str, Pieces] = {}
        self._last_words: dict[str, str] = {}
        self._errands = Errands()
        self._count = 0

    async def open(self) -> None:
        """Connect. Raises `Transient` when no broker answers."""
        await self._broker.open(self.address, self._deliver)
        await self._broker.bind(self.address)

    async def close(self) -> None:
        """Leave the bus; whoever still waits is told so by `NoAnswer`."""
        for answer in self._waiting.values():
            answer.cancel()
        await self._errands.wait()
        await self._broker.close()

    def new_request(self) -> str:
        """A request id that this client has not used."""
        self._count += 1
        return f"{self._name}-{self._count}"

    async def ask(self, body: Any, deadline_s: float, *, target: str = MANAGER) -> Answer:
        """Ask until the answer to `body.request` is here. Raises `NoAnswer` after so many seconds."""
        request: str = body.request
        answer = self._waiting.setdefault(request, asyncio.get_running_loop().create_future())
        asking = self._errands.start(self._keep_asking(body, target))
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            words = f"; last heard: {self._last_words[request]}" if request in self._last_words else ""
            raise NoAnswer(f"{type(body).__name__} {request}: no answer in {deadline_s:g} s{words}") from None
        finally:
            asking.cancel()
            self._waiting.pop(request, None)
            self._last_words.pop(request, None)

    async def look(self, target: str, deadline_s: float) -> Book:
        """What this actor knows. Raises `NoAnswer`, also at once where nobody has that address."""
        body = Show(request=self.new_request(), reply_to=self.address)
        try:
            answer = await self.ask(body, deadline_s, target=target)
        except NoAnswer:
            raise NoAnswer(f"{target} does not answer; is its node up?") from None
        finally:
            self._pieces.pop(body.request, None)
        assert isinstance(answer, bytes), "what is shown comes in pieces"
        return Book.from_bytes(answer)

    async def _keep_asking(self, body: Any, target: str) -> None:
        identity = str(uuid.uuid5(_REQUESTS, f"{body.request}/{type(body).__name__}"))
        say = Say(target=target, body=body)
        while True:
            envelope = self._catalogue.encode(
                say, source=self.address, id=identity, causation=identity, sent_at=self._clock.now()
            )
            if isinstance(body, Show):  # a node that comes back later need not answer who has left
                envelope = attrs.evolve(envelope, deadline=self._clock.now() + self._ask_again_s)
            try:
                await self._broker.publish(envelope)
            except Unroutable:
                if isinstance(body, Show):  # looking again and again at what is not there would fill the dead letters
                    self._give_up(body.request)
                    return
            except BusError as error:  # nobody there yet, or the broker is away: asked again
                _log.debug("not_asked", request=body.request, error=str(error))
            await asyncio.sleep(self._ask_again_s)

    def _give_up(self, request: str) -> None:
        waiting = self._waiting.get(request)
        if waiting is not None and not waiting.done():
            waiting.set_exception(NoAnswer(f"{request}: nobody has that address"))

    def _deliver(self, delivery: Delivery) -> None:
        self._errands.start(self._hear(delivery))

    async def _hear(self, delivery: Delivery) -> None:
        try:
            body = self._catalogue.decode(delivery.envelope).body
        except Malformed as error:
            await delivery.reject(str(error))
            return
        waiting = self._waiting.get(getattr(body, "request", ""))
        if waiting is not None and not waiting.done():
            if isinstance(body, Shown):
                body = self._pieces.setdefault(body.request, Pieces()).add(body)
            if isinstance(body, Verdict) and not body.final:
                self._last_words[body.request] = body.reason
            elif isinstance(body, Answer):
                waiting.set_result(body)
        await delivery.ack()
