"""What runs inside the fake guest: fills memory with a pattern that can be verified, then rewrites and checks it at a rate.

All that it needs to check its memory lies in that memory, as in a real guest: page content = stream(seed, page, version), and
the versions stand in the first pages. So nothing but the memory has to travel for the target to know what is right.
"""

import random
from collections.abc import Awaitable, Callable

import numpy as np

from paging.device import PAGE_BYTES
from paging.errors import GuestError
from paging.fake_memory import FakeMemory
from paging.guest import Definition

Bring = Callable[[tuple[int, ...]], Awaitable[None]]
"""Makes pages resident, all at once: nothing else runs between its return and the next await"""
Sleep = Callable[[float], Awaitable[None]]

TICK_S = 0.01
_STEPS_PER_YIELD = 32
_VERSION_BYTES = 4
_VERSIONS_PER_PAGE = PAGE_BYTES // _VERSION_BYTES
_WORDS = np.arange(1, PAGE_BYTES // 8 + 1, dtype=np.uint64)
_ZERO_PAGE = bytes(PAGE_BYTES)


class Program:
    """The guest's program, over its memory and a way to fault."""

    wrong: str | None = None
    """the first page found to be not as it was written"""

    def __init__(self, memory: FakeMemory, definition: Definition, bring: Bring, sleep: Sleep) -> None:
        """Raises `GuestError` if the fill does not fit into the memory."""
        work = definition.workload
        self._memory, self._work, self._bring, self._sleep = memory, work, bring, sleep
        self._filled = work.fill_bytes // PAGE_BYTES
        self._version_pages = -(-self._filled // _VERSIONS_PER_PAGE)
        self._hot = min(work.hot_bytes // PAGE_BYTES or self._filled, self._filled)
        self._random = random.Random(work.seed)
        if self._version_pages + self._filled > memory.pages:
            raise GuestError(f"{definition.vm}: {work.fill_bytes} bytes of fill and their versions do not fit into its memory")

    async def fill(self) -> None:
        """Write every page of the fill once."""
        for index in range(self._filled):
            await self._write(index, 1)
            await self._yield_at(index)

    async def work(self) -> None:
        """Rewrite and check pages at the asked rates, for ever. What cannot be done in its tick is not made up for."""
        while self._hot and (self._work.writes_per_s or self._work.checks_per_s):
            await self._sleep(TICK_S)
            for _ in range(self._share(self._work.writes_per_s)):
                index = self._random.randrange(self._hot)
                await self._write(index, await self._check(index) + 1)
            for _ in range(self._share(self._work.checks_per_s)):
                await self._check(self._random.randrange(self._hot))

    async def check_all(self) -> str | None:
        """Read all memory. None, or the first thing that is wrong."""
        for index in range(self._filled):
            await self._check(index)
            await self._yield_at(index)
        for page in range(self._version_pages + self._filled, self._memory.pages):
            await self._bring((page,))
            if self._memory.peek(page) != _ZERO_PAGE:
                self.wrong = self.wrong or f"page {page} was never written and is not zero"
            await self._yield_at(page)
        return self.wrong

    async def _check(self, index: int) -> int:
        """Compare one page with what was written; returns its version."""
        page, version_page, offset = self._place(index)
        await self._bring((version_page, page))
        version = int.from_bytes(self._memory.peek(version_page)[offset : offset + _VERSION_BYTES], "little")
        if self._memory.peek(page) != stream(self._work.seed, page, version):
            self.wrong = self.wrong or f"page {page} is not what version {version} of it was"
        return version

    async def _write(self, index: int, version: int) -> None:
        page, version_page, offset = self._place(index)
        # Both in one breath: a halt in between would leave a version without its content.
        await self._bring((version_page, page))
        self._memory.poke(version_page, offset, version.to_bytes(_VERSION_BYTES, "little"))
        self._memory.poke(page, 0, stream(self._work.seed, page, version))

    def _place(self, index: int) -> tuple[int, int, int]:
        return self._version_pages + index, index // _VERSIONS_PER_PAGE, index % _VERSIONS_PER_PAGE * _VERSION_BYTES

    def _share(self, per_s: int) -> int:
        """How many of so many a second fall into this tick, at random where it is a fraction."""
        whole, rest = divmod(per_s * TICK_S, 1)
        return int(whole) + (self._random.random() < rest)

    async def _yield_at(self, step: int) -> None:
        if step % _STEPS_PER_YIELD == 0:
            await self._sleep(0)


def stream(seed: int, page: int, version: int) -> bytes:
    """4096 bytes that do not compress, other ones for each (seed, page, version): the finaliser of splitmix64 over a counter."""
    start = np.uint64(((seed << 40) ^ (page << 20) ^ version) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
    words = start + _WORDS * np.uint64(0xD1342543DE82EF95)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words.tobytes()
