"""Where the seed becomes fate: one generator for a world, and a switch that ends all faults."""

import random
from collections import Counter

from scenarios.sim.faults import Profile


class Fortune:
    """Draws for everybody. `counts` says which fault happened how often; after `end` none happens any more."""

    def __init__(self, seed: int, profile: Profile, faults_max: int | None = None) -> None:
        self.random = random.Random(seed)
        self.profile = profile
        self.counts: Counter[str] = Counter()
        self.faults = 0
        self.faults_max = faults_max
        """how many faults may happen at all; None: as many as the profile has (shrinking asks for fewer)"""
        self.over = False
        """whether faults happen now"""

    def end(self) -> None:
        """No more faults: what follows must come to rest."""
        self.over = True

    def begin(self) -> None:
        """Let faults happen from here on."""
        self.over = False

    def strikes(self, fate: str) -> bool:
        """Whether this happens now."""
        return self.happens(fate, self.profile.chance(fate))

    def happens(self, fault: str, chance: float) -> bool:
        """Whether a fault of this chance happens now; counted if it does."""
        if chance <= 0 or self.random.random() >= chance:
            return False
        return self.allowed(fault)

    def allowed(self, fault: str) -> bool:
        """Whether another fault may happen; counted if it may."""
        if self.over or (self.faults_max is not None and self.faults >= self.faults_max):
            return False
        self.faults += 1
        self.counts[fault] += 1
        return True

    def between(self, low: float, high: float) -> float:
        """A number of this range."""
        return low + (high - low) * self.random.random()

    def travel_s(self) -> float:
        """How long something is under way between two processes."""
        return 0.0005 + 0.003 * self.random.random()

    def late_s(self) -> float:
        """How long something is under way that was held up."""
        return self.between(0.2, 8.0)
