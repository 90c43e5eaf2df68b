"""Small worlds for tests: fake guests, the embedded bus, real stores and slot files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from actors.domain.lifecycle import Outcome
from actors.messages import Define, Verdict
from bus.topology import Topology
from scenarios.faults import Faults
from scenarios.load import load
from scenarios.runner import definition_of
from scenarios.scenario import Scenario
from scenarios.world import OneProcess
from swapferry.config import EMBEDDED
from swapferry.wiring import GUESTS, RealParts, Rooms, brokers
from tests.swapferry.scenes import SMALL


@attrs.define
class Small:
    """The small scenario's world, with its VM running on h1."""

    scenario: Scenario
    world: OneProcess
    parts: RealParts
    directory: Path


@asynccontextmanager
async def small_world(directory: Path, text: str = SMALL) -> AsyncIterator[Small]:
    """Started, with its VMs defined; taken down afterwards."""
    path = directory / "small.toml"
    path.write_text(text)
    scenario = load(path)
    world, parts = world_of(scenario, directory)
    try:
        await world.start()
        for vm in scenario.vms:
            answer = await world.client.ask(Define(request=vm.name, definition=definition_of(vm), host=vm.host), 60)
            assert isinstance(answer, Verdict)
            assert answer.outcome is Outcome.DONE, answer
        yield Small(scenario, world, parts, directory)
    finally:
        differences = await world.stop()
        parts.close()
    assert differences == []


def world_of(scenario: Scenario, directory: Path) -> tuple[OneProcess, RealParts]:
    """Not yet started."""
    faults = Faults()
    parts = RealParts(Rooms(work=directory, ram=directory), brokers(EMBEDDED, Topology()), GUESTS["fake"], faults)
    return OneProcess(scenario, parts, faults, user="tester"), parts
