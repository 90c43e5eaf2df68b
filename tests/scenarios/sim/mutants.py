"""`make mutants`: how many seeds it takes to catch each defect. `python -m tests.scenarios.sim.mutants [SEEDS] [NAME...]`."""

import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from scenarios.sim.chaos import Broken, Wish, play
from swapferry.cli_chaos import be_quiet
from tests.scenarios.sim.defects import DEFECTS

SEEDS = 200
WISHES = (Wish(profile="brutal"), Wish(profile="rough"), Wish(profile="calm"))


def hunt(name: str, seeds: int) -> tuple[int, Broken | None]:
    """(seeds played, what caught it); the profiles take turns."""
    with pytest.MonkeyPatch.context() as patch:
        DEFECTS[name].apply(patch)
        for seed in range(seeds):
            broken = caught(seed)
            if broken is not None:
                return seed + 1, broken
    return seeds, None


def caught(seed: int) -> Broken | None:
    """What this seed shows; a world that cannot even be played is a catch too."""
    try:
        return play(seed, WISHES[seed % len(WISHES)]).broken
    except Exception as error:  # noqa: BLE001 - whatever a defect does to the world
        return Broken(seed=seed, checker="defects", sentence=repr(error))


def main() -> None:
    be_quiet()
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    wanted = [name for name in DEFECTS if any(part in name for part in sys.argv[2:] or [""])]
    survivors = []
    with ProcessPoolExecutor(2, initializer=be_quiet) as pool:
        for name, (played, broken) in zip(wanted, pool.map(hunt, wanted, [seeds] * len(wanted)), strict=True):
            word = f"{broken.checker}: {broken.sentence[:90]}" if broken else "SURVIVED"
            print(f"{name:34} {played:6}  {word}", flush=True)  # noqa: T201 - a program of its own
            if broken is None:
                survivors.append(name)
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} caught; survived: {', '.join(survivors) or 'none'}")  # noqa: T201
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
