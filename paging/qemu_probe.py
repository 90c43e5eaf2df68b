"""Which accelerator to use: KVM where a small guest really runs under it, TCG elsewhere.

That /dev/kvm opens says little: there are hosts on which firmware boots and ordinary kernels do not (DATAPLANE 11.9). So the
test guest has to fill a few pages and then beat, which needs interrupts, within a bounded time.
"""

import asyncio
import contextlib
import os
import re

from paging.native import BUILD, TEST_GUEST
from paging.process_identity import boot_id
from paging.qemu_build import QemuBuild

PROBE_S = 3.0
_ALIVE = re.compile(rb"filled.*\n\.+\.\.", re.DOTALL)


async def choose_accelerator(build: QemuBuild) -> str:
    """ "kvm" or "tcg". Probes once for each boot of the host and QEMU, and remembers."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    remembered = BUILD / "native" / f"accelerator-{boot_id()}-{build.binary.stat().st_mtime_ns:x}"
    with contextlib.suppress(OSError):
        return remembered.read_text()
    chosen = "kvm" if await _runs_under_kvm(build) else "tcg"
    with contextlib.suppress(OSError):
        remembered.write_text(chosen)
    return chosen


async def _runs_under_kvm(build: QemuBuild) -> bool:
    words = ["-machine", "q35,accel=kvm", "-m", "32", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-serial", "stdio", "-kernel", str(TEST_GUEST), "-append", "fill=16"]
    environment: dict[str, str] = {}
    if build.root is not None:
        environment["LD_LIBRARY_PATH"] = str(build.root / "usr/lib/x86_64-linux-gnu")
        words = ["-L", str(build.root / "usr/share/qemu"), "-L", str(build.root / "usr/share/seabios"), *words]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        str(build.binary), *words, env=environment, stdin=quiet, stdout=asyncio.subprocess.PIPE, stderr=quiet
    )
    assert process.stdout is not None, "it is a pipe"
    try:
        return await asyncio.wait_for(_beats(process.stdout), PROBE_S)
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _beats(output: asyncio.StreamReader) -> bool:
    said = b""
    while data := await output.read(1 << 12):
        said += data
        if _ALIVE.search(said):
            return True
    return False
