"""What a pager does when it is asked: each request is a method, named in a table.

Short requests are answered in the loop between two faults; those that wait for a network run in a thread of their own.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from paging import fault_points
from paging.device import DevicePath
from paging.device_on_demand import DeviceOnDemand
from paging.errors import GuestError, PagingError, TransferError
from paging.faulty_device import FaultyDevice
from paging.guest import Endpoint, Manifest
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.pager_cleaning import Cleaning
from paging.pager_wire import decode_slots, encode_slots
from paging.pages import Pages
from paging.process_identity import identify, open_process
from paging.swap_table import SwapTable
from paging.transfer import Listener, deliver
from paging.uffd import FEATURES, Uffd
from paging.uffd_memory import UffdMemory
from paging.uffd_shim import Hello, greet
from paging.unix_sockets import listen

Done = Callable[[Any], None]
Failed = Callable[[BaseException], None]

HELLO_S = 20.0


@attrs.frozen(kw_only=True)
class Attached:
    """A guest that this pager holds."""

    pages: Pages
    memory: UffdMemory
    machine: int
    """pidfd of QEMU: readable when it has ended"""
    door: socket.socket
    """where whoever comes later connects"""


class Requests:
    """`attached` and `tell` are the loop's: a guest was taken over; say something unasked."""

    def __init__(self, attached: Callable[[Attached], None], tell: Callable[[str, str], None]) -> None:
        self._attached, self._tell = attached, tell
        self._guest: Attached | None = None
        self._prepared: tuple[Hello, UffdMemory] | None = None
        self._short: Mapping[str, Callable[..., Any]] = {
            "attach": self._attach, "arm": self._arm, "start": self._start, "freeze": self._freeze, "thaw": self._thaw,
            "counts": self._counts, "swapped": self._swapped, "retry": self._retry, "listen": self._listen,
            "endpoint": self._endpoint, "clean": self._clean, "faults": fault_points.arm, "prepare": self._prepare,
        }  # fmt: skip
        self._long: Mapping[str, Callable[..., Any]] = {"send": self._send, "accept": self._accept}
        self._incoming: Incoming | None = None
        self._listener: Listener | None = None
        self._cleaning: Cleaning | None = None

    def obey(self, name: str, arguments: Mapping[str, Any], done: Done, failed: Failed) -> None:
        """Do what is asked and say `done` or `failed`, once, from whatever thread."""
        if name in self._short:
            _settle(self._short[name], arguments, done, failed)
        elif name in self._long:
            work = (self._long[name], arguments, done, failed)
            threading.Thread(target=_settle, args=work, name=name, daemon=True).start()
        else:
            failed(GuestError(f"this pager knows no request {name!r}"))

    @property
    def _pages(self) -> Pages:
        if self._guest is None:
            raise GuestError("the pager holds no guest yet")
        return self._guest.pages

    def _prepare(self, *, shim: str) -> None:
        """A spare pager gets hold of the guest's memory beforehand, which changes nothing for the guest. Not of its devices:
        a device that was cleaned up must not stay open here."""
        hello = greet(Path(shim), timeout_s=HELLO_S)
        memory = memory_of(hello)
        memory.resident()
        self._prepared = hello, memory

    def _attach(
        self, *, shim: str, table: str, control: str, instance: str, boot_id: str, limit: int, devices: list[list[str]],
        armed: dict[str, bytes],
    ) -> None:  # fmt: skip
        if self._guest is not None:
            return
        if self._prepared is None:
            self._prepare(shim=shim)
        assert self._prepared is not None, "just done"
        hello, memory = self._prepared
        paths = [DevicePath(name=name, path=Path(path), uuid=uuid) for name, path, uuid in devices]
        opened = {where.name: FaultyDevice(DeviceOnDemand(where)) for where in paths}
        swap_table = _table(Path(table), memory.pages, instance, boot_id, [where.uuid for where in paths])
        swap_table.belong_to(identify(hello.pid))
        pages = Pages(memory, swap_table, opened, limit=limit)
        pages.arm(decode_slots(armed))
        # There is one pager at a time: whose door this was has ended.
        Path(control).unlink(missing_ok=True)
        self._guest = Attached(pages=pages, memory=memory, machine=open_process(hello.pid), door=listen(Path(control)))
        self._cleaning = Cleaning(pages)
        # A pager before this one may have fenced pages and read faults that it did not answer, which the kernel delivers
        # once only: lift all fences and let every waiter ask again (DATAPLANE 4.2, 4.5).
        memory.release((0, memory.pages))
        self._attached(self._guest)

    def _arm(self, slots: dict[str, bytes]) -> None:
        self._pages.arm(decode_slots(slots))
        self._pages.retry()

    def _start(self) -> None:
        self._pages.start()

    def _freeze(self) -> dict[str, Any]:
        self._pages.freeze()
        halted = self._pages.halted()
        return {"swapped": encode_slots(halted.swapped), "counts": attrs.asdict(halted.counts)}

    def _thaw(self) -> None:
        self._pages.thaw()

    def _counts(self) -> dict[str, Any]:
        counts = self._pages.counts()
        return attrs.asdict(self._cleaning.cleaner.add_to(counts) if self._cleaning else counts)

    def _clean(self, granted: dict[str, bytes], pages_per_s: int) -> None:
        if self._cleaning is None:
            raise GuestError("the pager holds no guest yet")
        self._cleaning.want(decode_slots(granted), pages_per_s)

    def _swapped(self) -> dict[str, bytes]:
        return encode_slots(self._pages.swapped())

    def _retry(self) -> int:
        return self._pages.retry()

    def _listen(self, host: str) -> dict[str, Any]:
        if self._listener is None:
            self._incoming = Incoming(self._pages)
            self._listener = Listener(self._incoming, host)
            threading.Thread(target=self._listener.serve, name="listener", daemon=True).start()
        return attrs.asdict(self._listener.endpoint)

    def _endpoint(self) -> dict[str, Any] | None:
        """Where a staged guest listens; None where it does not."""
        return attrs.asdict(self._listener.endpoint) if self._listener is not None else None

    def _accept(self, manifest: dict[str, Any], granted: dict[str, bytes], wait_s: float) -> bytes:
        if self._listener is None or self._incoming is None:
            raise TransferError(f"{self._pages.table.instance}: this pager is not staged, nothing can have been delivered")
        self._listener.delivered.wait(wait_s)
        self._incoming.accept(Manifest(**manifest), decode_slots(granted))
        self._listener.close()
        return self._incoming.state

    def _send(self, endpoint: dict[str, Any], near: list[str], state: bytes) -> dict[str, Any]:
        return attrs.asdict(deliver(Endpoint(**endpoint), Outgoing(self._pages, frozenset(near), state)))


def memory_of(hello: Hello) -> UffdMemory:
    """The guest's RAM. Raises `GuestError` for a layout that this pager does not handle."""
    if len(hello.blocks) != 1 or hello.blocks[0].file_offset:
        raise GuestError(f"QEMU maps guest RAM in {len(hello.blocks)} blocks; only one whole file is supported")
    if hello.features & FEATURES != FEATURES:
        raise GuestError(f"the userfaultfd has features {hello.features:#x}, needed are {FEATURES:#x}")
    block = hello.blocks[0]
    return UffdMemory(Uffd(hello.uffd), block.descriptor, block.address)


def _table(path: Path, pages: int, instance: str, boot_id: str, devices: list[str]) -> SwapTable:
    if not path.exists():
        return SwapTable.create(path, pages=pages, instance=instance, boot_id=boot_id, devices=devices)
    table = SwapTable.open(path)
    if (table.instance, table.boot_id) != (instance, boot_id):
        raise PagingError(f"swap table {path} belongs to {table.instance} of boot {table.boot_id}; destroy that instance first")
    return table


def _settle(work: Callable[..., Any], arguments: Mapping[str, Any], done: Done, failed: Failed) -> None:
    try:
        answer = work(**arguments)
    except (PagingError, OSError, ValueError) as error:
        failed(error)
        return
    done(answer)
