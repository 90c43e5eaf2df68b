"""The words of the cleanup: slots come home, devices leave the sharing table (PROTOCOL 5)."""

import attrs

from actors.domain.holdings import Holding


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
