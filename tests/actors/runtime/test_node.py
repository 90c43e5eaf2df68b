"""Actors come, fail and go; messages find their mailbox or end where they belong."""

import attrs
import pytest

from actors.errors import StoreError
from actors.runtime.actor import Actor, Key, Record, Turn
from actors.runtime.hosted import State
from actors.runtime.sqlite import SqliteStore
from actors.runtime.supervisor import Policy
from bus.memory import MemoryBus
from tests.actors.runtime.parts import PEER, A, Ask, B, Break, Cast, Poke, Poked, Refused, Tallier, Tally, Unheard, World

VM = "vm.web1@h1.h1-1"


def bad_type(fields: dict) -> None:
    fields["type"] = "Grunt"


def bad_version(fields: dict) -> None:
    fields["type_v"] = 9


def bad_field(fields: dict) -> None:
    fields["body"] = {"number": "three", "reply_to": PEER}


def missing_field(fields: dict) -> None:
    fields["body"] = {"reply_to": PEER}


def extra_field(fields: dict) -> None:
    fields["body"] = {"number": 3, "reply_to": PEER, "colour": "red"}


def bad_cast(fields: dict) -> None:
    fields["cast"] = {"saga": "s"}


def not_heard(fields: dict) -> None:
    fields["type"], fields["body"] = "Unheard", {}


def no_actor(fields: dict) -> None:
    fields["target"] = B


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (bad_type, "unknown type 'Grunt'"),
        (bad_version, "Poke: version 9 is unknown here, known is 1"),
        (bad_field, "Poke.number: expected int, found str 'three'"),
        (missing_field, "Poke.number: missing"),
        (extra_field, "Poke: unknown field 'colour'"),
        (bad_cast, "Cast.vm: missing"),
        (not_heard, f"{A} does not hear Unheard"),
        (no_actor, f"no actor {B} on node n1"),
    ],
)
async def test_bad_input_is_a_dead_letter_with_its_reason_and_changes_nothing(either_world: World, spoil, reason: str):
    world = either_world
    await world.open(Tallier(A))
    await world.broker.bind(B)  # a route without an actor
    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: bool(world.peer.heard))
    good = world.peer.envelope(A, Poke(number=2))
    fields = attrs.asdict(good, recurse=False)
    spoil(fields)

    await world.peer.broker.publish(type(good)(**fields))
    await world.peer.say(A, Poke(number=5))
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert await world.peer.dead_reasons(1) == [reason]
    assert await world.record(A, Tally) == Tally(numbers=frozenset({1, 5}))
    assert world.node.states() == {A: State.RUNNING}


async def test_a_late_message_to_an_ended_instance_is_dropped_and_counted(world: World):
    await world.open(Tallier(A))
    await world.broker.bind(VM)

    await world.peer.say(VM, Poke(number=1))
    await world.watch.until(lambda: world.node.counts["dropped_late"] == 1)

    assert await world.peer.broker.dead_letters() == []


async def test_a_full_mailbox_drops_and_counts_and_answers_a_user_that_it_is_busy(world: World):
    world.options["mailbox_max"] = 2
    world.make()
    await world.open(Tallier(A))
    world.node.stop_mailbox(A)

    for number in range(3):
        await world.peer.say(A, Poke(number=number))
    await world.peer.say(A, Ask(request="r1"))
    await world.watch.until(lambda: bool(world.peer.heard))
    world.node.resume_mailbox(A)
    await world.watch.until(lambda: len(world.peer.heard) == 3)

    assert world.peer.bodies[0] == Refused(request="r1", reason="busy")
    assert world.node.counts["dropped_full"] == 2
    assert await world.record(A, Tally) == Tally(numbers=frozenset({0, 1}))


async def test_one_stuck_actor_does_not_stop_the_others(world: World):
    await world.open(Tallier(A), Tallier(B))
    world.node.stop_mailbox(A)

    for number in range(300):  # more than the broker hands out at once
        await world.peer.say(A, Poke(number=number))
    await world.peer.say(B, Poke(number=1))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.peer.bodies == [Poked(numbers=frozenset({1}))]
    assert world.node.waiting(A) < 300


async def test_an_actor_that_fails_too_often_is_given_up_and_the_others_go_on(world: World):
    world.options["policy"] = Policy(failures_max=3, within_s=3600.0)
    world.make()
    actor = Tallier(A)
    await world.open(actor, Tallier(B))

    for _ in range(3):
        await world.peer.say(A, Break(how="raise"))
    await world.watch.until(lambda: world.node.counts["given_up"] == 1)
    await world.peer.say(A, Poke(number=1))
    await world.peer.say(B, Poke(number=2))
    await world.watch.until(lambda: bool(world.peer.heard) and world.node.counts["dropped_stopped"] == 1)

    assert world.node.states() == {A: State.STOPPED, B: State.RUNNING}
    assert world.peer.bodies == [Poked(numbers=frozenset({2}))]
    assert world.node.counts["restarts"] == 2
    assert len(await world.peer.dead_reasons(3)) == 3


async def test_a_record_of_an_unknown_kind_stops_its_actor_only(world: World):
    store = SqliteStore(world.path)
    await store.open()
    from actors.runtime.store import Change
    from tests.actors.runtime.parts import Poke as Alien

    await store.commit([Change(actor=A, values={(Alien, ""): Alien(number=1)})])
    await store.close()

    await world.open(Tallier(A), Tallier(B))
    await world.peer.say(B, Poke(number=2))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.node.states() == {A: State.STOPPED, B: State.RUNNING}


async def test_a_posted_message_is_heard_without_the_bus(world: World):
    await world.open(Tallier(A))

    world.node.post(A, Poke(number=3))
    await world.watch.until(lambda: bool(world.peer.heard))

    (seen,) = world.watch.turns
    assert seen.heard.source == "node.n1"
    assert await world.record(A, Tally) == Tally(numbers=frozenset({3}))


async def test_a_post_to_nobody_or_of_an_unheard_type_is_counted(world: World):
    await world.open(Tallier(A))

    world.node.post(B, Poke(number=3))
    world.node.post(A, Unheard())
    world.node.post(A, Poke(number=3))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.node.counts["dropped_posts"] == 1
    assert world.node.counts["dead_lettered"] == 1
    assert world.node.counts["defects"] == 0


class Parent(Actor):
    """Starts an instance for the first poke and retires it for a number of 9, as a hypervisor does: from `obey`."""

    kinds = (Tally,)
    hears = (Poke,)
    address = A

    def __init__(self) -> None:
        self.world: World | None = None
        self.child = Tallier(VM)

    def decide(self, turn: Turn) -> None:
        turn.put(Tally(numbers=frozenset({turn.heard.body.number})))

    def obey(self, record: Record, changes: dict[Key, object | None]) -> None:  # noqa: ARG002
        tally = record.get(Tally)
        if tally is None or self.world is None:
            return
        if 9 in tally.numbers:
            self.world.node.retire(VM)
        else:
            self.world.node.spawn(self.child)


async def parent_with_child(world: World) -> Parent:
    parent = Parent()
    parent.world = world
    await world.open(parent)
    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: world.node.states().get(VM) is State.RUNNING)
    await world.peer.say(VM, Poke(number=4))
    await world.watch.until(lambda: len(world.peer.heard) == 1)
    return parent


async def test_an_actor_that_is_spawned_from_obey_hears_messages(world: World):
    await parent_with_child(world)

    assert world.peer.bodies == [Poked(numbers=frozenset({4}))]


async def test_a_spawned_actor_is_there_again_before_messages_are_taken_after_a_restart(world: World):
    parent = await parent_with_child(world)
    await world.node.kill()
    await world.peer.say(VM, Poke(number=5))

    world.make()
    await world.node.start([parent])
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert world.peer.bodies[1] == Poked(numbers=frozenset({4, 5}))
    assert world.node.counts["dropped_late"] == 0


async def test_a_retired_actor_has_no_record_no_address_and_no_descriptors(world: World):
    parent = await parent_with_child(world)

    await world.peer.say(A, Poke(number=9))
    await world.watch.until(lambda: parent.child.stopped == 1)
    await world.watch.until(lambda: VM not in world.broker.inner.addresses)
    await world.node.settle()

    assert await world.record(VM, Tally) is None
    assert VM not in world.node.states()


async def test_an_actor_that_is_spawned_while_its_predecessor_leaves_starts_empty(world: World):
    await parent_with_child(world)

    world.node.retire(VM)
    world.node.spawn(Tallier(VM))
    await world.watch.until(lambda: world.node.states()[VM] is State.RUNNING)
    await world.peer.say(VM, Poke(number=6))
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert world.peer.bodies[1] == Poked(numbers=frozenset({6}))


async def test_a_node_that_stops_finishes_its_turns_and_leaves_the_rest_to_its_successor(world: World):
    actor = Tallier(A)
    await world.open(actor, Tallier(B))
    world.node.stop_mailbox(B)
    await world.peer.say(A, Poke(number=1))
    await world.peer.say(B, Poke(number=2))
    await world.watch.until(lambda: bool(world.peer.heard) and world.node.waiting(B) == 1)

    await world.node.stop()
    assert actor.stopped == 1
    await world.make().start([Tallier(A), Tallier(B)])
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert world.peer.bodies == [Poked(numbers=frozenset({1})), Poked(numbers=frozenset({2}))]


async def test_a_second_node_on_one_store_is_refused_and_leaves_nothing_open(world: World):
    await world.open(Tallier(A))
    first = world.node
    world.make()

    with pytest.raises(StoreError, match=r"n1\.store: another node works on this store"):
        await world.node.start([Tallier(A)])

    world.broker.inner  # noqa: B018 - the second never came to open it
    assert first.states() == {A: State.RUNNING}


async def test_a_full_store_stores_nothing_says_nothing_and_goes_on_when_there_is_room(world: World):
    await world.open(Tallier(A))
    world.store.refusals = 1

    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: world.node.counts["store_refused"] == 1)
    assert await world.record(A, Tally) is None
    assert world.peer.heard == []
    await world.watch.until(lambda: bool(world.peer.heard))

    assert await world.record(A, Tally) == Tally(numbers=frozenset({1}))
    assert world.peer.bodies == [Poked(numbers=frozenset({1}))]


async def test_messages_that_came_during_an_outage_of_the_bus_are_heard_after_it(world: World, bus: MemoryBus):
    await world.open(Tallier(A))
    await world.peer.say(A, Poke(number=1), Cast(saga="s", vm="v", epoch=1))
    bus.stop()
    bus.start()
    await world.peer.say(A, Poke(number=2))
    await world.watch.until(lambda: Poked(numbers=frozenset({1, 2})) in world.peer.bodies)

    assert world.node.counts["defects"] == 0
