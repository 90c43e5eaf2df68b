"""Keeps a pager on a guest for as long as its QEMU lives: one that ends unasked gets a successor, which takes over the table.

A guest without a pager stands still at its next fault, so a spare one waits beside the one at work, with everything imported.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from paging import fault_points
from paging.device import DevicePath
from paging.errors import GuestError, PagingError
from paging.pager_client import ASK_S, PagerProcess
from paging.pager_wire import encode_slots
from paging.process_identity import boot_id, is_running, read_pid, write_pid
from paging.slots import SlotSet
from paging.table_header import Process

RESTARTS_MAX = 20
"""Pagers in a row that end at once; more are a defect: the guest waits, and its watcher is told"""
AT_ONCE_S = 0.05
END_S = 1.0
"""How long after it fell silent a pager may take to end"""
ADOPTED_S = 5.0
"""How soon a pager that was found answers, or is replaced"""
ASKED_AGAIN = frozenset({"arm", "start", "freeze", "thaw", "counts", "swapped", "retry", "clean"})
"""What a successor answers as its predecessor would have; of a delivery it knows nothing"""


@attrs.frozen(kw_only=True)
class Post:
    """What a pager needs to know of its guest."""

    instance: str
    shim: Path
    table: Path
    log: Path
    pid_file: Path
    control: Path
    machine: Process
    """QEMU"""
    limit: int
    devices: tuple[DevicePath, ...]

    def attach_arguments(self) -> dict[str, Any]:
        """The arguments of the request `attach`."""
        return {
            "shim": str(self.shim), "table": str(self.table), "control": str(self.control), "instance": self.instance,
            "boot_id": boot_id(), "limit": self.limit,
            "devices": [[device.name, str(device.path), device.uuid] for device in self.devices],
        }  # fmt: skip


class PagerKeeper:
    """`told` hears what the pager says unasked; "pager-ended" when it will say no more; "pager-restarted" when a successor has
    taken over, with the reason; and "pager-died" when none could."""

    def __init__(self, post: Post, told: Callable[[str, str], None]) -> None:
        self._post, self._told = post, told
        self._armed: Mapping[str, SlotSet] = {}
        self._pager: PagerProcess | None = None
        self._spare: PagerProcess | None = None
        self._ready = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._rehearsal: asyncio.Task[None] | None = None
        self._arming: asyncio.Future[None] | None = None
        self.restarts = 0
        self.takeovers_s: list[float] = []
        """for each restart, from the end of a pager until its successor answered faults"""

    @property
    def has_spare(self) -> bool:
        """A successor waits and is ready."""
        return self._spare is not None and self._rehearsal is not None and self._rehearsal.done()

    @property
    def pid(self) -> int | None:
        """The present pager's process."""
        return self._pager.pid if self._pager else None

    async def start(self) -> None:
        """Start a pager and let it take over the guest. Raises what the pager met (`DeviceError`, `GuestError`, ...)."""
        await self._appoint(await self._spawn(fault_points.specification()))
        self._keep_it()

    async def adopt(self) -> bool:
        """Go on with the pager that an earlier process left with this guest. False: there is none."""
        process = read_pid(self._post.pid_file)
        pager = PagerProcess.adopt(process, self._post.control, self._told) if process is not None else None
        if pager is None:
            return False
        try:
            await pager.ask("counts", timeout_s=ADOPTED_S)
        except GuestError:
            # About to end, or unable to: one that answers nobody is of no use to its guest.
            await pager.kill()
            return False
        self._pager = pager
        self._ready.set()
        self._keep_it()
        return True

    def _keep_it(self) -> None:
        fault_points.followers.append(self._hand_on)
        self._keeping = asyncio.create_task(self._keep(), name=f"keeper of {self._post.instance}")

    async def ask(self, name: str, *, timeout_s: float = ASK_S, **arguments: Any) -> Any:
        """Ask the present pager; waits for a successor that is being started, and asks that one again where it can tell."""
        pager = await self._present(timeout_s)
        try:
            return await pager.ask(name, timeout_s=timeout_s, **arguments)
        except GuestError:
            if name not in ASKED_AGAIN or not await pager.ends_within(END_S) or not is_running(self._post.machine):
                raise
        if self._pager is pager:
            self._ready.clear()
        return await (await self._present(timeout_s)).ask(name, timeout_s=timeout_s, **arguments)

    async def _present(self, timeout_s: float) -> PagerProcess:
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError as error:
            raise GuestError(f"{self._post.instance} has no pager") from error
        if self._pager is None:
            raise GuestError(f"{self._post.instance} has no pager any more")
        return self._pager

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

    def _hand_on(self, faults: str) -> None:
        self._arming = asyncio.ensure_future(self._arm_faults(faults))

    async def _arm_faults(self, faults: str) -> None:
        with contextlib.suppress(GuestError):
            await self.ask("faults", specification=faults)

    async def _stop_keeping(self) -> None:
        if self._hand_on in fault_points.followers:
            fault_points.followers.remove(self._hand_on)
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.kill()

    async def _spawn(self, faults: str) -> PagerProcess:
        return await PagerProcess.spawn(self._post.log, self._told, faults)

    async def _appoint(self, pager: PagerProcess) -> None:
        """Let this one take over the guest."""
        self._pager = pager
        write_pid(self._post.pid_file, pager.pid)
        await pager.ask("attach", **self._post.attach_arguments(), armed=encode_slots(self._armed))
        self._ready.set()

    async def _keep(self) -> None:
        """Until closed, or QEMU has ended."""
        at_once = 0
        while at_once < RESTARTS_MAX:
            assert self._pager is not None, "started before it is kept"
            began = time.monotonic()
            if self._spare is None:
                await self._prepare()
            # Its exit, not only its silence: nothing of it may write a slot when the next one begins.
            await self._pager.wait()
            if not is_running(self._post.machine):
                return
            ended = time.monotonic()
            self._ready.clear()
            await self._pager.hang_up()
            self._told("pager-ended", f"{self._post.instance}: its pager ended unasked")
            at_once = at_once + 1 if ended - began < AT_ONCE_S else 0
            try:
                await self._replace()
            except (PagingError, OSError) as error:
                await self._give_up(f"its pager ended and no successor could take over: {error}")
                return
            self.restarts += 1
            self.takeovers_s.append(time.monotonic() - ended)
            self._told("pager-restarted", f"{self._post.instance}: its pager ended unasked")
        await self._give_up(f"its pager ended {self.restarts} times; the guest waits")

    async def _prepare(self) -> None:
        self._spare = await self._spawn(fault_points.lasting())
        self._rehearsal = asyncio.create_task(self._rehearse(self._spare))

    async def _rehearse(self, spare: PagerProcess) -> None:
        """Until it has imported everything, and holds the guest's memory."""
        with contextlib.suppress(GuestError):
            await spare.ask("prepare", shim=str(self._post.shim))

    async def _give_up(self, why: str) -> None:
        pager, self._pager = self._pager, None
        if pager is not None:
            await pager.kill()
        self._ready.set()
        self._told("pager-died", f"{self._post.instance}: {why}")

    async def _replace(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.is_alive:
            try:
                await self._appoint(spare)
            except GuestError:
                if spare.is_alive:
                    raise
            else:
                return
        await self._appoint(await self._spawn(fault_points.lasting()))
