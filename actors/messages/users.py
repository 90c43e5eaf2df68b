"""What users ask, and what they are told. Asking twice with one request id is asking once."""

import attrs

from actors.domain.lifecycle import Outcome
from paging.guest import Definition, PageCounts


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
class Clean:
    """User to manager, manager to the VM's host: copy its granted slots home this fast; 0 pauses."""

    request: str
    vm: str
    pages_per_s: int
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
    final: bool = True
    """False: nothing was decided ("busy"); the request may have been heard before, so ask again"""
