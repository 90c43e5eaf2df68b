"""How the simulator scales: events a second and memory, of a world and of one ten times its size.

    python -m benchmarks.simulation [HOSTS]      (default 100: 5 VMs and 10 migrations for each host)

A world without faults: the VMs start, each is moved twice, everything comes to rest. What is idle should cost nothing, so both
figures should grow with the number of migrations and no faster.
"""

import asyncio
import resource
import sys
import time

import attrs

from actors.messages import Migrate
from scenarios.sim.faults import CALM
from scenarios.sim.loop import VirtualLoop, run
from scenarios.sim.process import Process
from scenarios.sim.world import Limits, Size, World
from swapferry.cli_chaos import be_quiet

QUIET = attrs.evolve(CALM, name="quiet", mishaps={"clock jump": 1}, fates={}, every_s=1e9, per_step=0.0, skew_s=0.0)


class Moves(World):
    """Every VM is moved so many times, from host to host."""

    moves = 2

    async def _wishes(self, user: Process) -> None:
        await asyncio.gather(*self._asks)
        for _ in range(self.moves):
            for index in range(self.size.vms):
                await asyncio.sleep(0.01)
                vm = f"vm{index + 1}"
                body = Migrate(
                    request=self.client.new_request(), vm=vm, target=self._target(vm), reply_to=self.client.address
                )
                self._wish(user, body)
            await asyncio.gather(*self._asks)
        self._enough.set()


def measure(hosts: int) -> tuple[float, int, float]:
    """(seconds, steps, peak MiB) of a world of so many hosts."""
    worlds: list[Moves] = []

    async def main(loop: VirtualLoop) -> None:
        size = Size(hosts=hosts, vms=5 * hosts, devices=hosts)
        world = Moves(loop, 1, QUIET, size, Limits(faults_max=0, steps_max=10**9))
        worlds.append(world)
        await world.play()

    began = time.perf_counter()
    run(main)
    return time.perf_counter() - began, worlds[0].steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    be_quiet()
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for hosts in (max(2, most // 10), most):
        seconds, steps, peak = measure(hosts)
        moves = 10 * hosts
        print(
            f"{hosts} hosts, {5 * hosts} VMs, {moves} migrations: {seconds:.1f} s, {steps / seconds:.0f} steps/s, "
            f"{seconds / moves * 1000:.1f} ms a migration, peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
