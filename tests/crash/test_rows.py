"""Real nodes over RabbitMQ: in each row of both sagas its player is killed once, and once stands still and wakes up later.

The matrix of all steps is in `test_matrix`; here one step a row is chosen by a seed, with processes that really end.
"""

import asyncio
import random

import pytest

from actors.sagas.migration import ROWS
from tests.crash.rounds import Planned, Say, Tally, run
from tests.crash.strikes import STEPS, Strike
from tests.support.rabbitmq import RabbitMQ

SEED = 4
CLEANUP = ("Named", "Return", "Taken", "Surveyed", "Regained", "Recorded", "Unshare", "Unshared")
STOPPED_S = 1.5


def _role(row: str) -> str:
    role = next((one.role for one in ROWS if one.name == row), "any")
    return "any" if role == "device" else role


def _killed() -> list[Planned]:
    pick = random.Random(SEED)
    rows = [*(row.name for row in ROWS), *CLEANUP]
    strikes = {row: Strike(what="point", role=_role(row), point=f"{pick.choice(STEPS)}@{row}") for row in rows}
    return [Planned(f"killed in {row}", "fake", [strike]) for row, strike in strikes.items()]


def _stopped() -> list[Planned]:
    """As soon as its row is done: what it says then comes late."""
    strikes = {
        row.name: Strike(what="stop", role="source" if row.role == "device" else row.role, moment=row.name, lasts_s=STOPPED_S)
        for row in ROWS
    }
    return [Planned(f"stopped in {row}", "fake", [strike]) for row, strike in strikes.items()]


@pytest.fixture(scope="module")
def tally(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Tally:
    """All of them side by side: they mostly wait."""
    planned = [*_killed(), *_stopped()]
    return asyncio.run(run(planned, [rabbitmq] * 3, tmp_path_factory.mktemp("rows"), Say()))


@pytest.mark.timeout(280)
def test_a_node_that_is_killed_in_any_row_goes_on_from_its_store(tally: Tally) -> None:
    assert [(one.seed, one.problems) for one in tally.violated if one.seed.startswith("killed")] == []
    assert tally.deaths >= len(_killed())


def test_a_node_that_stands_still_at_any_row_and_wakes_up_changes_nothing(tally: Tally) -> None:
    assert [(one.seed, one.problems) for one in tally.violated if one.seed.startswith("stopped")] == []
    assert tally.rounds["fake"] == len(_killed()) + len(_stopped())
