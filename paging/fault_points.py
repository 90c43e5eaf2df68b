"""Faults on purpose: named places in the program at which a test lets a process crash, stand still, or meet an error.

    fault_point("evict.after_write")        # one line between two steps; does nothing unless the name is armed

A specification is "name=action[:nth]", several of them separated by commas: from the nth time on that the place is reached
(default: the first) the action happens; `pause` once, an error each time until disarmed. "name@detail=action" means the place
only where it is reached for that: a row of a saga (or the type of what was heard) in the shell, a level in the driver.

| action | what happens |
|---|---|
| crash | SIGKILL to this process: nothing is flushed, nothing cleaned up |
| pause | SIGSTOP to this process, until somebody sends SIGCONT |
| error, eio | `OSError` EIO |
| enospc | `OSError` ENOSPC |
| short | half of what was to be written, then EIO (only where something is written) |
| slow | 0.2 s more |

This module reads no environment: whoever starts a process hands the specification over.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping

import attrs

from paging.errors import PagingError

SLOW_S = 0.2
ACTIONS = ("crash", "pause", "slow", "error", "eio", "enospc", "short")
FAILING = ("store.commit", "device.read", "device.write", "driver.before_effect")
"""Where an error may come from at all; anywhere else it would be one that the real thing cannot have"""
_ERRORS = ACTIONS[3:]

POINTS: Mapping[str, str] = {
    "shell.before_store": "decided, nothing written",
    "shell.after_store": "written, the machine not told",
    "shell.after_obey": "the machine told, nothing said",
    "shell.after_say": "said, not acked",
    "driver.before_effect": "a machine is about to be brought to a level",
    "driver.after_effect": "it is there, nobody knows",
    "store.commit": "the store writes a group",
    "evict.after_fence": "pages fenced, not read",
    "evict.after_read": "read, not written",
    "evict.after_write": "slots written, not named",
    "evict.after_entry": "named, still in RAM",
    "evict.after_drop": "gone from RAM",
    "page_in.after_place": "in RAM, its entry not cleared",
    "page_in.after_clear": "entry cleared, slot not free",
    "copy.after_read": "a foreign slot read",
    "copy.after_write": "an own slot written, not named",
    "copy.after_entry": "the entry switched",
    "device.read": "a slot is read",
    "device.write": "slots are written",
}
"""Every place, with what has happened there and what has not"""


@attrs.define
class _Armed:
    action: str
    nth: int
    reached: int = 0


_armed: dict[str, _Armed] = {}
_specification = ""
followers: list[Callable[[str], None]] = []
"""who hands on what is armed to other processes; called by `arm`"""


def arm(specification: str) -> None:
    """Arm these places and no others; "" disarms all. Raises `PagingError` for a name or an action that does not exist."""
    global _specification  # noqa: PLW0603 - one process, one set of faults
    armed = dict(_parse(word) for word in specification.split(",") if word)
    _armed.clear()
    _armed.update(armed)
    _specification = specification
    for follow in followers:
        follow(specification)


def specification() -> str:
    """What is armed, to be handed to a process that is started."""
    return _specification


def lasting() -> str:
    """As `specification` without what happens once, for the successor of a process that it happened to."""
    return ",".join(word for word in _specification.split(",") if not {"crash", "pause"} & set(word.replace(":", "=").split("=")))


def is_armed(prefix: str) -> bool:
    """Whether any place whose name begins so is armed."""
    return any(name.startswith(prefix) for name in _armed)


def fault_point(name: str, detail: str = "") -> None:
    """Do what is armed here. Raises `OSError` for the actions that are errors."""
    if not _armed:
        return
    for armed in (name, f"{name}@{detail}"):
        if (action := due(armed)) is not None:
            _act(name, action)


def due(name: str) -> str | None:
    """Count that this place was reached; the action that is to happen now. For places that act themselves (`short`)."""
    armed = _armed.get(name)
    if armed is None:
        return None
    armed.reached += 1
    is_due = armed.reached == armed.nth if armed.action == "pause" else armed.reached >= armed.nth
    return armed.action if is_due else None


def _parse(word: str) -> tuple[str, _Armed]:
    name, _, rest = word.strip().partition("=")
    action, _, nth = rest.partition(":")
    place = name.partition("@")[0]
    if place not in POINTS or action not in ACTIONS or not (nth or "1").isdigit():
        raise PagingError(f"no such fault: {word!r}; a fault is NAME=ACTION[:NTH] with an action of {', '.join(ACTIONS)}")
    if action in _ERRORS and place not in FAILING:
        raise PagingError(f"{word!r}: nothing can fail at {place}; it can crash, pause or be slow there")
    return name, _Armed(action, int(nth or 1))


def _act(name: str, action: str) -> None:
    match action:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "slow":
            time.sleep(SLOW_S)
        case _:
            code = errno.ENOSPC if action == "enospc" else errno.EIO
            raise OSError(code, f"{os.strerror(code)} (fault point {name})")
