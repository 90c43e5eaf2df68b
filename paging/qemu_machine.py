"""The parts of a started guest (QEMU, its pager, QMP, the serial line), and the order in which they come up.

QEMU writes to its RAM before it greets on QMP, and those writes are faults: the pager is at work before QMP is asked anything.
"""

import contextlib
from collections.abc import Callable, Mapping

import attrs
import msgpack

from paging.errors import GuestError
from paging.guest import Seat
from paging.pager_keeper import PagerKeeper, Post
from paging.pager_wire import decode_slots, encode_slots
from paging.process_identity import end_leftover, open_exactly, read_pid
from paging.qemu_build import QemuBuild
from paging.qemu_console import Console
from paging.qemu_devices import check_definition
from paging.qemu_inspection import inspect_machine
from paging.qemu_probe import choose_accelerator
from paging.qemu_process import AdoptedQemu, Files, Qemu, User, start_qemu
from paging.qemu_qmp import Qmp
from paging.slots import SlotSet

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
    return await _equip(seat, qemu, armed, hear, undo)


async def adopt_machine(seat: Seat, hear: Hear, undo: contextlib.AsyncExitStack) -> Machine | None:
    """The machine that an earlier process left in this seat, with a new pager; None where QEMU has ended."""
    files = Files(seat.directory)
    process = read_pid(files.qemu_pid)
    descriptor = open_exactly(process) if process is not None else None
    if process is None or descriptor is None:
        return None
    # The old pager may be in the middle of a write: its successor starts when it has ended.
    await end_leftover(files.pager_pid)
    qemu = AdoptedQemu(process, descriptor, files)
    undo.push_async_callback(qemu.kill)
    return await _equip(seat, qemu, remembered_arms(files), hear, undo)


async def _equip(
    seat: Seat, qemu: Qemu, armed: Mapping[str, SlotSet], hear: Hear, undo: contextlib.AsyncExitStack
) -> Machine:
    files = Files(seat.directory)
    pager = PagerKeeper(_post(seat, files), hear)
    undo.push_async_callback(pager.close)
    try:
        await pager.arm(armed)
        await pager.start()
        qmp = Qmp(seat.definition.vm)
        undo.push_async_callback(qmp.close)
        await qmp.connect(files.qmp)
        await inspect_machine(seat.definition.vm, qmp)
        console = await Console.open(seat.definition.vm, files.console)
        undo.push_async_callback(console.close)
    except GuestError as error:
        raise type(error)(f"{error}; QEMU's last words: {qemu.last_words() or 'none'}") from error
    return Machine(qemu=qemu, pager=pager, qmp=qmp, console=console)


def _post(seat: Seat, files: Files) -> Post:
    return Post(
        instance=seat.instance, shim=files.shim, table=files.table, log=files.pager_log, pid_file=files.pager_pid,
        limit=seat.definition.resident_pages, devices=seat.devices,
    )  # fmt: skip


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
