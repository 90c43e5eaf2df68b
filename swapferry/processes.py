"""A world whose hosts are processes of their own: one `swapferry node` each, over RabbitMQ."""

import asyncio
import json
import os
import signal
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from actors.client import Client
from actors.runtime.sqlite import SqliteStore, read_store
from bus.topology import Topology
from paging.errors import PagingError
from paging.process_identity import is_running, read_pid
from paging.slots import SlotSet
from paging.swap_table import Process as Identity
from paging.swap_table import SwapTable
from scenarios.audit import Kept, Tables, compare, read_kept
from scenarios.errors import Failed
from scenarios.faults import Faults
from scenarios.parts import Parts
from scenarios.scenario import HostSpec, Scenario
from scenarios.snapshot import kept_of
from scenarios.timeline import Entry
from scenarios.world import World
from swapferry.config import NodeDevice, NodeFile, NodeSection, write_node_file
from swapferry.fault_door import DOOR
from swapferry.node import plan_of
from swapferry.recorded import recording_of
from swapferry.supervised import Supervised
from swapferry.trust import introduce
from swapferry.wiring import Rooms, found_device, made_device, private_directory

PID_FILES = {"pager": "pager.pid", "machine": "qemu.pid"}


class ManyProcesses(World):
    """Each host a process; this one has the user only."""

    def __init__(
        self, scenario: Scenario, parts: Parts, rooms: Rooms, *, bus: str, guest: str, topology: Topology, user: str,
        record: Path | None = None, fault_doors: bool = False,
    ) -> None:  # fmt: skip
        """With `fault_doors` the nodes can be told of fault points (`Supervised.arm`)."""
        self._fault_doors = fault_doors
        self._scenario, self._rooms, self._bus, self._guest, self._topology = scenario, rooms, bus, guest, topology
        self._record = record
        self._files: dict[str, NodeFile] = {}
        self.nodes: dict[str, Supervised] = {}
        """by host, while they run"""
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
        for spec in self._scenario.devices:
            if spec.path is not None:  # it may have served an earlier run
                await introduce(self._rooms.work / f"{spec.home}.db", devices[spec.name])
        for name, file in self._files.items():
            self.nodes[name] = self._supervised(name, file)
            self.nodes[name].start()
        await asyncio.gather(*(node.ready() for node in self.nodes.values()))
        await self.client.open()

    def kept(self) -> list[Kept]:
        """What the actors have kept until now."""
        return [kept_of(plan_of(file), read_store(file.node.store)) for file in self._files.values()]

    def tables(self) -> Tables:
        """Which slots the swap table of each instance names now, read from its file."""
        found: dict[str, dict[str, SlotSet]] = {}
        for file in self._files.values():
            names = {device.uuid: device.name for device in file.devices}
            for path in file.node.directory.glob("*/*/swap-table"):
                with suppress(PagingError):  # it ended just now
                    table = SwapTable.inspect(path)
                    found[table.instance] = {names[uuid]: slots for uuid, slots in table.slots().items()}
                    table.close()
        return found

    async def kill(self, what: str, host: str) -> None:
        """SIGKILL. A node is started again here, a pager by its node; a machine boots anew as its record has it."""
        if what == "node":
            self.nodes[host].kill()
            await self.nodes[host].ready()
            return
        for process in self.processes(what, host):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def processes(self, what: str, host: str) -> list[Identity]:
        """The pagers or the machines of a host that run now."""
        paths = self._files[host].node.directory.glob(f"*/*/{PID_FILES[what]}")
        return [process for path in paths if (process := read_pid(path)) is not None and is_running(process)]

    async def stop(self) -> list[str]:
        """End the user and every process; compare what they have kept."""
        await self.client.close()
        ended = await asyncio.gather(*(node.end() for node in self.nodes.values()))
        self.nodes.clear()
        kept = [await read_kept(plan_of(file), SqliteStore(file.node.store)) for file in self._files.values()]
        return [*filter(None, ended), *compare(kept, {})]

    def _section(self, host: HostSpec, manager: bool) -> NodeSection:
        return NodeSection(
            host=host.name,
            hosts=tuple(other.name for other in self._scenario.hosts),
            bus=self._bus,
            prefix=self._topology.prefix,
            store=self._rooms.work / f"{host.name}.db",
            directory=private_directory(self._rooms.ram / host.name),
            memory=host.memory,
            clean_pages_per_s=host.clean_pages_per_s,
            guest=self._guest,
            roles=("resource-manager",) if manager else (),
            timeline=self._rooms.work / f"{host.name}.timeline",
        )

    def _supervised(self, name: str, file: NodeFile) -> Supervised:
        path = self._rooms.work / f"{name}.toml"
        write_node_file(file, path)
        record = () if self._record is None else ("--record", str(recording_of(self._record, name)))
        command = (sys.executable, "-m", "swapferry", "node", "--config", str(path), *record)
        door = {DOOR: f"@swapferry-{uuid.uuid4().hex}"} if self._fault_doors else {}
        return Supervised(name, command, self._rooms.work / f"{name}.log", door)
