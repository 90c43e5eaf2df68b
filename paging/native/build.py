"""Build what is not Python; does nothing where the result is newer than its sources. See the package's docstring."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paging.errors import PagingError
from paging.native import BUILD, LINUX_INITRD, LINUX_KERNEL, QEMU10, SHIM, SOURCES, TEST_GUEST

_SHIM_FLAGS = ("-shared", "-fPIC", "-pthread", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
_GUEST_FLAGS = (
    *("-m32", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static"),
    # No SSE, no position independence, no stack guard: nothing has set them up.
    *("-mgeneral-regs-only", "-fno-pic", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"),
)


class BuildFailed(PagingError):
    """A part cannot be built; the message carries the compiler's last words or the package to install."""


def build_shim() -> None:
    """The preload library (`paging.native.SHIM`)."""
    sources = [SOURCES / "shim.c"]
    if _is_stale(SHIM, [*sources, SOURCES / "shim.h"]):
        _compile(SHIM, [*_SHIM_FLAGS, *map(str, sources)])


def build_test_guest() -> None:
    """The bare-metal test guest (`paging.native.TEST_GUEST`)."""
    directory = SOURCES / "guest"
    sources = [directory / name for name in ("start.S", "machine.c", "pattern.c", "main.c")]
    script = directory / "guest.ld"
    if _is_stale(TEST_GUEST, [*sources, script, directory / "machine.h", directory / "pattern.h"]):
        _compile(TEST_GUEST, [*_GUEST_FLAGS, f"-Wl,-T,{script}", *map(str, sources), "-lgcc"])


def build_linux() -> None:
    """Kernel and initramfs of the Linux guest (`LINUX_KERNEL`, `LINUX_INITRD`)."""
    directory = SOURCES / "linux"
    parts = [directory / name for name in ("build.sh", "init")]
    if _is_stale(LINUX_KERNEL, parts[:1]) or _is_stale(LINUX_INITRD, parts):
        _run(["sh", str(parts[0]), str(LINUX_KERNEL.parent)], "the Linux guest")


def fetch_qemu10() -> None:
    """QEMU 10, unpacked under `paging.native.QEMU10`."""
    if not (QEMU10.parent / ".complete").exists():
        _run(["sh", str(SOURCES / "fetch_qemu10.sh"), str(QEMU10.parent)], "QEMU 10")


def _is_stale(result: Path, sources: Sequence[Path]) -> bool:
    return not result.exists() or any(source.stat().st_mtime > result.stat().st_mtime for source in sources)


def _compile(result: Path, arguments: Sequence[str]) -> None:
    if shutil.which("gcc") is None:
        raise BuildFailed("gcc is missing: apt-get install gcc gcc-multilib")
    result.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a QEMU that starts meanwhile loads the old library or the new one, never half of one.
    unfinished = result.with_suffix(".new")
    try:
        _run(["gcc", *arguments, "-o", str(unfinished)], result.name)
    except BuildFailed as error:
        remedy = "; a 32-bit compiler is needed: apt-get install gcc-multilib" if "-m32" in arguments else ""
        raise BuildFailed(f"{error}{remedy}") from error
    unfinished.rename(result)


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"building {what} failed ({' '.join(command[:2])} ...): {done.stdout.strip()[-2000:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: see the package's docstring."""
    parser = argparse.ArgumentParser(prog="python -m paging.native.build", description=__doc__)
    parser.add_argument("--linux", action="store_true", help="kernel and initramfs of the Linux guest (apt, network)")
    parser.add_argument("--qemu10", action="store_true", help="QEMU 10 from bookworm-backports (apt, network)")
    chosen = parser.parse_args(arguments)
    wanted: list[Callable[[], None]] = [build_linux] if chosen.linux else []
    wanted += [fetch_qemu10] if chosen.qemu10 else []
    try:
        for step in wanted or [build_shim, build_test_guest]:
            step()
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"built into {BUILD}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
