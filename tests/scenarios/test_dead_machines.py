"""A machine that ends by itself, seen by the real actors: the VM is booted anew where it is placed."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from actors.messages import Define, Inspect, Inspected
from bus.topology import Topology
from paging.guest import Guest, Seat
from paging.native.build import build_shim, build_test_guest
from paging.qemu import QemuGuest
from scenarios.faults import Faults
from scenarios.load import load
from scenarios.runner import definition_of
from scenarios.world import OneProcess
from swapferry.config import EMBEDDED
from swapferry.wiring import RealParts, Rooms, brokers

ONE_GUEST = """
[scenario]
name = "one-guest"

[expect]
outcome = "done"

[[host]]
name = "h1"
memory = "16MiB"

[[host]]
name = "h2"
memory = "16MiB"

[[device]]
name = "san0"
home = "h1"
size = "64MiB"
reach = ["h1", "h2"]

[[vm]]
name = "web1"
host = "h1"
memory = "24MiB"
resident = "4MiB"
fill = "8MiB"
writes_per_s = 500
checks_per_s = 200

[[step]]
do = "migrate"
vm = "web1"
target = "h2"
"""


async def inspected(world: OneProcess) -> Inspected:
    """What the guest says when it checks its memory."""
    client = world.client
    asked = Inspect(request=client.new_request(), vm="web1", verify=True, reply_to=client.address)
    answer = await client.ask(asked, 60)
    assert isinstance(answer, Inspected)
    return answer


@pytest.mark.parametrize("what", ["QEMU", "pager"])
async def test_a_vm_outlives_the_death_of_its_processes(tmp_path: Path, what: str):
    build_shim()
    build_test_guest()
    made: list[QemuGuest] = []

    def make(seat: Seat) -> Guest:
        made.append(QemuGuest(seat, accelerator="tcg"))
        return made[-1]

    path = tmp_path / "one.toml"
    path.write_text(ONE_GUEST)
    scenario, faults = load(path), Faults()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as ram:
        parts = RealParts(Rooms(work=tmp_path, ram=Path(ram)), brokers(EMBEDDED, Topology()), make, faults)
        world = OneProcess(scenario, parts, faults, user="tester")
        try:
            await world.start()
            await world.client.ask(Define(request="web1", definition=definition_of(scenario.vms[0]), host="h1"), 60)
            assert (await inspected(world)).ok
            (guest,) = made
            before = guest.pids

            victim = before[0] if what == "QEMU" else before[1]
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            while not (await inspected(world)).ok or victim in guest.pids:
                pass

            assert (guest.pids[0] == before[0]) == (what == "pager")
            assert sum(entry.event.startswith("machine died") for entry in world.entries()) == (what == "QEMU")
        finally:
            differences = await world.stop()
            parts.close()
    assert differences == []
