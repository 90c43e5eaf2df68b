"""One contract over both buses: the rules that `bus.broker` numbers."""

import asyncio

import attrs
import msgpack
import pytest

from bus.broker import MESSAGE_BYTES_MAX
from bus.codec import encode
from bus.errors import Absent, TooLarge, Transient, Unreadable, Unroutable, Unusable
from tests.bus.worlds import MemoryWorld, RabbitWorld, letter

HOST, OTHER, VM = "hypervisor.h1", "hypervisor.h2", "vm.web1@h1.h1-3"


@pytest.fixture(params=["memory", "rabbitmq"])
async def world(request):
    world = MemoryWorld() if request.param == "memory" else RabbitWorld(request.getfixturevalue("rabbitmq"))
    yield world
    await world.close()


# Rule 1: at least once


async def test_a_message_arrives_as_it_was_said(world):
    node = await world.node("h1", HOST)
    said = letter(
        "one", body={"ranges": [[1, 5], [9, 12]], "raw": b"\x00\xff", "none": None}, cast={"saga": "h1-3"}, row="grant",
        epoch=7, correlation="h1-3", causation="zero", deadline=12.5, sent_at=1700000000.25, trace="t",
    )

    await node.broker.publish(said)

    delivery = await node.hear()
    await delivery.ack()
    assert delivery.envelope == said
    assert not delivery.redelivered


async def test_messages_wait_for_a_node_that_is_away(world):
    first, other = await world.node("h1", HOST), await world.node("h2")
    await first.broker.close()

    await other.broker.publish(letter("one"))

    second = await world.node("h1")
    assert await second.hear_and_ack(1) == ["one"]


# Rule 2: confirm


async def test_a_publish_that_nobody_can_confirm_raises_transient(world):
    node = await world.node("h1", HOST, publish_timeout_s=0.2)
    await node.broker.close()

    with pytest.raises(Transient):
        await node.broker.publish(letter("one"))


# Rule 3: return


async def test_a_message_to_nobody_comes_back_and_is_a_dead_letter(world):
    node = await world.node("h1", HOST)

    with pytest.raises(Unroutable, match=r"hypervisor\.h9"):
        await node.broker.publish(letter("lost", "hypervisor.h9"))

    (dead,) = await world.dead_letters(node, 1)
    assert (dead.reason, dead.envelope.id) == ("unroutable", "lost")
    assert (node.broker.counters.returned, node.broker.counters.dead_lettered) == (1, 1)


async def test_only_the_message_to_nobody_comes_back_when_many_are_said_at_once(world):
    node = await world.node("h1", HOST)
    targets = [HOST, "hypervisor.h9"] * 10

    results = await asyncio.gather(
        *(node.broker.publish(letter("same", target)) for target in targets), return_exceptions=True
    )

    assert [type(result) for result in results] == [type(None), Unroutable] * 10
    assert await node.hear_and_ack(10) == ["same"] * 10


async def test_an_address_is_nobodys_after_its_unbinding(world):
    node = await world.node("h1", HOST, VM)
    await node.broker.publish(letter("before", VM))

    await node.broker.unbind(VM)
    await node.broker.unbind(VM)

    with pytest.raises(Unroutable):
        await node.broker.publish(letter("after", VM))
    assert await node.hear_and_ack(1) == ["before"]


async def test_binding_twice_is_binding_once(world):
    node = await world.node("h1", HOST, HOST)

    await node.broker.publish(letter("one"))
    await node.broker.publish(letter("two"))

    assert await node.hear_and_ack(2) == ["one", "two"]


# Rule 4: redelivery


async def test_what_a_closed_node_had_not_acked_is_delivered_again(world):
    first = await world.node("h1", HOST)
    for name in ("one", "two", "three"):
        await first.broker.publish(letter(name))
    deliveries = [await first.hear() for _ in range(3)]
    await deliveries[1].ack()

    await first.broker.close()

    second = await world.node("h1")
    again = [await second.hear(), await second.hear()]
    assert [(each.envelope.id, each.redelivered) for each in again] == [("one", True), ("three", True)]
    assert second.broker.counters.redelivered == 2


async def test_a_second_node_of_one_name_waits_until_the_first_is_gone(world):
    first = await world.node("h1", HOST)
    second = await world.node("h1")
    await first.broker.publish(letter("one"))
    await first.hear()

    await first.broker.close()

    assert (await second.hear()).envelope.id == "one"
    assert [each.envelope.id for each in first.held] == ["one"]


async def test_a_message_given_back_comes_again(world):
    node = await world.node("h1", HOST)
    await node.broker.publish(letter("one"))

    await (await node.hear()).requeue()

    again = await node.hear()
    await again.ack()
    assert (again.envelope.id, again.redelivered) == ("one", True)


async def test_an_ack_after_the_node_closed_raises_nothing(world):
    node = await world.node("h1", HOST)
    await node.broker.publish(letter("one"))
    delivery = await node.hear()
    await node.broker.close()

    await delivery.ack()

    second = await world.node("h1")
    assert (await second.hear()).redelivered


# Rule 5: order


async def test_messages_arrive_in_the_order_of_their_publishes(world):
    node, other = await world.node("h1", HOST), await world.node("h2")
    names = [f"{number}" for number in range(200)]

    await asyncio.gather(*(other.broker.publish(letter(name)) for name in names))

    assert await node.hear_and_ack(200) == names


# Rule 6: dead letters


def _foreign(**changes):
    fields = msgpack.unpackb(encode(letter("bad")))
    return msgpack.packb(fields | changes)


BAD_INPUT = {
    "nothing at all": (b"", "undecodable"),
    "not msgpack": (b"\xc1\xc1\xc1", "undecodable"),
    "a map of integers": (msgpack.packb({1: 2}), "undecodable"),
    "more than one value": (msgpack.packb({}) * 2, "undecodable"),
    "not a map": (msgpack.packb([1, 2]), "malformed: an envelope is a map"),
    "an extension type": (_foreign(body={"x": msgpack.ExtType(4, b"code")}), "undecodable"),
    "an unknown version": (_foreign(v=2), "unknown version: envelope version 2, this node reads 1"),
    "an unknown field": (_foreign(colour="red"), "colour"),
    "a field of another type": (_foreign(id=7), "field 'id'"),
    "too large": (b"\x00" * (MESSAGE_BYTES_MAX + 1), f"too large: {MESSAGE_BYTES_MAX + 1} bytes"),
}


async def test_bad_input_is_never_delivered_and_ends_as_a_dead_letter_with_its_reason(world):
    node = await world.node("h1", HOST)

    for raw, _ in BAD_INPUT.values():
        await world.inject(HOST, raw)
    await node.broker.publish(letter("good"))

    assert await node.hear_and_ack(1) == ["good"]
    dead = await world.dead_letters(node, len(BAD_INPUT))
    assert {each.raw for each in dead} == {raw for raw, _ in BAD_INPUT.values()}
    for name, (raw, reason) in BAD_INPUT.items():
        (found,) = [each for each in dead if each.raw == raw]
        assert reason in found.reason, name
        assert found.envelope is None
    assert node.broker.counters.dead_lettered == len(BAD_INPUT)


async def test_bad_input_is_gone_from_the_queue_once_it_is_a_dead_letter(world):
    node = await world.node("h1", HOST)
    await world.inject(HOST, b"\xc1")
    await world.dead_letters(node, 1)

    await node.broker.close()

    second = await world.node("h1")
    await second.broker.publish(letter("good"))
    assert await second.hear_and_ack(1) == ["good"]
    assert len(await second.broker.dead_letters()) == 1


async def test_a_rejected_message_is_a_dead_letter_with_the_reason_of_its_reader(world):
    node = await world.node("h1", HOST)
    await node.broker.publish(letter("one"))

    await (await node.hear()).reject("malformed: Grant names no device")

    (dead,) = await world.dead_letters(node, 1)
    assert (dead.reason, dead.envelope) == ("malformed: Grant names no device", letter("one"))
    await node.broker.close()
    second = await world.node("h1")
    await second.broker.publish(letter("two"))
    assert await second.hear_and_ack(1) == ["two"]


async def test_a_message_that_is_too_large_is_refused_at_its_author(world):
    node = await world.node("h1", HOST)
    fits = letter("fits", body={"x": b"\x00" * (MESSAGE_BYTES_MAX - 300)})

    with pytest.raises(TooLarge):
        await node.broker.publish(attrs.evolve(fits, body={"x": b"\x00" * MESSAGE_BYTES_MAX}))
    await node.broker.publish(fits)

    delivery = await node.hear()
    await delivery.ack()
    assert delivery.envelope == fits


async def test_looking_at_dead_letters_changes_neither_their_number_nor_their_order(world):
    node = await world.node("h1", HOST)
    for name in ("a", "b", "c"):
        with pytest.raises(Unroutable):
            await node.broker.publish(letter(name, OTHER))

    oldest = await node.broker.dead_letters(limit=2)
    looks = [await world.dead_letters(node, 3) for _ in range(25)]

    assert [each.envelope.id for each in oldest] == ["a", "b"]
    assert [[each.envelope.id for each in look] for look in looks] == [["a", "b", "c"]] * 25


# Rule 12: redrive; rule 13: drop


async def three_dead_letters(world):
    node = await world.node("h1", HOST)
    for name in ("a", "b", "c"):
        with pytest.raises(Unroutable):
            await node.broker.publish(letter(name, OTHER))
    return node, {one.envelope.id: one.id for one in await world.dead_letters(node, 3)}


async def test_a_dead_letter_is_sent_again_to_whom_it_was_for(world):
    node, ids = await three_dead_letters(world)
    other = await world.node("h2", OTHER)

    await node.broker.redrive(ids["b"])

    assert await other.hear_and_ack(1) == ["b"]
    assert [one.envelope.id for one in await world.dead_letters(node, 2)] == ["a", "c"]


async def test_a_dead_letter_to_nobody_stays_where_it_is(world):
    node, ids = await three_dead_letters(world)

    with pytest.raises(Unroutable, match=r"hypervisor\.h2"):
        await node.broker.redrive(ids["b"])

    assert [one.envelope.id for one in await world.dead_letters(node, 3)] == ["a", "b", "c"]


async def test_a_dead_letter_is_dropped_and_the_others_stay_in_their_order(world):
    node, ids = await three_dead_letters(world)

    await node.broker.drop(ids["a"])
    with pytest.raises(Absent, match=ids["a"]):
        await node.broker.drop(ids["a"])

    assert [one.envelope.id for one in await world.dead_letters(node, 2)] == ["b", "c"]


async def test_what_cannot_be_read_is_not_sent_again_but_can_be_dropped(world):
    node = await world.node("h1", HOST)
    await world.inject(HOST, b"\xc1")
    (dead,) = await world.dead_letters(node, 1)

    with pytest.raises(Unreadable, match="drop it"):
        await node.broker.redrive(dead.id)
    assert [one.id for one in await world.dead_letters(node, 1)] == [dead.id]
    await node.broker.drop(dead.id)

    assert list(await node.broker.dead_letters()) == []


# Rule 7: delivery limit


async def test_a_message_given_back_too_often_is_a_dead_letter(world):
    node = await world.node("h1", HOST)
    await node.broker.publish(letter("poison"))

    for _ in range(world.topology.delivery_limit + 1):
        await (await node.hear()).requeue()

    (dead,) = await world.dead_letters(node, 1)
    assert (dead.reason, dead.envelope.id) == ("delivery limit", "poison")
    await node.broker.publish(letter("good"))
    assert await node.hear_and_ack(1) == ["good"]


# Rule 8 is what `Node.deliver` does; rules 1, 2, 4 and 9 in an outage


async def test_after_an_outage_nodes_are_back_with_their_bindings_and_every_confirmed_message(world):
    node, user, away = await world.node("h1", HOST), await world.node("user.u1", "user.u1"), await world.node("h2", OTHER)
    await away.broker.close()
    names = [f"{number}" for number in range(50)]
    await asyncio.gather(*(node.broker.publish(letter(name, OTHER)) for name in names))
    await node.broker.publish(letter("held"))
    held = await node.hear()

    await world.stop()
    late = asyncio.create_task(node.broker.publish(letter("said during the outage")))
    await held.ack()
    assert not late.done()
    await world.start()

    await late
    again, said = await node.hear(), await node.hear()
    assert [again.envelope.id, said.envelope.id] == ["held", "said during the outage"]
    assert again.redelivered
    await user.broker.bind("user.u1")  # an answer means that it is connected again
    await node.broker.publish(letter("for the user", "user.u1"))
    assert await user.hear_and_ack(1) == ["for the user"]
    back = await world.node("h2")
    assert await back.hear_and_ack(50) == names


# Rule 10: alarm


async def test_under_an_alarm_publishers_wait_and_consumers_go_on(world):
    node, other = await world.node("h1", HOST), await world.node("h2", OTHER, publish_timeout_s=1.0)
    for name in ("one", "two"):
        await other.broker.publish(letter(name))

    await world.block()
    try:
        with pytest.raises(Transient):
            await other.broker.publish(letter("blocked"))
        with pytest.raises(Transient):
            await other.broker.publish(letter("blocked too"))
        assert await node.hear_and_ack(2) == ["one", "two"]
    finally:
        await world.unblock()

    await node.broker.publish(letter("free again"))
    while (delivery := await node.hear()).envelope.id != "free again":  # what was blocked may arrive after all
        assert delivery.envelope.id.startswith("blocked")


# Rule 11: prefetch


async def test_no_more_than_the_prefetch_is_unacked(world):
    node, other = await world.node("h1", HOST, prefetch=2), await world.node("h2")
    for number in range(4):
        await other.broker.publish(letter(f"{number}"))
    first, second = await node.hear(), await node.hear()
    with pytest.raises(Unroutable):
        await other.broker.publish(letter("a round trip later", "hypervisor.h9"))
    assert len(node.held) == 2

    await first.ack()

    assert (await node.hear()).envelope.id == "2"
    await second.ack()
    assert (await node.hear()).envelope.id == "3"


# Nodes of users, names


async def test_the_queue_of_a_user_goes_with_its_connection(world):
    node, user = await world.node("h1", HOST), await world.node("user.u1", "user.u1")
    await node.broker.publish(letter("one", "user.u1"))
    assert await user.hear_and_ack(1) == ["one"]

    await user.broker.close()

    with pytest.raises(Unroutable):
        await node.broker.publish(letter("two", "user.u1"))


@pytest.mark.parametrize("address", ["", "hypervisor", "hypervisor.", "hypervisor.#", "vm.web1@h1", "user.a b", "h1", "#"])
async def test_an_address_that_is_none_cannot_be_bound(world, address):
    node = await world.node("h1")

    with pytest.raises(Unusable, match="is no address"):
        await node.broker.bind(address)


async def test_a_node_with_an_impossible_name_cannot_open(world):
    with pytest.raises(Unusable, match="is no node name"):
        await world.node("h1/../h2")
