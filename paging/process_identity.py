"""Processes that a reused pid cannot be mistaken for, and this boot of the host. Facts from proc(5) and pidfd_open(2)."""

import asyncio
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


def is_running(process: Process) -> bool:
    """It has not ended; a zombie, whose parent has not asked for it, has."""
    try:
        status = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX" and identify(process.pid) == process


def open_exactly(process: Process) -> int | None:
    """As `open_process`, but only this process, not one that has its pid now; None where it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Compared after the descriptor was taken: from here on the pid cannot change its meaning.
    if process.started and identify(process.pid) == process:
        return descriptor
    os.close(descriptor)
    return None


async def ended(descriptor: int) -> None:
    """Until the process of a descriptor has ended."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)


async def end(process: Process) -> None:
    """SIGKILL exactly this process and await its end; nothing where it has ended already."""
    descriptor = open_exactly(process)
    if descriptor is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await ended(descriptor)
    finally:
        os.close(descriptor)


def write_pid(path: Path, pid: int) -> None:
    """Remember a process so that it can be found and ended exactly."""
    process = identify(pid)
    path.write_text(f"{process.pid} {process.started}\n")


def read_pid(path: Path) -> Process | None:
    """The process that a pid file names; None without one."""
    with contextlib.suppress(OSError, ValueError):
        pid, started = (int(word) for word in path.read_text().split())
        return Process(pid, started)
    return None


async def end_leftover(path: Path) -> None:
    """End the process that a pid file names, if it is still that one."""
    process = read_pid(path)
    if process is not None:
        await end(process)
