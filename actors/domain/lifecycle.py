"""States of an instance and what its machine can be told, as data with a sentence each.

The hypervisor's record decides the state; the machine is told a level and reports when it has reached it (PROTOCOL 13.5).
"""

from enum import StrEnum


class State(StrEnum):
    """What an instance is to its hypervisor."""

    STAGED = "staged"
    RUNNING = "running"
    LEAVING = "leaving"
    FREEZING = "freezing"
    FROZEN = "frozen"
    ENDING = "ending"


STATES = {
    State.STAGED: "came with a saga that has not committed; nobody runs it",
    State.RUNNING: "the VM runs here",
    State.LEAVING: "runs here, and a saga is open that will take it away",
    State.FREEZING: "its machine was told to stand still and has not yet said that it does",
    State.FROZEN: "stands still with a settled swap table; its slots are granted, its pages sent",
    State.ENDING: "its machine was told to go; it is dropped when that is reported",
}

TRANSITIONS = {
    State.STAGED: {State.RUNNING, State.ENDING},
    State.RUNNING: {State.LEAVING, State.ENDING},
    State.LEAVING: {State.RUNNING, State.FREEZING, State.ENDING},
    State.FREEZING: {State.FROZEN, State.RUNNING, State.ENDING},
    State.FROZEN: {State.RUNNING, State.ENDING},
    State.ENDING: frozenset[State](),
}


class Level(StrEnum):
    """What the machine of an instance is told to be."""

    BOOTED = "booted"
    STAGED = "staged"
    FROZEN = "frozen"
    SENT = "sent"
    LOADED = "loaded"
    RUNNING = "running"
    GONE = "gone"


LEVELS = {
    Level.BOOTED: "started anew with empty memory, running",
    Level.STAGED: "machine and pager wait for a guest to arrive; the listener is open",
    Level.FROZEN: "halted; device state saved; swap table settled",
    Level.SENT: "frozen, and delivered to the staged instance",
    Level.LOADED: "has received exactly what the manifest says; can run",
    Level.RUNNING: "runs with the memory it has (after a move, or after a thaw)",
    Level.GONE: "no machine, no pager, no files",
}


class Outcome(StrEnum):
    """How a user's request ended."""

    DONE = "done"
    UNDONE = "undone"
    ALREADY_DONE = "already done"
    REFUSED = "refused"
