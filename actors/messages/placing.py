"""The words of placing a VM."""

import attrs

from paging.guest import Definition


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
