"""What is struck in a round, where and when: all of it from the round's seed."""

import random
from collections.abc import Mapping, Sequence

import attrs

from actors.sagas.migration import ROWS

ROW_NAMES = tuple(row.name for row in ROWS)
CLEANUP = "cleanup"
LATE_S = 0.6
"""a strike by the clock comes up to so many seconds after the round has begun: a migration takes about half of it"""


STEPS = ("shell.before_store", "shell.after_store", "shell.after_obey", "shell.after_say")
PLAYERS = {row.name: row.role for row in ROWS}
TURNS: Mapping[str, str] = {
    **{name: "source" if role == "device" else role for name, role in PLAYERS.items()},
    "undo manager": "manager", "undo device": "any", "undo source": "source", "undo target": "target",
    "Named": "target", "Return": "any", "Taken": "target", "Survey": "any", "Surveyed": "any", "Regained": "manager",
    "Recorded": "any", "Unshare": "manager", "Unshared": "any", "Tick(housekeeping)": "any", "Report": "any", "Wanted": "any",
    "Migrate": "source", "Enquire": "target", "Offer": "source", "Noticed": "any", "Boot": "any",
}  # fmt: skip
"""what a turn is (`what_it_was`) -> whose node does it, as far as that is known"""
LEVELS = {
    "staged": "target", "frozen": "source", "sent": "source", "loaded": "target", "running": "target", "gone": "source",
}  # fmt: skip


@attrs.frozen(kw_only=True)
class Strike:
    """One fault. `moment` is a row that was just done, "cleanup" (the guest has moved), or empty: `after_s` by the clock."""

    what: str
    """node, pager, rabbitmq, all, point: a node dies at a fault point, stop: a node is stopped (SIGSTOP) for `lasts_s`, cancel:
    nothing dies, but the user wants the migration undone (so that others die while it is)"""
    role: str
    """whose: source, target, manager, other or any (point: all are armed)"""
    moment: str = ""
    after_s: float = 0.0
    lasts_s: float = 0.0
    point: str = ""

    @property
    def when(self) -> str:
        """For people."""
        return self.point or (f"after {self.moment}" if self.moment else "any moment")

    @property
    def victim(self) -> str:
        """For people."""
        what = "node" if self.what == "point" else self.what
        return what if what in ("rabbitmq", "all", "cancel") else f"{what} of {self.role}"

    def __str__(self) -> str:
        if self.point:
            return f"{self.victim} at {self.point}"
        lasts = f" for {self.lasts_s:.1f} s" if self.what == "stop" else ""
        return f"{self.victim}{lasts}, {self.after_s * 1000:.0f} ms after {self.moment or 'the beginning'}"


KINDS = {
    "fake": {"point": 16, "node": 6, "stop": 3, "cancel": 3, "rabbitmq": 1, "all": 1},
    "qemu": {"point": 8, "node": 5, "pager": 8, "stop": 2, "cancel": 2, "rabbitmq": 1, "all": 1},
}
"""how often what is struck, by the kind of guest"""
ROLES = ("source", "target", "manager", "other")


def strikes_of(pick: random.Random, guest: str) -> Sequence[Strike]:
    """One or two strikes, in the order in which they come (a second one may meet the world still recovering)."""
    count = 2 if pick.random() < 0.25 else 1
    strikes = [_strike(pick, guest) for _ in range(count)]
    if any("undo" in strike.point for strike in strikes):
        strikes.append(Strike(what="cancel", role="any", moment=pick.choice(ROW_NAMES[:7])))
    return strikes


def _strike(pick: random.Random, guest: str) -> Strike:
    kinds = KINDS[guest]
    (what,) = pick.choices(list(kinds), list(kinds.values()))
    if what == "point":
        return _at_point(pick)
    moment = pick.choice(("", *ROW_NAMES, CLEANUP, CLEANUP))
    return Strike(
        what=what,
        role=pick.choices(ROLES, (5, 5, 3, 1))[0],
        moment=moment,
        after_s=pick.uniform(0.0, LATE_S) if moment in ("", CLEANUP) else pick.choice((0.0, pick.uniform(0.0, 0.05))),
        lasts_s=pick.uniform(0.5, 3.0),
    )


def _at_point(pick: random.Random) -> Strike:
    if pick.random() < 0.2:
        level, role = pick.choice(list(LEVELS.items()))
        return Strike(what="point", role=role, point=f"{pick.choice(('driver.before_effect', 'driver.after_effect'))}@{level}")
    turn, role = pick.choice(list(TURNS.items()))
    return Strike(what="point", role=role, point=f"{pick.choice(STEPS)}@{turn}")
