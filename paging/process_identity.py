"""Processes that a reused pid cannot be mistaken for, and this boot of the host. Facts from proc(5) and pidfd_open(2)."""

import contextlib
import os
import signal
from pathlib import Path

from paging.table_header import Process


def boot_id() -> str:
    """The host's present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process:
    """A running process; with a start time of 0 where it has ended already."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return Process(pid, 0)
    # The second field is the name in parentheses, which may hold anything; the start time is the 20th behind it.
    return Process(pid, int(status.rpartition(")")[2].split()[19]))


def open_process(pid: int) -> int:
    """A descriptor that becomes readable when the process has ended. Raises `ProcessLookupError` where it has."""
    return os.pidfd_open(pid)


def kill(process: Process) -> None:
    """SIGKILL exactly this process; nothing where it has ended already."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # Compared after the descriptor was taken: from here on the pid cannot change its meaning.
        if identify(process.pid) == process:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def write_pid(path: Path, pid: int) -> None:
    """Remember a process so that it can be found and killed exactly."""
    process = identify(pid)
    path.write_text(f"{process.pid} {process.started}\n")


def kill_leftover(path: Path) -> None:
    """Kill the process that a pid file names, if it is still that one."""
    with contextlib.suppress(OSError, ValueError):
        pid, started = (int(word) for word in path.read_text().split())
        kill(Process(pid, started))
