"""The words of a migration: before it, without a record at the target, and its rows."""

from collections.abc import Mapping

import attrs

from actors.domain.holdings import Holding
from paging.guest import Definition, Endpoint, Manifest


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
