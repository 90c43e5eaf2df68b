"""A scenario: a world (hosts, swap devices, guests), what happens in it, and what must come of it.

    [scenario]  name, description            [[host]]  [[device]]  [[vm]]   what there is
    [expect]    outcome, verified, ...       [[step]]  do = "..."           what happens, one after another

These are the values that a file holds; `scenarios.load` reads one, `scenarios.rules` checks that its parts fit together.
A relative path is meant from the directory of the file.
"""

from pathlib import Path

import attrs

from paging.device import PAGE_BYTES
from scenarios import kinds
from scenarios.toml_file import of

DAY_S = 86_400.0
OUTCOMES = ("done", "undone", "refused")


@attrs.frozen(kw_only=True)
class About:
    """[scenario]"""

    name: str = of(kinds.NAME)
    description: str = of(kinds.TEXT, "")


@attrs.frozen(kw_only=True)
class Expect:
    """[expect]: what the last migration must come to. What is left out is not looked at."""

    outcome: str = of(kinds.choice(*OUTCOMES))
    verified: bool | None = of(kinds.FLAG, None)
    """whether the guests' own memory checks all passed, at least one of them after the last migration"""
    reason: str = of(kinds.TEXT, "")
    """a part of the reason that the user is given"""
    at: str = of(kinds.NAME, "")
    """the host on which every guest runs in the end"""
    granted_min: int = of(kinds.SIZE, 0)
    sent_max: int | None = of(kinds.SIZE, None)
    slots_away_max: int | None = of(kinds.whole(0, 2**40), None)
    """slots that may still be away from the home of their device in the end"""
    swapped_share_min: float = of(kinds.number(0, 1), 0.0)
    """share of the filled pages that is swapped out when the guest is halted"""


@attrs.frozen(kw_only=True)
class HostSpec:
    """[[host]]: a hypervisor."""

    name: str = of(kinds.NAME)
    memory: int = of(kinds.SIZE)
    """RAM that its guests may have together, in bytes"""
    clean_pages_per_s: int = of(kinds.RATE, 0)
    """how fast a guest that came here copies granted slots to slots of this host; 0: only when a step asks for it"""


@attrs.frozen(kw_only=True)
class DeviceSpec:
    """[[device]]: a swap device, the host it belongs to, and the hosts that reach it."""

    name: str = of(kinds.NAME)
    home: str = of(kinds.NAME)
    size: int = of(kinds.SIZE)
    """bytes in slots, without the superblock"""
    reach: tuple[str, ...] = of(kinds.several(kinds.NAME, "a list of host names"))
    path: Path | None = of(kinds.PATH, None)
    """a device that exists and bears a superblock; left out, one is made for the run"""

    @property
    def slots(self) -> int:
        """Size in slots."""
        return self.size // PAGE_BYTES


@attrs.frozen(kw_only=True)
class VmSpec:
    """[[vm]]: a guest and what it does with its memory."""

    name: str = of(kinds.NAME)
    host: str = of(kinds.NAME)
    memory: int = of(kinds.SIZE)
    resident: int = of(kinds.SIZE)
    """the memory budget: what of the guest may be in RAM at a time"""
    fill: int = of(kinds.SIZE, 0)
    hot: int = of(kinds.SIZE, 0)
    """the part that is written and checked while it runs (0: all that is filled)"""
    writes_per_s: int = of(kinds.whole(0, 1_000_000), 0)
    checks_per_s: int = of(kinds.whole(0, 1_000_000), 0)
    seed: int = of(kinds.whole(1, 2**31 - 1), 1)
    vcpus: int = of(kinds.whole(1, 64), 1)
    nics: int = of(kinds.whole(0, 8), 0)
    boot: str = of(kinds.choice("test", "linux"), "test")
    kernel: Path | None = of(kinds.PATH, None)
    initrd: Path | None = of(kinds.PATH, None)
    cmdline: str = of(kinds.TEXT, "")
    disks: tuple[str, ...] = of(kinds.several(kinds.TEXT, "a list of NBD addresses, such as nbd://host:port/export"), ())


@attrs.frozen(kw_only=True)
class Step:
    """[[step]]: something that happens, when all before it has."""


@attrs.frozen(kw_only=True)
class Migrate(Step):
    """Move a guest; without `wait` the next step begins at once."""

    vm: str = of(kinds.NAME)
    target: str = of(kinds.NAME)
    mode: str = of(kinds.choice("stop"), "stop")
    wait: bool = of(kinds.FLAG, True)
    expect: str = of(kinds.choice(*OUTCOMES), "")
    """what this migration must come to (left out: only [expect] is looked at, for the last one)"""
    reason: str = of(kinds.TEXT, "")


@attrs.frozen(kw_only=True)
class Cancel(Step):
    """Ask that the guest's migration be undone, and wait for the verdict of both."""

    vm: str = of(kinds.NAME)
    expect: str = of(kinds.choice("undone", "already done", "refused"), "")


@attrs.frozen(kw_only=True)
class Verify(Step):
    """Let a guest check all of its memory."""

    vm: str = of(kinds.NAME)


@attrs.frozen(kw_only=True)
class WaitSwapped(Step):
    """Wait until so much of a guest lies in slots: a share of its filled pages, or a number of pages."""

    vm: str = of(kinds.NAME)
    share: float | None = of(kinds.number(0, 1), None)
    pages: int | None = of(kinds.whole(1, 2**40), None)


@attrs.frozen(kw_only=True)
class Clean(Step):
    """Let a guest's granted slots be copied home this fast from here on; 0 pauses it."""

    vm: str = of(kinds.NAME)
    pages_per_s: int = of(kinds.RATE)


@attrs.frozen(kw_only=True)
class WaitCleaned(Step):
    """Wait until a guest hangs on no slot of another host, and no device is shared because of it any more."""

    vm: str = of(kinds.NAME)


@attrs.frozen(kw_only=True)
class WaitMoved(Step):
    """Wait for the verdict of the guest's migration that was begun with wait = false."""

    vm: str = of(kinds.NAME)


@attrs.frozen(kw_only=True)
class Kill(Step):
    """Kill a process of a host (SIGKILL) and wait until it is back: its node, the pagers there, or its guests' machines."""

    what: str = of(kinds.choice("node", "pager", "machine"))
    host: str = of(kinds.NAME)


@attrs.frozen(kw_only=True)
class RunFor(Step):
    """Let everybody work for a while."""

    seconds: float = of(kinds.number(0, DAY_S))


@attrs.frozen(kw_only=True)
class RefusePrepare(Step):
    """From here on no guest can be loaded on this host: what it was sent is refused before the commit."""

    host: str = of(kinds.NAME)


@attrs.frozen(kw_only=True)
class Hold(Step):
    """Keep back all messages of a type, until they are released: the bus is slow at a chosen place."""

    message: str = of(kinds.TEXT)


@attrs.frozen(kw_only=True)
class WaitHeld(Step):
    """Wait until a message of this type is being held: the saga has come that far."""

    message: str = of(kinds.TEXT)


@attrs.frozen(kw_only=True)
class Release(Step):
    """Deliver what was held, and hold no more of it."""

    message: str = of(kinds.TEXT)


STEPS: dict[str, type[Step]] = {
    "migrate": Migrate,
    "cancel": Cancel,
    "verify": Verify,
    "wait_swapped": WaitSwapped,
    "run_for": RunFor,
    "clean": Clean,
    "wait_cleaned": WaitCleaned,
    "wait_moved": WaitMoved,
    "kill": Kill,
    "refuse_prepare": RefusePrepare,
    "hold": Hold,
    "wait_held": WaitHeld,
    "release": Release,
}
FAULTS = (RefusePrepare, Hold, WaitHeld, Release)
"""Steps that meddle with the parts, so that all of them must be in this process."""
KILLS = (Kill,)
"""Steps that end a process, so that each host must be one."""


@attrs.frozen(kw_only=True)
class Scenario:
    """A file that is right."""

    about: About
    expect: Expect
    hosts: tuple[HostSpec, ...]
    devices: tuple[DeviceSpec, ...]
    vms: tuple[VmSpec, ...]
    steps: tuple[Step, ...]

    def vm(self, name: str) -> VmSpec:
        """The guest of this name."""
        return next(vm for vm in self.vms if vm.name == name)

    def reached_by(self, host: str) -> tuple[DeviceSpec, ...]:
        """The devices that a host is to reach."""
        return tuple(device for device in self.devices if host in device.reach)
