"""The placement of a VM: the one record that decides where it runs. Its compare-and-set is the pivot of a migration."""

import attrs

from paging.guest import Definition


@attrs.frozen(kw_only=True)
class Placement:
    """The VM runs on this host in this epoch; `lock` names the open saga that may replace it (empty: none)."""

    host: str
    definition: Definition
    epoch: int = 1
    lock: str = ""
    booting: bool = False
    """placed, but its host has not confirmed that it runs"""
    failed: str = ""
    """why its host could not start it"""
