"""What machines report, one turn at a time."""

import attrs
import pytest

from actors import machines
from actors.domain.hosting import Instance
from actors.domain.lifecycle import Level, State
from actors.messages import Report
from actors.runtime.actor import Heard, Record, Turn
from paging.guest import Definition

INSTANCE = Instance(
    id="web@h1.boot-1", vm="web", epoch=1, definition=Definition(vm="web", memory_bytes=4096, resident_bytes=4096),
    state=State.RUNNING, wanted=Level.BOOTED, revision=3,
)  # fmt: skip


@pytest.fixture
def failure() -> Report:
    return Report(instance=INSTANCE.id, revision=3, level=Level.BOOTED, failed="its device is gone")


def turn_on(instance: Instance, body: object) -> Turn:
    return Turn(Record({(Instance, instance.id): instance}), Heard(id="1", source="vm", body=body))


def test_a_failure_is_filed(failure: Report) -> None:
    turn = turn_on(INSTANCE, failure)

    machines.report(turn, failure)

    assert turn.decision().changes == {(Instance, INSTANCE.id): attrs.evolve(INSTANCE, failed="its device is gone")}


def test_the_same_failure_again_changes_nothing_so_that_the_timer_and_not_the_report_tells_the_machine_again(
    failure: Report,
) -> None:
    turn = turn_on(attrs.evolve(INSTANCE, failed="its device is gone"), failure)

    machines.report(turn, failure)

    assert turn.decision().changes == {}
