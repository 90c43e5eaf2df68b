"""The cleanup saga: slots that a guest no longer needs abroad come home, and devices leave the sharing table.

| row        | who     | on       | does                                                        | says     |
|------------|---------|----------|-------------------------------------------------------------|----------|
| copy       | pager   | -        | foreign slot -> own slot, switches the table entry          | Named    |
| named      | owner   | Named    | what the table names no longer is idle                      |          |
| return     | owner   | timer    | -                                                           | Return   |
| **take**   | device  | Return   | if still this owner and generation: to its home, returned   | Taken    |
| taken      | owner   | Taken    | drops the slots in that generation                          |          |
| survey     | home    | timer    | -                                                           | Survey   |
| regain     | home    | Surveyed | lent slots in a higher generation are free again            | Regained |
| record     | manager | Regained | out of the sharing table if the generation is higher        | Recorded |
| unshare    | home    | timer    | none of the device lent or unconfirmed                      | Unshare  |
| unlist     | manager | Unshare  | the entry leaves if it is empty with nothing pending        | Unshared |

*take* is the pivot: before it nothing has changed, after it everything is reconciliation. Nothing here is undone, and every
word is said again by a timer until the record no longer asks for it: levels, not events.
"""

from collections.abc import Iterable, Mapping

import attrs

from actors.domain import hosting, ledger
from actors.domain.holdings import Holding, joined, pieces
from actors.domain.hosting import Brought, HostFacts, Instance, Lending, Lent, Owned, put_owned
from actors.domain.ledger import Right
from actors.domain.lifecycle import Level, State
from actors.domain.sharing import Shared
from actors.messages import (
    MANAGER,
    Named,
    Recorded,
    Regained,
    Return,
    Survey,
    Surveyed,
    Taken,
    Unshare,
    Unshared,
    hypervisor,
    swap_device,
)
from actors.runtime.actor import Turn

HOUSEKEEPING_LAST_S = 15.0
RUNS = (State.RUNNING, State.LEAVING)

# -- the owner


def named(turn: Turn, body: Named) -> None:
    """What a running guest's table names no longer falls idle. A report of another phase says nothing: a staged instance
    has an empty table while its slots are already granted."""
    instance, brought = turn.get(Instance, body.instance), turn.get(Brought, body.instance)
    if instance is None or brought is None or body.revision != instance.revision or not instance.reached:
        return
    if instance.state not in RUNS or instance.wanted not in (Level.RUNNING, Level.BOOTED):
        return
    left = {device: slots & body.slots[device] for device, slots in brought.slots.items() if device in body.slots}
    left = {device: slots for device, slots in left.items() if slots}
    if left == brought.slots:
        return
    if left:
        turn.put(attrs.evolve(brought, slots=left), body.instance)
    else:
        turn.drop(Brought, body.instance)
        turn.event("cleaned", vm=instance.vm, instance=instance.id)
    turn.timer("housekeeping", hosting.HOUSEKEEPING_S)


def taken(turn: Turn, body: Taken) -> None:
    """These slots are ours no longer in this generation."""
    for holding in body.holdings:
        owned = turn.get(Owned, holding.key)
        if owned is not None:
            put_owned(turn, holding.device, holding.generation, owned.slots - holding.slots)


def housekeeping(facts: HostFacts, turn: Turn, count: int) -> None:
    """All that owner and home repeat until it is answered."""
    says = [*_returns(facts, turn), *_surveys(turn), *_regained(facts, turn), *_unshares(facts, turn)]
    for target, body in says:
        turn.say(target, body, row="housekeeping")
    if says:
        turn.timer("housekeeping", min(HOUSEKEEPING_LAST_S, hosting.HOUSEKEEPING_S * 2 ** min(count - 1, 5)))


def _returns(facts: HostFacts, turn: Turn) -> Iterable[tuple[str, object]]:
    for device, holdings in _per_device(hosting.idle_foreign(turn, facts)).items():
        for piece in pieces(holdings):
            yield swap_device(device), Return(host=facts.host, holdings=piece)


# -- the device


def take(turn: Turn, rights: dict[int, Right], home: str, body: Return, generation: int) -> dict[int, Right | None]:
    """The pivot: slots that are still the sender's in that generation go home. Answered either way, so that an owner who
    has them no longer learns it. Returns what changes in the ledger."""
    device = body.holdings[0].device if body.holdings else ""
    turn.say(hypervisor(body.host), Taken(device=device, holdings=body.holdings), row="take")
    held = [
        attrs.evolve(holding, slots=holding.slots & rights[holding.generation].slots)
        for holding in body.holdings
        if holding.generation in rights and rights[holding.generation].owner == body.host
    ]
    held = [holding for holding in held if holding.slots]
    return ledger.given(rights, held, home, generation, returned=True) if held else {}


def surveyed(turn: Turn, device: str, rights: dict[int, Right], home: str, body: Survey) -> None:
    """Tell the home what was given back. Nothing new is not said."""
    back = [Holding(device=device, generation=one, slots=slots) for one, slots in ledger.given_back(rights, home, body.since)]
    if not back:
        return
    parts = pieces(back)
    for chunk, piece in enumerate(parts):
        until = back[-1].generation
        answer = Surveyed(device=device, since=body.since, until=until, chunk=chunk, of=len(parts), holdings=piece)
        turn.say(turn.heard.source, answer, row="survey")


# -- the home


def _surveys(turn: Turn) -> Iterable[tuple[str, object]]:
    for device in sorted({lent.device for lent in turn.all(Lent).values()}):
        known = turn.get(hosting.Surveyed, device) or hosting.Surveyed()
        yield swap_device(device), Survey(since=known.since)


def regain(turn: Turn, body: Surveyed) -> None:
    """Lent slots that came back in a higher generation are free again."""
    for holding in joined([body.holdings]):
        for key, lent in turn.all(Lent).items():
            back = lent.slots & holding.slots
            if lent.device == body.device and lent.generation < holding.generation and back:
                _regain(turn, key, lent, attrs.evolve(holding, slots=back))
    known = turn.get(hosting.Surveyed, body.device) or hosting.Surveyed()
    if body.since != known.since:
        return
    seen = known.seen if known.until == body.until else frozenset[int]()
    seen |= {body.chunk}
    if len(seen) == body.of:
        turn.put(hosting.Surveyed(since=body.until), body.device)
    else:
        turn.put(attrs.evolve(known, until=body.until, seen=seen), body.device)
    turn.timer("housekeeping", hosting.HOUSEKEEPING_S)


def _regain(turn: Turn, key: str, lent: Lent, back: Holding) -> None:
    hosting.keep_lent(turn, lent, key, lent.slots - back.slots)
    for kind in (Owned, hosting.Regained):
        known = turn.get(kind, back.key)
        slots = known.slots | back.slots if known else back.slots
        turn.put(kind(device=back.device, generation=back.generation, slots=slots), back.key)


def _regained(facts: HostFacts, turn: Turn) -> Iterable[tuple[str, object]]:
    for piece in pieces(turn.all(hosting.Regained).values()):
        if piece:
            plain = tuple(Holding(device=one.device, generation=one.generation, slots=one.slots) for one in piece)
            yield MANAGER, Regained(home=facts.host, holdings=plain)


def recorded(turn: Turn, body: Recorded) -> None:
    """The manager knows: nothing more to be said of these."""
    for holding in body.holdings:
        known = turn.get(hosting.Regained, holding.key)
        if known is None:
            continue
        left = known.slots - holding.slots
        if left:
            turn.put(attrs.evolve(known, slots=left), holding.key)
        else:
            turn.drop(hosting.Regained, holding.key)
    turn.timer("housekeeping", hosting.HOUSEKEEPING_S)


def _unshares(facts: HostFacts, turn: Turn) -> Iterable[tuple[str, object]]:
    away = {one.device for one in turn.all(Lent).values()} | {one.device for one in turn.all(hosting.Regained).values()}
    for device, lending in sorted(turn.all(Lending).items()):
        if device not in away:
            yield MANAGER, Unshare(home=facts.host, device=device, loan=lending.loan)


def unshared(turn: Turn, body: Unshared) -> None:
    """The device left the table; unless slots have left again since, there is nothing more to ask for."""
    lending = turn.get(Lending, body.device)
    if lending is not None and lending.loan == body.loan:
        turn.drop(Lending, body.device)
        turn.event("unshared", device=body.device)


# -- the manager


def record(turn: Turn, homes: Mapping[str, str], body: Regained) -> None:
    """Slots are at home again, where the generation is higher than the listed one."""
    for holding in body.holdings:
        shared = turn.get(Shared, holding.device)
        if shared is not None:
            home = homes[holding.device]
            turn.put(shared.assigned(holding.generation, home, holding.slots, home), holding.device)
    turn.say(turn.heard.source, Recorded(holdings=body.holdings), row="record")


def unlist(turn: Turn, body: Unshare) -> None:
    """The entry leaves if it is empty; else silence, and the home asks again."""
    shared = turn.get(Shared, body.device)
    if shared is not None and not shared.empty:
        return
    turn.drop(Shared, body.device)
    turn.event("unlisted", device=body.device)
    turn.say(turn.heard.source, Unshared(device=body.device, loan=body.loan), row="unlist")


def _per_device(holdings: Iterable[Holding]) -> dict[str, list[Holding]]:
    found: dict[str, list[Holding]] = {}
    for holding in holdings:
        found.setdefault(holding.device, []).append(holding)
    return found
