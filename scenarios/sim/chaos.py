"""Many worlds, one a seed: play them, add up what was covered, and make the shortest history of one that breaks a rule.

A seed is a history: the same seed, profile and size give the same event log to the byte. How seeds are spread over processes, and
what time it is, is the caller's.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from scenarios.sim.checkers import Violation
from scenarios.sim.faults import CRASH_POINTS, FATES, MISHAPS, PROFILES
from scenarios.sim.loop import Deadlock, VirtualLoop, run
from scenarios.sim.script import Script
from scenarios.sim.scripted import ScriptedWorld
from scenarios.sim.turns import LABELS
from scenarios.sim.world import Limits, Size, World


@attrs.frozen(kw_only=True)
class Wish:
    """Which worlds shall be played."""

    profile: str = "rough"
    size: Size = attrs.field(factory=Size)
    limits: Limits = attrs.field(factory=Limits)
    script: Script | None = None
    """who there is and what is asked; None: the seed says"""


@attrs.frozen(kw_only=True)
class Broken:
    """A rule that did not hold."""

    seed: int
    checker: str
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class History:
    """What became of one seed."""

    seed: int
    digest: str
    steps: int
    faults: int
    broken: Broken | None
    rows: Mapping[str, int]
    kinds: Mapping[str, int]
    crashes: Mapping[tuple[str, str], int]
    story: tuple[str, ...] = ()


def play(seed: int, wish: Wish) -> History:
    """One history, from its seed."""
    worlds: list[World] = []

    async def main(loop: VirtualLoop) -> None:
        world = _world(loop, seed, wish)
        worlds.append(world)
        await world.play()

    broken = None
    try:
        run(main)
    except Violation as violation:
        broken = Broken(seed=seed, checker=violation.checker, sentence=violation.sentence)
    except Deadlock as error:
        broken = Broken(seed=seed, checker="liveness", sentence=str(error))
    (world,) = worlds
    return History(
        seed=seed, digest=world.digest.hexdigest(), steps=world.steps, faults=world.fortune.faults, broken=broken,
        rows=world.turns.done, kinds=world.fortune.counts, crashes=world.turns.crashes, story=tuple(world.story),
    )  # fmt: skip


def _world(loop: VirtualLoop, seed: int, wish: Wish) -> World:
    profile = PROFILES[wish.profile]
    if wish.script is not None:
        return ScriptedWorld(loop, seed, profile, wish.script, wish.limits)
    return World(loop, seed, profile, wish.size, wish.limits)


class Coverage:
    """What was met in all worlds together: rows done, kinds of faults, and where nodes died."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.crashes: Counter[tuple[str, str]] = Counter()

    def add(self, history: History) -> None:
        """One more history."""
        self.rows.update(history.rows)
        self.kinds.update(history.kinds)
        self.crashes.update(history.crashes)

    def holes(self) -> list[str]:
        """Crash points of rows at which no node ever died."""
        return [f"{label}: {point}" for label in LABELS for point in CRASH_POINTS if not self.crashes[label, point]]

    def to_json(self) -> dict[str, Any]:
        """Plain data: every line and every column, also those that are zero."""
        return {
            "rows": {label: self.rows[label] for label in LABELS},
            "faults": {kind: self.kinds[kind] for kind in (*MISHAPS, *FATES)},
            "crash_points": {label: {point: self.crashes[label, point] for point in CRASH_POINTS} for label in LABELS},
        }


@attrs.define(kw_only=True)
class Report:
    """What became of all seeds."""

    start: int
    profile: str
    seeds: int = 0
    steps: int = 0
    seconds: float = 0.0
    broken: list[Broken] = attrs.field(factory=list)
    coverage: Coverage = attrs.field(factory=Coverage)
    _digest: Any = attrs.field(factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, history: History) -> None:
        """The next history, in the order of seeds."""
        self.seeds += 1
        self.steps += history.steps
        self._digest.update(history.digest.encode())
        self.coverage.add(history)
        if history.broken is not None:
            self.broken.append(history.broken)

    @property
    def seeds_per_s(self) -> float:
        """How fast it went."""
        return self.seeds / self.seconds if self.seconds else 0.0

    @property
    def digest(self) -> str:
        """Of all event logs, in the order of seeds."""
        return str(self._digest.hexdigest())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "seeds": self.seeds,
            "start": self.start,
            "profile": self.profile,
            "violations": [broken.to_json() for broken in self.broken],
            "digest": self.digest,
            "steps": self.steps,
            "coverage": self.coverage.to_json(),
            "seeds_per_s": round(self.seeds_per_s, 2),
        }


Spread = Callable[[Iterable[int], Wish], Iterator[History]]
"""Plays these seeds, somewhere, and gives the histories in the order of seeds"""


def one_by_one(seeds: Iterable[int], wish: Wish) -> Iterator[History]:
    """Here, one after another."""
    return (play(seed, wish) for seed in seeds)


def chaos(
    seeds: int, wish: Wish, *, start: int = 0, spread: Spread = one_by_one, now: Callable[[], float] = lambda: 0.0,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Play so many seeds from `start` on. `now` counts seconds, `progress` is called after each seed."""
    report = Report(start=start, profile=wish.profile)
    began = now()
    for history in spread(range(start, start + seeds), wish):
        report.add(history)
        report.seconds = now() - began
        progress(report)
    return report
