"""The crash matrix: each player of each row of both sagas dies at each step of the shell, and every machine's work is cut off.

What PROTOCOL promises: a node that dies and comes back from its store undoes nothing by itself, so a migration is done, one that
was refused is undone, and one whose machine was lost with the node is undone before the memory has left it, else done.

All cases run side by side in one loop, since they mostly wait; each is judged in a test of its own.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs

from tests.crash.embedded import MANAGER, SOURCE, TARGET, Trip, embedded, fault_points_reach_places

STEPS = ("shell.before_store", "shell.after_store", "shell.after_obey", "shell.after_say")
EFFECTS = ("driver.before_effect", "driver.after_effect")

PLAYERS = {
    "open": SOURCE, "register": MANAGER, "welcome": TARGET, "freeze": SOURCE, "grant": SOURCE, "hand over": SOURCE,
    "prepare": TARGET, "commit": MANAGER, "resume": TARGET, "forget": SOURCE, "close": MANAGER, "closed": SOURCE,
}  # fmt: skip
"""who plays each row here: the device's arbiter lives at its home, the source"""
LEVELS = {"staged": TARGET, "frozen": SOURCE, "sent": SOURCE, "loaded": TARGET, "running": TARGET, "gone": SOURCE}
UNDOINGS = {"undo manager": MANAGER, "undo device": SOURCE, "undo source": SOURCE, "undo target": TARGET, "close": MANAGER}
CLEANUP = {
    "Named": TARGET, "Return": SOURCE, "Taken": TARGET, "Survey": SOURCE, "Surveyed": SOURCE, "Regained": MANAGER,
    "Recorded": SOURCE, "Unshare": MANAGER, "Unshared": SOURCE, "Tick(housekeeping)": TARGET,
}  # fmt: skip
"""what a turn of the cleanup hears -> whose turn it is"""

NOWHERE = {("Survey", "shell.after_store")}
"""a device that is asked what came back stores nothing"""

AT_ONCE = 16
"""cases that run side by side"""


@attrs.frozen
class Case:
    """A place to die, what the world is otherwise like, and what must come of it."""

    trip: Trip
    outcome: str
    refusing: bool = False

    def __str__(self) -> str:
        lost = ", machine lost" if self.trip.lost else ""
        return f"{self.trip.detail} at {self.trip.point}{lost} is {self.outcome}"


def _cases() -> Sequence[Case]:
    players = (PLAYERS | CLEANUP).items()
    rows = [Case(Trip(host, step, row), "done") for row, host in players for step in STEPS if (row, step) not in NOWHERE]
    effects = [Case(Trip(host, effect, level), "done") for level, host in LEVELS.items() for effect in EFFECTS]
    undone = [Case(Trip(host, step, row), "undone", refusing=True) for row, host in UNDOINGS.items() for step in STEPS]
    return [*rows, *effects, *undone, *_lost()]


def _lost() -> Sequence[Case]:
    """The machines of a node that dies are lost with it, once in each row: before the memory was handed over this undoes."""
    before = ("open", "welcome", "freeze")
    after = ("resume", "forget", "closed")
    return [Case(Trip(PLAYERS[row], "shell.after_store", row, lost=True), "undone") for row in before] + [
        Case(Trip(PLAYERS[row], "shell.after_store", row, lost=True), "done") for row in after
    ]


CASES = _cases()


@attrs.frozen(kw_only=True)
class Ending:
    """What a case came to."""

    fired: bool
    outcome: str
    reason: str
    place: Sequence[str]
    boots: int
    memory: str
    problems: Sequence[str]


async def _play(case: Case, directory: Path) -> Ending:
    async with embedded(directory, case.trip) as world:
        if case.refusing:
            world.faults.refusing.add(TARGET)
        verdict = await world.migrate()
        problems = await world.quiet()
        found = await world.verify()
        return Ending(
            fired=world.fired.is_set(), outcome=str(verdict.outcome), reason=verdict.reason, place=world.runs_on(),
            boots=world.boots, memory=found.words, problems=problems,
        )  # fmt: skip


async def _play_all(directory: Path) -> dict[Case, Ending | BaseException]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(index: int, case: Case) -> Ending:
        async with room:
            return await _play(case, directory / str(index))

    with fault_points_reach_places(), capture_logs():  # a node that dies complains; its tracebacks would take half of the time
        endings = await asyncio.gather(*(one(index, case) for index, case in enumerate(CASES)), return_exceptions=True)
    return dict(zip(CASES, endings, strict=True))


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Ending | BaseException]:
    return asyncio.run(_play_all(tmp_path_factory.mktemp("matrix")))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_player_that_dies_in_a_row_brings_the_promised_outcome(
    case: Case, endings: dict[Case, Ending | BaseException]
) -> None:
    ending = endings[case]

    assert isinstance(ending, Ending), repr(ending)
    assert ending.fired, "the player never came to the place where it was to die"
    assert ending.outcome == case.outcome, ending.reason
    assert ending.place == ([TARGET] if case.outcome == "done" else [SOURCE])
    assert ending.memory == ""
    assert ending.problems == []
    if not case.trip.lost:
        assert ending.boots == 1, "the guest lost its memory, though its machine lived on"
