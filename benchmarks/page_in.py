"""A page-in as the guest feels it, beside a bare O_DIRECT read of 4 KiB from the same device in the same run.

guest: the test guest reads its time stamp counter around a touch of a random page; what the pager answered as page-ins is the
       slow end of that histogram (touches of resident pages are the fast end and are left out).
bare:  preadv of one aligned page from a random slot of the same file, O_DIRECT, one at a time.

Both in turns, in short rounds; the table shows the medians of the rounds, the ratio is the median of the ratios of neighbours.
The guest's memory is read under its resident limit all the time, so evictions go on between the page-ins.

    python -m benchmarks.page_in [--touches 2000] [--rounds 7] [--json]
"""

import argparse
import asyncio
import json
import mmap
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import attrs

from paging.device import PAGE_BYTES, DevicePath
from paging.file_device import format_device
from paging.guest import Definition, Seat, Workload
from paging.qemu import QemuGuest
from paging.slots import SlotSet

AIM = 1.5
MIB = 1 << 20
SLOTS = 65536
DEFINITION = Definition(
    vm="bench",
    memory_bytes=256 * MIB,
    resident_bytes=32 * MIB,
    workload=Workload(fill_bytes=200 * MIB, seed=7),
)


@attrs.frozen(kw_only=True)
class Latency:
    """Microseconds."""

    p50: float
    p99: float


def quantiles(histogram: list[tuple[float, int]]) -> Latency:
    """From (duration in us, count) pairs, ascending."""
    total = sum(count for _, count in histogram)

    def at(share: float) -> float:
        seen = 0
        for duration, count in histogram:
            seen += count
            if seen >= share * total:
                return duration
        return histogram[-1][0]

    return Latency(p50=at(0.5), p99=at(0.99))


def slow_end(words: str, faults: int) -> list[tuple[float, int]]:
    """The slowest `faults` touches of what the guest reports ("touched pages=N khz=K histogram=TICKS:COUNT,...")."""
    fields = dict(field.split("=", 1) for field in words.split() if "=" in field)
    ticks_per_us = int(fields["khz"]) / 1000
    pairs = [pair.split(":") for pair in fields["histogram"].strip(",").split(",")]
    kept: list[tuple[float, int]] = []
    for ticks, count in sorted(((int(ticks), int(count)) for ticks, count in pairs), reverse=True):
        taken = min(count, faults)
        faults -= taken
        if taken:
            kept.append((ticks / ticks_per_us, taken))
    return kept[::-1]


async def page_ins(guest: QemuGuest, touches: int) -> Latency:
    """One round of touches."""
    before = (await guest.counts()).faults
    words = await guest.ask(f"touch {touches}", "touched")
    faults = (await guest.counts()).faults - before
    if faults < touches // 2:
        raise SystemExit(f"only {faults} of {touches} touches were page-ins; is the guest over-committed?")
    return quantiles(slow_end(words, min(faults, touches)))


def bare_reads(path: Path, count: int, pick: random.Random) -> Latency:
    """One round of bare reads."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, PAGE_BYTES)
    durations = []
    try:
        for _ in range(count):
            offset = PAGE_BYTES * (1 + pick.randrange(SLOTS // 4))
            begin = time.perf_counter_ns()
            os.preadv(file, [buffer], offset)
            durations.append((time.perf_counter_ns() - begin) / 1000)
    finally:
        os.close(file)
        buffer.close()
    return quantiles([(duration, 1) for duration in sorted(durations)])


async def measure(touches: int, rounds: int) -> dict[str, object]:
    """Boot, fill, then rounds of both in turns."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        path = Path(disk) / "san0"
        identity = format_device(path, SLOTS)
        device = DevicePath(name="san0", path=path, uuid=identity.uuid)
        os.chmod(shared, 0o711)
        seat = Seat(instance="vm.bench@h1.1", definition=DEFINITION, directory=Path(shared) / "bench", devices=(device,))
        guest = QemuGuest(seat)
        try:
            await guest.arm({"san0": SlotSet.span(0, SLOTS - 1)})
            await guest.boot()
            await guest.ask("counters", "counters")
            pick = random.Random(1)
            pairs = [(await page_ins(guest, touches), bare_reads(path, touches, pick)) for _ in range(rounds)]
        finally:
            await guest.destroy()
    return report(pairs)


def report(pairs: list[tuple[Latency, Latency]]) -> dict[str, object]:
    """Medians, and the ratio of neighbours."""
    guest, bare = zip(*pairs, strict=True)
    return {
        "rounds": len(pairs),
        "guest_us": {"p50": _median(guest, "p50"), "p99": _median(guest, "p99")},
        "bare_us": {"p50": _median(bare, "p50"), "p99": _median(bare, "p99")},
        "ratio": round(statistics.median(ours.p50 / theirs.p50 for ours, theirs in pairs), 2),
        "aim": AIM,
    }


def _median(latencies: tuple[Latency, ...], name: str) -> float:
    return round(statistics.median(getattr(one, name) for one in latencies), 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--touches", type=int, default=2000, help="touches and reads in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    found = asyncio.run(measure(options.touches, options.rounds))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':34}{'p50 us':>10}{'p99 us':>10}")
    for name, key in (("page-in, as the guest feels it", "guest_us"), ("bare O_DIRECT read of 4 KiB", "bare_us")):
        latency = found[key]
        assert isinstance(latency, dict)
        print(f"{name:34}{latency['p50']:>10}{latency['p99']:>10}")
    print(f"\nratio of the p50: {found['ratio']} (aim: at most {AIM}), median of {found['rounds']} rounds")


if __name__ == "__main__":
    main()
