"""What the environment and configuration files say. The only place that reads either.

Environment:
    SWAPFERRY_BUS          default of --bus
    SWAPFERRY_PREFIX       default of --prefix
    SWAPFERRY_RAM_DIR      a tmpfs for guests' memory (default /dev/shm)
    SWAPFERRY_WORK_DIR     a disk for slot files and stores (default $TMPDIR or /var/tmp)
    SWAPFERRY_QEMU_ROOT    a QEMU that was unpacked there, instead of the system's
    SWAPFERRY_ACCELERATOR  kvm or tcg (default: what a probe finds)

The file of `swapferry node --config` is a `NodeFile`.
"""

import json
import os
from pathlib import Path

import attrs

from scenarios import kinds
from scenarios.toml_file import TomlFile, of

EMBEDDED = "embedded"
ROLES = ("resource-manager",)


class BadPlace(Exception):
    """A directory that the environment names cannot be used; says which variable to change."""


@attrs.frozen(kw_only=True)
class Places:
    """Where temporary things may lie."""

    ram: Path
    """a tmpfs: RAM files, swap tables, sockets"""
    work: Path
    """a disk: slot files (direct I/O) and stores"""


def places() -> Places:
    """Where the environment says that temporary things may lie. Raises `BadPlace` unless both are there."""
    disk = os.environ.get("TMPDIR", "/var/tmp")
    found = Places(
        ram=Path(os.environ.get("SWAPFERRY_RAM_DIR", "/dev/shm")),
        work=Path(os.environ.get("SWAPFERRY_WORK_DIR", disk)),
    )
    for name, path in (("SWAPFERRY_RAM_DIR", found.ram), ("SWAPFERRY_WORK_DIR", found.work)):
        if not (path.is_dir() and os.access(path, os.W_OK)):
            raise BadPlace(f"{path} is no directory that can be written to; set {name} to one")
    return found


def need_tmpfs(path: Path) -> None:
    """Raises `BadPlace` unless the directory is on a tmpfs: userfaultfd knows anonymous and shared memory, no other file."""
    inside = [mount for mount in _mounts() if path.resolve().is_relative_to(mount.path)]
    kind = max(inside, key=lambda mount: len(mount.path.parts)).kind
    if kind != "tmpfs":
        raise BadPlace(f"{path} is on {kind}, guests' memory needs a tmpfs; set SWAPFERRY_RAM_DIR to one (such as /dev/shm)")


@attrs.frozen
class _Mount:
    path: Path
    kind: str


def _mounts() -> list[_Mount]:
    """What is mounted where; of two at one place, the later one is seen."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines]
    return [_Mount(Path(path.replace("\\040", " ")), kind) for _, path, kind, *_ in reversed(fields)]


@attrs.frozen(kw_only=True)
class QemuChoice:
    """Which QEMU to run, and how."""

    root: Path | None
    """None: the system's"""
    accelerator: str | None
    """None: what a probe finds"""


def qemu_choice() -> QemuChoice:
    """Which QEMU the environment asks for."""
    root = os.environ.get("SWAPFERRY_QEMU_ROOT")
    return QemuChoice(root=Path(root) if root else None, accelerator=os.environ.get("SWAPFERRY_ACCELERATOR"))


def default_bus() -> str:
    """The bus that is used where the command line names none."""
    return os.environ.get("SWAPFERRY_BUS", EMBEDDED)


def default_prefix() -> str:
    """How the names of the cluster's queues begin where the command line does not say."""
    return os.environ.get("SWAPFERRY_PREFIX", "swapferry")


@attrs.frozen(kw_only=True)
class NodeSection:
    """[node]: one host."""

    host: str = of(kinds.NAME)
    hosts: tuple[str, ...] = of(kinds.several(kinds.NAME, "a list of host names"), ())
    """all hosts of the cluster; the resource manager knows no others"""
    bus: str = of(kinds.TEXT)
    prefix: str = of(kinds.NAME, "swapferry")
    """begins the names of exchanges and queues, so that several clusters can share a broker"""
    store: Path = of(kinds.PATH)
    directory: Path = of(kinds.PATH)
    """on a tmpfs; for RAM files, swap tables and sockets"""
    memory: int = of(kinds.SIZE)
    clean_pages_per_s: int = of(kinds.RATE, 0)
    """how fast a VM that came here copies granted slots to slots of this host; 0: only when asked to"""
    guest: str = of(kinds.choice("qemu", "fake"), "qemu")
    listen: str = of(kinds.TEXT, "127.0.0.1")
    """address of the data channel; loopback, as long as the channel has no TLS"""
    roles: tuple[str, ...] = of(kinds.several(kinds.choice(*ROLES), f"a list of {', '.join(ROLES)}"), ())
    timeline: Path | None = of(kinds.PATH, None)
    """what the actors do is written there, a JSON object a line"""


@attrs.frozen(kw_only=True)
class NodeDevice:
    """[[device]]: a swap device of the cluster, and how this host reaches it."""

    name: str = of(kinds.NAME)
    home: str = of(kinds.NAME)
    uuid: str = of(kinds.TEXT)
    slots: int = of(kinds.whole(1, 2**32 - 1))
    path: Path | None = of(kinds.PATH, None)
    """left out: this host does not reach it"""


@attrs.frozen(kw_only=True)
class NodeFile:
    """What one node is told."""

    node: NodeSection
    devices: tuple[NodeDevice, ...]


def read_node_file(path: Path) -> NodeFile:
    """The node's configuration. Raises `BadFile` with everything that is wrong in it."""
    file = TomlFile(path)
    file.unknown_keys(file.tables, ("node", "device"), "")
    node, devices = file.read_one(NodeSection, "node"), file.read_each(NodeDevice, "device")
    for index, device in enumerate(devices):
        if node is not None and device.home == node.host and device.path is None:
            file.complain(f"device[{index}].path", "nothing", "a path, since this host is the device's home")
    file.finish()
    assert node is not None
    base = path.resolve().parent
    return NodeFile(
        node=attrs.evolve(
            node,
            store=base / node.store,
            directory=base / node.directory,
            timeline=node.timeline and base / node.timeline,
        ),
        devices=tuple(attrs.evolve(device, path=device.path and base / device.path) for device in devices),
    )


def write_node_file(file: NodeFile, path: Path) -> None:
    """Write a configuration that `read_node_file` reads, for this user's eyes only (the bus URL holds a password)."""
    lines = ["[node]", *_lines(file.node)]
    for device in file.devices:
        lines += ["", "[[device]]", *_lines(device)]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(section: NodeSection | NodeDevice) -> list[str]:
    values = {field.name: getattr(section, field.name) for field in attrs.fields(type(section))}
    return [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]


def _toml(value: object) -> str:
    """A value as TOML: its strings, numbers and lists of strings are written as JSON writes them."""
    plain = list(value) if isinstance(value, tuple) else value
    return json.dumps(plain if isinstance(plain, list | int) else str(plain))
