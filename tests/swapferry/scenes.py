"""Scenarios for tests, and how to run the command on them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SCENES = Path(__file__).parents[2] / "scenarios" / "scenes"

SMALL = """\
[scenario]
name = "small"

[expect]
outcome = "done"
verified = true
at = "h2"
granted_min = "4MiB"

[[host]]
name = "h1"
memory = "16MiB"

[[host]]
name = "h2"
memory = "16MiB"

[[device]]
name = "san0"
home = "h1"
size = "32MiB"
reach = ["h1", "h2"]

[[device]]
name = "local2"
home = "h2"
size = "32MiB"
reach = ["h2"]

[[vm]]
name = "web1"
host = "h1"
memory = "16MiB"
resident = "4MiB"
fill = "12MiB"
hot = "1MiB"
writes_per_s = 50
checks_per_s = 50

[[step]]
do = "wait_swapped"
vm = "web1"
share = 0.5

[[step]]
do = "migrate"
vm = "web1"
target = "h2"

[[step]]
do = "verify"
vm = "web1"
"""


def environment(rooms: Path) -> dict[str, str]:
    """Temporary things lie in these rooms, so that a test sees what is left behind."""
    places = {"SWAPFERRY_RAM_DIR": str(rooms / "ram"), "SWAPFERRY_WORK_DIR": str(rooms / "work")}
    return {**os.environ, **places, "COLUMNS": "200"}


def swapferry(rooms: Path, *arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "swapferry", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment(rooms))


def told_to_end(rooms: Path, number: signal.Signals, when: str, *arguments: str | Path) -> tuple[int, str]:
    """Run the command, send it a signal when it says that it does `when`; returns its exit code and stderr."""
    command = [sys.executable, "-u", "-m", "swapferry", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(rooms)) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        for line in run.stdout:
            if line.startswith(when):
                run.send_signal(number)
                break
        run.wait(timeout=60)
        return run.returncode, run.stderr.read()


def leftovers(rooms: Path) -> list[Path]:
    """What the command has left behind."""
    return [*(rooms / "ram").iterdir(), *(rooms / "work").iterdir()]


def rows(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Who did which row, in order; without those that only say how slow the machine is."""
    entries = [(entry["actor"], entry["row"], entry["event"]) for entry in told["timeline"]]
    return [entry for entry in entries if "waits for" not in entry[2] and "not yet" not in entry[2]]


def machines(rooms: Path) -> list[str]:
    """Processes (QEMU, pagers, nodes) that still have something of these rooms open or in their environment."""
    here = (str(rooms), str((rooms / "ram").resolve()))
    return [
        f"{process.name}: {command}"
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and int(process.name) != os.getpid()
        if (command := _seen(process / "cmdline")) and any(place in _traces(process) for place in here)
    ]


def _traces(process: Path) -> str:
    return _seen(process / "environ") + _seen(process / "maps") + _seen(process / "cmdline")


def _seen(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""
