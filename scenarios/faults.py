"""Troubles that a scenario asks for, put in front of real parts: messages that are held, a host that cannot load a guest."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from bus.broker import Broker, DeadLetter, Deliver
from bus.envelope import Envelope
from paging.errors import TransferError
from paging.guest import Endpoint, Guest, Halted, Manifest, PageCounts, Watcher
from paging.slots import SlotSet


class Faults:
    """What is wrong at the moment."""

    def __init__(self) -> None:
        self.refusing: set[str] = set()
        """hosts that cannot load a guest"""
        self._held: dict[str, list[tuple[Broker, Envelope]]] = {}
        self._seen: dict[str, asyncio.Event] = {}

    def hold(self, message: str) -> None:
        """Keep back messages of this type from now on."""
        self._held.setdefault(message, [])
        self._seen[message] = asyncio.Event()

    async def held(self, message: str) -> None:
        """Until one of this type is being held."""
        await self._seen[message].wait()

    async def release(self, message: str) -> None:
        """Deliver what was held, in its order, and hold no more."""
        for broker, envelope in self._held.pop(message, []):
            await broker.publish(envelope)

    def takes(self, broker: Broker, envelope: Envelope) -> bool:
        """True if this message is held now."""
        if envelope.type not in self._held:
            return False
        self._held[envelope.type].append((broker, envelope))
        self._seen[envelope.type].set()
        return True


class HoldingBroker(Broker):
    """A broker that keeps back what the faults say; to its publisher such a message is confirmed."""

    def __init__(self, inner: Broker, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    async def open(self, node: str, deliver: Deliver) -> None:  # noqa: D102 - see the port
        await self._inner.open(node, deliver)

    async def bind(self, address: str) -> None:  # noqa: D102
        await self._inner.bind(address)

    async def unbind(self, address: str) -> None:  # noqa: D102
        await self._inner.unbind(address)

    async def publish(self, envelope: Envelope) -> None:  # noqa: D102
        if not self._faults.takes(self._inner, envelope):
            await self._inner.publish(envelope)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:  # noqa: D102
        return await self._inner.dead_letters(limit)

    async def redrive(self, letter: str) -> None:  # noqa: D102
        await self._inner.redrive(letter)

    async def drop(self, letter: str) -> None:  # noqa: D102
        await self._inner.drop(letter)

    async def close(self) -> None:  # noqa: D102
        await self._inner.close()


class RefusingGuest(Guest):
    """A guest that cannot be loaded while `refuses` says so; in all else the guest behind it."""

    def __init__(self, inner: Guest, refuses: Callable[[], bool]) -> None:
        self.seat, self._inner, self._refuses = inner.seat, inner, refuses

    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:  # noqa: D102 - see the port
        if self._refuses():
            raise TransferError("the scenario says that nothing can be loaded here")
        await self._inner.load(manifest, granted)

    async def boot(self) -> None:  # noqa: D102
        await self._inner.boot()

    async def stage(self) -> Endpoint:  # noqa: D102
        return await self._inner.stage()

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:  # noqa: D102
        await self._inner.arm(slots)

    async def halt(self) -> Halted:  # noqa: D102
        return await self._inner.halt()

    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:  # noqa: D102
        return await self._inner.send(endpoint, near)

    async def run(self) -> None:  # noqa: D102
        await self._inner.run()

    async def adopt(self) -> bool:  # noqa: D102
        return await self._inner.adopt()

    async def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:  # noqa: D102
        await self._inner.clean(granted, pages_per_s)

    async def destroy(self) -> None:  # noqa: D102
        await self._inner.destroy()

    async def counts(self) -> PageCounts:  # noqa: D102
        return await self._inner.counts()

    async def swapped(self) -> Mapping[str, SlotSet]:  # noqa: D102
        return await self._inner.swapped()

    async def verify(self) -> str | None:  # noqa: D102
        return await self._inner.verify()

    def watch(self, watcher: Watcher) -> None:  # noqa: D102
        self._inner.watch(watcher)
