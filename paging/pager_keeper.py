"""Keeps a pager on a guest for as long as its QEMU lives: one that ends unasked gets a successor, which takes over the table."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from paging.device import DevicePath
from paging.errors import GuestError, PagingError
from paging.pager_client import ASK_S, PagerProcess
from paging.pager_wire import encode_slots
from paging.process_identity import boot_id, write_pid
from paging.slots import SlotSet

RESTARTS_MAX = 20
"""A pager that keeps ending is a defect; the guest waits, and its watcher is told"""


@attrs.frozen(kw_only=True)
class Post:
    """What a pager needs to know of its guest."""

    instance: str
    shim: Path
    table: Path
    log: Path
    pid_file: Path
    limit: int
    devices: tuple[DevicePath, ...]

    def attach_arguments(self) -> dict[str, Any]:
        """The arguments of the request `attach`."""
        return {
            "shim": str(self.shim), "table": str(self.table), "instance": self.instance, "boot_id": boot_id(),
            "limit": self.limit,
            "devices": [[device.name, str(device.path), device.uuid] for device in self.devices],
        }  # fmt: skip


class PagerKeeper:
    """`told` hears what the pager says unasked, and "pager-died" when no successor could be started."""

    def __init__(self, post: Post, told: Callable[[str, str], None]) -> None:
        self._post, self._told = post, told
        self._armed: Mapping[str, SlotSet] = {}
        self._pager: PagerProcess | None = None
        self._ready = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The present pager's process."""
        return self._pager.pid if self._pager else None

    async def start(self) -> None:
        """Start a pager and let it take over the guest. Raises what the pager met (`DeviceError`, `GuestError`, ...)."""
        await self._start_one()
        self._keeping = asyncio.create_task(self._keep(), name=f"keeper of {self._post.instance}")

    async def ask(self, name: str, *, timeout_s: float = ASK_S, **arguments: Any) -> Any:
        """Ask the present pager; waits for a successor that is being started."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError as error:
            raise GuestError(f"{self._post.instance} has no pager") from error
        if self._pager is None:
            raise GuestError(f"{self._post.instance} has no pager any more: it was destroyed")
        return await self._pager.ask(name, timeout_s=timeout_s, **arguments)

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """Arm the present pager and each successor."""
        self._armed = dict(slots)
        if self._pager is not None:
            await self.ask("arm", slots=encode_slots(slots))

    async def let_go(self) -> None:
        """Hang up; the pager goes on without anybody who keeps it."""
        await self._stop_keeping()
        if self._pager is not None:
            await self._pager.hang_up()
            self._pager = None

    async def close(self) -> None:
        """End the pager and await it. Idempotent."""
        await self._stop_keeping()
        if self._pager is not None:
            await self._pager.kill()
            self._pager = None
        # Whoever waits for a successor learns that there is none.
        self._ready.set()

    async def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None

    async def _start_one(self) -> None:
        pager = self._pager = await PagerProcess.spawn(self._post.log, self._told)
        write_pid(self._post.pid_file, pager.pid)
        await pager.ask("attach", **self._post.attach_arguments())
        if self._armed:
            await pager.ask("arm", slots=encode_slots(self._armed))
        self._ready.set()

    async def _keep(self) -> None:
        """Until closed: await the pager's end (so that nothing of it writes a slot any more), then start the next."""
        while self.restarts < RESTARTS_MAX:
            assert self._pager is not None, "started before it is kept"
            if await self._pager.wait() == 0:
                # By itself: QEMU has ended.
                return
            self._ready.clear()
            await self._pager.kill()
            self.restarts += 1
            try:
                await self._start_one()
            except (PagingError, OSError) as error:
                self._told("pager-died", f"{self._post.instance}: its pager ended and no successor could take over: {error}")
                return
        self._told("pager-died", f"{self._post.instance}: its pager ended {self.restarts} times; the guest waits")
