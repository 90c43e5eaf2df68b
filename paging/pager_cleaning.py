"""The cleanup's thread in a pager: reading and writing slots waits for devices, and a fault must not wait for that."""

import threading
import time
from collections.abc import Mapping

from paging.cleaner import TICK_S, Cleaner
from paging.pages import Pages
from paging.slots import SlotSet


class Cleaning:
    """One guest's cleanup. The thread begins with the first wish; it ends with the process."""

    def __init__(self, pages: Pages) -> None:
        self.cleaner = Cleaner(pages)
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def want(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """See `Cleaner.want`."""
        self.cleaner.want(granted, pages_per_s)
        if self.cleaner.idle:
            return
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="cleanup", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            before = time.monotonic()
            while not self.cleaner.idle:
                now = time.monotonic()
                self.cleaner.tick(now - before)
                before = now
                time.sleep(TICK_S)
