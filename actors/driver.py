"""The hands of a VM instance: does with a guest what its actor was told, one thing at a time, in a task.

The actor decides nothing about time; this is where waiting happens. What came of it goes back as messages: reports to the
actor, and to the hypervisor the levels that last (a machine that died, slots that are still named), told again and again.
"""

import asyncio
from collections.abc import Callable, Mapping

import attrs
import structlog

from actors.domain.lifecycle import Level
from actors.messages import Did, Inspect, Inspected, Looked, Named, Noticed, Report, Wanted, hypervisor, vm_instance
from actors.runtime.actor import Inbox
from paging.errors import MachineGone, PagingError
from paging.fault_points import fault_point
from paging.guest import Definition, Guest
from paging.slots import SlotSet

log = structlog.get_logger(__name__)

MakeGuest = Callable[[str, Definition], Guest]
"""(instance id, definition) -> its guest on this host; the same one when asked again"""

ABANDONED = frozenset({Level.SENT, Level.LOADED, Level.STAGED, Level.BOOTED})
"""levels whose work may be cut short by a newer wish; a halt or a thaw is finished first"""

TEND_S = 1.0
"""between two looks at what a running guest's table still names, and between two words of a death"""


class Driver:
    """One instance's guest. `follow` and `look` never wait."""

    def __init__(self, instance: str, host: str, inbox: Inbox, make: MakeGuest) -> None:
        self._instance, self._host, self._inbox, self._make = instance, host, inbox, make
        self._guest: Guest | None = None
        self._wanted: Wanted | None = None
        self._task: asyncio.Task[None] | None = None
        self._last: Report | None = None
        """what the newest work came to"""
        self._level: Level | None = None
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._tending: asyncio.Task[None] | None = None
        self._stalls = False
        self._died = ""
        self._died_in = 0
        """the revision in which it died: only a newer one starts a new machine, or a late word of the death would be
        taken for the new one's"""

    # -- levels

    def follow(self, wanted: Wanted) -> None:
        """Work towards this level; what is under way for an older revision is cut short or finished first."""
        if self._wanted is not None and wanted.revision < self._wanted.revision:
            return
        busy = self._task is not None and not self._task.done()
        same = self._wanted is not None and wanted.revision == self._wanted.revision
        self._wanted = wanted
        if busy and same:
            return
        if same and self._last is not None and self._last.revision == wanted.revision and not (self._last.failed or self._died):
            # Told again before the report was heard. A guest that is sent twice would be half there at its target again.
            self._inbox.post(vm_instance(self._instance), Did(report=self._last))
            return
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
            report = self._last = await self._reach(wanted)
            self._inbox.post(vm_instance(self._instance), Did(report=report))
            if self._wanted is None or self._wanted.revision == wanted.revision:
                return

    async def _reach(self, wanted: Wanted) -> Report:
        try:
            guest = await self._guest_for(wanted)
            if self._died and wanted.level is Level.BOOTED and wanted.revision > self._died_in:
                await guest.destroy()
                self._died = ""
            if self._died and wanted.level is not Level.GONE:
                raise MachineGone(self._died)
            fault_point("driver.before_effect", str(wanted.level))
            brought = await _bring(guest, wanted)
            fault_point("driver.after_effect", str(wanted.level))
            return attrs.evolve(brought, instance=self._instance)
        except (PagingError, OSError) as error:
            if isinstance(error, MachineGone):
                self._notice("died", str(error))
            log.warning("machine_failed", instance=self._instance, level=str(wanted.level), error=str(error))
            return Report(instance=self._instance, revision=wanted.revision, level=wanted.level, failed=str(error))
        except Exception as error:  # a defect of a guest is told like any failure, or its saga would wait for nobody
            log.error("machine_defect", instance=self._instance, level=str(wanted.level), error=repr(error), exc_info=error)
            return Report(instance=self._instance, revision=wanted.revision, level=wanted.level, failed=repr(error))

    async def _guest_for(self, wanted: Wanted) -> Guest:
        """The guest of this instance. A node that was restarted takes over the machine that its predecessor left."""
        if self._guest is None:
            guest = self._make(self._instance, wanted.definition)
            guest.watch(self._notice)
            alive = await guest.adopt()
            self._guest = guest
            if alive and not self._stalls:  # what stalled before may have been answered while nobody listened
                self._notice("unstalled", "no fault waits for its answer")
            if not alive and wanted.level not in (Level.BOOTED, Level.STAGED, Level.GONE):
                self._notice("died", f"the machine of {self._instance} ended while its node was away")
        return self._guest

    # -- what lasts

    def tend(self, wanted: Wanted) -> None:
        """The level is reached: look after the guest from here on. After a restart of the node, take over what is there."""
        if self._wanted is None or wanted.revision >= self._wanted.revision:
            self._wanted = wanted
        if self._tending is None or self._tending.done():
            self._tending = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        """While there is something that lasts, tell it."""
        while self._wanted is not None and self._wanted.level is not Level.GONE:
            try:
                await self._take_over(self._wanted)
                telling = await self._tell(self._wanted)
            except (PagingError, OSError) as error:
                log.warning("not_tended", instance=self._instance, error=str(error))
                telling = True
            except Exception as error:  # a defect must not silence what lasts: a death that nobody hears of ends no saga
                log.error("machine_defect", instance=self._instance, error=repr(error), exc_info=error)
                telling = True
            if not telling:
                return
            await asyncio.sleep(TEND_S)

    async def _take_over(self, wanted: Wanted) -> None:
        """What was started before this node came back must still be there."""
        fresh = self._guest is None
        guest = await self._guest_for(wanted)
        if fresh and wanted.level in (Level.BOOTED, Level.STAGED) and not await guest.adopt():
            self._notice("died", f"the machine of {self._instance} ended while its node was away")

    async def _tell(self, wanted: Wanted) -> bool:
        """Tell what lasts; False where nothing does."""
        if self._died:
            noticed = Noticed(instance=self._instance, revision=self._died_in, what="died", sentence=self._died)
            self._inbox.post(hypervisor(self._host), noticed)
            return True
        running = wanted.level in (Level.RUNNING, Level.BOOTED)
        if not running or not wanted.granted or self._guest is None:
            return False
        await self._guest.clean(wanted.granted, wanted.clean_pages_per_s)
        swapped = await self._guest.swapped()
        named = {device: slots & wanted.granted[device] for device, slots in swapped.items() if device in wanted.granted}
        self._inbox.post(hypervisor(self._host), Named(instance=self._instance, revision=wanted.revision, slots=named))
        return True

    def _notice(self, what: str, sentence: str) -> None:
        revision = self._wanted.revision if self._wanted is not None else 0
        if what != "died":
            self._stalls = what == "stalled"
            noticed = Noticed(instance=self._instance, revision=revision, what=what, sentence=sentence)
            self._inbox.post(hypervisor(self._host), noticed)
        elif not self._died:
            self._died, self._died_in = sentence, revision
            if self._wanted is not None:
                self.tend(self._wanted)

    # -- looking

    async def swapped(self) -> Mapping[str, SlotSet]:
        """Which slots its table names now; nothing where there is no machine. Raises `PagingError`."""
        return await self._guest.swapped() if self._guest is not None else {}

    def look(self, inspect: Inspect) -> None:
        """Ask the guest how its memory lies, beside whatever else goes on."""
        running = self._looks.get(inspect.request)
        if running is None or running.done():
            self._looks[inspect.request] = asyncio.create_task(self._look(inspect))

    async def _look(self, inspect: Inspect) -> None:
        answer = Inspected(
            request=inspect.request, vm=inspect.vm, instance=self._instance, host=self._host, ok=False, words="has no machine"
        )
        try:
            if self._guest is not None:
                words = await self._guest.verify() if inspect.verify else None
                counts = await self._guest.counts()
                answer = attrs.evolve(answer, ok=words is None, words=words or "", counts=counts)
        except (PagingError, OSError) as error:
            answer = attrs.evolve(answer, words=str(error))
        self._looks.pop(inspect.request, None)
        self._inbox.post(vm_instance(self._instance), Looked(answer=answer, reply_to=inspect.reply_to))

    async def stop(self) -> None:
        """Cancel what is under way; the guest goes on."""
        tasks = [task for task in (self._task, self._tending, *self._looks.values()) if task is not None]
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
