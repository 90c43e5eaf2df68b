"""The `Guest` of a real machine: QEMU under the preload library, with a pager of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import attrs

from paging.errors import GuestError, MachineGone
from paging.guest import Endpoint, Guest, Halted, Manifest, PageCounts, Seat, Watcher
from paging.pager_wire import decode_slots, encode_slots
from paging.process_identity import end_leftover
from paging.qemu_build import QemuBuild
from paging.qemu_console import fields
from paging.qemu_machine import How, Machine, adopt_machine, phase_of, remember_arms, start_machine
from paging.qemu_process import Files, User
from paging.qemu_qmp import Qmp
from paging.qemu_state import announce, load_state, prepare_state, save_state
from paging.slots import SlotSet
from paging.swap_table import Phase

DELIVERY_S = 600.0
"""A whole transfer; its single steps have shorter deadlines of their own"""
DELIVERED_S = 30.0
"""How long `load` waits for a delivery whose manifest is known already"""
STOP_S = 10.0
HELD_S = 5.0
"""A fault that is unanswered for so long will not be answered soon"""
DEATH_S = 0.5
"""A machine that does not answer may be about to be seen dead"""
BOOT_SILENCE_S = 120.0
"""A Linux that boots says nothing for a while"""


class QemuGuest(Guest):
    """`build`: which QEMU (default: the system's). `accelerator`: "kvm", "tcg", or None to probe. `user`: whom it runs as."""

    def __init__(
        self, seat: Seat, *, build: QemuBuild | None = None, accelerator: str | None = None, user: User | None = None
    ) -> None:
        self.seat = seat
        self._vm = seat.definition.vm
        self._how = How(build=build, accelerator=accelerator, user=user or User())
        self._files = Files(seat.directory)
        self._watchers: list[Watcher] = []
        self._steps = asyncio.Lock()
        self._undo = contextlib.AsyncExitStack()
        self._armed: Mapping[str, SlotSet] = {}
        self._forget()

    def _forget(self) -> None:
        self._phase = "nothing"
        self._machine: Machine | None = None
        self._endpoint: Endpoint | None = None
        self._halted: Halted | None = None
        self._state = b""
        """the stopped machine's device state; empty while it runs"""
        self._lost = ""
        """why there is no guest any more, although nobody destroyed it"""
        self._stalled: str | None = None
        self._watching: asyncio.Task[None] | None = None
        self._adopted = False

    # From phase to phase

    async def boot(self) -> None:
        """Returns when our guests have filled their memory, and with a kernel of others' when QEMU runs."""
        async with self._steps:
            if self._phase == "nothing":
                async with self._starting(is_incoming=False) as machine:
                    await machine.pager.ask("start")
                    await machine.qmp.call("cont")
                    self._phase = "running"
            machine = self._need("boot", "running")
            is_ours = self.seat.definition.kernel is None and not self._files.filled.exists()
        if not is_ours:
            return
        async with self._unless_gone():
            if self._adopted:
                # It may have been said while nobody listened; a guest of ours checks its memory when it has filled it.
                await machine.console.ask("verify", "verified", silence_s=BOOT_SILENCE_S)
            else:
                await machine.console.hear("filled", silence_s=BOOT_SILENCE_S)
        self._files.filled.touch()

    async def stage(self) -> Endpoint:
        """QEMU waits for its state with empty memory, the pager listens."""
        async with self._steps:
            if self._phase == "nothing":
                async with self._starting(is_incoming=True) as machine:
                    await prepare_state(machine.qmp)
                    self._endpoint = Endpoint(**await machine.pager.ask("listen", host=self.seat.listen_host))
                    self._phase = "staged"
            self._need("stage", "staged")
            assert self._endpoint is not None, "a staged guest listens"
            return self._endpoint

    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """Also before `boot` and `stage`: the pager is told when it is there."""
        self._armed = dict(slots)
        if self._machine is not None:
            remember_arms(self._files, self._armed)
            await self._machine.pager.arm(self._armed)

    async def halt(self) -> Halted:
        """Stop, save the state, freeze the table."""
        async with self._steps, self._unless_gone():
            machine = self._need("halt", "running", "frozen")
            if self._halted is not None:
                return self._halted
            if self._phase == "running":
                await self._stop(machine)
            frozen = await machine.pager.ask("freeze")
            self._phase = "frozen"
            self._halted = Halted(swapped=decode_slots(frozen["swapped"]), counts=PageCounts(**frozen["counts"]))
            return self._halted

    async def _stop(self, machine: Machine) -> None:
        stalled = (await self.counts()).stalled
        if stalled is not None:
            raise GuestError(f"{self._vm}: cannot be halted: {stalled}")
        if self._state:
            return
        try:
            await machine.qmp.call("stop", timeout_s=STOP_S)
            await prepare_state(machine.qmp)
            self._state = await save_state(machine.qmp)
            self._files.state.write_bytes(self._state)
        except GuestError:
            # Nothing has changed for the guest: it goes on as if nobody had asked.
            with contextlib.suppress(GuestError):
                await machine.qmp.call("cont")
            raise

    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:
        """The pager sends; it holds contents and table."""
        machine = self._need("send", "frozen")
        delivery = {"endpoint": attrs.asdict(endpoint), "near": sorted(near), "state": self._state}
        async with self._unless_gone():
            return Manifest(**await machine.pager.ask("send", timeout_s=DELIVERY_S, **delivery))

    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """Memory first, then the device state, which reads some of it."""
        async with self._steps, self._unless_gone():
            machine = self._need("load", "staged", "loading", "loaded")
            if self._phase == "staged":
                delivered = {"manifest": attrs.asdict(manifest), "granted": encode_slots(granted), "wait_s": DELIVERED_S}
                self._state = await machine.pager.ask("accept", timeout_s=2 * DELIVERED_S, **delivered)
                self._phase = "loading"
            if self._phase == "loading":
                await load_state(machine.qmp, self._state)
                self._phase, self._state = "loaded", b""

    async def run(self) -> None:
        """The pager is told first: the guest writes to its memory from the first moment on."""
        async with self._steps, self._unless_gone():
            machine = self._need("run", "loaded", "frozen", "running")
            if self._phase == "running":
                return
            await machine.pager.ask("thaw")
            await self._continue(machine.qmp)

    async def _continue(self, qmp: Qmp) -> None:
        await qmp.call("cont")
        self._phase, self._halted, self._state = "running", None, b""
        # The guest runs, whatever comes of this: it speaks up itself when it next sends something.
        with contextlib.suppress(GuestError):
            await announce(qmp)

    async def adopt(self) -> bool:
        """In whatever phase it is. What is neither running nor waiting for its pages or its state is cleared away."""
        async with self._steps:
            if self._machine is not None:
                return self._machine.qemu.is_alive
            try:
                machine = await adopt_machine(self.seat, self._hear, self._undo)
                if machine is not None and await self._recognise(machine):
                    self._take(machine)
                    self._adopted = True
                    return True
            except BaseException:
                # Whatever is there stays there for the next attempt.
                self._undo = contextlib.AsyncExitStack()
                self._forget()
                raise
            await self.destroy()
            return False

    async def _recognise(self, machine: Machine) -> bool:
        """Find out in which phase the machine is, and finish what was under way for a moment only. False: it had not begun."""
        status = (await machine.qmp.call("query-status"))["status"]
        phase = phase_of(self._files)
        if phase in (Phase.EMPTY, Phase.FILLING) or (phase is Phase.LOADED and status == "inmigrate"):
            # A delivery goes on as long as its receiver lives. One that arrived is loaded when that is told again.
            endpoint = await machine.pager.ask("endpoint")
            self._phase, self._endpoint = "staged", Endpoint(**endpoint) if endpoint else None
            return endpoint is not None
        self._phase = phase.name.lower()
        if phase is Phase.FROZEN:
            self._state = self._files.state.read_bytes()
        elif phase is Phase.RUNNING and status != "running":
            # Halfway into a halt that nobody was told of, or out of one.
            await self._continue(machine.qmp)
        return True

    async def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """The pager copies by itself from here on."""
        async with self._unless_gone():
            await self._there().pager.ask("clean", granted=encode_slots(granted), pages_per_s=pages_per_s)

    async def let_go(self) -> None:
        """Hang up and forget; QEMU and pager go on, for `adopt` of whoever comes next."""
        machine = self._machine
        if self._watching is not None:
            self._watching.cancel()
        self._undo = contextlib.AsyncExitStack()
        self._forget()
        if machine is not None:
            await machine.qmp.close()
            await machine.console.close()
            await machine.pager.let_go()

    async def destroy(self) -> None:
        """Also of what an earlier process left in the same directory."""
        if self._watching is not None:
            self._watching.cancel()
        undo, self._undo = self._undo, contextlib.AsyncExitStack()
        self._forget()
        await undo.aclose()
        for left in (self._files.qemu_pid, self._files.pager_pid):
            await end_leftover(left)
        for file in self._files.all():
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.seat.directory.rmdir()

    # What can be asked

    async def counts(self) -> PageCounts:
        """From the pager; nothing but zeros before there is one."""
        if self._machine is None and not self._lost:
            total = self.seat.definition.pages
            return PageCounts(total=total, resident=0, swapped=0, zero=total)
        async with self._unless_gone():
            return PageCounts(**await self._there().pager.ask("counts"))

    async def swapped(self) -> Mapping[str, SlotSet]:
        """From the pager's table."""
        if self._machine is None and not self._lost:
            return {}
        async with self._unless_gone():
            return decode_slots(await self._there().pager.ask("swapped"))

    async def verify(self) -> str | None:
        """The test guest checks all its pages; so does our Linux guest's init."""
        self._need("verify", "running")
        asked = asyncio.ensure_future(self.ask("verify", "verified"))
        reason: str | None = None
        try:
            while not (await asyncio.wait({asked}, timeout=HELD_S))[0]:
                if reason is not None and reason == self._stalled:
                    raise GuestError(f"{self._vm}: the guest is held: {reason}")
                reason = self._stalled
        finally:
            asked.cancel()
        found = fields(asked.result())
        return None if found.get("bad") == 0 and not found.get("bad_ever") else asked.result()

    async def ask(self, command: str, answer: str) -> str:
        """Say a command on the serial line and wait for the message that begins with `answer` (paging/native/guest/main.c)."""
        async with self._unless_gone():
            return await self._there().console.ask(command, answer)

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

    @property
    def has_spare_pager(self) -> bool:
        """A pager waits for the death of the one at work."""
        return self._machine is not None and self._machine.pager.has_spare

    @property
    def pager_restarts(self) -> int:
        """How many pagers ended unasked and were replaced."""
        return self._machine.pager.restarts if self._machine else 0

    @property
    def pager_takeovers_s(self) -> Sequence[float]:
        """For each of them, from its end until its successor answered faults."""
        return tuple(self._machine.pager.takeovers_s) if self._machine else ()

    @property
    def silence_s_max(self) -> float:
        """The longest time without a sign of life of the guest (our test guest gives one every 10 ms while it runs)."""
        return self._machine.console.silence_s_max if self._machine else 0.0

    def forget_silence(self) -> None:
        """Measure `silence_s_max` anew from here on."""
        if self._machine is not None:
            self._machine.console.silence_s_max = 0.0

    # How it is done

    @contextlib.asynccontextmanager
    async def _starting(self, *, is_incoming: bool) -> AsyncIterator[Machine]:
        """A new machine; nothing is left of it if what is done with it fails."""
        undo = self._undo
        try:
            machine = await start_machine(self.seat, self._how, self._armed, self._hear, undo, is_incoming=is_incoming)
            if undo is not self._undo:
                # Destroyed meanwhile; what was started since then is on the old list.
                await undo.aclose()
                raise GuestError(f"{self._vm}: was destroyed while it started")
            self._take(machine)
            yield machine
        except BaseException:
            await self.destroy()
            raise

    def _take(self, machine: Machine) -> None:
        self._machine = machine
        self._watching = asyncio.create_task(self._watch(machine), name=f"watch {self._vm}")

    async def _watch(self, machine: Machine) -> None:
        how = await machine.qemu.wait()
        self._lose(f"{self._vm}: QEMU {how}; its last words: {machine.qemu.last_words() or 'none'}")

    def _hear(self, what: str, sentence: str) -> None:
        match what:
            case "pager-died":
                self._lose(sentence)
            case "pager-ended":
                # Its successor tries what stalled it again, and says so if it cannot answer either.
                if self._stalled is not None:
                    self._stalled = None
                    self._tell("unstalled", sentence)
            case "pager-restarted":
                # It had the listener, and half of a delivery. Once that is in the table the next pager knows it too.
                if self._phase == "staged":
                    self._lose(f"{sentence} while the guest was being delivered")
            case _:
                self._stalled = sentence if what == "stalled" else None
                self._tell(what, sentence)

    def _lose(self, sentence: str) -> None:
        """The guest is no more; told once."""
        if not self._lost:
            self._lost = sentence
            self._tell("died", sentence)

    def _tell(self, what: str, sentence: str) -> None:
        for watcher in self._watchers:
            watcher(what, sentence)

    def _there(self) -> Machine:
        if self._lost:
            raise MachineGone(self._lost)
        if self._machine is None:
            raise GuestError(f"{self._vm}: there is no machine")
        return self._machine

    @contextlib.asynccontextmanager
    async def _unless_gone(self) -> AsyncIterator[None]:
        """What fails because the machine has died raises `MachineGone`."""
        try:
            yield
        except GuestError as error:
            if self._watching is not None:
                await asyncio.wait([self._watching], timeout=DEATH_S)
            if self._lost and not isinstance(error, MachineGone):
                raise MachineGone(self._lost) from error
            raise

    def _need(self, step: str, *phases: str) -> Machine:
        machine = self._there() if self._phase != "nothing" else None
        if machine is None or self._phase not in phases:
            raise GuestError(f"{self._vm}: cannot {step} a guest that is {self._phase}")
        return machine
