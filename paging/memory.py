"""The port `Memory`: the RAM of one guest as its pager handles it. Adapters: `paging.uffd_memory`, `paging.fake`.

A page is *resident* (its bytes are in the RAM file) or a *hole*. A hole with an entry in the swap table lies in a slot; a
hole without one reads as zero. The order of a page-out is fence -> read -> slot written -> table entry -> drop, of a
page-in place -> clear entry -> free slot (DATAPLANE 4.3).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Run = tuple[int, int]
"""(first page, count)"""


class Memory(ABC):
    """`pages` pages of 4096 bytes."""

    pages: int

    @abstractmethod
    def resident(self) -> NDArray[np.bool_]:
        """Which pages are resident now, as the kernel knows it (one scan of all)."""

    @abstractmethod
    def fence(self, run: Run) -> None:
        """From here on the guest cannot change these pages: its writes wait until `release` or `drop`."""

    @abstractmethod
    def release(self, run: Run) -> None:
        """Lift the fence and wake whoever waits for it."""

    @abstractmethod
    def read(self, run: Run) -> memoryview:
        """The bytes of a resident run (fenced, or of a halted guest). The view stays valid until the run is dropped or
        released; views of several runs live side by side."""

    @abstractmethod
    def drop(self, runs: Sequence[Run]) -> None:
        """Punch the pages out of RAM; touching them faults from here on."""

    @abstractmethod
    def place(self, page: int, data: bytes | memoryview) -> None:
        """Answer a fault: the page appears in one instant with these bytes, waiters wake. A page that is there already
        only has its waiters woken."""

    @abstractmethod
    def place_zero(self, page: int) -> None:
        """Answer a fault with a page of zeros."""

    @abstractmethod
    def fill(self, page: int, data: bytes | memoryview) -> None:
        """Write a run of whole pages while nobody runs this memory (a staged instance)."""

    @abstractmethod
    def allocated_bytes(self) -> int:
        """How much RAM the guest's memory takes now (st_blocks of the RAM file); may exceed the pager's own count by
        what is being placed."""
