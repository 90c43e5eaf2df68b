"""What the manager does about a host that is dead for good, in an order that loses nothing (PROTOCOL 8).

1. its sagas that have not committed are undone, new ones refused;
2. the manager asks on behalf of every saga that names it, until all are closed; the dead are passed over;
3. then each device takes back what it owned, in a new generation: what it still has under way is refused;
4. then its VMs are placed elsewhere, in a new epoch, and booted;
5. devices whose home is dead are surveyed and unlisted by the manager itself.

A dead host comes back only under a new name.
"""

from collections.abc import Mapping

import attrs

from actors.domain.lifecycle import Outcome
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.messages import Boot, Cast, Dead, Fence, Fenced, Survey, Surveyed, Verdict, hypervisor, swap_device
from actors.runtime.actor import Turn
from actors.runtime.saga import Progress
from actors.sagas.migration import MIGRATION

ASK_S = 1.0
ASK_LAST_S = 30.0


@attrs.frozen(kw_only=True)
class DeadHost:
    """A host that an operator declared dead, and how far its burial is."""

    reply_to: str
    request: str
    fenced: frozenset[str] = frozenset()
    """devices that have taken back what it owned"""


def dead_hosts(turn: Turn) -> frozenset[str]:
    """All that were declared dead."""
    return frozenset(turn.all(DeadHost))


def informed(turn: Turn, cast: Cast) -> Cast:
    """The cast, with what the manager knows of the dead."""
    return attrs.evolve(cast, dead=dead_hosts(turn))


def declare(manager: object, turn: Turn, hosts: frozenset[str], body: Dead) -> None:
    """An operator's statement; told again it is answered again."""
    known = turn.get(DeadHost, body.host)
    if body.host not in hosts:
        reason = f"unknown host {body.host}"
        turn.say(body.reply_to, Verdict(request=body.request, vm="", outcome=Outcome.REFUSED, reason=reason))
        return
    if known is None:
        turn.put(DeadHost(reply_to=body.reply_to, request=body.request), body.host)
        turn.event("declared_dead", host=body.host)
        for progress in _open_sagas(turn, body.host):
            cast = informed(turn, progress.cast)
            MIGRATION.undo(manager, turn, cast, f"{body.host} was declared dead", (), opener_is_me=False)
        turn.timer("dead", ASK_S)
    elif not _unfinished(turn, body.host):
        reason = f"{body.host} is buried: its sagas are closed, its slots taken back, its VMs placed elsewhere"
        turn.say(body.reply_to, Verdict(request=body.request, vm="", outcome=Outcome.DONE, reason=reason))


def _open_sagas(turn: Turn, host: str) -> list[Progress]:
    close = MIGRATION.index("close")
    return [one for one in turn.all(Progress).values() if one.row < close and host in (one.cast.source, one.cast.target)]


def fenced(turn: Turn, body: Fenced) -> None:
    """A device has taken back what the dead host owned."""
    known = turn.get(DeadHost, body.host)
    if known is not None:
        turn.put(attrs.evolve(known, fenced=known.fenced | {body.device}), body.host)


def _unfinished(turn: Turn, host: str) -> bool:
    return bool(_open_sagas(turn, host)) or any(place.host == host for place in turn.all(Placement).values())


def go_on(manager: object, turn: Turn, homes: Mapping[str, str], hosts: frozenset[str], count: int) -> None:
    """One round of everything that is left to do about the dead."""
    busy = False
    for host in sorted(dead_hosts(turn)):
        opened = _open_sagas(turn, host)
        for progress in opened:
            MIGRATION.repeat(manager, turn, informed(turn, progress.cast))
        busy = bool(opened) or _bury(turn, host, homes, hosts) or busy
    if _survey(turn, homes) or busy:
        turn.timer("dead", min(ASK_LAST_S, ASK_S * 2 ** min(count, 8)))


def _bury(turn: Turn, host: str, homes: Mapping[str, str], hosts: frozenset[str]) -> bool:
    """Fence, then place its VMs anew. True while there is something left to do."""
    known = turn.get(DeadHost, host)
    assert known is not None, "only the dead are buried"
    dead = dead_hosts(turn)
    # An arbiter lives where its device is at home: one that died with its host lets nobody do anything any more.
    unfenced = sorted(device for device in set(homes) - known.fenced if homes[device] not in dead)
    for device in unfenced:
        turn.say(swap_device(device), Fence(host=host), row="fence")
    if unfenced:
        return True
    for vm, place in turn.all(Placement).items():
        if place.host == host:
            _place_anew(turn, vm, place, hosts)
    return _unfinished(turn, host)


def _place_anew(turn: Turn, vm: str, place: Placement, hosts: frozenset[str]) -> None:
    heirs = sorted(hosts - dead_hosts(turn))
    if not heirs:
        return
    anew = attrs.evolve(place, host=heirs[0], epoch=place.epoch + 1, lock="", booting=True, failed="")
    turn.put(anew, vm)
    turn.event("placed_anew", vm=vm, host=heirs[0], epoch=anew.epoch)
    turn.say(hypervisor(heirs[0]), Boot(vm=vm, epoch=anew.epoch, definition=anew.definition), row="boot")
    turn.timer("boot", ASK_S)


def next_heir(turn: Turn, vm: str, place: Placement, hosts: frozenset[str]) -> bool:
    """A host that could not start a VM of a dead one is passed over for the next. False: there is none left."""
    heirs = sorted(hosts - dead_hosts(turn))
    later = [host for host in heirs if host > place.host]
    if not dead_hosts(turn) or not later:
        return False
    turn.put(attrs.evolve(place, host=later[0], epoch=place.epoch + 1, booting=True, failed=""), vm)
    turn.timer("boot", ASK_S)
    return True


def _survey(turn: Turn, homes: Mapping[str, str]) -> bool:
    """Nobody asks for the slots of a dead home but the manager."""
    orphaned = sorted(device for device in turn.all(Shared) if homes[device] in dead_hosts(turn))
    for device in orphaned:
        shared = turn.get(Shared, device)
        if shared is not None and shared.empty:
            turn.drop(Shared, device)
            turn.event("unlisted", device=device)
        else:
            turn.say(swap_device(device), Survey(since=0), row="survey")
    return bool(orphaned)


def surveyed(turn: Turn, homes: Mapping[str, str], body: Surveyed) -> None:
    """Slots of a device whose home is dead have come back."""
    for holding in body.holdings:
        shared = turn.get(Shared, holding.device)
        if shared is not None:
            home = homes[holding.device]
            turn.put(shared.assigned(holding.generation, home, holding.slots, home), holding.device)
