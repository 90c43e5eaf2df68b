"""Which pages leave RAM first: a clock over placement order, with a second chance for pages that came back soon.

Mechanism-free and deterministic: it is told what was placed and what left, and answers with runs. There are no accessed bits
here (DATAPLANE 6), so "was used again" is learned from refaults: a page that is asked for while fewer pages than the resident
limit have left since it did belongs to the working set, and the hand passes it once.

Runs that are contiguous in memory are preferred, since they get contiguous slots, few table runs and short grants.
"""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from paging.memory import Run

BATCH_PAGES = 64
"""Pages a batch: more hold up the fault loop longer and bring little (DATAPLANE 3)"""
FAULTS_PER_S_CALM = 1000
"""A guest that faults more often than this has no time for what is not urgent"""
_BUSY_SHARE = 16
"""Then copying goes on at this fraction of its rate, so that it ends at last under a guest that always faults"""
_BURST_S = 0.1
_STAMP_SHIFT = 32
_PAGE_MASK = (1 << _STAMP_SHIFT) - 1


class Clock:
    """Resident pages in the order in which they leave."""

    def __init__(self, pages: int, limit: int) -> None:
        self._limit = limit
        self._queue: deque[int] = deque()
        """stamp << 32 | page; an element whose stamp is not the page's any more is skipped when the hand meets it"""
        self._stamp = memoryview(bytearray(4 * pages)).cast("I")
        """by page; 0: not resident"""
        self._passed = bytearray(pages)
        """1: the hand passes this page once"""
        self._left_at = memoryview(bytearray(8 * pages)).cast("Q")
        """how many pages had left when this one did (0: never)"""
        self._placements = 0
        self._departures = 0
        self.count = 0

    def __contains__(self, page: int) -> bool:
        return self._stamp[page] != 0

    def resident(self) -> NDArray[np.bool_]:
        """Which pages are here."""
        return self.resident_in((0, len(self._stamp)))

    def resident_in(self, run: Run) -> NDArray[np.bool_]:
        """Which pages of a run are here."""
        return np.frombuffer(self._stamp, dtype=np.uint32)[run[0] : run[0] + run[1]].astype(np.bool_)

    def placed(self, page: int) -> None:
        """This page is in RAM from now on."""
        assert not self._stamp[page], f"page {page} is resident already"
        left_at = self._left_at[page]
        self._passed[page] = bool(left_at) and self._departures - left_at < self._limit
        self._append(page)
        self.count += 1

    def placed_all(self, pages: NDArray[np.int64]) -> None:
        """These pages are in RAM from now on, in this order of placement, without a past."""
        # Without a loop over pages: a guest waits while its next pager takes stock.
        by_page = np.frombuffer(self._stamp, dtype=np.uint32)
        assert not by_page[pages].any(), "some of these pages are resident already"
        if self._placements + len(pages) > _PAGE_MASK:
            self._renumber()
        stamps = np.arange(self._placements + 1, self._placements + 1 + len(pages), dtype=np.uint64)
        by_page[pages] = stamps
        self._queue.extend((stamps << np.uint64(_STAMP_SHIFT) | pages.astype(np.uint64)).tolist())
        self._placements += len(pages)
        self.count += len(pages)

    def left(self, pages: Sequence[int]) -> None:
        """These pages are no more in RAM."""
        for page in pages:
            assert self._stamp[page], f"page {page} is not resident"
            self._stamp[page] = 0
            self._departures += 1
            self._left_at[page] = self._departures
        self.count -= len(pages)

    def kept(self, pages: Sequence[int]) -> None:
        """These pages were chosen but could not leave: last in the order again."""
        for page in pages:
            self._append(page)

    def choose(self, count: int) -> list[Run]:
        """Up to `count` pages that should leave now, as ascending runs. Whoever asks says `left` or `kept` for each."""
        chosen: set[int] = set()
        # Everything that is in the queue now is met at most twice: once with its second chance and once without.
        for _ in range(2 * len(self._queue)):
            if len(chosen) >= count or not self._queue:
                break
            page, stamp = self._pop()
            if self._stamp[page] != stamp or page in chosen:
                continue
            if self._passed[page]:
                self._passed[page] = 0
                self._append(page)
                continue
            self._extend(page, stamp, count, chosen)
        return runs_of(sorted(chosen))

    def _extend(self, page: int, stamp: int, count: int, chosen: set[int]) -> None:
        """Take this page and the resident ones behind it that came at about the same time or before."""
        newest = stamp + max(BATCH_PAGES, self._limit // 8)
        end = min(len(self._stamp), page + count - len(chosen))
        while page < end and 0 < self._stamp[page] <= newest and not self._passed[page] and page not in chosen:
            chosen.add(page)
            page += 1

    def _append(self, page: int) -> None:
        self._placements += 1
        if self._placements > _PAGE_MASK:
            self._renumber()
        self._stamp[page] = self._placements
        self._queue.append(self._placements << _STAMP_SHIFT | page)

    def _pop(self) -> tuple[int, int]:
        element = self._queue.popleft()
        return element & _PAGE_MASK, element >> _STAMP_SHIFT

    def _renumber(self) -> None:
        """Stamps have 32 bits: after four billion placements, count anew in the present order."""
        order = [element & _PAGE_MASK for element in self._queue if self._stamp[element & _PAGE_MASK] == element >> _STAMP_SHIFT]
        self._queue.clear()
        self._placements = 0
        for page in order:
            self._append(page)
        self._placements += 1


def pages_to_copy(carried: float, *, pages_per_s: int, faults: int, seconds: float) -> float:
    """How many pages may be copied in the background now: what was left over, and what these seconds with so many faults add."""
    is_calm = faults <= FAULTS_PER_S_CALM * seconds
    rate = pages_per_s if is_calm else pages_per_s / _BUSY_SHARE
    return min(carried + rate * seconds, max(rate * _BURST_S, 1.0))


def runs_of(pages: Sequence[int]) -> list[Run]:
    """Ascending pages as (first, count) runs."""
    if not pages:
        return []
    starts = [0, *(index for index, (one, two) in enumerate(pairwise(pages), 1) if two != one + 1), len(pages)]
    return [(pages[start], end - start) for start, end in pairwise(starts)]
