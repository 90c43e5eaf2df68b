"""What machines report, one turn at a time."""

import attrs
import pytest

from actors import machines
from actors.domain.hosting import HostFacts, Instance
from actors.domain.lifecycle import Level, State
from actors.messages import Boot, Booted, Report
from actors.runtime.actor import Heard, Record, Turn
from paging.guest import Definition

INSTANCE = Instance(
    id="web@h1.boot-1", vm="web", epoch=1, definition=Definition(vm="web", memory_bytes=4096, resident_bytes=4096),
    state=State.RUNNING, wanted=Level.BOOTED, revision=3, reported=2,
)  # fmt: skip

FACTS = HostFacts(host="h1", memory_bytes=4096, homes={}, uuids={}, slot_counts={})


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


def test_a_vm_that_could_not_be_started_is_refused_only_when_nothing_of_it_can_start_any_more(failure: Report) -> None:
    record = Record({(Instance, INSTANCE.id): attrs.evolve(INSTANCE, reported=0)})
    gone = Report(instance=INSTANCE.id, revision=4, level=Level.GONE)
    boot = Boot(vm="web", epoch=1, definition=INSTANCE.definition)

    failed = hear(record, failure)
    asked_early = hear(record, boot)
    ended = hear(record, gone)
    asked_late = hear(record, boot)

    refused = Booted(vm="web", epoch=1, refused="its device is gone")
    said = [[say.body for say in turn.decision().says] for turn in (failed, asked_early, ended, asked_late)]
    assert said == [[], [], [refused], [refused]]
    assert not record.all(Instance)


def hear(record: Record, body: Report | Boot) -> Turn:
    turn = Turn(record, Heard(id="1", source="somebody", body=body))
    if isinstance(body, Report):
        machines.report(turn, body)
    else:
        machines.boot(FACTS, turn, body)
    record.apply(turn.decision().changes)
    return turn
