"""The fixed order receive -> before -> decide and store -> obey -> say -> ack, and what a crash between two steps costs."""

from collections.abc import Mapping

import pytest

from actors.runtime.actor import Key, Record, Turn
from tests.actors.runtime.parts import PEER, A, B, Break, Cast, Poke, Poked, SetTimer, Tallier, Tally, World


async def test_the_steps_come_in_the_fixed_order(either_world: World):
    world = either_world
    await world.open(Tallier(A, world.journal))
    world.journal.clear()  # obeyed once after loading

    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: "ack" in world.journal)

    assert world.journal == ["before", "decide", "store", "obey", "say", "ack"]


async def test_a_word_carries_what_caused_it_and_the_saga_it_belongs_to(world: World):
    await world.open(Tallier(A))

    asked = await world.peer.say(A, Poke(number=1), Cast(saga="h1-7", vm="web1", epoch=3))
    await world.watch.until(lambda: bool(world.peer.heard))

    (word,) = world.peer.envelopes
    assert (word.source, word.causation, word.correlation, word.epoch, word.row) == (A, asked.id, "h1-7", 3, "poked")


async def test_what_is_observed_names_actor_message_row_and_events(world: World):
    await world.open(Tallier(A))

    await world.peer.say(A, Poke(number=4))
    await world.watch.until(lambda: bool(world.watch.turns))

    (seen,) = world.watch.turns
    assert (seen.actor, seen.type, seen.row) == (A, "Poke", "poked")
    assert [(event.name, dict(event.fields)) for event in seen.events] == [("poked", {"number": 4})]


async def test_a_repeated_message_is_answered_with_the_same_words_and_ids(either_world: World):
    world = either_world
    await world.open(Tallier(A))

    await world.peer.say(A, Poke(number=1), message="m1")
    await world.peer.say(A, Poke(number=1), message="m1")
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    first, second = world.peer.envelopes
    assert (first.id, first.body) == (second.id, second.body)
    assert await world.record(A, Tally) == Tally(numbers=frozenset({1}))


@pytest.mark.parametrize("where", ["before the store", "after the store", "before saying", "before the ack"])
async def test_a_crash_between_two_steps_loses_nothing(either_world: World, where: str):
    world = either_world
    await world.open(Tallier(A))
    halt = {
        "before the store": world.store.before_commit,
        "after the store": world.store.after_commit,
        "before saying": world.broker.before_say,
        "before the ack": world.broker.before_ack,
    }[where]
    halt.armed = True
    await world.peer.say(A, Poke(number=1))
    await halt.reached.wait()

    await world.node.kill()
    await world.make().start([Tallier(A)])
    await world.watch.until(lambda: "ack" in world.journal)

    assert await world.record(A, Tally) == Tally(numbers=frozenset({1}))
    assert set(world.peer.bodies) == {Poked(numbers=frozenset({1}))}
    assert len({envelope.id for envelope in world.peer.envelopes}) == 1


async def test_after_a_crash_the_machine_obeys_what_was_stored(world: World):
    await world.open(Tallier(A))
    world.store.after_commit.armed = True
    await world.peer.say(A, Poke(number=1))
    await world.store.after_commit.reached.wait()
    await world.node.kill()

    obeyed: list[object] = []

    class Watched(Tallier):
        def obey(self, record: Record, changes: Mapping[Key, object | None]) -> None:  # noqa: ARG002
            obeyed.append(dict(changes))

    await world.make().start([Watched(A)])

    assert obeyed[0] == {(Tally, ""): Tally(numbers=frozenset({1}))}


async def test_a_word_that_the_broker_did_not_take_is_said_again_by_the_timer(world: World):
    await world.open(Tallier(A))
    world.broker.transient = 1

    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: world.node.counts["say_failed"] == 1)
    await world.peer.say(A, SetTimer(name="tell", after_s=0.0))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.peer.bodies == [Poked(numbers=frozenset({1}))]


async def test_a_word_to_nobody_is_a_dead_letter_and_stops_nothing(either_world: World):
    world = either_world
    await world.open(Tallier(A))

    await world.peer.say(A, Poke(number=1, reply_to="user.nobody"))
    await world.peer.say(A, Poke(number=2))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.peer.bodies == [Poked(numbers=frozenset({1, 2}))]
    assert await world.peer.dead_reasons(1) == ["unroutable"]
    assert world.node.counts["say_unroutable"] == 1


async def test_one_group_holds_one_message_of_each_actor_and_is_one_transaction(world: World):
    names = [f"hypervisor.a{number}" for number in range(8)]
    await world.open(*map(Tallier, names))
    for name in names:
        world.node.stop_mailbox(name)
    for name in names * 2:
        await world.peer.say(name, Poke(number=1))
    await world.watch.until(lambda: all(world.node.waiting(name) == 2 for name in names))

    for name in names:
        world.node.resume_mailbox(name)
    await world.watch.until(lambda: len(world.peer.heard) == 16)

    first = [change.actor for change in world.store.groups[0]]
    assert first == names
    assert all(len(group) == len({change.actor for change in group}) for group in world.store.groups)


async def test_an_actor_takes_no_message_before_its_last_one_is_acked(world: World):
    await world.open(Tallier(A), Tallier(B))
    world.broker.before_ack.armed = True

    await world.peer.say(A, Poke(number=1))
    await world.broker.before_ack.reached.wait()
    await world.peer.say(A, Poke(number=2))
    await world.peer.say(B, Poke(number=1))
    await world.watch.until(lambda: len(world.watch.turns) == 2)

    assert [seen.actor for seen in world.watch.turns] == [A, B]
    assert world.node.waiting(A) == 1


@pytest.mark.parametrize("how", ["raise", "put", "say"])
async def test_a_defect_takes_back_its_own_turn_only_and_is_a_dead_letter(world: World, how: str):
    await world.open(Tallier(A), Tallier(B))
    world.node.stop_mailbox(A)
    world.node.stop_mailbox(B)
    await world.peer.say(A, Break(how=how))
    await world.peer.say(A, Poke(number=1))
    await world.peer.say(B, Poke(number=2))
    await world.watch.until(lambda: world.node.waiting(A) == 2 and world.node.waiting(B) == 1)

    world.node.resume_mailbox(A)
    world.node.resume_mailbox(B)
    await world.watch.until(lambda: len(world.peer.heard) == 2)

    assert await world.record(A, Tally) == Tally(numbers=frozenset({1}))
    assert await world.record(B, Tally) == Tally(numbers=frozenset({2}))
    (reason,) = await world.peer.dead_reasons(1)
    assert reason.startswith(f"defect of {A}: ")
    assert world.node.counts["restarts"] == 1


async def test_an_actor_whose_machine_fails_to_obey_is_restarted_with_what_was_stored(world: World):
    actor = Tallier(A)
    await world.open(actor)

    await world.peer.say(A, Break(how="obey"))
    await world.peer.say(A, Poke(number=8))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.peer.bodies == [Poked(numbers=frozenset({7, 8}))]
    assert actor.stopped == 1
    assert await world.peer.dead_reasons(1) == [f"defect of {A}: the machine does not follow"]


async def test_an_onlooker_that_fails_stops_nothing(world: World):
    def fail(seen) -> None:
        raise ValueError("I cannot look at this")

    world.options["observe"] = fail
    world.make()
    await world.open(Tallier(A))

    await world.peer.say(A, Poke(number=1))
    await world.watch.until(lambda: bool(world.peer.heard))

    assert world.node.counts["defects"] == 0


async def test_after_a_word_that_failed_the_later_ones_to_the_same_target_are_not_tried(world: World):
    class Talker(Tallier):
        def decide(self, turn: Turn) -> None:
            for number in range(3):
                turn.say(PEER, Poked(numbers=frozenset({number})))

    await world.open(Talker(A))
    world.broker.transient = 1

    await world.peer.say(A, Poke(number=1))
    await world.peer.say(A, Poke(number=2))
    await world.watch.until(lambda: len(world.peer.heard) == 3)

    assert world.peer.bodies == [Poked(numbers=frozenset({number})) for number in range(3)]
    assert (world.node.counts["say_failed"], world.node.counts["unsaid"]) == (1, 2)
