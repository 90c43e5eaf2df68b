"""The parts of a started guest (QEMU, its pager, QMP, the serial line), and the order in which they come up.

QEMU writes to its RAM before it greets on QMP, and those writes are faults: the pager is at work before QMP is asked anything.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import attrs
import msgpack

from paging.errors import GuestError
from paging.guest import Seat
from paging.pager_keeper import PagerKeeper, Post
from paging.pager_wire import decode_slots, encode_slots
from paging.process_identity import end_leftover, identify, open_exactly, read_pid
from paging.qemu_build import QemuBuild
from paging.qemu_console import Console
from paging.qemu_devices import check_definition
from paging.qemu_inspection import inspect_machine
from paging.qemu_probe import choose_accelerator
from paging.qemu_process import AdoptedQemu, Files, Qemu, User, start_qemu
from paging.qemu_qmp import Qmp
from paging.slots import SlotSet
from paging.swap_table import Phase, SwapTable

Hear = Callable[[str, str], None]


@attrs.frozen(kw_only=True)
class How:
    """How QEMU is run."""

    build: QemuBuild | None = None
    """default: the system's"""
    accelerator: str | None = None
    """"kvm" or "tcg"; default: probed"""
    user: User


@attrs.frozen(kw_only=True)
class Machine:
    """What a guest consists of while it exists."""

    qemu: Qemu
    pager: PagerKeeper
    qmp: Qmp
    console: Console


async def start_machine(
    seat: Seat, how: How, armed: Mapping[str, SlotSet], hear: Hear, undo: contextlib.AsyncExitStack, *, is_incoming: bool
) -> Machine:
    """A machine that stands still. What was started is on `undo` at any moment. Raises `GuestError` with QEMU's last words."""
    check_definition(seat.definition)
    files = Files(seat.directory)
    build = how.build or QemuBuild.system()
    accelerator = how.accelerator or await choose_accelerator(build)
    seat.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    remember_arms(files, armed)
    qemu = await start_qemu(
        seat.definition, files, build=build, user=how.user, accelerator=accelerator, is_incoming=is_incoming
    )
    undo.push_async_callback(qemu.kill)
    pager = _keeper(seat, qemu, hear, undo)
    with _last_words(qemu):
        await pager.arm(armed)
        await pager.start()
        return await _connect(seat, qemu, pager, undo)


async def adopt_machine(seat: Seat, hear: Hear, undo: contextlib.AsyncExitStack) -> Machine | None:
    """The machine that an earlier process left in this seat, with its pager or a successor; None where QEMU has ended."""
    files = Files(seat.directory)
    process = read_pid(files.qemu_pid)
    descriptor = open_exactly(process) if process is not None else None
    if process is None or descriptor is None:
        return None
    qemu = AdoptedQemu(process, descriptor, files)
    undo.push_async_callback(qemu.kill)
    pager = _keeper(seat, qemu, hear, undo)
    with _last_words(qemu):
        if not await pager.adopt():
            # One that cannot be reached may be in the middle of a write: its successor starts when it has ended.
            await end_leftover(files.pager_pid)
            await pager.start()
        await pager.arm(remembered_arms(files))
        return await _connect(seat, qemu, pager, undo)


def phase_of(files: Files) -> Phase:
    """What the guest's swap table says of it; "empty" without one."""
    if not files.table.exists():
        return Phase.EMPTY
    table = SwapTable.inspect(files.table)
    try:
        return table.phase
    finally:
        table.close()


def _keeper(seat: Seat, qemu: Qemu, hear: Hear, undo: contextlib.AsyncExitStack) -> PagerKeeper:
    files = Files(seat.directory)
    post = Post(
        instance=seat.instance, shim=files.shim, table=files.table, log=files.pager_log, pid_file=files.pager_pid,
        control=files.pager_control, machine=identify(qemu.pid), limit=seat.definition.resident_pages, devices=seat.devices,
    )  # fmt: skip
    pager = PagerKeeper(post, hear)
    undo.push_async_callback(pager.close)
    return pager


async def _connect(seat: Seat, qemu: Qemu, pager: PagerKeeper, undo: contextlib.AsyncExitStack) -> Machine:
    files, vm = Files(seat.directory), seat.definition.vm
    qmp = Qmp(vm)
    undo.push_async_callback(qmp.close)
    await qmp.connect(files.qmp)
    await inspect_machine(vm, qmp)
    console = await Console.open(vm, files.console)
    undo.push_async_callback(console.close)
    return Machine(qemu=qemu, pager=pager, qmp=qmp, console=console)


@contextlib.contextmanager
def _last_words(qemu: Qemu) -> Iterator[None]:
    try:
        yield
    except GuestError as error:
        raise type(error)(f"{error}; QEMU's last words: {qemu.last_words() or 'none'}") from error


def remember_arms(files: Files, armed: Mapping[str, SlotSet]) -> None:
    """For the pager that whoever adopts this guest will start; until it is armed anew it may write what this one might."""
    if files.armed.parent.exists():
        unfinished = files.armed.with_suffix(".new")
        unfinished.write_bytes(msgpack.packb(encode_slots(armed)))
        unfinished.rename(files.armed)


def remembered_arms(files: Files) -> Mapping[str, SlotSet]:
    """What was armed last; nothing where that is not known."""
    try:
        return decode_slots(msgpack.unpackb(files.armed.read_bytes()))
    except FileNotFoundError:
        return {}
