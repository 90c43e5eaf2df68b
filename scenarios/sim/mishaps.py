"""What goes wrong by itself, one mishap after another, as the profile weighs them. Each ends by itself, or with all faults."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scenarios.sim.host import Place

if TYPE_CHECKING:
    from scenarios.sim.world import World


async def strike(world: "World") -> None:
    """Let things go wrong until cancelled."""
    while True:
        await asyncio.sleep(world.random.expovariate(1 / world.fortune.profile.every_s))
        strike_once(world)


def strike_once(world: "World") -> None:
    """One mishap, as the profile weighs them."""
    profile, pick = world.fortune.profile, world.random
    (name,) = pick.choices(list(profile.mishaps), list(profile.mishaps.values()))
    place = world.places[pick.choice(list(world.places))]
    if world.fortune.allowed(name):
        world.tell(f"{place.name}: {name}")
        world.step()
        MISHAPS[name](world, place)


def _lasts(world: "World") -> float:
    """Most are short, some are long."""
    return world.random.choice((0.05, 0.3, 1.0, 3.0, 7.0)) * world.fortune.between(0.5, 1.0)


def _crash(_world: "World", place: Place) -> None:
    if place.process is not None:
        place.process.kill()


def _restart(_world: "World", place: Place) -> None:
    process, host = place.process, place.host
    if process is None or host is None or process.frozen:
        return

    async def end() -> None:
        await host.node.stop()
        process.kill()

    process.start(end())


def _freeze(world: "World", place: Place) -> None:
    process = place.process
    if process is None or process.frozen:
        return
    lasts = _lasts(world)
    process.freeze()
    if lasts > 5:
        world.network.drop(place.name)

    def thaw() -> None:
        if process.alive and process.frozen:
            process.thaw()

    world.network.later(lasts, thaw)


def _cut_off(world: "World", place: Place) -> None:
    world.network.cut(place.name)
    world.network.later(_lasts(world), world.network.mend, place.name)


def _connection_lost(world: "World", place: Place) -> None:
    world.network.drop(place.name)


def _hosts_parted(world: "World", place: Place) -> None:
    other = world.random.choice(list(world.places))
    world.network.part(place.name, other)
    world.network.later(_lasts(world), world.network.join, place.name, other)


def _machine_died(world: "World", _place: Place) -> None:
    machines = [machine for machine in world.machines() if machine.pages is not None]
    if machines:
        machine = world.random.choice(machines)
        world.tell(f"{machine.instance}: its machine dies")
        machine.die("its process ended with signal 9")


def _power_lost(_world: "World", place: Place) -> None:
    for machine in place.machines.values():
        if machine.pages is not None:
            machine.die("its host lost power")
    _crash(_world, place)


def _store_full(world: "World", place: Place) -> None:
    place.disk.full = True

    def mend() -> None:
        place.disk.full = False

    world.network.later(_lasts(world), mend)


def _device_error(world: "World", place: Place) -> None:
    medium = world.media[world.random.choice(list(world.media))]
    medium.failing.add(place.name)
    world.network.later(_lasts(world), medium.failing.discard, place.name)


def _slots_unreadable(world: "World", place: Place) -> None:
    medium = world.media[world.random.choice(list(world.media))]
    medium.unreadable.add(place.name)
    world.network.later(_lasts(world), medium.unreadable.discard, place.name)


def _device_slow(world: "World", _place: Place) -> None:
    medium = world.media[world.random.choice(list(world.media))]
    medium.slow = True


def _clock_jump(world: "World", place: Place) -> None:
    place.clock.error_s += world.fortune.between(-20.0, 20.0)


def _garbage(world: "World", place: Place) -> None:
    world.network.inject(place.name, b"\xc1 nobody can read this")


MISHAPS: Mapping[str, Callable[["World", Place], None]] = {
    "crash": _crash,
    "restart": _restart,
    "freeze": _freeze,
    "cut off": _cut_off,
    "connection lost": _connection_lost,
    "hosts parted": _hosts_parted,
    "machine died": _machine_died,
    "power lost": _power_lost,
    "store full": _store_full,
    "device error": _device_error,
    "device slow": _device_slow,
    "slots unreadable": _slots_unreadable,
    "clock jump": _clock_jump,
    "garbage": _garbage,
}
