"""Start QEMU as an unprivileged process under the preload library, and end it."""

import asyncio
import contextlib
import os
import socket
from abc import ABC, abstractmethod
from pathlib import Path

import attrs

from paging.errors import GuestError
from paging.guest import Definition
from paging.native import LINUX_INITRD, LINUX_KERNEL, SHIM, TEST_GUEST
from paging.process_identity import end, ended, is_running, write_pid
from paging.qemu_build import QemuBuild
from paging.qemu_command import Inherited, command, disk_socket_path
from paging.table_header import Process
from paging.uffd import FEATURES, MODES
from paging.unix_sockets import listen

LOG_BYTES_SHOWN = 2000
_UFFD_DEVICE = Path("/dev/userfaultfd")


@attrs.frozen(kw_only=True)
class User:
    """Whom QEMU runs as, where we are root. The default is Debian's nobody:nogroup."""

    uid: int = 65534
    gid: int = 65534


class Files:
    """Where a guest's files lie in its private directory."""

    def __init__(self, directory: Path) -> None:
        self.ram = directory / "ram"
        self.table = directory / "swap-table"
        self.state = directory / "device-state"
        self.armed = directory / "armed"
        self.shim = directory / "shim.sock"
        self.qmp = directory / "qmp.sock"
        self.console = directory / "console.sock"
        self.log = directory / "qemu.log"
        self.pager_log = directory / "pager.log"
        self.qemu_pid = directory / "qemu.pid"
        self.pager_pid = directory / "pager.pid"
        self.filled = directory / "filled"
        self.pager_control = directory / "pager.sock"

    def all(self) -> tuple[Path, ...]:
        """Every one of them."""
        return tuple(vars(self).values())


class Qemu(ABC):
    """A QEMU that was started, by this process or by an earlier one."""

    pid: int

    def __init__(self, pid: int, files: Files) -> None:
        self.pid, self._files = pid, files

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """It has not been seen to end."""

    @abstractmethod
    async def wait(self) -> str:
        """Until it has ended; how."""

    @abstractmethod
    async def kill(self) -> None:
        """End it and await its end."""

    def last_words(self) -> str:
        """What it wrote to its log at the end, in one line."""
        with contextlib.suppress(OSError):
            return " / ".join(self._files.log.read_text(errors="replace").split("\n"))[-LOG_BYTES_SHOWN:].strip(" /")
        return ""


class StartedQemu(Qemu):
    """A child of this process."""

    def __init__(self, process: asyncio.subprocess.Process, files: Files) -> None:
        super().__init__(process.pid, files)
        self._process = process

    @property
    def is_alive(self) -> bool:
        """See `Qemu`."""
        return self._process.returncode is None

    async def wait(self) -> str:
        """See `Qemu`."""
        return f"ended with {await self._process.wait()}"

    async def kill(self) -> None:
        """See `Qemu`."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()


class AdoptedQemu(Qemu):
    """One that an earlier process started. `descriptor` is its pidfd and belongs to this object."""

    def __init__(self, process: Process, descriptor: int, files: Files) -> None:
        super().__init__(process.pid, files)
        self._identity, self._descriptor = process, descriptor

    @property
    def is_alive(self) -> bool:
        """See `Qemu`."""
        return is_running(self._identity)

    async def wait(self) -> str:
        """See `Qemu`. How is only told to its parent."""
        await ended(self._descriptor)
        return "ended"

    async def kill(self) -> None:
        """See `Qemu`."""
        await end(self._identity)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def start_qemu(
    definition: Definition, files: Files, *, build: QemuBuild, user: User, accelerator: str, is_incoming: bool
) -> Qemu:
    """Start a QEMU that stands still. RAM file and sockets are made here; raises `GuestError` where something is missing."""
    with contextlib.ExitStack() as stack:
        opened = _Descriptors(stack)
        inherited = _inherit(definition, files, build, user, opened)
        root = f"/proc/self/fd/{inherited.root}" if build.root is not None else ""
        program = f"{root}/{build.binary.relative_to(build.root)}" if build.root is not None else str(build.binary)
        environment = _environment(inherited.ram, files, accelerator, opened)
        if build.root is not None:
            environment["LD_LIBRARY_PATH"] = f"{root}/usr/lib/x86_64-linux-gnu"
        words = command(program, definition, inherited, accelerator=accelerator, is_incoming=is_incoming)
        log = opened.keep(os.open(files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        is_root = os.geteuid() == 0
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, pass_fds=tuple(opened.numbers), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, cwd="/",
            user=user.uid if is_root else None, group=user.gid if is_root else None, extra_groups=() if is_root else None,
        )  # fmt: skip
    write_pid(files.qemu_pid, process.pid)
    return StartedQemu(process, files)


class _Descriptors:
    """What is open here until QEMU has inherited it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.numbers: list[int] = []

    def keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        self.numbers.append(descriptor)
        return descriptor

    def path(self, path: Path | str, flags: int) -> int:
        return self.keep(os.open(path, flags))

    def listener(self, path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
        made = self._stack.enter_context(listen(path, kind))
        self.numbers.append(made.fileno())
        return made.fileno()


def _inherit(definition: Definition, files: Files, build: QemuBuild, user: User, opened: _Descriptors) -> Inherited:
    root = build.open_root()
    disks = [disk_socket_path(disk) for disk in definition.disks]
    kernel, initrd = _images(definition)
    try:
        return Inherited(
            ram=opened.keep(make_ram(files.ram, definition.memory_bytes, user)),
            kernel=opened.path(kernel, os.O_RDONLY), initrd=opened.path(initrd, os.O_RDONLY) if initrd else None,
            qmp=opened.listener(files.qmp), console=opened.listener(files.console),
            root=opened.keep(root) if root is not None else None,
            disk_sockets=tuple(opened.path(path, os.O_PATH) if path else None for path in disks),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise GuestError(f"{definition.vm}: {error.filename} is missing; make setup builds the guests' images") from error


def _images(definition: Definition) -> tuple[Path | str, Path | str | None]:
    """Kernel and initial file system: those that are named, or ours."""
    if definition.kernel is not None:
        return definition.kernel, definition.initrd
    if definition.boot == "linux":
        return LINUX_KERNEL, LINUX_INITRD
    return TEST_GUEST, None


def make_ram(path: Path, size: int, user: User) -> int:
    """The guest's RAM: an empty file of full length that QEMU's user may open. Raises `GuestError` if there is one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise GuestError(f"{path} is there already: another machine's RAM; destroy that instance first") from error
    os.ftruncate(descriptor, size)
    if os.geteuid() == 0:
        os.fchown(descriptor, user.uid, user.gid)
    return descriptor


def _environment(ram: int, files: Files, accelerator: str, opened: _Descriptors) -> dict[str, str]:
    status = os.fstat(ram)
    if not SHIM.exists():
        raise GuestError(f"{SHIM} is missing: make setup builds it")
    uffd = opened.path(_UFFD_DEVICE, os.O_RDWR) if os.access(_UFFD_DEVICE, os.R_OK | os.W_OK) else -1
    kvm = opened.path("/dev/kvm", os.O_RDWR) if accelerator == "kvm" else -1
    return {
        "LD_PRELOAD": f"/proc/self/fd/{opened.path(SHIM, os.O_RDONLY)}",
        "PATH": "/usr/bin:/bin",
        "SWAPFERRY_RAM": f"{status.st_dev}:{status.st_ino}",
        "SWAPFERRY_LISTEN": str(opened.listener(files.shim, socket.SOCK_SEQPACKET)),
        "SWAPFERRY_UFFD": str(uffd),
        "SWAPFERRY_FEATURES": str(FEATURES),
        "SWAPFERRY_MODES": str(MODES),
        "SWAPFERRY_PEER": str(os.geteuid()),
        "SWAPFERRY_KVM": str(kvm),
    }
