"""The `Memory` of the fake guest: real bytes in this process, and a guest side that faults like a CPU would."""

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paging.device import PAGE_BYTES
from paging.memory import Memory, Run


class PageMissing(Exception):
    """The guest touched a hole."""

    def __init__(self, page: int) -> None:
        self.page = page
        super().__init__(f"page {page} is not resident")


class FakeMemory(Memory):
    """Zeroed memory, all holes."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._ram = memoryview(mmap.mmap(-1, pages * PAGE_BYTES))
        self._resident: NDArray[np.bool_] = np.zeros(pages, dtype=np.bool_)
        self._fenced: set[int] = set()
        self.placed_max = 0
        """most pages that were ever resident at a time"""

    # The guest's side

    def is_resident(self, page: int) -> bool:
        """Touching this page does not fault."""
        return bool(self._resident[page])

    def peek(self, page: int) -> memoryview:
        """The bytes of a page, to read. Raises `PageMissing`."""
        if not self._resident[page]:
            raise PageMissing(page)
        return self._slice(page, 1)

    def poke(self, page: int, offset: int, data: bytes | memoryview) -> None:
        """Write into a page. Raises `PageMissing`; a fenced page is as good as missing, its writer has to wait."""
        if not self._resident[page] or page in self._fenced:
            raise PageMissing(page)
        start = page * PAGE_BYTES + offset
        self._ram[start : start + len(data)] = data

    # The pager's side

    def resident(self) -> NDArray[np.bool_]:
        """Which pages are resident."""
        return self._resident.copy()

    def fence(self, run: Run) -> None:
        """From here on `poke` waits."""
        self._fenced.update(range(run[0], run[0] + run[1]))

    def release(self, run: Run) -> None:
        """`poke` works again."""
        self._fenced.difference_update(range(run[0], run[0] + run[1]))

    def read(self, run: Run) -> memoryview:
        """The bytes of a resident run."""
        assert self._resident[run[0] : run[0] + run[1]].all(), f"pages {run} are not all resident"
        return self._slice(*run)

    def drop(self, runs: Sequence[Run]) -> None:
        """Holes from here on, and zeros: whoever kept a page's bytes by accident is found out."""
        for first, count in runs:
            self._slice(first, count)[:] = bytes(count * PAGE_BYTES)
            self._resident[first : first + count] = False
            self.release((first, count))

    def place(self, page: int, data: bytes | memoryview) -> None:
        """The page appears."""
        if not self._resident[page]:
            self._appear(page, data)

    def place_zero(self, page: int) -> None:
        """The page appears as zeros."""
        if not self._resident[page]:
            self._appear(page, bytes(PAGE_BYTES))

    def fill(self, page: int, data: bytes | memoryview) -> None:
        """A run appears."""
        self._appear(page, data)

    def allocated_bytes(self) -> int:
        """Bytes of resident pages."""
        return int(np.count_nonzero(self._resident)) * PAGE_BYTES

    def _appear(self, page: int, data: bytes | memoryview) -> None:
        count, rest = divmod(len(data), PAGE_BYTES)
        assert count > 0 == rest, f"page {page}: {len(data)} bytes are no whole pages"
        self._slice(page, count)[:] = data
        self._resident[page : page + count] = True
        self.placed_max = max(self.placed_max, int(np.count_nonzero(self._resident)))

    def _slice(self, page: int, count: int) -> memoryview:
        return self._ram[page * PAGE_BYTES : (page + count) * PAGE_BYTES]
