"""Drives the cleanup of one guest: how much is copied when, and what is tried again. Whoever owns the loop calls `tick`."""

from collections.abc import Mapping

import attrs

from paging.guest import PageCounts
from paging.pages import Pages
from paging.policy import pages_to_copy
from paging.slot_copy import SlotCopy
from paging.slots import SlotSet
from paging.swap_table import Phase

TICK_S = 0.02
"""How often `tick` wants to be called while it is not `idle`"""
RETRY_S = 5.0
"""A device that fails, and slots that are missing, are asked again no sooner"""
STEP_PAGES = 32
"""What one step copies: a guest that is halted waits for a step"""


class Cleaner:
    """One guest's. `want` may be told from another thread than the one that calls `tick`."""

    def __init__(self, pages: Pages) -> None:
        self._pages, self._copy = pages, SlotCopy(pages)
        self._granted: Mapping[str, SlotSet] = {}
        self._rate = 0
        self._told: tuple[Mapping[str, SlotSet], int] | None = None
        self._carried = self._waits_s = 0.0
        self._faults = pages.faults

    @property
    def left(self) -> int:
        """Pages that are to be copied still, as far as is known."""
        return self._copy.left

    @property
    def trouble(self) -> str | None:
        """Why something is not copied for now, or None."""
        errors = [self._copy.blocked, *self._copy.unreadable.values()]
        return next((str(error) for error in errors if error is not None), None)

    @property
    def idle(self) -> bool:
        """Nothing is to be done until `want` says something new."""
        return self._told is None and (not self._rate or not self.left)

    def add_to(self, counts: PageCounts) -> PageCounts:
        """What there is to say of the cleanup beside how the memory lies."""
        return attrs.evolve(counts, foreign=self.left, copy_trouble=self.trouble)

    def want(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """Leave these slots (device name -> set) at this rate. Told again, it changes nothing."""
        if dict(granted) != self._granted or pages_per_s != self._rate:
            self._told = (dict(granted), pages_per_s)

    def tick(self, seconds: float) -> int:
        """What there is to do after so many seconds; returns how many pages were copied. Only while the guest runs."""
        if self._pages.table.phase is not Phase.RUNNING:
            return 0
        if self._told is not None:
            self._take_over()
        if self._is_waiting(seconds):
            return 0
        faults = self._pages.faults
        self._carried = pages_to_copy(self._carried, pages_per_s=self._rate, faults=faults - self._faults, seconds=seconds)
        self._faults = faults
        if not self._copy.waiting or self._carried < 1:
            return 0
        copied = self._step()
        self._carried -= copied
        self._finish()
        return copied

    def _take_over(self) -> None:
        assert self._told is not None, "there is something new"
        (granted, self._rate), self._told = self._told, None
        if granted != self._granted:
            self._granted = granted
            self._copy.aim(granted)
            self._finish()

    def _is_waiting(self, seconds: float) -> bool:
        """What cannot be copied is left alone for a while; then everything that is left is looked at anew."""
        if self._copy.blocked is None and (self._copy.waiting or not self._copy.unreadable):
            return False
        self._waits_s += seconds
        if self._waits_s < RETRY_S:
            return True
        self._waits_s = 0.0
        self._copy.look_again()
        return False

    def _step(self) -> int:
        copied = 0
        while self._carried - copied >= 1 and self._copy.blocked is None:
            step = self._copy.step(min(STEP_PAGES, int(self._carried - copied)))
            copied += step
            if not step:
                break
        return copied

    def _finish(self) -> None:
        if not self.left:
            self._pages.rest()
