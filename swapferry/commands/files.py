"""What nodes keep in files beside their stores: node files, devices, swap tables. Only looks."""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from paging.errors import PagingError
from paging.slots import SlotSet
from paging.superblock import read_superblock
from paging.swap_table import SwapTable
from scenarios.errors import BadFile
from swapferry.config import NodeFile, read_node_file

TABLE_NAME = "swap-table"
"""in the directory of an instance, whatever guest it has"""


def is_served(store: Path) -> bool:
    """Whether a node works on this store now: it holds the lock beside it."""
    try:
        with store.with_name(store.name + ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def node_files(directories: Iterable[Path]) -> list[NodeFile]:
    """The configurations of nodes that lie there."""
    found = []
    for path in sorted(path for directory in directories for path in directory.rglob("*.toml")):
        try:
            found.append(read_node_file(path))
        except BadFile:  # a scenario, or something else
            continue
    return found


def device_names(directories: Iterable[Path], files: Iterable[NodeFile]) -> dict[str, str]:
    """Device uuid -> name: as node files say, else as the slot files there are called."""
    names = {device.uuid: device.name for file in files for device in file.devices}
    for path in (path for directory in directories for path in directory.rglob("*.slots")):
        try:
            names.setdefault(read_superblock(path).uuid, path.stem)
        except PagingError:
            continue
    return names


def found_tables(directories: Iterable[Path]) -> tuple[Mapping[str, Mapping[str, SlotSet]], list[str]]:
    """Swap tables there, and below the directories that node files there name; and what is wrong with others."""
    directories = list(directories)
    files = node_files(directories)
    names = device_names(directories, files)
    tables: dict[str, Mapping[str, SlotSet]] = {}
    problems: list[str] = []
    for path in _table_paths([*directories, *(file.node.directory for file in files)]):
        try:
            table = SwapTable.inspect(path)
        except PagingError as error:
            problems.append(str(error))
            continue
        tables[table.instance] = {names.get(uuid, uuid): slots for uuid, slots in table.slots().items()}
        table.close()
    return tables, problems


def _table_paths(directories: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for directory in directories:
        for path in directory.rglob(TABLE_NAME):
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                yield real
