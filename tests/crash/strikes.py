"""What is struck in a round, where and when: all of it from the round's seed."""

import random
from collections.abc import Sequence

import attrs

from actors.sagas.migration import ROWS

ROW_NAMES = tuple(row.name for row in ROWS)
CLEANUP = "cleanup"
LATE_S = 0.6
"""a strike by the clock comes up to so many seconds after the round has begun: a migration takes about half of it"""


@attrs.frozen(kw_only=True)
class Strike:
    """One fault. `moment` is a row that was just done, "cleanup" (the guest has moved), or empty: `after_s` by the clock."""

    what: str
    """node, pager, rabbitmq, all, or stop: a node is stopped (SIGSTOP) and goes on after `lasts_s`"""
    role: str
    """whose: source, target, manager or other"""
    moment: str
    after_s: float
    lasts_s: float

    @property
    def point(self) -> str:
        """When, for people."""
        return self.moment or "any moment"

    def __str__(self) -> str:
        where = f" of the {self.role}" if self.what in ("node", "stop", "pager") else ""
        lasts = f" for {self.lasts_s:.1f} s" if self.what == "stop" else ""
        return f"{self.what}{where}{lasts}, {self.after_s * 1000:.0f} ms after {self.moment or 'the beginning'}"


KINDS = {
    "fake": {"node": 12, "stop": 3, "rabbitmq": 1, "all": 1},
    "qemu": {"node": 8, "pager": 8, "stop": 2, "rabbitmq": 1, "all": 1},
}
"""how often what is struck, by the kind of guest"""
ROLES = ("source", "target", "manager", "other")


def strikes_of(pick: random.Random, guest: str) -> Sequence[Strike]:
    """One or two strikes, in the order in which they come (a second one may meet the world still recovering)."""
    count = 2 if pick.random() < 0.25 else 1
    return [_strike(pick, guest) for _ in range(count)]


def _strike(pick: random.Random, guest: str) -> Strike:
    kinds = KINDS[guest]
    (what,) = pick.choices(list(kinds), list(kinds.values()))
    moment = pick.choice(("", *ROW_NAMES, CLEANUP, CLEANUP))
    return Strike(
        what=what,
        role=pick.choices(ROLES, (5, 5, 3, 1))[0],
        moment=moment,
        after_s=pick.uniform(0.0, LATE_S) if moment in ("", CLEANUP) else pick.choice((0.0, pick.uniform(0.0, 0.05))),
        lasts_s=pick.uniform(0.5, 3.0),
    )
