"""A world whose hosts are processes of their own: one `swapferry node` each, over RabbitMQ."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import Process

from actors.client import Client
from actors.runtime.sqlite import SqliteStore
from bus.topology import Topology
from scenarios.audit import compare, read_kept
from scenarios.errors import Failed
from scenarios.faults import Faults
from scenarios.parts import Parts
from scenarios.scenario import HostSpec, Scenario
from scenarios.timeline import Entry
from scenarios.world import World
from swapferry.config import NodeDevice, NodeFile, NodeSection, write_node_file
from swapferry.node import plan_of
from swapferry.wiring import Rooms, found_device, made_device, private_directory

STOP_S = 60.0


class ManyProcesses(World):
    """Each host a process; this one has the user only."""

    def __init__(
        self, scenario: Scenario, parts: Parts, rooms: Rooms, *, bus: str, guest: str, topology: Topology, user: str
    ) -> None:
        self._scenario, self._rooms, self._bus, self._guest, self._topology = scenario, rooms, bus, guest, topology
        self._files: dict[str, NodeFile] = {}
        self._nodes: dict[str, Process] = {}
        self.client = Client(parts.broker(), user, parts.clock)

    @property
    def faults(self) -> Faults:
        """Never: the parts are in other processes."""
        raise Failed("hosts in processes of their own cannot be meddled with")

    def entries(self) -> list[Entry]:
        """What the nodes have written."""
        paths = [file.node.timeline for file in self._files.values()]
        lines = [line for path in paths if path is not None and path.exists() for line in path.read_text().splitlines()]
        return sorted((Entry(**json.loads(line)) for line in lines), key=lambda entry: entry.t)

    async def start(self) -> None:
        """Make the devices and the node files, start a process for each host, and the user."""
        devices = {
            spec.name: made_device(spec, self._rooms.work) if spec.path is None else found_device(spec, spec.path)
            for spec in self._scenario.devices
        }
        for index, host in enumerate(self._scenario.hosts):
            reached = {
                spec.name: NodeDevice(
                    name=spec.name, home=spec.home, uuid=devices[spec.name].uuid, slots=spec.slots,
                    path=devices[spec.name].path if host.name in spec.reach else None,
                )
                for spec in self._scenario.devices
            }  # fmt: skip
            self._files[host.name] = NodeFile(node=self._section(host, index == 0), devices=tuple(reached.values()))
        for name, file in self._files.items():
            self._nodes[name] = await self._spawn(name, file)
        await self.client.open()

    async def stop(self) -> list[str]:
        """End the user and every process; compare what they have kept."""
        await self.client.close()
        problems = [problem for name, node in self._nodes.items() if (problem := await _end(name, node))]
        self._nodes.clear()
        kept = [await read_kept(plan_of(file), SqliteStore(file.node.store)) for file in self._files.values()]
        return [*problems, *compare(kept, {})]

    def _section(self, host: HostSpec, manager: bool) -> NodeSection:
        return NodeSection(
            host=host.name,
            hosts=tuple(other.name for other in self._scenario.hosts),
            bus=self._bus,
            prefix=self._topology.prefix,
            store=self._rooms.work / f"{host.name}.db",
            directory=private_directory(self._rooms.ram / host.name),
            memory=host.memory,
            guest=self._guest,
            roles=("resource-manager",) if manager else (),
            timeline=self._rooms.work / f"{host.name}.timeline",
        )

    async def _spawn(self, name: str, file: NodeFile) -> Process:
        path = self._rooms.work / f"{name}.toml"
        write_node_file(file, path)
        command = (sys.executable, "-m", "swapferry", "node", "--config", str(path))
        with (self._rooms.work / f"{name}.log").open("ab") as log:
            # A process group of its own: Ctrl-C is for us, who end the nodes in order.
            return await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, start_new_session=True)


async def _end(name: str, node: Process) -> str:
    """Tell a node to end and wait for it; returns what is wrong with how it ended."""
    if node.returncode is None:
        node.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            code = await node.wait()
    except TimeoutError:
        node.kill()
        return f"node {name} did not end in {STOP_S:g} s and was killed"
    return f"node {name} ended with {code}; its log says why" if code else ""
