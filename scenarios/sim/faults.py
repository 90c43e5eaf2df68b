"""What may go wrong, how often, as data: three profiles, and the kinds that the coverage table counts.

Chances are per occasion (a publish, a commit, a slot write). Mishaps come by themselves: `every_s` is the mean time between two,
and `per_step` the chance of one right after a step, since most of the time nothing happens that could be disturbed.
"""

from collections.abc import Mapping

import attrs

CRASH_POINTS = ("before store", "store to obey", "obey to say", "say to ack")
"""where in a turn a node dies: between which steps of the shell"""

MISHAPS: Mapping[str, str] = {
    "crash": "a node is killed and comes back from its store",
    "restart": "a node is told to end, and comes back",
    "freeze": "a node stands still while time passes, and goes on",
    "cut off": "a node loses the broker for a while",
    "connection lost": "a node's connection drops once; what was not acked comes again",
    "hosts parted": "two hosts cannot reach each other",
    "machine died": "a guest's machine ends by itself",
    "power lost": "a host loses power: its node and all its guests",
    "store full": "a store refuses commits for a while",
    "device error": "a host gets EIO from a device for a while",
    "device slow": "a device answers slowly for a while",
    "slots unreadable": "a host reads flipped bytes from a device for a while",
    "clock jump": "a node's clock is set",
    "garbage": "bytes that nobody can read arrive at a node",
}
"""what happens by itself"""

FATES: Mapping[str, str] = {
    "publish lost": "a publish never reaches the broker, its publisher is told so",
    "confirm lost": "a publish arrives, its publisher is told that it did not",
    "duplicate": "a message comes twice",
    "late": "a message is under way for long",
    "ack lost": "the connection breaks when a message is acked",
    "write torn": "a slot write leaves half of what was there, and fails",
    "delivery broken": "the data channel breaks in the middle",
}
"""what happens to something"""


@attrs.frozen(kw_only=True)
class Profile:
    """How rough the world is."""

    name: str
    every_s: float
    """mean virtual seconds between two mishaps"""
    per_step: float
    mishaps: Mapping[str, int]
    """weights"""
    fates: Mapping[str, float]
    """chances"""
    crash: float
    """chance at each crash point"""
    crash_favourite: float
    """chance at the one crash point that this seed has its eye on"""
    skew_s: float
    steps: int = 500

    def chance(self, fate: str) -> float:
        """How likely this fate is."""
        return self.fates.get(fate, 0.0)


CALM = Profile(
    name="calm", every_s=8.0, per_step=0.004, mishaps={"restart": 2, "connection lost": 4, "device slow": 2, "clock jump": 1},
    fates={"duplicate": 0.01, "late": 0.01, "confirm lost": 0.002}, crash=0.0, crash_favourite=0.0, skew_s=0.1,
)  # fmt: skip
ROUGH = Profile(
    name="rough", every_s=8.0, per_step=0.008,
    mishaps={
        "crash": 6, "restart": 2, "freeze": 3, "cut off": 3, "connection lost": 6, "hosts parted": 3, "store full": 2,
        "device error": 2, "device slow": 2, "clock jump": 2, "garbage": 1,
    },
    fates={
        "publish lost": 0.01, "confirm lost": 0.01, "duplicate": 0.03, "late": 0.03, "ack lost": 0.005, "write torn": 0.01,
        "delivery broken": 0.05,
    },
    crash=0.002, crash_favourite=0.4, skew_s=2.0,
)  # fmt: skip
BRUTAL = Profile(
    name="brutal", every_s=5.0, per_step=0.015,
    mishaps={
        "crash": 8, "restart": 2, "freeze": 4, "cut off": 4, "connection lost": 8, "hosts parted": 4, "machine died": 4,
        "power lost": 2, "store full": 3, "device error": 3, "device slow": 2, "slots unreadable": 2, "clock jump": 3,
        "garbage": 1,
    },
    fates={
        "publish lost": 0.02, "confirm lost": 0.02, "duplicate": 0.07, "late": 0.05, "ack lost": 0.01, "write torn": 0.03,
        "delivery broken": 0.1,
    },
    crash=0.004, crash_favourite=0.7, skew_s=10.0,
)  # fmt: skip

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (CALM, ROUGH, BRUTAL)}
