"""From a seed that breaks a rule to the shortest history that still breaks it: a smaller world, fewer faults, fewer steps."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from scenarios.sim.chaos import History, Wish, play
from scenarios.sim.world import Size

Broke = Callable[[Wish], bool]


def shrink(history: History, wish: Wish) -> tuple[Wish, History]:
    """The smallest wish for which the seed of this history still breaks the same rule, and its history with its story told."""
    assert history.broken is not None, "only what broke a rule is made smaller"
    checker = history.broken.checker

    def broke(smaller: Wish) -> bool:
        found = play(history.seed, smaller).broken
        return found is not None and found.checker == checker

    for size in _sizes(wish.size) if wish.script is None else ():
        if broke(attrs.evolve(wish, size=size)):
            wish = attrs.evolve(wish, size=size)
            break
    now = play(history.seed, wish)
    faults = _fewest(now.faults, lambda count: broke(_limited(wish, faults_max=count)))
    wish = _limited(wish, faults_max=faults)
    steps = _fewest(now.steps, lambda count: broke(_limited(wish, steps_max=count)))
    wish = _limited(wish, steps_max=steps)
    return wish, play(history.seed, _limited(wish, story=True))


def _limited(wish: Wish, **limits: Any) -> Wish:
    return attrs.evolve(wish, limits=attrs.evolve(wish.limits, **limits))


def _sizes(size: Size) -> Iterator[Size]:
    """Smaller worlds, the smallest first."""
    for vms in range(1, size.vms):
        for hosts in range(2, size.hosts + 1):
            yield attrs.evolve(size, vms=vms, hosts=hosts, devices=min(size.devices, hosts))


def _fewest(most: int, broke: Callable[[int], bool]) -> int:
    """The smallest number that still breaks, by halving; a history is not monotone, so it is small, not surely smallest."""
    low, high = 0, most
    while low < high:
        middle = max(1, (low + high) // 2)
        if broke(middle):
            high = middle
        elif low == middle:
            break
        else:
            low = middle
        if high - low <= 1:
            break
    return high
