"""A connection that is made again whenever it is lost, and calls on it that have a deadline. Knows nothing of AMQP.

The one rule to know: a call on a shared channel is never cancelled, since a half-sent call leaves the channel in an
unknown state. It runs in a task of its own and is watched from outside; when it is late without an excuse, the whole
connection is given up.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from bus.errors import BusError, Transient, Unusable

C = TypeVar("C")
T = TypeVar("T")
log = structlog.get_logger(__name__)

RETRY_WAIT_MAX_S = 3.0
CLOSE_TIMEOUT_S = 3.0
"""a peer that hangs may keep the closing, not us"""


class Wire(ABC, Generic[C]):
    """One connection while it lasts, and its shared channel."""

    channel: C

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether calls can be made."""

    @abstractmethod
    async def unblocked(self) -> None:
        """Returns when no alarm of the server keeps us from publishing; at once when there is none."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it."""


Connect = Callable[[str, Callable[[], None]], Awaitable[Wire[C]]]
"""(name of the link, what to call when the connection is lost) -> a wire that is set up; raises `Unusable` for good"""


class Link(Generic[C]):
    """Keeps one wire. `shown` is the peer's URL without its password."""

    def __init__(self, shown: str, connect: Connect[C]) -> None:
        self._shown = shown
        self._connect_wire = connect
        self._name = ""
        self._wire: Wire[C] | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._was_ready = False
        self._last_error: BaseException | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        """first come, first sent: callers that waited for a connection keep their order"""

    async def open(self, name: str, deadline: float) -> None:
        """Connect and stay connected. Raises `Transient` at the deadline (loop time), `Unusable` when it never works."""
        self._name = name
        keeper = self._keeper = asyncio.create_task(self._keep())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({keeper, ready}, timeout=deadline - _now(), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if keeper.done():
            await keeper
        if not self._ready.is_set():
            raise Transient(f"no connection to {self._shown}: {self._last_error}")

    async def close(self, farewell: Callable[[C], Coroutine[Any, Any, Any]]) -> None:
        """Send what is under way, then let the connection go.

        A library may forget frames it has not yet written, so the `farewell` is a call that is answered: what was said
        before it has arrived.
        """
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        self._ready.clear()
        if self._wire is not None:
            self.spawn(farewell(self._wire.channel))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        await self._drop()

    async def wire(self) -> Wire[C]:
        """The wire, once there is one."""
        await self._ready.wait()
        assert self._wire is not None, "ready means connected"
        return self._wire

    async def call(self, make: Callable[[C], Coroutine[Any, Any, T]], deadline: float) -> T:
        """Make a call when the channel is usable.

        Raises `Transient` at the deadline (loop time) and for all that the call raises but errors of the bus.
        """
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                task = self.spawn(make(await self._usable()))
        except TimeoutError:
            raise Transient(f"{self._shown} is away or blocks publishers") from None
        await asyncio.wait({task}, timeout=deadline - _now())
        if not task.done():
            await self._give_up_unless_blocked()
            raise Transient(f"{self._shown} did not answer in time; what was said may still arrive")
        return _result(task)

    def spawn(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Make a call that nobody may cancel; whether it fails is its watcher's business, if it has one."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("bus.call_failed", link=self._name, error=repr(task.exception()))

    async def _usable(self) -> C:
        while True:
            if self._keeper is None:
                raise Transient("this broker is not open")
            await self._ready.wait()
            wire = self._wire
            if wire is not None:
                await wire.unblocked()
                if wire is self._wire and wire.is_open:
                    return wire.channel
            await asyncio.sleep(0)  # lost meanwhile; the keeper is about to notice

    async def _give_up_unless_blocked(self) -> None:
        """A call is late: the server hangs, or an alarm blocks us. Only the latter gets better by itself."""
        if self._wire is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self._wire.unblocked()
            self._lost.set()

    async def _keep(self) -> None:
        while True:
            await AsyncRetrying(
                retry=retry_if_exception(self._gets_better),
                wait=wait_random_exponential(multiplier=0.1, max=RETRY_WAIT_MAX_S),
                before_sleep=self._log_retry,
                reraise=True,
            )(self._connect)
            self._was_ready = True
            self._ready.set()
            log.info("bus.connected", link=self._name)
            await self._lost.wait()
            self._ready.clear()
            log.warning("bus.lost", link=self._name)
            await self._drop()

    async def _connect(self) -> None:
        lost = self._lost = asyncio.Event()  # its own for each connection: an old one may close late
        self._wire = await self._connect_wire(self._name, lost.set)

    def _gets_better(self, error: BaseException) -> bool:
        return isinstance(error, Exception) and (self._was_ready or not isinstance(error, Unusable))

    def _log_retry(self, state: RetryCallState) -> None:
        self._last_error = state.outcome.exception() if state.outcome else None
        log.info("bus.connect_again", link=self._name, attempt=state.attempt_number, error=repr(self._last_error))

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await asyncio.wait({self.spawn(wire.close())}, timeout=CLOSE_TIMEOUT_S)


def _result(task: asyncio.Task[T]) -> T:
    """What a finished call came to. A library may end the calls of a lost connection by cancelling them."""
    if task.cancelled():
        raise Transient("the connection was lost before the answer")
    error = task.exception()
    if isinstance(error, BusError):
        raise error
    if error is not None:
        raise Transient(f"the broker did not take it: {error!r}") from error
    return task.result()


def _now() -> float:
    return asyncio.get_running_loop().time()
