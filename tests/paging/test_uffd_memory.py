"""What the kernel does with memory under a userfaultfd, with a small process under the preload library instead of QEMU."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from paging import uffd_shim
from paging.device import PAGE_BYTES
from paging.errors import GuestError
from paging.native import SHIM
from paging.native.build import build_shim
from paging.pager_requests import memory_of
from paging.uffd import FEATURES, MODES
from paging.uffd_memory import UffdMemory
from paging.unix_sockets import connect, listen

PAGES = 64
VICTIM = """
import mmap, os, sys
memory = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0)
for line in sys.stdin:
    what, page, value = line.split()
    at = int(page) * 4096
    if what == "write":
        memory[at] = int(value)
    print(memory[at], flush=True)
"""
"""Touches its memory when it is told to, one byte of a page at a time"""


@attrs.define
class Victim:
    """A process whose memory is paged by the test."""

    process: subprocess.Popen[str]
    shim: Path
    memory: UffdMemory

    def say(self, what: str, page: int, value: int = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {page} {value}\n")
        self.process.stdin.flush()

    def answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def is_waiting(self, page: int) -> bool:
        """A thread waits for this page; blocks until one waits for any."""
        select.select([self.memory.uffd], [], [])
        return [(address - self.memory.address) // PAGE_BYTES for address in self.memory.uffd.faults()] == [page]


@contextlib.contextmanager
def start_victim(directory: Path, features: int = FEATURES) -> Iterator[subprocess.Popen[str]]:
    ram = directory / "ram"
    ram.touch()
    os.truncate(ram, PAGES * PAGE_BYTES)
    status = ram.stat()
    device = os.open("/dev/userfaultfd", os.O_RDWR)
    with listen(directory / "shim.sock", socket.SOCK_SEQPACKET) as listener:
        environment = {
            "LD_PRELOAD": str(SHIM), "SWAPFERRY_RAM": f"{status.st_dev}:{status.st_ino}",
            "SWAPFERRY_LISTEN": str(listener.fileno()),
            "SWAPFERRY_UFFD": str(device), "SWAPFERRY_FEATURES": str(features), "SWAPFERRY_MODES": str(MODES),
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(ram)], env=environment, pass_fds=(listener.fileno(), device),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    os.close(device)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    build_shim()
    with tempfile.TemporaryDirectory(prefix="swapferry-", dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def victim(directory: Path) -> Iterator[Victim]:
    with start_victim(directory) as process:
        memory = memory_of(uffd_shim.greet(directory / "shim.sock", timeout_s=20))
        yield Victim(process, directory / "shim.sock", memory)
        process.kill()
        memory.close()


def page_of(value: int) -> bytes:
    return bytes([value]) * PAGE_BYTES


def test_a_missing_page_appears_with_the_bytes_it_was_given(victim: Victim):
    victim.say("read", 5)
    assert victim.is_waiting(5)

    victim.memory.place(5, page_of(7))

    assert victim.answer() == 7
    assert victim.memory.resident().nonzero()[0].tolist() == [5]
    assert victim.memory.allocated_bytes() == PAGE_BYTES


def test_a_missing_page_without_content_is_zero(victim: Victim):
    victim.say("read", 0)
    assert victim.is_waiting(0)

    victim.memory.place_zero(0)

    assert victim.answer() == 0


def test_a_write_to_a_fenced_page_waits_for_the_release_and_is_not_lost(victim: Victim):
    victim.memory.fill(3, page_of(1))
    victim.memory.fence((3, 1))

    victim.say("write", 3, 9)
    assert victim.is_waiting(3)
    assert bytes(victim.memory.read((3, 1))) == page_of(1)
    victim.memory.release((3, 1))

    assert victim.answer() == 9
    assert bytes(victim.memory.read((3, 1)))[:2] == bytes([9, 1])


def test_a_write_that_waited_while_its_page_was_dropped_meets_the_page_that_is_placed(victim: Victim):
    victim.say("write", 3, 1)
    assert victim.is_waiting(3)
    victim.memory.place(3, page_of(1))
    victim.answer()
    victim.memory.fence((3, 1))
    victim.say("write", 3, 9)
    assert victim.is_waiting(3)
    content = bytes(victim.memory.read((3, 1)))

    victim.memory.drop([(3, 1)])
    assert not victim.memory.resident().any()
    victim.memory.place(3, content)

    assert victim.answer() == 9
    assert bytes(victim.memory.read((3, 1)))[:2] == bytes([9, 1])


def test_a_page_that_is_there_already_is_not_overwritten(victim: Victim):
    victim.memory.fill(2, page_of(4))
    victim.say("write", 2, 8)
    assert victim.answer() == 8

    victim.memory.place(2, page_of(0))

    assert bytes(victim.memory.read((2, 1)))[:2] == bytes([8, 4])


def test_a_fault_that_a_dead_pager_had_read_is_raised_again_by_the_wake_of_its_successor(victim: Victim):
    victim.say("read", 6)
    assert victim.is_waiting(6)
    victim.memory.close()

    victim.memory = memory_of(uffd_shim.greet(victim.shim, timeout_s=20))
    victim.memory.release((0, PAGES))

    assert victim.is_waiting(6)
    victim.memory.place(6, page_of(3))
    assert victim.answer() == 3


def test_the_process_waits_while_there_is_no_pager_at_all(victim: Victim):
    victim.memory.close()
    answers: list[int] = []
    reader = threading.Thread(target=lambda: answers.append(victim.answer()))
    victim.say("read", 6)
    reader.start()

    victim.memory = memory_of(uffd_shim.greet(victim.shim, timeout_s=20))
    victim.memory.release((0, PAGES))
    assert victim.is_waiting(6)
    assert not answers
    victim.memory.place(6, page_of(3))

    reader.join()
    assert answers == [3]


def test_an_ended_process_is_no_error_for_its_pager(victim: Victim):
    victim.say("read", 6)
    assert victim.is_waiting(6)
    victim.process.kill()
    victim.process.wait()

    victim.memory.place(6, page_of(3))
    victim.memory.fence((0, PAGES))
    victim.memory.release((0, PAGES))


def test_a_pager_of_another_version_is_turned_away(victim: Victim):
    with connect(victim.shim, socket.SOCK_SEQPACKET) as connection:
        connection.send(uffd_shim.request(kind=uffd_shim.HELLO, version=99))
        answer = connection.recv(1 << 12)

    assert uffd_shim.parse_reply(answer).error == "Protocol error"


def test_a_range_outside_of_guest_memory_is_not_zapped(victim: Victim):
    outside = victim.memory.address + PAGES * PAGE_BYTES
    with connect(victim.shim, socket.SOCK_SEQPACKET) as connection:
        connection.send(uffd_shim.request(kind=uffd_shim.ZAP, start=outside - PAGE_BYTES, length=2 * PAGE_BYTES))

        assert uffd_shim.parse_reply(connection.recv(1 << 12)).error == "Numerical result out of range"


def test_a_kernel_without_the_features_ends_the_process_before_its_memory_is_used(directory: Path):
    with start_victim(directory, features=1 << 60) as process:
        assert process.wait() == 97
        assert process.stderr is not None
        assert "lacks userfaultfd features" in process.stderr.read()
        with pytest.raises(GuestError, match="does not answer"):
            uffd_shim.greet(directory / "shim.sock", timeout_s=20)
