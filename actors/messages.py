"""What actors say to each other: the bodies, with PROTOCOL's names. Who says which to whom, and when, is the sagas' matter.

A class here is a type on the bus: its name is the type's name, `VERSION` (default 1) its version. Fields of a saga's players
are not repeated in bodies; they are in the `Cast` that every message of a saga carries.
"""

from collections.abc import Mapping

import attrs

from actors.domain.holdings import Holding
from actors.domain.lifecycle import Level, Outcome
from paging.guest import Definition, Endpoint, Manifest, PageCounts
from paging.slots import SlotSet

MANAGER = "resource-manager"


def hypervisor(host: str) -> str:
    """Address of a host's hypervisor."""
    return f"hypervisor.{host}"


def swap_device(device: str) -> str:
    """Address of a device's arbiter."""
    return f"swap-device.{device}"


def vm_instance(instance: str) -> str:
    """Address of a VM instance."""
    return f"vm.{instance}"


@attrs.frozen(kw_only=True)
class Cast:
    """Who plays in a saga; carried by each of its messages."""

    saga: str
    """"OPENER-NUMBER" """
    opener: str
    number: int
    floor: int
    """the opener's sagas below this number are over"""
    vm: str
    epoch: int
    """of the placement that the saga wants to replace"""
    instance: str
    """the source instance"""
    source: str
    target: str
    devices: tuple[str, ...]
    """swap devices that both reach and the VM may have slots on"""
    dead: frozenset[str] = frozenset()
    """hosts declared dead, as the manager knows"""


# -- users: asking twice with one request id is asking once


@attrs.frozen(kw_only=True)
class Define:
    """User to manager: let there be this VM, on this host, and start it."""

    request: str
    definition: Definition
    host: str


@attrs.frozen(kw_only=True)
class Migrate:
    """User to manager, manager to source: move the VM. `reply_to` is the user's address."""

    request: str
    vm: str
    target: str
    reply_to: str


@attrs.frozen(kw_only=True)
class Cancel:
    """User to manager, manager to the saga's source: undo the VM's migration if it still can be undone."""

    request: str
    vm: str
    reply_to: str


@attrs.frozen(kw_only=True)
class Inspect:
    """User to manager, on to the VM's instance: how does its memory lie? With `verify` the guest checks all of it."""

    request: str
    vm: str
    verify: bool
    reply_to: str


@attrs.frozen(kw_only=True)
class Inspected:
    """Instance to user. `words` is empty where the guest found every byte as written (or was not asked)."""

    request: str
    vm: str
    instance: str
    host: str
    ok: bool
    words: str
    counts: PageCounts | None = None


@attrs.frozen(kw_only=True)
class Verdict:
    """To the user: how the request ended, and why."""

    request: str
    vm: str
    outcome: Outcome
    reason: str
    saga: str = ""


# -- before a saga, without a record at the target


@attrs.frozen(kw_only=True)
class Enquire:
    """Source to target: what do you reach, and what room have you?"""

    request: str


@attrs.frozen(kw_only=True)
class Offer:
    """Target to source: devices reached (name -> uuid in the superblock, read just now), and free room."""

    request: str
    reached: Mapping[str, str]
    memory_bytes: int
    slots: int


# -- the rows of a migration


@attrs.frozen(kw_only=True)
class Register:
    """Source to manager: lock the placement for this saga."""


@attrs.frozen(kw_only=True)
class Welcome:
    """Manager to target: make room for this VM and stage an empty instance."""

    definition: Definition


@attrs.frozen(kw_only=True)
class Freeze:
    """Target to source: halt the guest; here its pages are awaited."""

    endpoint: Endpoint


@attrs.frozen(kw_only=True)
class Grant:
    """Source to device: let these slots pass to the target. All chunks or nothing."""

    chunk: int
    of: int
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Granted:
    """Device to source: what the Grant of this digest named belongs to the target now, in this generation."""

    device: str
    generation: int
    digest: str


@attrs.frozen(kw_only=True)
class Prepare:
    """Source to target: this was sent on the data channel, and these slots were granted to you."""

    chunk: int
    of: int
    manifest: Manifest
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Commit:
    """Target to manager: I have all of it; let the VM be mine."""

    chunk: int
    of: int
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Resume:
    """Manager to target: the VM is yours, run it."""


@attrs.frozen(kw_only=True)
class Forget:
    """Target to source: it runs here, drop yours."""


@attrs.frozen(kw_only=True)
class Close:
    """Source (or the last one alive) to manager: nothing is outstanding here."""


@attrs.frozen(kw_only=True)
class Closed:
    """Manager to source: the saga is over."""


@attrs.frozen(kw_only=True)
class Abort:
    """Anybody to manager: undo this saga if it has not committed."""

    reason: str


@attrs.frozen(kw_only=True)
class Restored:
    """A compensating grant: what the Grant of this digest named belongs to the source again, in this generation."""

    device: str
    generation: int
    digest: str


@attrs.frozen(kw_only=True)
class Undo:
    """Manager to devices, source and target, one after another: compensate."""

    reason: str
    restored: tuple[Restored, ...] = ()


# -- the cleanup saga: slots come home, devices leave the sharing table (PROTOCOL 5)


@attrs.frozen(kw_only=True)
class Return:
    """Owner to device: these slots of somebody else's home are idle here."""

    host: str
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Taken:
    """Device to owner: what this Return named is not (or no longer) yours."""

    device: str
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Survey:
    """Home to device: which slots were given back in generations above this one?"""

    since: int


@attrs.frozen(kw_only=True)
class Surveyed:
    """Device to home: given back in generations above `since`, up to `until`. Each chunk stands for itself; with all of
    them the home knows everything up to `until`."""

    device: str
    since: int
    until: int
    chunk: int
    of: int
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Regained:
    """Home to manager: these slots are at home again."""

    home: str
    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Recorded:
    """Manager to home: the sharing table says so too."""

    holdings: tuple[Holding, ...]


@attrs.frozen(kw_only=True)
class Unshare:
    """Home to manager: none of this device's slots is away; let it leave the sharing table."""

    home: str
    device: str
    loan: int


@attrs.frozen(kw_only=True)
class Unshared:
    """Manager to home: it left."""

    device: str
    loan: int


# -- placing a VM


@attrs.frozen(kw_only=True)
class Boot:
    """Manager to host: start this VM in this epoch."""

    vm: str
    epoch: int
    definition: Definition


@attrs.frozen(kw_only=True)
class Booted:
    """Host to manager: it runs, or (`refused` is not empty) it cannot."""

    vm: str
    epoch: int
    refused: str = ""


# -- on one node, between a hypervisor, its instances and their machines (never on the bus)


@attrs.frozen(kw_only=True)
class Wanted:
    """Hypervisor to instance: be this. An older revision changes nothing."""

    revision: int
    level: Level
    definition: Definition
    armed: Mapping[str, SlotSet]
    """the slots this instance may write (device name -> set)"""
    endpoint: Endpoint | None = None
    near: frozenset[str] = frozenset()
    manifest: Manifest | None = None
    granted: Mapping[str, SlotSet] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Report:
    """Instance to hypervisor: the level that this revision asked for is reached, or (`failed` is not empty) cannot be."""

    instance: str
    revision: int
    level: Level
    failed: str = ""
    endpoint: Endpoint | None = None
    swapped: Mapping[str, SlotSet] = attrs.field(factory=dict)
    counts: PageCounts | None = None
    manifest: Manifest | None = None


@attrs.frozen(kw_only=True)
class Did:
    """Driver to its instance: what the machine did."""

    report: Report


@attrs.frozen(kw_only=True)
class Noticed:
    """Driver to its instance, instance to hypervisor: what happened to the machine unasked ("stalled", "unstalled",
    "died")."""

    instance: str
    what: str
    sentence: str


@attrs.frozen(kw_only=True)
class Named:
    """Driver to its instance, instance to hypervisor: of the slots that came with a running instance, its table still
    names these. The set only shrinks while it runs."""

    instance: str
    revision: int
    slots: Mapping[str, SlotSet]


@attrs.frozen(kw_only=True)
class Looked:
    """Driver to its instance: the answer to an Inspect."""

    answer: Inspected
    reply_to: str


@attrs.frozen(kw_only=True)
class Reached:
    """Probe to its hypervisor: which devices can be opened now (name -> uuid), and why the others cannot."""

    devices: Mapping[str, str]
    problems: Mapping[str, str]


BODIES: tuple[type, ...] = (
    Define, Migrate, Cancel, Inspect, Inspected, Verdict,
    Enquire, Offer,
    Register, Welcome, Freeze, Grant, Granted, Prepare, Commit, Resume, Forget, Close, Closed, Abort, Undo,
    Return, Taken, Survey, Surveyed, Regained, Recorded, Unshare, Unshared,
    Boot, Booted,
)  # fmt: skip
"""All that may travel on the bus."""
