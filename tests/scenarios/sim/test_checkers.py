"""Each rule, fed a world that breaks it."""

import asyncio
import types
from collections.abc import Callable, Iterable

import attrs
import pytest

from actors.domain.hosting import Armed, Instance, Lending, Owned
from actors.domain.ledger import Right
from actors.domain.lifecycle import Level, State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import MANAGER, Cast, hypervisor, swap_device
from actors.runtime.actor import Event, Heard, Turn
from actors.runtime.observed import observed
from actors.runtime.saga import Progress
from actors.swap_device import Numbered
from bus.broker import DeadLetter
from bus.codec import encode
from bus.envelope import Envelope
from paging.guest import Definition
from paging.slots import SlotSet
from scenarios.sim import checkers
from scenarios.sim.chaos import Wish, play
from scenarios.sim.checkers import ALWAYS, AT_REST, CHECKERS, Violation
from scenarios.sim.faults import PROFILES
from scenarios.sim.host import SimHost, SimParts
from scenarios.sim.loop import VirtualLoop, run
from scenarios.sim.machine import SimMachine
from scenarios.sim.network import Message
from scenarios.sim.process import Process
from scenarios.sim.world import PAGES, RESIDENT, Size, World
from tests.scenarios.sim.defects import DEFECTS

DEFINITION = Definition(vm="vm1", memory_bytes=PAGES * 4096, resident_bytes=RESIDENT * 4096)
Break = Callable[[World], None]


def found(rule: str, break_it: Break) -> list[str]:
    """What the rule says of a world before and after it was broken."""

    async def main(loop: VirtualLoop) -> list[str]:
        world = World(loop, 1, PROFILES["calm"], Size())
        rules = {**ALWAYS, **AT_REST}
        assert list(rules[rule](world)) == []
        break_it(world)
        return list(rules[rule](world))

    return run(main)


def halted(break_it: Break) -> Violation:
    """What ends a world in which this happens."""

    async def main(loop: VirtualLoop) -> None:
        world = World(loop, 1, PROFILES["calm"], Size())
        break_it(world)
        await asyncio.sleep(1.0)

    with pytest.raises(Violation) as caught:
        run(main)
    return caught.value


def machine_at(world: World, host: str, instance: str) -> SimMachine:
    machine = world._machine(host, instance, DEFINITION)
    world.places[host].machines[instance] = machine
    machine.boot()
    return machine


def put(world: World, address: str, *values: tuple[object, str]) -> None:
    world.record(address).apply({(type(value), key): value for value, key in values})


def test_one_vm_that_executes_in_two_places():
    def broken(world: World) -> None:
        machine_at(world, "h1", "vm1@h1.boot-1")
        machine_at(world, "h2", "vm1@h2.h1-1")

    assert found("one place", broken) == ["vm1 executes in vm1@h1.boot-1 and vm1@h2.h1-1"]


def test_a_page_that_reads_otherwise_than_it_was_written():
    def broken(world: World) -> None:
        machine = machine_at(world, "h1", "vm1@h1.boot-1")
        machine._write(3, b"A" * 4096)
        machine.memory.poke(3, 100, b"B")

    assert len(found("pages", broken)) == 1


def test_a_guest_that_reads_what_it_has_not_written():
    def broken(world: World) -> None:
        machine = machine_at(world, "h1", "vm1@h1.boot-1")
        machine.moved = False
        machine._write(3, b"A" * 4096)
        world.truths["vm1"][3] = b"C" * 4096
        machine._read(3)

    assert "page 3" in found("pages", broken)[0]


def test_slots_that_are_away_of_a_device_that_is_not_listed():
    def broken(world: World) -> None:
        put(world, swap_device("d1"), (Right(owner="h2", slots=SlotSet([1])), "2"))

    assert len(found("listed", broken)) == 1


@pytest.mark.parametrize(("host", "device", "slot"), [("h2", "d1", 5), ("h1", "d1", 7), ("h2", "d1", 9)])
def test_a_slot_that_is_not_the_writers(host: str, device: str, slot: int):
    def broken(world: World) -> None:
        mine, theirs = Right(owner="h1", slots=SlotSet([5, 7])), Right(owner="h2", slots=SlotSet([9]))
        put(world, swap_device("d1"), (mine, "1"), (theirs, "2"))
        machine = machine_at(world, "h1", "vm1@h1.boot-1")
        assert machine.pages is not None
        machine.pages.arm({"d1": SlotSet([7])})
        for page in range(RESIDENT + 1):
            machine._write(page, bytes([page + 1]) * 4096)
        machine.pages.evict()
        world._guard(host, "somebody", device, slot)

    assert halted(broken).checker == "writers"


def test_a_generation_that_falls():
    def broken(world: World) -> None:
        put(world, swap_device("d1"), (Numbered(generation=5), ""))
        assert list(ALWAYS["generations"](world)) == []
        put(world, swap_device("d1"), (Numbered(generation=4), ""))

    assert found("generations", broken) == ["d1 counts 4, after 5; its newest right is of 0"]


def envelope(target: str, identity: str = "m1", source: str = "hypervisor.h1") -> Envelope:
    return Envelope(id=identity, type="Close", source=source, target=target, body={})


def test_words_that_arrive_out_of_order():
    def broken(world: World) -> None:
        process = Process("h2")
        for number in (2, 1):
            said = envelope(hypervisor("h2"), f"m{number}")
            world.witness.delivered(process, Message(b"", said.source, said.target, number), said)

    assert halted(broken).checker == "order"


def turned(world: World, *events: Event) -> None:
    for event in events:
        world.witness.judge(observed(0.0, MANAGER, Heard(id="m1", source="x", body=None), (event,), ()))


def event(name: str, **fields: str) -> Event:
    return Event(name=name, fields=fields)


@pytest.mark.parametrize(
    ("checker", "events"),
    [
        ("once", [event("row_done", saga="s", row="commit"), event("row_done", saga="s", row="commit")]),
        ("undone", [event("row_done", saga="s", row="commit"), event("undone", saga="s")]),
        ("undone", [event("undone", saga="s"), event("row_done", saga="s", row="commit")]),
        ("undone", [event("undone", saga="s"), event("verdict", request="r", outcome="done", saga="s")]),
        ("undone", [event("row_done", saga="s", row="commit"), event("verdict", request="r", outcome="undone", saga="s")]),
        ("verdicts", [event("verdict", request="r", outcome="done"), event("verdict", request="r", outcome="refused")]),
    ],
)
def test_a_turn_that_contradicts_an_earlier_one(checker: str, events: list[Event]):
    assert halted(lambda world: turned(world, *events)).checker == checker


@pytest.mark.parametrize(("checker", "reason"), [("defects", "defect of x"), ("dead letters", "unknown type 'X'")])
def test_a_dead_letter_that_should_not_be_one(checker: str, reason: str):
    said = envelope(MANAGER)
    letter = DeadLetter(reason=reason, raw=encode(said), envelope=said)

    assert halted(lambda world: world.witness.buried(letter)).checker == checker


@pytest.mark.parametrize("reason", ["unroutable", "undecodable: x"])
def test_a_dead_letter_that_may_be_one(reason: str):
    letter = envelope("vm.vm1@h1.boot-1") if reason == "unroutable" else None

    async def main(loop: VirtualLoop) -> None:
        world = World(loop, 1, PROFILES["calm"], Size())
        world.witness.buried(DeadLetter(reason=reason, raw=b"x", envelope=letter))

    run(main)


@pytest.mark.parametrize("step", ["obey", "say", "ack", "overlap"])
def test_a_turn_out_of_order(step: str):
    def broken(world: World) -> None:
        process, address = Process("h1"), hypervisor("h1")
        turn = Turn(world.record(address), Heard(id="m1", source="resource-manager", body=None))
        turn.put(Numbered())
        turn.say(MANAGER, Numbered())
        world.places["h1"].process = process
        world.turns.decided(process, address, turn)
        if step == "obey":
            world.turns.obeying(process, address)
        elif step == "say":
            world.turns.saying(process, attrs.evolve(envelope(MANAGER), source=address, causation="m1"))
        elif step == "ack":
            world.turns.acking(process, envelope(address))
        else:
            world.turns._open[process, address].stage = world.turns._open[process, address].stage.STORED
            world.turns.decided(process, address, turn)

    assert halted(broken).checker == "turns"


def test_a_saga_that_stays_open():
    cast = Cast(
        saga="h1-1", opener="h1", number=1, floor=1, vm="vm1", epoch=1, instance="vm1@h1.boot-1", source="h1", target="h2",
        devices=(),
    )  # fmt: skip

    assert found("sagas end", lambda world: put(world, hypervisor("h1"), (Progress(cast=cast), "h1-1"))) == [
        "saga h1-1 is still open at h1"
    ]


def instance(state: State = State.RUNNING) -> Instance:
    return Instance(id="vm1@h1.boot-1", vm="vm1", epoch=1, definition=DEFINITION, state=state, wanted=Level.BOOTED)


def test_an_instance_that_stays_halfway():
    assert found("sagas end", lambda world: put(world, hypervisor("h1"), (instance(State.FROZEN), "vm1@h1.boot-1")))


def test_a_placement_that_stays_locked():
    place = Placement(host="h1", definition=DEFINITION, lock="h1-1")

    assert found("sagas end", lambda world: put(world, MANAGER, (place, "vm1")))


def test_a_ledger_and_an_owner_that_disagree():
    def broken(world: World) -> None:
        put(world, swap_device("d1"), (Right(owner="h1", slots=SlotSet.span(0, 1200)), "1"))
        put(world, hypervisor("h1"), (Owned(device="d1", generation=1, slots=SlotSet.span(0, 1199)), "d1/1"))

    assert found("agreement", broken)


def test_a_slot_that_is_armed_twice():
    def broken(world: World) -> None:
        armed = Armed(slots={"d1": SlotSet([1, 2])})
        put(world, hypervisor("h1"), (armed, "vm1@h1.boot-1"), (armed, "vm2@h1.boot-1"))

    assert len(found("leaks", broken)) == 2


def test_a_vm_that_executes_where_it_is_not_placed():
    def broken(world: World) -> None:
        put(world, MANAGER, (Placement(host="h2", definition=DEFINITION), "vm1"))
        machine_at(world, "h1", "vm1@h1.boot-1")

    assert "vm1 is placed on h2 and executes on h1" in found("machines", broken)


def test_a_machine_that_nobody_knows():
    assert found("machines", lambda world: machine_at(world, "h1", "vm1@h1.boot-1"))  # type: ignore[arg-type, return-value]


def test_a_message_that_is_nowhere():
    def broken(world: World) -> None:
        world.network.landed += 1

    assert found("delivery", broken)


def test_slots_that_do_not_go_home():
    def broken(world: World) -> None:
        put(world, hypervisor("h2"), (Owned(device="d1", generation=2, slots=SlotSet([1])), "d1/2"))

    assert found("home", broken)


@pytest.mark.parametrize(("address", "value", "key"), [(hypervisor("h1"), Lending(loan=1), "d1"), (MANAGER, Shared(), "d1")])
def test_what_is_asked_for_though_it_is_done(address: str, value: object, key: str):
    assert found("home", lambda world: put(world, address, (value, key)))


def hosted(world: World, break_it: Callable[[SimHost], None]) -> None:
    """A host of this world whose node runs, in name only."""
    place = world.places["h1"]
    process = Process("h1")
    parts = SimParts(
        place, process, world.network, turns=world.turns, random=world.random, make=world._machine, find=world._listener
    )
    place.host = SimHost(place, parts, process, turns=world.turns, media=world.media, observe=world._observe)
    break_it(place.host)


def test_an_actor_that_met_a_defect():
    assert found("defects", lambda world: hosted(world, lambda host: host.node.counts.update({"defects": 1})))


def test_a_memory_that_is_not_what_the_disk_holds():
    def broken(world: World) -> None:
        def differ(host: SimHost) -> None:
            (actor, *_) = host._actors()
            watched = host.actors[actor.address]
            watched.record = type(world.record(actor.address))({(Numbered, ""): Numbered()})
            host.node = types.SimpleNamespace(states=lambda: {actor.address: checkers.HostedState.RUNNING})  # type: ignore[assignment]

        hosted(world, differ)

    assert found("store", broken)


def test_a_world_that_does_not_come_to_rest(monkeypatch: pytest.MonkeyPatch):
    DEFECTS["opener_never_asks_again"].apply(monkeypatch)

    broken = _first(play(seed, Wish(profile="brutal")).broken for seed in range(30))

    assert broken in {"liveness", "sagas end"}


def _first(histories: Iterable[object]) -> str:
    return next(getattr(one, "checker", "") for one in histories if one is not None)


def test_every_rule_has_a_test_here():
    tested = {
        "one place", "pages", "writers", "listed", "turns", "delivery", "order", "once", "generations", "undone", "verdicts",
        "dead letters", "defects", "sagas end", "agreement", "leaks", "machines", "liveness", "store", "home",
    }  # fmt: skip

    assert set(CHECKERS) == tested
