"""Kill a guest's pager again and again under load: how long does the guest feel it?

takeover: from the end of a pager, as its keeper learns of it, until its successor answers faults.
silence:  the longest time without a sign of life on the guest's serial line (one is due every 10 ms) around each kill; beside it
          the same without a kill, since the machine it runs on has pauses of its own.

The guest rewrites and checks pages all the time, most of them swapped out; at the end it checks all of its memory.

    python -m benchmarks.pager_deaths [--kills 50] [--json]
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paging.device import DevicePath
from paging.file_device import format_device
from paging.guest import Definition, Seat, Workload
from paging.qemu import QemuGuest
from paging.slots import SlotSet

AIM_MS = 20.0
MIB = 1 << 20
SLOTS = 32768
DEFINITION = Definition(
    vm="bench",
    memory_bytes=128 * MIB,
    resident_bytes=32 * MIB,
    workload=Workload(fill_bytes=96 * MIB, writes_per_s=3000, checks_per_s=1000, seed=7),
)
PAGES_BETWEEN = 200
"""How many pages have to be evicted between two kills"""


async def measure(guest: QemuGuest, kills: int) -> dict[str, Any]:
    """Kill and wait until the next pager is at work, so many times."""
    quiet, struck = [], []
    for _ in range(kills):
        quiet.append(await _silence(guest, restarts=0))
        pager = guest.pids[1]
        assert pager is not None, "the guest has a pager"
        os.kill(pager, signal.SIGKILL)
        struck.append(await _silence(guest, restarts=1))
    takeovers = [1000 * seconds for seconds in guest.pager_takeovers_s]
    return {
        "kills": kills,
        "memory": await guest.verify() or "as written",
        "takeover_ms_median": round(statistics.median(takeovers), 1),
        "takeover_ms_max": round(max(takeovers), 1),
        "silence_ms_median": round(1000 * statistics.median(struck), 1),
        "silence_ms_max": round(1000 * max(struck), 1),
        "silence_ms_median_without_a_kill": round(1000 * statistics.median(quiet), 1),
        "silence_ms_max_without_a_kill": round(1000 * max(quiet), 1),
    }


async def _silence(guest: QemuGuest, restarts: int) -> float:
    """The longest silence until so many more pagers have begun, the guest has paged for a while, and a spare one is ready."""
    guest.forget_silence()
    wanted = guest.pager_restarts + restarts
    await _until(lambda: guest.pager_restarts >= wanted)
    begun = (await guest.counts()).evicted
    while (await guest.counts()).evicted < begun + PAGES_BETWEEN:
        await guest.ask("counters", "counters")
    longest = guest.silence_s_max
    await _until(lambda: guest.has_spare_pager)
    return longest


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells a benchmark
        await asyncio.sleep(0.001)


async def run(kills: int, directory: Path, slots: Path) -> dict[str, Any]:
    """One guest from its boot to its end."""
    device = DevicePath(name="cold", path=slots, uuid=format_device(slots, SLOTS).uuid)
    guest = QemuGuest(Seat(instance="vm.bench@h.1", definition=DEFINITION, directory=directory, devices=(device,)))
    try:
        await guest.arm({"cold": SlotSet.span(0, SLOTS)})
        await guest.boot()
        return await measure(guest, kills)
    finally:
        await guest.destroy()


def main() -> None:
    """Print the figures; the exit code says whether the memory was as written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as rooms, tempfile.TemporaryDirectory() as disk:
        found = asyncio.run(run(asked.kills, Path(rooms) / "bench", Path(disk) / "cold.swap"))
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:34} {value}")
        print(f"{'aim for a takeover':34} below {AIM_MS:g} ms")
    sys.exit(0 if found["memory"] == "as written" else 1)


if __name__ == "__main__":
    main()
