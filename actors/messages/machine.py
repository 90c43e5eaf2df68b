"""On one node, between a hypervisor, its instances and their machines: levels, never on the bus."""

from collections.abc import Mapping

import attrs

from actors.domain.lifecycle import Level
from actors.messages.users import Inspected
from paging.guest import Definition, Endpoint, Manifest, PageCounts
from paging.slots import SlotSet


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
    """slots that came with it and that its table may still name"""
    clean_pages_per_s: int = 0
    """how fast to copy from those to its own slots in the background; 0: not"""


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
    """Driver to hypervisor: how the machine is beside the levels ("stalled", "unstalled", "died"); a level that is told
    again while it lasts. A death counts only from the revision in which the machine was started."""

    instance: str
    revision: int
    what: str
    sentence: str


@attrs.frozen(kw_only=True)
class Named:
    """Driver to hypervisor: of the slots that came with a running instance, its table still
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
