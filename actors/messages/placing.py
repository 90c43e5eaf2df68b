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


@attrs.frozen(kw_only=True)
class Dead:
    """Operator to manager: this host is switched off for good. True only if it is: nothing here can stop a host that runs."""

    request: str
    host: str
    reply_to: str


@attrs.frozen(kw_only=True)
class Fence:
    """Manager to device: what this dead host owns goes home, what it has under way is refused."""

    host: str


@attrs.frozen(kw_only=True)
class Fenced:
    """Device to manager: done."""

    device: str
    host: str
