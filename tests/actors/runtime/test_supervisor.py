"""When an actor is given up."""

from actors.runtime.clock import Clock
from actors.runtime.supervisor import Policy, Supervisor, Verdict


class Dial(Clock):
    at = 1000.0

    def now(self) -> float:
        return self.at


def test_an_actor_is_given_up_at_the_last_failure_of_its_policy():
    supervisor = Supervisor(Dial(), Policy(failures_max=3, within_s=60.0))

    verdicts = [supervisor.failed("a") for _ in range(3)]

    assert verdicts == [Verdict.RESTART, Verdict.RESTART, Verdict.GIVE_UP]


def test_failures_that_are_far_apart_are_forgiven():
    clock = Dial()
    supervisor = Supervisor(clock, Policy(failures_max=2, within_s=60.0))

    for _ in range(5):
        assert supervisor.failed("a") is Verdict.RESTART
        clock.at += 61.0


def test_each_actor_fails_for_itself():
    supervisor = Supervisor(Dial(), Policy(failures_max=2, within_s=60.0))

    supervisor.failed("a")

    assert supervisor.failed("b") is Verdict.RESTART
    assert supervisor.failed("a") is Verdict.GIVE_UP


def test_a_retired_actor_leaves_no_failures_behind():
    supervisor = Supervisor(Dial(), Policy(failures_max=2, within_s=60.0))
    supervisor.failed("a")

    supervisor.forget("a")

    assert supervisor.failed("a") is Verdict.RESTART
