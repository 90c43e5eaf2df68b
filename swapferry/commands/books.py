"""Where commands read what actors know: from the nodes, over the bus, or from their stores, where nodes are down.

Both give a `Cluster`; nothing that looks at one can tell where it comes from.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from actors.client import Client, NoAnswer
from actors.domain.hosting import HostFacts, Instance, Lent, Owned
from actors.domain.ledger import Right
from actors.errors import ActorError
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, hypervisor, swap_device, vm_instance
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Heard, Record, Turn
from actors.runtime.book import Book
from actors.runtime.sqlite import read_books
from actors.swap_device import SwapDevice, rights_of
from paging.slots import SlotSet, union
from swapferry.commands.common import Where, client_of
from swapferry.commands.files import found_tables, is_served


class Missing(ActorError):
    """There is nothing to read; says where it was looked for and what to do."""


@attrs.frozen(kw_only=True)
class Known:
    """One actor, typed."""

    book: Book
    record: Record

    def since(self, kind: type, key: str = "") -> float:
        """Since when this value is as it is (Unix seconds; 0: not known)."""
        return self.book.since.get((kind.__name__, key), 0.0)

    def turn(self) -> Turn:
        """For functions of the domain, which read a turn; what they write is thrown away."""
        return Turn(self.record, Heard(id="look", source="", body=None))


@attrs.frozen(kw_only=True)
class Cluster:
    """All that could be read."""

    at: float
    """Unix seconds"""
    live: bool
    """read from nodes that run, each at a moment of its own"""
    manager: Known | None
    hosts: Mapping[str, Known]
    devices: Mapping[str, Known]
    homes: Mapping[str, str]
    slot_counts: Mapping[str, int]
    members: frozenset[str] = frozenset()
    """all hosts of the cluster as the manager knows them; empty: it was not asked"""
    tables: Mapping[str, Mapping[str, SlotSet]] = attrs.field(factory=dict)
    """instance -> device -> slots that its swap table names now, of those that were asked for and could be seen"""
    paths: Mapping[str, Path] = attrs.field(factory=dict)
    """actor -> the store it was read from"""
    unread: tuple[str, ...] = ()
    """what could not be read, and what to do about it"""

    def everybody(self) -> Iterable[Known]:
        """All actors that were read."""
        return [*([self.manager] if self.manager else []), *self.hosts.values(), *self.devices.values()]

    def rights(self, device: str) -> dict[int, Right]:
        """The ledger. A device that was never asked anything has none yet: all is its home's, in the first generation."""
        known = self.devices.get(device)
        return rights_of(known.record.all(Right)) if known else {}

    def facts(self, host: str) -> HostFacts:
        """What configuration says of a host, as far as it matters to slots."""
        return HostFacts(host=host, memory_bytes=0, homes=self.homes, uuids={}, slot_counts=self.slot_counts)


class Library(ABC):
    """Where records come from."""

    @abstractmethod
    async def read(self) -> Cluster:
        """All records, now. Raises `ActorError` where nothing can be read at all."""

    @abstractmethod
    async def with_tables(self, cluster: Cluster) -> Cluster:
        """The same with the swap tables of its instances."""


class BusLibrary(Library):
    """Asks the nodes."""

    def __init__(self, client: Client, patience_s: float) -> None:
        self._client, self._patience_s = client, patience_s

    async def read(self) -> Cluster:
        """The manager first: it knows whom else to ask."""
        try:
            book = await self._client.look(MANAGER, self._patience_s)
        except NoAnswer as error:
            raise Missing(f"{error} Or read the stores themselves: --dir DIR") from None
        homes: Mapping[str, str] = book.about["homes"]
        hosts = sorted(book.about["hosts"])
        found = await asyncio.gather(*map(self._look, [*map(hypervisor, hosts), *map(swap_device, sorted(homes))]))
        books = {one.actor: one for one in found if isinstance(one, Book)}
        unread = [one for one in found if isinstance(one, str)]
        return attrs.evolve(_cluster([book, *books.values()], homes, unread=unread, live=True), members=frozenset(hosts))

    async def with_tables(self, cluster: Cluster) -> Cluster:
        """Ask each instance; its pager looks."""
        names = [name for known in cluster.hosts.values() for name in known.record.all(Instance)]
        found = await asyncio.gather(*(self._look(vm_instance(name)) for name in names))
        tables, unread = {}, list(cluster.unread)
        for name, book in zip(names, found, strict=True):
            if isinstance(book, str):
                unread.append(book)
            elif "problem" in book.seen:
                unread.append(f"the swap table of {name} was not seen: {book.seen['problem']}")
            else:
                swapped = book.seen.get("swapped", {})
                tables[name] = {device: SlotSet.from_wire(wire) for device, wire in swapped.items()}
        return attrs.evolve(cluster, tables=tables, unread=tuple(unread))

    async def _look(self, address: str) -> Book | str:
        try:
            return await self._client.look(address, self._patience_s)
        except NoAnswer as error:
            return str(error)


class FileLibrary(Library):
    """Reads stores; nodes may work on them meanwhile."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._directories = list(directories)

    async def read(self) -> Cluster:
        """All stores below these directories."""
        paths = sorted(path for directory in self._directories for path in directory.rglob("*.db"))
        if not paths:
            named = ", ".join(map(str, self._directories))
            raise Missing(f"no store (*.db) in {named}; name the directory that a run kept, or those of the nodes' stores")
        live = any(map(is_served, paths))
        shelves = {path: await asyncio.to_thread(read_books, path) for path in paths}
        homes = {device: host for books in shelves.values() for device, host in _homes_in(books).items()}
        cluster = _cluster([book for books in shelves.values() for book in books], homes, unread=[], live=live)
        places = {book.actor: path for path, books in shelves.items() for book in books}
        return attrs.evolve(cluster, paths=places)

    async def with_tables(self, cluster: Cluster) -> Cluster:
        """Swap tables are files: below these directories, and below those that node files there name."""
        tables, problems = await asyncio.to_thread(found_tables, self._directories)
        return attrs.evolve(cluster, tables=tables, unread=(*cluster.unread, *problems))


class Open:
    """`async with Open(where) as library`."""

    def __init__(self, place: Where) -> None:
        self._place = place
        self._client = client_of(place)

    async def __aenter__(self) -> Library:
        if self._place.dirs:
            return FileLibrary(self._place.dirs)
        return BusLibrary(await self._client.__aenter__(), self._place.patience_s)

    async def __aexit__(self, *raised: object) -> None:
        if not self._place.dirs:
            await self._client.__aexit__(*raised)  # type: ignore[arg-type]  # what the interpreter gives us


async def read_cluster(place: Where) -> Cluster:
    """All records, once."""
    async with Open(place) as library:
        return await library.read()


async def read_with_tables(place: Where) -> Cluster:
    """All records and swap tables, once."""
    async with Open(place) as library:
        return await library.with_tables(await library.read())


def _homes_in(books: Iterable[Book]) -> dict[str, str]:
    """Whose devices a store tells of: the arbiter lives where its device is at home, and a home owned all slots at first."""
    books = list(books)
    host = next((name for book in books if (name := _after(book.actor, "hypervisor."))), None)
    if host is None:
        return {}
    devices = {name for book in books if (name := _after(book.actor, "swap-device."))}
    own = next(book for book in books if book.actor == hypervisor(host))
    for (kind, key), plain in own.records.items():
        if kind in ("Owned", "Lent") and (plain["generation"] == 1 or kind == "Lent"):
            devices.add(key.rpartition("/")[0])
    return dict.fromkeys(devices, host)


def _after(address: str, prefix: str) -> str:
    return address.removeprefix(prefix) if address.startswith(prefix) else ""


def _cluster(books: Iterable[Book], homes: Mapping[str, str], *, unread: Iterable[str], live: bool) -> Cluster:
    manager: Known | None = None
    hosts: dict[str, Known] = {}
    devices: dict[str, Known] = {}
    for book in books:
        if book.actor == MANAGER:
            manager = Known(book=book, record=book.record(ResourceManager.kinds))
        elif host := _after(book.actor, "hypervisor."):
            hosts[host] = Known(book=book, record=book.record(Hypervisor.kinds))
        elif device := _after(book.actor, "swap-device."):
            devices[device] = Known(book=book, record=book.record(SwapDevice.kinds))
    return Cluster(
        at=time.time(), live=live, manager=manager, hosts=dict(sorted(hosts.items())), devices=dict(sorted(devices.items())),
        homes=dict(sorted(homes.items())),
        slot_counts={device: _slot_count(device, home, hosts, devices) for device, home in homes.items()},
        unread=tuple(unread),
    )  # fmt: skip


def _slot_count(device: str, home: str, hosts: Mapping[str, Known], devices: Mapping[str, Known]) -> int:
    """From configuration where it was told, else all slots that ledger and home know."""
    known = devices.get(device)
    if known is not None and "slot_count" in known.book.about:
        return int(known.book.about["slot_count"])
    rights = [right.slots for right in known.record.all(Right).values()] if known else []
    own = hosts.get(home)
    if own is not None:
        rights += [one.slots for kind in (Owned, Lent) for one in own.record.all(kind).values() if one.device == device]
    return max(union(rights), default=-1) + 1
