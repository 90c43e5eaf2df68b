"""A real Linux moves: two processors, a disk over NBD that is read under hard eviction, a network card."""

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from paging.device import PAGE_BYTES
from paging.guest import Definition, Disk, Workload
from paging.native.build import build_linux
from tests.paging.machines import MIB, two_hosts

DISK_BYTES = 8 * MIB
FILL_BYTES = 32 * MIB


@contextlib.contextmanager
def disk_server() -> Iterator[tuple[Disk, str]]:
    """A disk of random bytes over NBD, and its sha256."""
    with tempfile.TemporaryDirectory(prefix="swapferry-") as directory:
        image, address, ready = (Path(directory, name) for name in ("image", "socket", "pid"))
        content = os.urandom(DISK_BYTES)
        image.write_bytes(content)
        # QEMU is nobody, and the server of a disk has to let it in; the directory stays private.
        where = ("--unix", str(address), "--pidfile", str(ready))
        server = subprocess.Popen(["nbdkit", "--foreground", "--readonly", *where, "file", str(image)])
        try:
            while not ready.exists() and server.poll() is None:
                time.sleep(0.01)
            address.chmod(0o666)
            yield Disk(url=f"nbd+unix:///?socket={address}", read_only=True), hashlib.sha256(content).hexdigest()
        finally:
            server.terminate()
            server.wait()


async def test_a_linux_guest_moves_with_its_memory_and_reads_its_disk_right_under_eviction(tmp_path: Path):
    build_linux()
    with disk_server() as (disk, disk_sha256):
        await move_and_check(tmp_path, disk, disk_sha256)


async def move_and_check(tmp_path: Path, disk: Disk, disk_sha256: str) -> None:
    async with two_hosts(tmp_path) as hosts:
        definition = Definition(
            vm="web", boot="linux", memory_bytes=144 * MIB, resident_bytes=26 * MIB, vcpus=2, nics=1, disks=(disk,),
            workload=Workload(fill_bytes=FILL_BYTES),
        )  # fmt: skip
        source = await hosts.booted(definition, command="net")
        assert await source.ask("net", "net") == "net devices=1"
        assert await source.ask("disk", "disk") == f"disk sha256={disk_sha256}"
        counts = await source.counts()
        assert counts.swapped > 0.7 * (counts.resident + counts.swapped)

        target, endpoint = await hosts.staged(definition)
        halted, manifest = await hosts.delivered(source, endpoint)
        await target.load(manifest, halted.swapped)
        await target.run()
        await source.destroy()

        assert await target.verify() is None
        assert await target.ask("disk", "disk") == f"disk sha256={disk_sha256}"
        assert (await target.counts()).resident_bytes_max <= definition.resident_bytes + 64 * PAGE_BYTES
