"""A VM instance: makes the machine follow what its hypervisor's record wants, and reports.

Levels, not events (PROTOCOL 13.5): the newest revision wins, what is told again is reported again. Work that takes time
(booting, halting, sending) is a task of the `Driver`; the actor hears what came of it as a message.
"""

import asyncio
from collections.abc import Callable, Mapping

import attrs
import structlog

from actors.domain.lifecycle import Level
from actors.messages import Did, Inspect, Inspected, Looked, Noticed, Report, Wanted, hypervisor, vm_instance
from actors.runtime.actor import Actor, Inbox, Key, Record, Turn
from paging.errors import PagingError
from paging.guest import Definition, Guest

log = structlog.get_logger(__name__)

MakeGuest = Callable[[str, Definition], Guest]
"""(instance id, definition) -> its guest on this host; the same one when asked again"""

ABANDONED = frozenset({Level.SENT, Level.LOADED, Level.STAGED, Level.BOOTED})
"""levels whose work may be cut short by a newer wish; a halt or a thaw is finished first"""


@attrs.frozen(kw_only=True)
class Following:
    """What is wanted, and what the machine last said of it."""

    wanted: Wanted
    report: Report | None = None


@attrs.frozen(kw_only=True)
class Look:
    """A user wants to know how the guest's memory lies."""

    inspect: Inspect


@attrs.frozen(kw_only=True)
class Message:
    """Something that the hypervisor has to be told beside the levels."""

    noticed: Noticed


class VmInstance(Actor):
    """One instance, on one host."""

    kinds = (Following, Look, Message)
    hears = (Wanted, Did, Noticed, Inspect, Looked)

    def __init__(self, instance: str, host: str, inbox: Inbox, make: MakeGuest) -> None:
        self.instance, self.host = instance, host
        self.address = vm_instance(instance)
        self._inbox = inbox
        self._driver = Driver(self, inbox, make)

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        self._reactions[type(turn.heard.body)](self, turn, turn.heard.body)

    def _wanted(self, turn: Turn, body: Wanted) -> None:
        following = turn.get(Following)
        if following is None or body.revision > following.wanted.revision:
            turn.put(Following(wanted=body))
            turn.event("told", instance=self.instance, level=str(body.level), revision=body.revision)
        elif body.revision == following.wanted.revision:
            report = following.report
            again = attrs.evolve(following, report=None) if report is not None and report.failed else following
            turn.put(again)

    def _did(self, turn: Turn, body: Did) -> None:
        following = turn.get(Following)
        if following is not None and body.report.revision == following.wanted.revision:
            turn.put(attrs.evolve(following, report=body.report))
            name = "could_not" if body.report.failed else "reached"
            turn.event(name, instance=self.instance, level=str(body.report.level), reason=body.report.failed)

    def _noticed(self, turn: Turn, body: Noticed) -> None:
        turn.put(Message(noticed=body))

    def _inspect(self, turn: Turn, body: Inspect) -> None:
        turn.put(Look(inspect=body), body.request)

    def _looked(self, turn: Turn, body: Looked) -> None:
        turn.drop(Look, body.answer.request)
        turn.say(body.reply_to, body.answer)

    _reactions: Mapping[type, Callable[..., None]] = {
        Wanted: _wanted,
        Did: _did,
        Noticed: _noticed,
        Inspect: _inspect,
        Looked: _looked,
    }

    def obey(self, _record: Record, changes: Mapping[Key, object | None]) -> None:
        """Set the driver to work on what changed; pass reports on."""
        for value in changes.values():
            if isinstance(value, Following):
                if value.report is None:
                    self._driver.follow(value.wanted)
                else:
                    self._inbox.post(hypervisor(self.host), value.report)
            elif isinstance(value, Look):
                self._driver.look(value.inspect)
            elif isinstance(value, Message):
                self._inbox.post(hypervisor(self.host), value.noticed)

    async def stop(self) -> None:
        """Let go of the work under way; the guest goes on."""
        await self._driver.stop()


class Driver:
    """Does with the guest what the actor was told, one thing at a time, in a task."""

    def __init__(self, actor: VmInstance, inbox: Inbox, make: MakeGuest) -> None:
        self._actor, self._inbox, self._make = actor, inbox, make
        self._guest: Guest | None = None
        self._wanted: Wanted | None = None
        self._task: asyncio.Task[None] | None = None
        self._level: Level | None = None
        self._looks: dict[str, asyncio.Task[None]] = {}

    def follow(self, wanted: Wanted) -> None:
        """Work towards this level; what is under way for an older revision is cut short or finished first."""
        if self._wanted is not None and wanted.revision < self._wanted.revision:
            return
        busy = self._task is not None and not self._task.done()
        if busy and self._wanted is not None and wanted.revision == self._wanted.revision:
            return
        self._wanted = wanted
        if busy and self._task is not None and self._level in ABANDONED:
            self._task.cancel()
        if not busy or self._level in ABANDONED:
            self._task = asyncio.create_task(self._work(self._task))

    async def _work(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        while True:
            wanted = self._wanted
            assert wanted is not None, "work begins with a wish"
            self._level = wanted.level
            report = await self._reach(wanted)
            self._inbox.post(self._actor.address, Did(report=report))
            if self._wanted is wanted:
                return

    async def _reach(self, wanted: Wanted) -> Report:
        instance = self._actor.instance
        try:
            guest = self._guest_for(wanted.definition)
            return attrs.evolve(await _bring(guest, wanted), instance=instance)
        except (PagingError, OSError) as error:
            log.warning("machine_failed", instance=instance, level=str(wanted.level), error=str(error))
            return Report(instance=instance, revision=wanted.revision, level=wanted.level, failed=str(error))

    def _guest_for(self, definition: Definition) -> Guest:
        if self._guest is None:
            self._guest = self._make(self._actor.instance, definition)
            self._guest.watch(self._notice)
        return self._guest

    def _notice(self, what: str, sentence: str) -> None:
        self._inbox.post(self._actor.address, Noticed(instance=self._actor.instance, what=what, sentence=sentence))

    def look(self, inspect: Inspect) -> None:
        """Ask the guest how its memory lies, beside whatever else goes on."""
        running = self._looks.get(inspect.request)
        if running is None or running.done():
            self._looks[inspect.request] = asyncio.create_task(self._look(inspect))

    async def _look(self, inspect: Inspect) -> None:
        actor = self._actor
        answer = Inspected(
            request=inspect.request, vm=inspect.vm, instance=actor.instance, host=actor.host, ok=False, words="has no machine"
        )
        try:
            if self._guest is not None:
                words = await self._guest.verify() if inspect.verify else None
                counts = await self._guest.counts()
                answer = attrs.evolve(answer, ok=words is None, words=words or "", counts=counts)
        except (PagingError, OSError) as error:
            answer = attrs.evolve(answer, words=str(error))
        self._looks.pop(inspect.request, None)
        self._inbox.post(actor.address, Looked(answer=answer, reply_to=inspect.reply_to))

    async def stop(self) -> None:
        """Cancel what is under way."""
        tasks = [task for task in (self._task, *self._looks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bring(guest: Guest, wanted: Wanted) -> Report:
    """Bring the guest to the level; raises `PagingError` where that cannot be."""
    report = Report(instance="", revision=wanted.revision, level=wanted.level)
    if wanted.level is Level.GONE:
        await guest.destroy()
        return report
    await guest.arm(wanted.armed)
    match wanted.level:
        case Level.BOOTED:
            await guest.boot()
        case Level.STAGED:
            return attrs.evolve(report, endpoint=await guest.stage())
        case Level.FROZEN:
            halted = await guest.halt()
            return attrs.evolve(report, swapped=halted.swapped, counts=halted.counts)
        case Level.SENT:
            assert wanted.endpoint is not None, "a guest is sent somewhere"
            return attrs.evolve(report, manifest=await guest.send(wanted.endpoint, wanted.near))
        case Level.LOADED:
            assert wanted.manifest is not None, "a guest is loaded by its manifest"
            await guest.load(wanted.manifest, wanted.granted)
        case Level.RUNNING:
            await guest.run()
    return report
