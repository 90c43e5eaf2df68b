"""The `Guest` of a real machine: QEMU under the preload library, with a pager of its own.

Order matters at the start: QEMU writes to its RAM before it greets on QMP, and those writes are faults, so the pager is at
work before QMP is asked anything.
"""

import asyncio
import contextlib
from collections.abc import Mapping

import attrs

from paging.device import DevicePath
from paging.errors import GuestError
from paging.guest import Endpoint, Guest, Halted, Manifest, PageCounts, Seat, Watcher
from paging.pager_keeper import PagerKeeper, Post
from paging.pager_wire import decode_slots, encode_slots
from paging.process_identity import kill_leftover
from paging.qemu_build import QemuBuild
from paging.qemu_console import Console, fields
from paging.qemu_devices import check_definition
from paging.qemu_inspection import inspect_machine
from paging.qemu_probe import choose_accelerator
from paging.qemu_process import Files, QemuProcess, User, start_qemu
from paging.qemu_qmp import Qmp
from paging.qemu_state import announce, load_state, prepare_state, save_state
from paging.slots import SlotSet

DELIVERY_S = 600.0
"""A whole transfer; its single steps have shorter deadlines of their own"""
DELIVERED_S = 30.0
"""How long `load` waits for a delivery whose manifest is known already"""
STOP_S = 10.0
HELD_S = 5.0
"""A fault that is unanswered for so long will not be answered soon"""
BOOT_SILENCE_S = 120.0
"""A Linux that boots says nothing for a while"""


@attrs.frozen(kw_only=True)
class Machine:
    """The parts of a started guest."""

    qemu: QemuProcess
    pager: PagerKeeper
    qmp: Qmp
    console: Console


class QemuGuest(Guest):
    """`build`: which QEMU (default: the system's). `accelerator`: "kvm", "tcg", or None to probe. `user`: whom it runs as."""

    def __init__(
        self, seat: Seat, *, build: QemuBuild | None = None, accelerator: str | None = None, user: User | None = None
    ) -> None:
        self.seat = seat
        self._vm = seat.definition.vm
        self._build, self._accelerator, self._user = build, accelerator, user or User()
        self._files = Files(seat.directory)
        self._machine: Machine | None = None
        self._starting: tuple[QemuProcess | None, PagerKeeper | None] = (None, None)
        self._phase = "nothing"
        self._armed: Mapping[str, SlotSet] = {}
        self._endpoint: Endpoint | None = None
        self._halted: Halted | None = None
        self._state = b""
        self._watchers: list[Watcher] = []
        self._stalled: str | None = None
        self._watching: asyncio.Task[None] | None = None
        self._steps = asyncio.Lock()

    # From phase to phase

    async def boot(self) -> None:
        """Returns when the guest has said that it is there; its fill goes on, and `verify` waits for it."""
        async with self._steps:
            if self._phase == "running":
                return
            machine = await self._start(is_incoming=False)
            await machine.pager.ask("start")
            await machine.qmp.call("cont")
            self._phase = "running"
            if self.seat.definition.kernel is None:
                # Before that it would not hear what it is asked: its serial port is not set up.
                await machine.console.hear("ready", silence_s=BOOT_SILENCE_S)

    async def stage(self) -> Endpoint:
        """QEMU waits for its state with empty memory, the pager listens."""
        async with self._steps:
            if self._phase == "nothing":
                machine = await self._start(is_incoming=True)
                await prepare_state(machine.qmp)
                self._endpoint = Endpoint(**await machine.pager.ask("listen", host=self.seat.listen_host))
                self._phase = "staged"
            if self._phase != "staged" or self._endpoint is None:
                raise self._wrong_phase("stage")
            return self._endpoint

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """Also before `boot` and `stage`: the pager is told when it is there."""
        self._armed = dict(slots)
        if self._machine is not None:
            await self._machine.pager.arm(self._armed)

    async def halt(self) -> Halted:
        """Stop, save the state, freeze the table."""
        async with self._steps:
            if self._phase == "frozen" and self._halted is not None:
                return self._halted
            machine = self._need("halt", "running")
            counts = await self.counts()
            if counts.stalled:
                raise GuestError(f"{self._vm}: cannot be halted: {counts.stalled}")
            await machine.qmp.call("stop", timeout_s=STOP_S)
            self._state = await self._save(machine)
            frozen = await machine.pager.ask("freeze")
            self._halted = Halted(swapped=decode_slots(frozen["swapped"]), counts=PageCounts(**frozen["counts"]))
            self._phase = "frozen"
            return self._halted

    async def _save(self, machine: Machine) -> bytes:
        try:
            await prepare_state(machine.qmp)
            return await save_state(machine.qmp)
        except GuestError:
            # Nothing has changed for the guest: it goes on as if nobody had asked.
            with contextlib.suppress(GuestError):
                await machine.qmp.call("cont")
            raise

    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:
        """The pager sends; it holds contents and table."""
        machine = self._need("send", "frozen")
        sent = await machine.pager.ask(
            "send", endpoint=attrs.asdict(endpoint), near=sorted(near), state=self._state, timeout_s=DELIVERY_S
        )
        return Manifest(**sent)

    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """Memory first, then the device state, which reads some of it."""
        async with self._steps:
            if self._phase == "loaded":
                return
            machine = self._need("load", "staged")
            delivered = {"manifest": attrs.asdict(manifest), "granted": encode_slots(granted), "wait_s": DELIVERED_S}
            state = await machine.pager.ask("accept", timeout_s=2 * DELIVERED_S, **delivered)
            await load_state(machine.qmp, state)
            self._phase = "loaded"

    async def run(self) -> None:
        """The pager is told first: the guest writes to its memory from the first moment on."""
        async with self._steps:
            if self._phase == "running":
                return
            machine = self._need("run", "loaded", "frozen")
            await machine.pager.ask("thaw")
            await machine.qmp.call("cont")
            self._phase, self._halted, self._state = "running", None, b""
            await announce(machine.qmp)

    async def destroy(self) -> None:
        """Also of what an earlier process left in the same directory."""
        self._phase = "destroyed"
        if self._watching is not None:
            self._watching.cancel()
        qemu, pager = self._starting
        if qemu is not None:
            await qemu.kill()
        if pager is not None:
            await pager.close()
        if self._machine is not None:
            await self._machine.qmp.close()
            await self._machine.console.close()
        for left in (self._files.qemu_pid, self._files.pager_pid):
            kill_leftover(left)
        self._machine, self._starting = None, (None, None)
        for file in self._files.all():
            file.unlink(missing_ok=True)

    # What can be asked

    async def counts(self) -> PageCounts:
        """From the pager."""
        return PageCounts(**await self._running_machine().pager.ask("counts"))

    async def swapped(self) -> Mapping[str, SlotSet]:
        """From the pager's table."""
        return decode_slots(await self._running_machine().pager.ask("swapped"))

    async def verify(self) -> str | None:
        """The test guest checks all its pages; so does our Linux guest's init."""
        self._need("verify", "running")
        asked = asyncio.ensure_future(self.ask("verify", "verified"))
        reason: str | None = None
        while not (await asyncio.wait({asked}, timeout=HELD_S))[0]:
            if reason is not None and reason == self._stalled:
                asked.cancel()
                raise GuestError(f"{self._vm}: the guest is held: {reason}")
            reason = self._stalled
        found = fields(asked.result())
        return None if found.get("bad") == 0 and not found.get("bad_ever") else asked.result()

    async def ask(self, command: str, answer: str) -> str:
        """Say a command on the serial line and wait for the message that begins with `answer` (paging/native/guest/main.c)."""
        return await self._running_machine().console.ask(command, answer)

    def watch(self, watcher: Watcher) -> None:
        """Called from the event loop."""
        self._watchers.append(watcher)
        if self._stalled is not None:
            watcher("stalled", self._stalled)

    @property
    def pids(self) -> tuple[int | None, int | None]:
        """QEMU's and the pager's process."""
        machine = self._machine
        return (machine.qemu.pid, machine.pager.pid) if machine else (None, None)

    # How it is done

    async def _start(self, *, is_incoming: bool) -> Machine:
        if self._phase != "nothing":
            raise self._wrong_phase("start")
        check_definition(self.seat.definition)
        build = self._build or QemuBuild.system()
        accelerator = self._accelerator or await choose_accelerator(build)
        self.seat.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        qemu = await start_qemu(
            self.seat.definition, self._files, build=build, user=self._user, accelerator=accelerator, is_incoming=is_incoming
        )
        self._starting = (qemu, None)
        try:
            self._machine = await self._equip(qemu)
        except GuestError as error:
            words = qemu.last_words()
            await self._abandon()
            raise type(error)(f"{error}; QEMU's last words: {words or 'none'}") from error
        except BaseException:
            await self._abandon()
            raise
        self._watching = asyncio.create_task(self._watch(qemu), name=f"watch {self._vm}")
        return self._machine

    async def _abandon(self) -> None:
        await self.destroy()
        self._phase = "nothing"

    async def _equip(self, qemu: QemuProcess) -> Machine:
        pager = PagerKeeper(self._post(self.seat.devices), self._hear)
        self._starting = (qemu, pager)
        await pager.arm(self._armed)
        await pager.start()
        qmp = Qmp(self._vm)
        await qmp.connect(self._files.qmp)
        await inspect_machine(self._vm, qmp)
        console = await Console.open(self._vm, self._files.console)
        return Machine(qemu=qemu, pager=pager, qmp=qmp, console=console)

    def _post(self, devices: tuple[DevicePath, ...]) -> Post:
        files = self._files
        return Post(
            instance=self.seat.instance, shim=files.shim, table=files.table, log=files.pager_log, pid_file=files.pager_pid,
            limit=self.seat.definition.resident_pages, devices=devices,
        )  # fmt: skip

    async def _watch(self, qemu: QemuProcess) -> None:
        code = await qemu.wait()
        self._hear("died", f"{self._vm}: QEMU ended with {code}; its last words: {qemu.last_words() or 'none'}")

    def _hear(self, what: str, sentence: str) -> None:
        if what == "stalled":
            self._stalled = sentence
        elif what == "unstalled":
            self._stalled = None
        for watcher in self._watchers:
            watcher("died" if what == "pager-died" else what, sentence)

    def _running_machine(self) -> Machine:
        if self._machine is None:
            raise GuestError(f"{self._vm}: there is no machine ({self._phase})")
        return self._machine

    def _need(self, step: str, *phases: str) -> Machine:
        if self._phase not in phases:
            raise self._wrong_phase(step)
        return self._running_machine()

    def _wrong_phase(self, step: str) -> GuestError:
        return GuestError(f"{self._vm}: cannot {step} a guest that is {self._phase}")
