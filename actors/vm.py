"""A VM instance: makes the machine follow what its hypervisor's record wants, and reports.

Levels, not events (PROTOCOL 13.5): the newest revision wins, what is told again is reported again. Work that takes time
(booting, halting, sending) is the `driver`'s; the actor hears what came of it as a message.
"""

from collections.abc import Callable, Mapping

import attrs

from actors.driver import Driver, MakeGuest
from actors.messages import Did, Inspect, Looked, Report, Wanted, hypervisor, vm_instance
from actors.runtime.actor import Actor, Inbox, Key, Record, Turn


@attrs.frozen(kw_only=True)
class Following:
    """What is wanted, and what the machine last said of it."""

    wanted: Wanted
    report: Report | None = None


@attrs.frozen(kw_only=True)
class Look:
    """A user wants to know how the guest's memory lies."""

    inspect: Inspect


class VmInstance(Actor):
    """One instance, on one host."""

    kinds = (Following, Look)
    hears = (Wanted, Did, Inspect, Looked)

    def __init__(self, instance: str, host: str, inbox: Inbox, make: MakeGuest) -> None:
        self.instance, self.host = instance, host
        self.address = vm_instance(instance)
        self._inbox = inbox
        self._driver = Driver(instance, host, inbox, make)

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        self._reactions[type(turn.heard.body)](self, turn, turn.heard.body)

    def _wanted(self, turn: Turn, body: Wanted) -> None:
        following = turn.get(Following)
        if following is None or body.revision > following.wanted.revision:
            turn.put(Following(wanted=body))
            turn.event("told", instance=self.instance, level=str(body.level), revision=body.revision)
        elif body.revision == following.wanted.revision:
            done = following.report if following.report and not following.report.failed else None
            turn.put(Following(wanted=body, report=done))

    def _did(self, turn: Turn, body: Did) -> None:
        following = turn.get(Following)
        if following is not None and body.report.revision == following.wanted.revision:
            turn.put(attrs.evolve(following, report=body.report))
            name = "could_not" if body.report.failed else "reached"
            turn.event(name, instance=self.instance, level=str(body.report.level), reason=body.report.failed)

    def _inspect(self, turn: Turn, body: Inspect) -> None:
        turn.put(Look(inspect=body), body.request)

    def _looked(self, turn: Turn, body: Looked) -> None:
        turn.drop(Look, body.answer.request)
        turn.say(body.reply_to, body.answer)

    _reactions: Mapping[type, Callable[..., None]] = {
        Wanted: _wanted,
        Did: _did,
        Inspect: _inspect,
        Looked: _looked,
    }

    def obey(self, _record: Record, changes: Mapping[Key, object | None]) -> None:
        """Set the driver to work on what changed; pass reports on."""
        for value in changes.values():
            if isinstance(value, Following):
                self._follow(value)
            elif isinstance(value, Look):
                self._driver.look(value.inspect)

    def _follow(self, following: Following) -> None:
        if following.report is None:
            self._driver.follow(following.wanted)
            return
        self._inbox.post(hypervisor(self.host), following.report)
        if not following.report.failed:
            self._driver.tend(following.wanted)

    async def seen(self) -> Mapping[str, object]:
        """Which slots its swap table names: device -> wire form."""
        return {"swapped": {device: slots.to_wire() for device, slots in (await self._driver.swapped()).items()}}

    async def stop(self) -> None:
        """Let go of the work under way; the guest goes on."""
        await self._driver.stop()
