"""What actors say to each other: the bodies, with PROTOCOL's names. Who says which to whom, and when, is the sagas' matter.

A class here is a type on the bus: its name is the type's name, `VERSION` (default 1) its version. Fields of a saga's players
are not repeated in bodies; they are in the `Cast` that every message of a saga carries.
"""

from actors.messages.cast import MANAGER, Cast, hypervisor, swap_device, vm_instance
from actors.messages.cleanup import Recorded, Regained, Return, Survey, Surveyed, Taken, Unshare, Unshared
from actors.messages.machine import Did, Looked, Named, Noticed, Reached, Report, Wanted
from actors.messages.migration import (
    Abort,
    Close,
    Closed,
    Commit,
    Enquire,
    Forget,
    Freeze,
    Grant,
    Granted,
    Offer,
    Prepare,
    Register,
    Restored,
    Resume,
    Undo,
    Welcome,
)
from actors.messages.placing import Boot, Booted, Dead, Fence, Fenced
from actors.messages.showing import Show, Shown
from actors.messages.users import Cancel, Clean, Define, Inspect, Inspected, Migrate, Verdict

BODIES: tuple[type, ...] = (
    Define, Migrate, Cancel, Clean, Inspect, Inspected, Verdict,
    Enquire, Offer,
    Register, Welcome, Freeze, Grant, Granted, Prepare, Commit, Resume, Forget, Close, Closed, Abort, Undo,
    Return, Taken, Survey, Surveyed, Regained, Recorded, Unshare, Unshared,
    Boot, Booted, Dead, Fence, Fenced,
    Show, Shown,
)  # fmt: skip
"""All that may travel on the bus."""

__all__ = [
    "BODIES",
    "MANAGER",
    "Abort",
    "Boot",
    "Booted",
    "Cancel",
    "Cast",
    "Clean",
    "Close",
    "Closed",
    "Commit",
    "Dead",
    "Define",
    "Did",
    "Enquire",
    "Fence",
    "Fenced",
    "Forget",
    "Freeze",
    "Grant",
    "Granted",
    "Inspect",
    "Inspected",
    "Looked",
    "Migrate",
    "Named",
    "Noticed",
    "Offer",
    "Prepare",
    "Reached",
    "Recorded",
    "Regained",
    "Register",
    "Report",
    "Restored",
    "Resume",
    "Return",
    "Show",
    "Shown",
    "Survey",
    "Surveyed",
    "Taken",
    "Undo",
    "Unshare",
    "Unshared",
    "Verdict",
    "Wanted",
    "Welcome",
    "hypervisor",
    "swap_device",
    "vm_instance",
]
