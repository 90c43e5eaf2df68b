"""Timers are rows of the store: they ring as ticks, in order, with jitter, and also after a restart."""

import attrs

from actors.runtime.actor import Tick
from actors.runtime.clock import Clock, RealClock
from actors.runtime.store import TimerRow
from tests.actors.runtime.parts import A, Poke, Rings, SetTimer, Tallier, World


@attrs.define
class Shifted(Clock):
    """The real clock, set forward."""

    by_s: float

    def now(self) -> float:
        return RealClock().now() + self.by_s


@attrs.define
class Standing(Clock):
    """A clock that stands still until it is set."""

    at: float

    def now(self) -> float:
        return self.at


@attrs.frozen
class Always:
    """A random that is none."""

    value: float

    def random(self) -> float:
        return self.value


async def stored_timers(world: World) -> dict[str, TimerRow]:
    _, timers = await world.store.load(A, Tallier.kinds)
    return dict(timers)


async def test_a_timer_rings_as_a_tick_from_the_actor_itself_and_is_gone(world: World):
    await world.open(Tallier(A))

    await world.peer.say(A, SetTimer(name="once", after_s=0.0))
    await world.watch.until(lambda: len(world.watch.turns) == 2)

    heard = world.watch.turns[1].heard
    assert (heard.source, heard.body) == (A, Tick(timer="once", count=1))
    assert await stored_timers(world) == {}


async def test_a_timer_that_is_set_anew_in_its_own_tick_goes_on_counting(world: World):
    await world.open(Tallier(A))

    await world.peer.say(A, SetTimer(name="again", after_s=0.0))
    await world.watch.until(lambda: len(world.watch.turns) == 4)

    assert await world.record(A, Rings) == Rings(counts=(1, 2, 3))


async def test_a_timer_that_is_set_anew_by_another_message_counts_from_the_start(world: World):
    await world.open(Tallier(A))
    await world.peer.say(A, SetTimer(name="again", after_s=0.0))
    await world.watch.until(lambda: len(world.watch.turns) == 4)

    await world.peer.say(A, SetTimer(name="again", after_s=0.0))
    await world.watch.until(lambda: len(world.watch.turns) == 8)

    assert await world.record(A, Rings) == Rings(counts=(1, 2, 3, 1, 2, 3))


async def test_the_jitter_is_a_fifth_of_the_time_either_way(world: World):
    for chance, due in ((0.0, 1080.0), (0.5, 1100.0), (1.0, 1120.0)):
        world.options |= {"clock": Standing(1000.0), "random": Always(chance)}
        world.make()
        await world.node.start([Tallier(A)])
        world.node.post(A, SetTimer(name="late", after_s=100.0))
        await world.watch.until(lambda: len(world.store.groups) == 1)

        assert await stored_timers(world) == {"late": TimerRow(due=due, count=0)}
        await world.node.kill()


async def test_a_timer_rings_in_the_life_after_a_crash(world: World):
    await world.open(Tallier(A))
    await world.peer.say(A, SetTimer(name="late", after_s=3600.0))
    await world.watch.until(lambda: len(world.store.groups) == 1)
    await world.node.kill()

    world.options["clock"] = Shifted(7200.0)
    world.make()
    await world.node.start([Tallier(A)])
    await world.watch.until(lambda: len(world.watch.turns) == 2)

    assert world.watch.turns[1].type == "Tick(late)"


async def test_a_tick_that_was_heard_but_not_stored_before_a_crash_comes_again(world: World):
    await world.open(Tallier(A))
    await world.peer.say(A, SetTimer(name="tell", after_s=3600.0))
    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: len(world.peer.heard) == 1)
    await world.node.kill()
    world.options["clock"] = Shifted(7200.0)

    world.make()
    world.store.before_commit.armed = True
    await world.node.start([Tallier(A)])
    await world.store.before_commit.reached.wait()
    await world.node.kill()
    world.make()
    await world.node.start([Tallier(A)])
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert world.watch.turns[-1].heard.body == Tick(timer="tell", count=1)
    assert world.peer.bodies[1] == world.peer.bodies[0]


async def test_a_timer_that_is_stopped_rings_no_more(world: World):
    clock = Standing(1000.0)
    world.options["clock"] = clock
    world.make()
    await world.open(Tallier(A))
    await world.peer.say(A, SetTimer(name="late", after_s=100.0))
    await world.peer.say(A, SetTimer(name="late", after_s=None))
    await world.peer.say(A, SetTimer(name="other", after_s=0.0))
    await world.watch.until(lambda: len(world.watch.turns) == 3)

    clock.at = 5000.0
    await world.peer.say(A, SetTimer(name="other", after_s=0.0))
    await world.watch.until(lambda: any(seen.type == "Tick(other)" for seen in world.watch.turns))

    assert not any(seen.type == "Tick(late)" for seen in world.watch.turns)
    assert "late" not in await stored_timers(world)


async def test_a_ring_is_not_lost_in_a_full_mailbox(world: World):
    world.options["mailbox_max"] = 1
    world.make()
    await world.open(Tallier(A))
    await world.peer.say(A, SetTimer(name="once", after_s=0.0))
    await world.watch.until(lambda: len(world.store.groups) == 1)
    world.node.stop_mailbox(A)
    await world.peer.say(A, Poke(number=1))
    await world.peer.say(A, Poke(number=2))
    await world.watch.until(lambda: world.node.counts["dropped_full"] == 1)

    world.node.resume_mailbox(A)
    await world.watch.until(lambda: len(world.watch.turns) == 3)

    assert {seen.type for seen in world.watch.turns} == {"SetTimer", "Tick(once)", "Poke"}


async def test_a_tick_that_causes_a_defect_keeps_its_timer_and_lets_its_actor_live(world: World):
    class Fragile(Tallier):
        def decide(self, turn) -> None:
            if isinstance(turn.heard.body, Tick):
                raise KeyError("no such thing")
            super().decide(turn)

    await world.open(Fragile(A))

    await world.peer.say(A, SetTimer(name="bad", after_s=0.0))
    await world.watch.until(lambda: world.node.counts["restarts"] == 1)
    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.node.counts["defects"] == 1
    assert list(await stored_timers(world)) == ["bad"]
