"""Recorded runs of the small scenario's world: its migration, with a node killed in the middle if so wished."""

import asyncio
from pathlib import Path

from actors.domain.lifecycle import Outcome
from actors.messages import Define, Migrate, Verdict
from actors.runtime.clock import RealClock
from bus.topology import Topology
from scenarios.faults import Faults
from scenarios.host import HostNode
from scenarios.load import load
from scenarios.recording.recorder import Recording
from scenarios.runner import definition_of
from scenarios.scenario import Scenario
from scenarios.world import OneProcess
from swapferry.config import EMBEDDED
from swapferry.wiring import GUESTS, RealParts, Rooms, brokers
from tests.swapferry.scenes import SMALL

VERSION = "0.0.test"


def recorded_run(directory: Path, *, kill: str = "", after: str = "") -> Path:
    """Migrate web1 from h1 to h2; once this row is done, kill this host's node and start it again. Returns the recording."""
    scenario_file = directory / "small.toml"
    scenario_file.write_text(SMALL)
    asyncio.run(_Run(load(scenario_file), directory).play(kill, after))
    return directory / "recording"


class _Run:
    def __init__(self, scenario: Scenario, directory: Path) -> None:
        faults = Faults()
        rooms = Rooms(work=directory, ram=directory)
        self.scenario = scenario
        self.parts = RealParts(rooms, brokers(EMBEDDED, Topology()), GUESTS["fake"], faults)
        self.recording = Recording(directory / "recording", RealClock(), VERSION)
        self.world = OneProcess(scenario, self.parts, faults, "tester", self.recording.node)

    async def play(self, kill: str, after: str) -> None:
        await self.world.start()
        client = self.world.client
        try:
            (vm,) = self.scenario.vms
            defined = await self._ask(Define(request="define", definition=definition_of(vm), host=vm.host))
            assert defined.outcome is Outcome.DONE, defined
            move = Migrate(request="move", vm=vm.name, target="h2", reply_to=client.address)
            moving = asyncio.create_task(self._ask(move))
            if kill:
                await self._until_done(after)
                await self._kill(kill)
            await moving
        finally:
            await self.world.stop()
            self.parts.close()
            self.recording.close()

    async def _ask(self, request: Define | Migrate) -> Verdict:
        verdict = await self.world.client.ask(request, 60)
        assert isinstance(verdict, Verdict)
        return verdict

    async def _until_done(self, row: str) -> None:
        while not any(entry.row == row and entry.event == "done" for entry in self.world.entries()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def _kill(self, name: str) -> None:
        """Between any two steps; the guests go on, and the next node of this host finds them."""
        (index,) = [index for index, host in enumerate(self.world.hosts) if host.plan.facts.host == name]
        dead = self.world.hosts[index]
        await dead.node.kill()
        born = HostNode(dead.plan, self.parts, lambda _: None, self.recording.node(dead.plan))
        born.guests = dead.guests
        self.world.hosts[index] = born
        await born.start()
