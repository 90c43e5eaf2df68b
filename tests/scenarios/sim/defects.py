"""Defects on purpose: each changes one thing that the protocol, the shell, the store, the bus or the pager relies on.

A simulator that does not catch one of them has a hole in its checkers. Applied by tests and by `make mutants` only.

Left out, because something else guards the same: row *resume* need not wait (only a staged instance takes a Resume), nor *forget*
(a frozen machine writes nothing), the arbiter need not compare (floors keep late grants out, until hosts are declared dead), the
receiver need not compare table and grants (row *hand over* counts them).
"""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from actors import driver, hypervisor, machines, moving, resource_manager, swap_device
from actors.domain import hosting, ledger, sharing
from actors.domain.holdings import Holding, joined
from actors.domain.lifecycle import Level
from actors.messages import Booted
from actors.runtime import alarms, catalogue, deciding, hosted, mailbox, node, roster, saga, saying, shell
from actors.runtime.saga import Now, Row
from actors.sagas import cleanup, device, manager, migration, source, target
from bus import codec
from paging import outgoing, pages, slot_copy, slot_pool
from paging.slots import SlotSet
from paging.swap_table import Phase
from scenarios.sim import network as wire
from scenarios.sim import store as disk

Apply = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Defect:
    """One mistake: what it is, and how it is planted."""

    what: str
    apply: Apply


DEFECTS: dict[str, Defect] = {}


def defect(what: str) -> Callable[[Apply], Apply]:
    """Enter a planter under its own name."""

    def enter(apply: Apply) -> Apply:
        DEFECTS[apply.__name__] = Defect(what, apply)
        return apply

    return enter


def table(patch: pytest.MonkeyPatch, saga_table: Any) -> None:
    """Let every actor play this table."""
    patch.setattr(migration, "MIGRATION", saga_table)
    for module in (hypervisor, resource_manager, swap_device, resource_manager):
        patch.setattr(module, "MIGRATION", saga_table)
    for name in ("fencing", "requests", "machines"):
        module = __import__(f"actors.{name}", fromlist=[name])
        if hasattr(module, "MIGRATION"):
            patch.setattr(module, "MIGRATION", saga_table)


def row(patch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Let this row behave otherwise."""
    rows: tuple[Row[Any], ...] = tuple(attrs.evolve(one, **changes) if one.name == name else one for one in migration.ROWS)
    table(patch, attrs.evolve(migration.MIGRATION, rows=rows))


def no_undo(patch: pytest.MonkeyPatch, role: str) -> None:
    """Let this role undo nothing."""
    undoing = attrs.evolve(migration.UNDOINGS[role], undo=lambda _a, _t, _c, restored: restored)
    patch.setitem(migration.UNDOINGS, role, undoing)


def done(_actor: Any, _turn: Any, _cast: Any) -> Now:
    return Now.DONE


# -- the rows of the migration


@defect("the arbiter does not take a grant back")
def grant_is_never_taken_back(patch):
    no_undo(patch, "device")


@defect("the manager leaves the placement locked")
def placement_stays_locked(patch):
    no_undo(patch, "manager")


@defect("the source does not thaw")
def source_never_thaws(patch):
    no_undo(patch, "source")


@defect("the target keeps what was undone")
def target_keeps_what_was_undone(patch):
    no_undo(patch, "target")


@defect("hand over does not wait for the grants")
def hand_over_does_not_wait(patch):
    row(patch, "hand over", ready=done)


@defect("freeze does not wait for the halt")
def freeze_does_not_wait(patch):
    row(patch, "freeze", ready=done)


@defect("prepare does not wait for the machine")
def prepare_does_not_wait(patch):
    row(patch, "prepare", ready=done)


@defect("commit moves nothing")
def commit_moves_nothing(patch):
    row(patch, "commit", ready=done)


@defect("commit does not assign the slots in the sharing table")
def commit_assigns_nothing(patch):
    patch.setattr(manager, "joined", lambda _parts: ())


@defect("devices are not listed at register")
def devices_are_not_listed(patch):
    row(patch, "register", ready=done)


@defect("forget does not lend")
def forget_does_not_lend(patch):
    row(patch, "forget", ready=done)


@defect("close leaves the device pending")
def close_leaves_the_device_pending(patch):
    row(patch, "close", ready=done)


@defect("the saga may be undone after its pivot")
def abort_after_the_pivot(patch):
    table(patch, attrs.evolve(migration.MIGRATION, pivot="closed"))


@defect("the source thaws before the devices have granted back")
def thaw_before_the_regrant(patch):
    def onward(actor, cast, reason, restored):
        hosts = [migration.hypervisor(cast.source), *(migration.swap_device(one) for one in cast.devices)]
        route = [migration.MANAGER, *hosts, migration.hypervisor(cast.target)]
        rest = route[route.index(actor.address) + 1 :]
        body = migration.Undo(reason=reason, restored=restored) if rest else migration.Close()
        return [migration.Say(target=rest[0] if rest else migration.MANAGER, body=body, cast=cast)]

    table(patch, attrs.evolve(migration.MIGRATION, onward=onward))


@defect("an undo leaves no tombstone for what was not done yet")
def undo_without_tombstone(patch):
    real = saga.Saga.undo

    def undo(self, actor, turn, cast, reason, restored, *, opener_is_me):
        if turn.get(saga.Progress, cast.saga) is None:
            for say in self.onward(actor, cast, reason, restored):
                turn.say(say.target, say.body, cast=say.cast, row="undo")
        else:
            real(self, actor, turn, cast, reason, restored, opener_is_me=opener_is_me)

    patch.setattr(saga.Saga, "undo", undo)


@defect("the opener asks once and never again")
def opener_never_asks_again(patch):
    patch.setattr(hypervisor.Hypervisor, "_ask_again", lambda *_: None)


@defect("whoever is asked again says nothing")
def nothing_is_repeated(patch):
    patch.setattr(saga.Saga, "repeat", lambda *_: None)


@defect("a row is done again when its message comes again")
def rows_are_done_again(patch):
    def play(self, actor, turn, cast, *, opener_is_me=False):
        progress = self.progress(turn, cast, opener_is_me)
        if progress is None:
            return
        index = self.row_on(type(turn.heard.body))
        turn.put(attrs.evolve(progress, cast=cast, begun=index, row=min(progress.row, index - 1)), cast.saga)
        self.rows[index].take(actor, turn, cast, turn.heard.body)
        self.advance(actor, turn, cast.saga)

    patch.setattr(saga.Saga, "play", play)


@defect("a VM that is leaving may be asked to leave again")
def open_twice(patch):
    patch.setattr(moving, "_leave_problem", lambda *_: "")


@defect("slots beyond the target's reach are granted too")
def unreachable_slots_are_granted(patch):
    real = machines._keep_report

    def keep(turn, instance, body):
        real(turn, instance, body)
        facts = turn.get(hosting.SourceFacts, instance.leaving_by)
        if body.level is Level.FROZEN and facts is not None:
            grants = machines.cut(turn.all(hosting.Owned).values(), body.swapped)
            turn.put(attrs.evolve(facts, grants=grants), instance.leaving_by)

    patch.setattr(machines, "_keep_report", keep)


@defect("a Boot that comes late starts the VM once more")
def late_boot_starts_again(patch):
    real = machines.boot

    def boot(facts, turn, body):
        turn.drop(hosting.Told, body.vm)
        real(facts, turn, body)

    patch.setattr(machines, "boot", boot)


@defect("a VM that cannot be started is said to run")
def booted_without_booting(patch):
    def boot(_facts, turn, body):
        turn.say("resource-manager", Booted(vm=body.vm, epoch=body.epoch))

    patch.setattr(machines, "boot", boot)


# -- slots and generations


@defect("slots are armed to two instances")
def slots_are_armed_twice(patch):
    def free(turn, facts):
        return hosting.by_device(one for one in turn.all(hosting.Owned).values() if facts.homes[one.device] == facts.host)

    patch.setattr(hosting, "free_slots", free)


@defect("a grant keeps the generation")
def grant_keeps_the_generation(patch):
    def next_generation(_self, turn):
        return (turn.get(swap_device.Numbered) or swap_device.Numbered()).generation

    patch.setattr(swap_device.SwapDevice, "next_generation", next_generation)


@defect("the target does not record the slots it gained")
def slots_gained_are_not_recorded(patch):
    patch.setattr(hosting, "gain", lambda *_: None)


@defect("the source takes its slots back in the old generation")
def old_generation_is_taken_back(patch):
    patch.setattr(source, "_take_back", lambda *_: None)


@defect("the sharing table does not look at generations")
def sharing_of_any_generation(patch):
    def assigned(self, generation, host, slots, home):
        away = {key: attrs.evolve(one, slots=one.slots - slots) for key, one in self.away.items() if one.slots - slots}
        if host != home:
            away[generation] = sharing.Assigned(host=host, slots=slots)
        return attrs.evolve(self, away=dict(sorted(away.items())))

    patch.setattr(sharing.Shared, "assigned", assigned)


# -- the cleanup


@defect("nothing is given back")
def nothing_is_given_back(patch):
    patch.setattr(hosting, "idle_foreign", lambda *_: ())


@defect("slots that an open saga names are given back")
def slots_of_open_sagas_are_idle(patch):
    def idle(turn, facts):
        return tuple(one for one in turn.all(hosting.Owned).values() if facts.homes[one.device] != facts.host)

    patch.setattr(hosting, "idle_foreign", idle)


@defect("the owner keeps what was taken")
def owner_keeps_what_was_taken(patch):
    patch.setattr(cleanup, "taken", lambda *_: None)


@defect("what was taken is dropped in every generation")
def taken_of_any_generation(patch):
    def taken(turn, body):
        for holding in body.holdings:
            for owned in list(turn.all(hosting.Owned).values()):
                if owned.device == holding.device:
                    hosting.put_owned(turn, owned.device, owned.generation, owned.slots - holding.slots)

    patch.setattr(cleanup, "taken", taken)


@defect("a report about another phase is believed")
def named_of_any_revision(patch):
    def named(turn, body):
        brought = turn.get(hosting.Brought, body.instance)
        if brought is not None:
            left = {name: slots & body.slots.get(name, SlotSet()) for name, slots in brought.slots.items()}
            turn.put(attrs.evolve(brought, slots={name: slots for name, slots in left.items() if slots}), body.instance)

    real = driver.Driver._tell

    async def tell(self, wanted):
        if self._guest is not None and wanted.granted and wanted.level is Level.LOADED:
            self._inbox.post(
                driver.hypervisor(self._host), driver.Named(instance=self._instance, revision=wanted.revision, slots={})
            )
        return await real(self, wanted)

    patch.setattr(cleanup, "named", named)
    patch.setattr(driver.Driver, "_tell", tell)


@defect("the home does not take back what came home")
def home_does_not_regain(patch):
    patch.setattr(cleanup, "regain", lambda *_: None)


@defect("the manager does not record what came home")
def manager_does_not_record(patch):
    patch.setattr(cleanup, "record", lambda *_: None)


@defect("the survey reports slots that were granted home, not given back")
def survey_reports_grants(patch):
    def given_back(rights, home, since):
        return [(one, right.slots) for one, right in sorted(rights.items()) if right.owner == home and one > since]

    patch.setattr(ledger, "given_back", given_back)


@defect("an Unshared of an earlier loan ends the present one")
def unshared_of_any_loan(patch):
    patch.setattr(cleanup, "unshared", lambda turn, body: turn.drop(hosting.Lending, body.device))


@defect("a device leaves the sharing table while slots are away")
def unlist_what_is_not_empty(patch):
    patch.setattr(sharing.Shared, "empty", property(lambda _self: True))


@defect("housekeeping is said once")
def housekeeping_is_said_once(patch):
    real = cleanup.housekeeping

    def once(facts, turn, count):
        real(facts, turn, count)
        turn.timer("housekeeping", None)

    patch.setattr(cleanup, "housekeeping", once)


# -- machines and their reports


@defect("a report of an older revision counts")
def report_of_any_revision(patch):
    real = machines.report

    def report(turn, body):
        instance = turn.get(hosting.Instance, body.instance)
        return real(turn, attrs.evolve(body, revision=instance.revision) if instance is not None else body)

    patch.setattr(machines, "report", report)


@defect("the death of a machine is not heard")
def death_is_unnoticed(patch):
    patch.setattr(machines, "noticed", lambda *_: ())


@defect("machines are told once what they shall be")
def levels_are_told_once(patch):
    patch.setattr(machines, "levels_again", lambda *_: None)


@defect("an instance whose memory is gone is resumed")
def lost_is_resumed(patch):
    def take(_actor, turn, cast, _body):
        instance = hosting.need(turn, target.name_of(cast))
        if instance.state is hosting.State.STAGED:
            hosting.want(turn, hosting.move(instance, hosting.State.RUNNING), Level.RUNNING)

    row(patch, "resume", take=take)


@defect("the driver does the newest work beside the old")
def driver_does_two_things(patch):
    import asyncio

    def follow(self, wanted):
        self._wanted = wanted
        self._task = asyncio.create_task(self._work(None))

    patch.setattr(driver.Driver, "follow", follow)


# -- the pager


@defect("a page that comes in while the guest stands still leaves the table")
def table_changes_while_frozen(patch):
    real = pages.Pages._bring

    def bring(self, page):
        entry = self.table.at(page)
        real(self, page)
        if entry is not None and self.table.phase is not Phase.RUNNING:
            self.table.clear(page)
            self.pool.give(entry.device, entry.slot)

    patch.setattr(pages.Pages, "_bring", bring)


@defect("after a thaw the table still names pages that are in RAM")
def stale_entries_after_a_thaw(patch):
    patch.setattr(pages.Pages, "_let_resident_win", lambda self: self._visitors.clear())


@defect("checksums of slots are not looked at")
def checksum_is_ignored(patch):
    def content(self, _page, entry):
        return self.devices[entry.device].read(entry.slot)

    patch.setattr(pages.Pages, "content", content)


@defect("a failed slot write goes unnoticed")
def failed_write_goes_unnoticed(patch):
    from scenarios.sim.devices import SimSlots

    real = SimSlots.write

    def write(self, slot, contents):
        try:
            real(self, slot, contents)
        except OSError:
            return

    patch.setattr(SimSlots, "write", write)


@defect("the copy switches an entry that has changed meanwhile")
def copy_switches_unchecked(patch):
    real = slot_copy.SlotCopy._switch

    def switch(self, part, uuid, first):
        unchecked = [attrs.evolve(one, entry=self._pages.table.at(one.page) or one.entry) for one in part]
        resident = [one.page for one in part if self._pages.table.at(one.page) is None]
        if not resident:
            return real(self, unchecked, uuid, first)
        import numpy as np

        for index, one in enumerate(part):
            self._pages.table.enter_slots(
                np.array([one.page]), uuid, np.array([first + index]), np.array([one.entry.checksum], dtype=np.uint32)
            )
        return len(part)

    patch.setattr(slot_copy.SlotCopy, "_switch", switch)


@defect("foreign slots are written as if they were armed")
def foreign_slots_are_written(patch):
    real = slot_pool.SlotPool.give

    def give(self, uuid, slot):
        real(self, uuid, slot)
        self._free.setdefault(uuid, pages.SlotSet()._bits.copy()).add(slot)
        self._cursor.setdefault(uuid, 0)

    patch.setattr(slot_pool.SlotPool, "give", give)


@defect("a slot is free again as soon as it is taken")
def slots_in_use_are_taken(patch):
    real = slot_pool.SlotPool.take

    def take(self, count):
        taken = real(self, count)
        if taken is not None:
            self._free[taken[0]].add_range(taken[1], taken[1] + taken[2])
            self._cursor[taken[0]] = taken[1]
        return taken

    patch.setattr(slot_pool.SlotPool, "take", take)


@defect("pages out of the target's reach are left out of the delivery")
def far_pages_are_not_sent(patch):
    patch.setattr(outgoing.Outgoing, "_far", lambda _self: iter(()))


# -- the shell


@defect("a message is acked before its turn is stored")
def ack_before_store(patch):
    real = shell.Shell._decide_group

    def decide(self):
        group = real(self)
        for one in group:
            if one.parcel.delivery is not None:
                self.letters.start(one.parcel.delivery.ack())
        return [attrs.evolve(one, parcel=mailbox.Parcel(heard=one.heard)) for one in group]

    patch.setattr(shell.Shell, "_decide_group", decide)


@defect("a turn is said before it is stored")
def say_before_store(patch):
    real = shell.Shell._stored

    async def stored(self, group):
        for one in group:
            await self._speaker.say_all(one.words)
        return await real(self, group)

    patch.setattr(shell.Shell, "_stored", stored)


@defect("the machine follows before the turn is stored")
def obey_before_store(patch):
    real = shell.Shell._stored

    async def stored(self, group):
        for one in group:
            one.hosted.record.apply(one.decision.changes)
            one.hosted.actor.obey(one.hosted.record, one.decision.changes)
        return await real(self, group)

    patch.setattr(shell.Shell, "_stored", stored)


@defect("a message is acked before its words are said")
def ack_before_say(patch):
    async def say_and_ack(self, decided):
        if decided.parcel.delivery is not None:
            await decided.parcel.delivery.ack()
        await self._speaker.say_all(decided.words)
        decided.hosted.end_turn()
        self.ready(decided.hosted)

    patch.setattr(shell.Shell, "_say_and_ack", say_and_ack)


@defect("a turn that could not be stored is forgotten")
def refused_turns_are_forgotten(patch):
    patch.setattr(shell.Shell, "_take_back", lambda *_: None)


@defect("an actor does not obey")
def nobody_obeys(patch):
    def obey(self, decided):
        decided.hosted.record.apply(decided.decision.changes)
        for name, timer in decided.change.timers.items():
            if timer is None:
                decided.hosted.timers.pop(name, None)
            else:
                decided.hosted.timers[name] = timer
                self._alarms.set(timer.due, decided.hosted, name)
        self._show(decided)

    patch.setattr(shell.Shell, "_obey", obey)


@defect("an actor takes a message while a turn of it is under way")
def turns_overlap(patch):
    def ready(self):
        return self.state is hosted.State.RUNNING and not self.paused and len(self.mailbox) > 0

    patch.setattr(hosted.Hosted, "ready", property(ready))


@defect("a mailbox hands out the newest message first")
def mailbox_is_a_stack(patch):
    patch.setattr(mailbox.Mailbox, "take", lambda self: self._parcels.pop() if self._parcels else None)


@defect("timers that rang are lost while messages wait")
def rings_are_lost(patch):
    real = mailbox.Mailbox.ring

    def ring(self, timer):
        if not self._parcels:
            real(self, timer)

    patch.setattr(mailbox.Mailbox, "ring", ring)


@defect("timers do not outlive their node")
def timers_are_not_armed(patch):
    patch.setattr(shell.Shell, "arm", lambda *_: None)


@defect("an actor that comes back does not obey what it loaded")
def nobody_obeys_at_restart(patch):
    real = roster.Roster._bring_up

    async def bring_up(self, one, rings_not_before=0.0):
        obey, one.actor.obey = one.actor.obey, lambda *_: None
        try:
            await real(self, one, rings_not_before)
        finally:
            one.actor.obey = obey

    patch.setattr(roster.Roster, "_bring_up", bring_up)


@defect("messages that arrive while a node starts are lost")
def early_messages_are_lost(patch):
    real = node.Node._deliver

    def deliver(self, delivery):
        if self._early is None:
            real(self, delivery)

    patch.setattr(node.Node, "_deliver", deliver)


@defect("what a node drops is never acked")
def dropped_messages_are_not_acked(patch):
    def drop(self, parcel, why, **_fields):
        self._counts[why] += 1

    patch.setattr(shell.Shell, "drop", drop)


@defect("words of one turn to one target leave side by side, in any order")
def words_overtake_each_other(patch):
    async def say_all(self, words):
        for word in reversed(words):
            await self.say(word)

    patch.setattr(saying.Speaker, "say_all", say_all)


@defect("a ring that is out of date counts")
def old_rings_count(patch):
    def ring(self, one, timer):
        one.mailbox.ring(timer)
        self.ready(one)

    patch.setattr(shell.Shell, "_ring", ring)


@defect("a timer rings at once")
def timers_ring_at_once(patch):
    patch.setattr(deciding.Decider, "_timers", lambda *_: {})


@defect("alarms ring only once, the earliest")
def alarms_forget(patch):
    def due(self):
        self._handle = None
        if self._waiting and self._waiting[0][0] <= self._clock.now():
            _, _, owner, timer = self._waiting.pop(0)
            self._ring(owner, timer)
        self._waiting.clear()

    patch.setattr(alarms.Alarms, "_due", due)


# -- the store


@defect("a commit tears: the first half of its rows is there after a crash")
def commit_tears(patch):
    real = disk.SimStore.commit

    async def commit(self, changes):
        before, self._before = self._before, lambda *_: None
        statements = list(disk.statements_of(changes))
        self.write(statements[: len(statements) // 2])
        for change in changes[: len(changes) // 2]:
            self.disk.record(change.actor).apply(change.values)
        self._before = before
        await real(self, changes)

    patch.setattr(disk.SimStore, "commit", commit)


@defect("what a turn drops stays in the store")
def drops_are_not_stored(patch):
    real = disk.SimStore.write
    patch.setattr(disk.SimStore, "write", lambda self, rows: real(self, [one for one in rows if one[3] is not None]))


@defect("timers are not written")
def timers_are_not_stored(patch):
    patch.setattr(disk.SimStore, "set_timers", lambda *_: None)


@defect("a value is stored under its kind alone")
def keys_collide(patch):
    real = disk.statements_of
    patch.setattr(disk, "statements_of", lambda changes: [(one[0], one[1], "", one[3]) for one in real(changes)])


@defect("a store that is full says that it has written")
def full_store_says_yes(patch):
    real = disk.SimStore.commit

    async def commit(self, changes):
        if self.disk.full:
            self._after(self._process, changes)
        else:
            await real(self, changes)

    patch.setattr(disk.SimStore, "commit", commit)


# -- the bus


@defect("what was not acked is gone with its connection")
def unacked_is_lost(patch):
    def detach(_self, queue, _unacked):
        queue.consumer = None

    patch.setattr(wire.SimNetwork, "detach", detach)


@defect("acks are forgotten")
def acks_are_forgotten(patch):
    async def ack(_self):
        return

    patch.setattr(wire.SimDelivery, "ack", ack)


@defect("a queue hands out the newest message first")
def queue_is_a_stack(patch):
    real = wire.SimNetwork.land

    def land(self, envelope, raw, confirm):
        real(self, envelope, raw, confirm)
        for one in self._queues.values():
            one.fresh.rotate(1)

    patch.setattr(wire.SimNetwork, "land", land)


@defect("messages lose their cast on the wire")
def cast_is_lost(patch):
    real = codec.decode
    patch.setattr(wire, "decode", lambda raw: attrs.evolve(real(raw), cast=None))


@defect("the catalogue mistakes one body for another")
def bodies_are_mistaken(patch):
    real = catalogue.Catalogue.encode

    def encode(self, say, **fields):
        envelope = real(self, say, **fields)
        return attrs.evolve(envelope, type="Resume") if envelope.type == "Welcome" else envelope

    patch.setattr(catalogue.Catalogue, "encode", encode)


@defect("holdings lose their last range when they are joined")
def ranges_are_lost(patch):
    def short(parts):
        return tuple(
            Holding(device=one.device, generation=one.generation, slots=SlotSet.of_ranges(one.slots.ranges()[:-1]))
            if len(one.slots.ranges()) > 1
            else one
            for one in joined(parts)
        )

    for module in (device, manager, hosting):
        patch.setattr(module, "joined", short)
