"""A recorded run becomes a script for the simulator, which plays it under other faults."""

from pathlib import Path

import pytest

from scenarios.errors import BadFile
from scenarios.recording.as_scenario import script_of
from scenarios.scenario import DeviceSpec, HostSpec, VmSpec
from scenarios.sim.chaos import Wish, play
from scenarios.sim.script import Request, Script, load_script, to_toml
from tests.scenarios.recording.runs import recorded_run

SCRIPT = Script(
    hosts=(HostSpec(name="h1", memory=1 << 24), HostSpec(name="h2", memory=1 << 24)),
    devices=(
        DeviceSpec(name="san0", home="h1", size=1 << 25, reach=("h1", "h2")),
        DeviceSpec(name="local2", home="h2", size=1 << 25, reach=("h2",)),
    ),
    vms=(VmSpec(name="web1", host="h1", memory=1 << 24, resident=1 << 22),),
    requests=(
        Request(at=0.5, ask="migrate", vm="web1", target="h2"),
        Request(at=0.75, ask="cancel", vm="web1"),
        Request(at=2000.0, ask="migrate", vm="web1", target="h2"),
        Request(at=2100.0, ask="migrate", vm="web1", target="h1"),
    ),
)


def test_a_script_that_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text(to_toml(SCRIPT, ["A remark."]))

    assert load_script(path) == SCRIPT


def test_a_script_that_names_what_is_not_there_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text(to_toml(SCRIPT).replace('target = "h2"', 'target = "h3"', 1))

    with pytest.raises(BadFile) as refused:
        load_script(path)

    assert [(problem.key, problem.found) for problem in refused.value.problems] == [("request[0].target", '"h3"')]


def test_a_recording_tells_who_there_was_and_what_was_asked(tmp_path: Path) -> None:
    script, remarks = script_of(recorded_run(tmp_path))

    assert [host.name for host in script.hosts] == ["h1", "h2"]
    assert {device.name: (device.home, device.reach) for device in script.devices} == {
        "san0": ("h1", ("h1", "h2")),
        "local2": ("h2", ("h2",)),
    }
    assert [(vm.name, vm.host, vm.memory, vm.resident) for vm in script.vms] == [("web1", "h1", 1 << 24, 1 << 22)]
    assert [(request.ask, request.vm, request.target) for request in script.requests] == [("migrate", "web1", "h2")]
    assert script.requests[0].at > 0
    assert len(remarks) == 1


@pytest.mark.parametrize("profile", ["calm", "rough", "brutal"])
def test_a_script_is_played_under_faults_and_the_same_seed_is_the_same_history(profile: str) -> None:
    wish = Wish(profile=profile, script=SCRIPT)

    histories = [play(seed, wish) for seed in range(3)]

    assert [history.broken for history in histories] == [None] * 3
    assert all(history.rows["open"] for history in histories)  # the last one at least: it asks for h2 when all is quiet
    assert play(0, wish).digest == histories[0].digest
    assert len({history.digest for history in histories}) == 3
