"""Plays a scenario: starts its world, defines its VMs, does its steps, looks at what came of it, takes the world down.

Everything is asked as a user would ask, with messages on the bus.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from actors.client import NoAnswer
from actors.domain.lifecycle import Outcome
from actors.messages import Cancel as CancelRequest
from actors.messages import Clean as CleanRequest
from actors.messages import Define, Inspect, Inspected, Verdict
from actors.messages import Migrate as MigrateRequest
from actors.runtime.clock import Clock
from actors.sagas.migration import MIGRATION
from paging.device import PAGE_BYTES
from paging.guest import Definition, Disk, Workload
from scenarios.errors import Failed
from scenarios.expectations import unmet
from scenarios.report import Asked, Played, Report, figures_of
from scenarios.scenario import (
    Cancel,
    Clean,
    Hold,
    Kill,
    Migrate,
    RefusePrepare,
    Release,
    RunFor,
    Scenario,
    Step,
    Verify,
    VmSpec,
    WaitCleaned,
    WaitHeld,
    WaitMoved,
    WaitSwapped,
)
from scenarios.snapshot import abroad, slots_away
from scenarios.world import World

START_S = 300.0
SWAP_S = 600.0
MIGRATE_S = 600.0
VERIFY_S = 600.0
HELD_S = 120.0
CLEAN_S = 300.0
LOOK_S = 30.0
PAUSE_S = 0.25


class Show(Protocol):
    """Who is told what happens now."""

    def __call__(self, doing: str, share: float | None = None) -> None:
        """This is being done; `share` of it is done already (None: nobody knows)."""


class Runner:
    """One run of one scenario."""

    def __init__(self, scenario: Scenario, world: World, clock: Clock, show: Show) -> None:
        self._scenario, self._world, self._clock, self._show = scenario, world, clock, show
        self._asked: list[Asked] = []
        self._pending: dict[str, asyncio.Task[Verdict]] = {}
        self._checks: list[tuple[float, bool]] = []
        self._broken: list[str] = []

    async def run(self, bus: str, guest: str) -> Report:
        """Play it and take everything down again, also when it fails or is cancelled."""
        started = self._clock.now()
        try:
            self._show("starting the hosts")
            await self._world.start()
            played = await self._play()
        finally:
            self._show("taking everything down")
            for task in self._pending.values():
                task.cancel()
            differences = await self._world.stop()
        return self._report(played, started, differences, bus, guest)

    async def _play(self) -> Played:
        after: dict[str, Inspected] = {}
        away = 0
        try:
            for vm in self._scenario.vms:
                await self._start(vm)
            for step in self._scenario.steps:
                await self._steps[type(step)](self, step)
            for name in list(self._pending):
                await self._verdict(name)
            after = {vm.name: await self._look(vm.name) for vm in self._scenario.vms}
            away = slots_away(self._world.kept())
        except (Failed, NoAnswer) as error:
            self._broken.append(str(error))
        return Played(
            migrations=tuple(self._asked), verified=self._verified(), after=after, broken=tuple(self._broken),
            slots_away=away,
        )  # fmt: skip

    def _verified(self) -> bool | None:
        last = max((asked.at for asked in self._asked), default=0.0)
        if not any(at >= last for at, _ in self._checks):
            return None
        return all(good for _, good in self._checks)

    def _report(self, played: Played, started: float, differences: list[str], bus: str, guest: str) -> Report:
        entries = self._world.entries()
        asked = played.migrations[-1] if played.migrations else None
        verdict = asked.verdict if asked is not None else None
        report = Report(
            name=self._scenario.about.name,
            outcome=str(verdict.outcome) if verdict is not None and not played.broken else "failed",
            played=played,
            figures=figures_of(asked, entries),
            entries=tuple(entries),
            started=played.migrations[0].at if played.migrations else started,
            bus=bus,
            guest=guest,
            broken=(),
        )
        broken = (*played.broken, *(unmet(self._scenario, report) if not played.broken else ()), *differences)
        return attrs.evolve(report, broken=broken)

    # -- steps

    async def _start(self, vm: VmSpec) -> None:
        self._show(f"starting {vm.name} on {vm.host}")
        client = self._world.client
        answer = await client.ask(Define(request=client.new_request(), definition=definition_of(vm), host=vm.host), START_S)
        if not isinstance(answer, Verdict) or answer.outcome is not Outcome.DONE:
            raise Failed(f"{vm.name} could not be started: {getattr(answer, 'reason', answer)}")

    async def _migrate(self, step: Migrate) -> None:
        self._show(f"migrating {step.vm} to {step.target}")
        client = self._world.client
        request = MigrateRequest(request=client.new_request(), vm=step.vm, target=step.target, reply_to=client.address)
        number = len(self._asked)
        self._asked.append(Asked(vm=step.vm, target=step.target, at=self._clock.now()))
        self._pending[step.vm] = asyncio.create_task(self._await_verdict(request, number, step))
        if step.wait:
            await self._verdict(step.vm)

    async def _await_verdict(self, request: MigrateRequest, number: int, step: Migrate) -> Verdict:
        verdict = await self._world.client.ask(request, MIGRATE_S)
        assert isinstance(verdict, Verdict), "a migration is answered by a verdict"
        self._asked[number] = attrs.evolve(self._asked[number], verdict=verdict, ended=self._clock.now())
        what = f"migrate {step.vm} to {step.target}"
        if step.expect and verdict.outcome != step.expect:
            self._broken.append(f"{what}: expected {step.expect}, it is {verdict.outcome} ({verdict.reason})")
        if step.reason not in verdict.reason:
            self._broken.append(f'{what}: the reason was expected to hold "{step.reason}", it is "{verdict.reason}"')
        return verdict

    async def _verdict(self, vm: str) -> None:
        task = self._pending.pop(vm, None)
        while task is not None and not task.done():
            await asyncio.wait([task], timeout=PAUSE_S)
            self._show_row(vm)
        if task is not None:
            task.result()

    def _show_row(self, vm: str) -> None:
        """How far the newest migration has come: its last row, or that it is being undone."""
        asked = self._asked[-1]
        done = [entry for entry in self._world.entries() if entry.t >= asked.at and entry.shown and entry.row]
        if done:
            names = [row.name for row in MIGRATION.rows]
            share = (names.index(done[-1].row) + 1) / len(names) if done[-1].row in names else None
            self._show(f"migrating {vm} to {asked.target}: {done[-1].row} {done[-1].event}", share)

    async def _cancel(self, step: Cancel) -> None:
        self._show(f"cancelling the migration of {step.vm}")
        client = self._world.client
        verdict = await client.ask(
            CancelRequest(request=client.new_request(), vm=step.vm, reply_to=client.address), MIGRATE_S
        )
        assert isinstance(verdict, Verdict), "a cancel is answered by a verdict"
        if step.expect and verdict.outcome != step.expect:
            self._broken.append(f"cancel {step.vm}: expected {step.expect}, it is {verdict.outcome} ({verdict.reason})")
        await self._verdict(step.vm)

    async def _verify(self, step: Verify) -> None:
        self._show(f"{step.vm} checks all of its memory")
        client = self._world.client
        asking = asyncio.create_task(client.ask(self._inspect(step.vm, verify=True), VERIFY_S))
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=2.0)
                await self._not_held(step.vm)
        finally:
            asking.cancel()
        answer = asking.result()
        assert isinstance(answer, Inspected), "an inspection is answered by what was found"
        self._checks.append((self._clock.now(), answer.ok))
        if not answer.ok:
            self._broken.append(f"verify {step.vm}: {answer.words}")

    async def _not_held(self, vm: str) -> None:
        counts = (await self._look(vm)).counts
        if counts is not None and counts.stalled:
            raise Failed(f"{vm} is held: {counts.stalled}")

    async def _wait_swapped(self, step: WaitSwapped) -> None:
        spec = self._scenario.vm(step.vm)
        wanted = step.pages if step.pages is not None else round((step.share or 0.0) * spec.fill / PAGE_BYTES)
        deadline = self._clock.now() + SWAP_S
        while self._clock.now() < deadline:
            counts = (await self._look(step.vm)).counts
            swapped = counts.swapped if counts is not None else 0
            if swapped >= wanted:
                return
            self._show(f"{step.vm} swaps out: {swapped:,} of {wanted:,} pages", min(1.0, swapped / wanted))
            await asyncio.sleep(PAUSE_S)
        raise Failed(f"{step.vm} has not swapped out {wanted} pages in {SWAP_S:g} s")

    async def _run_for(self, step: RunFor) -> None:
        begun = self._clock.now()
        while (passed := self._clock.now() - begun) < step.seconds:
            self._show(f"everybody works for {step.seconds:g} s", passed / step.seconds)
            await asyncio.sleep(min(PAUSE_S, step.seconds - passed))

    async def _clean(self, step: Clean) -> None:
        client = self._world.client
        request = CleanRequest(
            request=client.new_request(), vm=step.vm, pages_per_s=step.pages_per_s, reply_to=client.address
        )
        verdict = await client.ask(request, LOOK_S)
        if not isinstance(verdict, Verdict) or verdict.outcome is not Outcome.DONE:
            raise Failed(f"{step.vm} cannot be cleaned up: {getattr(verdict, 'reason', verdict)}")

    async def _wait_cleaned(self, step: WaitCleaned) -> None:
        deadline, most = self._clock.now() + CLEAN_S, 1
        while self._clock.now() < deadline:
            left = abroad(self._world.kept(), step.vm)
            if not left:
                return
            most = max(most, left)
            self._show(f"slots of {step.vm} come home: {left:,} left", 1.0 - left / most)
            await asyncio.sleep(PAUSE_S)
        raise Failed(f"{step.vm} still hangs on {left:,} slots of other hosts after {CLEAN_S:g} s")

    async def _wait_moved(self, step: WaitMoved) -> None:
        await self._verdict(step.vm)

    async def _kill(self, step: Kill) -> None:
        self._show(f"killing the {step.what} of {step.host}")
        await self._world.kill(step.what, step.host)

    async def _refuse_prepare(self, step: RefusePrepare) -> None:
        self._world.faults.refusing.add(step.host)

    async def _hold(self, step: Hold) -> None:
        self._world.faults.hold(step.message)

    async def _wait_held(self, step: WaitHeld) -> None:
        self._show(f"waiting for a {step.message} to be held")
        try:
            async with asyncio.timeout(HELD_S):
                await self._world.faults.held(step.message)
        except TimeoutError:
            raise Failed(f"nobody has said {step.message} in {HELD_S:g} s") from None

    async def _release(self, step: Release) -> None:
        await self._world.faults.release(step.message)

    _steps: Mapping[type[Step], Callable[..., Awaitable[None]]] = {
        Migrate: _migrate,
        Cancel: _cancel,
        Verify: _verify,
        WaitSwapped: _wait_swapped,
        RunFor: _run_for,
        Clean: _clean,
        WaitCleaned: _wait_cleaned,
        WaitMoved: _wait_moved,
        Kill: _kill,
        RefusePrepare: _refuse_prepare,
        Hold: _hold,
        WaitHeld: _wait_held,
        Release: _release,
    }

    # -- looking

    def _inspect(self, vm: str, *, verify: bool) -> Inspect:
        client = self._world.client
        return Inspect(request=client.new_request(), vm=vm, verify=verify, reply_to=client.address)

    async def _look(self, vm: str) -> Inspected:
        answer: Any = await self._world.client.ask(self._inspect(vm, verify=False), LOOK_S)
        assert isinstance(answer, Inspected), "an inspection is answered by what was found"
        return answer


def definition_of(vm: VmSpec) -> Definition:
    """What the resource manager is to know of a VM."""
    return Definition(
        vm=vm.name,
        memory_bytes=vm.memory,
        resident_bytes=vm.resident,
        vcpus=vm.vcpus,
        boot=vm.boot,
        workload=Workload(
            fill_bytes=vm.fill, hot_bytes=vm.hot, writes_per_s=vm.writes_per_s, checks_per_s=vm.checks_per_s, seed=vm.seed
        ),
        kernel=str(vm.kernel) if vm.kernel else None,
        initrd=str(vm.initrd) if vm.initrd else None,
        cmdline=vm.cmdline,
        disks=tuple(Disk(url=url) for url in vm.disks),
        nics=vm.nics,
    )


