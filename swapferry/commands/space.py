"""Whose slots are whose: devices, the slots of a VM, and which guests still hang on a device or host."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from actors.domain import hosting
from actors.domain.hosting import Armed, Brought, Counters, Instance, Lent, Owned
from actors.domain.lifecycle import State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from paging.slots import SlotSet, union
from swapferry.commands.books import Cluster, Known, Missing


@attrs.frozen(kw_only=True)
class Share:
    """Slots of a device that one host owns in one generation."""

    owner: str
    generation: int
    slots: SlotSet
    returned: bool

    def to_json(self) -> Mapping[str, Any]:
        """For machines; ranges are (first, count)."""
        return {
            "owner": self.owner, "generation": self.generation, "slots": len(self.slots), "returned": self.returned,
            "ranges": self.slots.ranges(),
        }  # fmt: skip


@attrs.frozen(kw_only=True)
class DeviceView:
    """One device."""

    device: str
    home: str
    slots: int
    shares: tuple[Share, ...]
    free: int | None
    """home slots that nobody uses; None: the home could not be read"""
    lent: int | None
    """as the home knows"""
    shared: bool | None
    """whether the sharing table lists it; None: the manager could not be read"""
    pending: tuple[str, ...]
    """sagas that may take slots away"""

    @property
    def granted(self) -> int:
        """Slots that belong to others than their home."""
        return sum(len(share.slots) for share in self.shares if share.owner != self.home)

    def to_json(self) -> Mapping[str, Any]:
        """For machines."""
        return {
            "device": self.device, "home": self.home, "slots": self.slots, "granted": self.granted, "free": self.free,
            "lent": self.lent, "shared": self.shared, "pending": list(self.pending),
            "owners": [share.to_json() for share in self.shares],
        }  # fmt: skip


def devices_of(cluster: Cluster) -> list[DeviceView]:
    """All devices."""
    return [_device(cluster, device, home) for device, home in cluster.homes.items()]


def _device(cluster: Cluster, device: str, home: str) -> DeviceView:
    own = cluster.hosts.get(home)
    shared = cluster.manager.record.get(Shared, device) if cluster.manager else None
    return DeviceView(
        device=device,
        home=home,
        slots=cluster.slot_counts[device],
        shares=tuple(_shares(cluster, device, home)),
        free=_free(cluster, device, home),
        lent=sum(len(one.slots) for one in own.record.all(Lent).values() if one.device == device) if own else None,
        shared=shared is not None if cluster.manager else None,
        pending=shared.pending if shared else (),
    )


def _free(cluster: Cluster, device: str, home: str) -> int | None:
    own = cluster.hosts.get(home)
    if own is None:
        return None
    if own.record.get(Counters) is None:  # it has not heard anything yet, and will find all slots its own
        return cluster.slot_counts[device]
    return len(hosting.free_slots(own.turn(), cluster.facts(home)).get(device, SlotSet()))


def _shares(cluster: Cluster, device: str, home: str) -> Iterator[Share]:
    rights = cluster.rights(device)
    if not rights:
        yield Share(owner=home, generation=1, slots=SlotSet.span(0, cluster.slot_counts[device]), returned=False)
    for generation, right in sorted(rights.items()):
        yield Share(owner=right.owner, generation=generation, slots=right.slots, returned=right.returned)


@attrs.frozen(kw_only=True)
class Hold:
    """Slots of one device and generation that an instance has."""

    vm: str
    host: str
    instance: str
    device: str
    home: str
    generation: int
    """0: nobody owns them, which fsck looks into"""
    kind: str
    """own: may be written; granted: came with the guest, is read only and goes home"""
    slots: SlotSet
    named: int | None
    """how many of them the swap table names now; None: it was not seen"""

    def to_json(self) -> Mapping[str, Any]:
        """For machines; ranges are (first, count)."""
        plain = {field.name: getattr(self, field.name) for field in attrs.fields(Hold) if field.name != "slots"}
        return {**plain, "slots": len(self.slots), "ranges": self.slots.ranges()}


def instances(cluster: Cluster) -> Iterator[tuple[str, Known, Instance]]:
    """All instances that were not told to go: (host, hypervisor, instance)."""
    for host, known in cluster.hosts.items():
        for instance in known.record.all(Instance).values():
            if instance.state is not State.ENDING:
                yield host, known, instance


def slots_of(cluster: Cluster, vm: str) -> list[Hold]:
    """Which slots the VM has where. Raises `Missing` for a VM that nobody knows."""
    found = [one for one in instances(cluster) if one[2].vm == vm]
    if not found:
        places = cluster.manager.record.all(Placement) if cluster.manager else {}
        names = ", ".join(sorted({one.vm for _, _, one in instances(cluster)} | set(places))) or "none"
        unread = " Not all nodes could be read." if cluster.unread else ""
        raise Missing(f"no host has an instance of {vm}; VMs that are known: {names}.{unread}")
    return [hold for host, known, instance in found for hold in _holds(cluster, host, known, instance)]


def _holds(cluster: Cluster, host: str, known: Known, instance: Instance) -> Iterator[Hold]:
    for kind, holder in (("own", known.record.get(Armed, instance.id)), ("granted", known.record.get(Brought, instance.id))):
        for device, slots in sorted(holder.slots.items()) if holder else []:
            for generation, part in _by_generation(known, device, slots):
                yield Hold(
                    vm=instance.vm, host=host, instance=instance.id, device=device, home=cluster.homes.get(device, "?"),
                    generation=generation, kind=kind, slots=part, named=_named(cluster, instance.id, device, part),
                )  # fmt: skip


def _named(cluster: Cluster, instance: str, device: str, slots: SlotSet) -> int | None:
    table = cluster.tables.get(instance)
    return None if table is None else len(table.get(device, SlotSet()) & slots)


def _by_generation(known: Known, device: str, slots: SlotSet) -> Iterator[tuple[int, SlotSet]]:
    owned = sorted((one.generation, one.slots) for one in known.record.all(Owned).values() if one.device == device)
    for generation, theirs in owned:
        if part := slots & theirs:
            yield generation, part
    if left := slots - union(theirs for _, theirs in owned):
        yield 0, left


@attrs.frozen(kw_only=True)
class Dependency:
    """A guest that would suffer if a device (or its home) went away."""

    vm: str
    host: str
    instance: str
    device: str
    home: str
    kind: str
    """granted: until the cleanup has brought these slots home; own: as long as it runs there"""
    slots: int
    pages_per_s: int
    """how fast it is cleaned up; 0: not"""

    @property
    def seconds_left(self) -> float | None:
        """Until it hangs on the device no more, at this rate; None: never."""
        return self.slots / self.pages_per_s if self.kind == "granted" and self.pages_per_s else None

    def to_json(self) -> Mapping[str, Any]:
        """For machines."""
        return {**attrs.asdict(self), "seconds_left": self.seconds_left}


def dependencies(cluster: Cluster) -> list[Dependency]:
    """All guests and the devices that they hang on."""
    found = []
    for host, known, instance in instances(cluster):
        for kind, holder in (("granted", known.record.get(Brought, instance.id)), ("own", known.record.get(Armed, instance.id))):
            for device, slots in sorted(holder.slots.items()) if holder else []:
                found.append(
                    Dependency(
                        vm=instance.vm, host=host, instance=instance.id, device=device, home=cluster.homes.get(device, "?"),
                        kind=kind, slots=len(slots), pages_per_s=instance.clean_pages_per_s if kind == "granted" else 0,
                    )
                )  # fmt: skip
    return found


def hanging_on(cluster: Cluster, name: str) -> list[Dependency]:
    """Who hangs on this host or device; for a VM, what it hangs on. Raises `Missing` for a name that is none of them."""
    everything = dependencies(cluster)
    vms = {instance.vm for _, _, instance in instances(cluster)}
    placed = set(cluster.manager.record.all(Placement)) if cluster.manager else set()
    if name in cluster.homes:
        return [one for one in everything if one.device == name]
    if name in set(cluster.homes.values()) | set(cluster.hosts):
        return [one for one in everything if name in (one.home, one.host)]
    if name in vms | placed:
        return [one for one in everything if one.vm == name]
    raise Missing(f"{name} is no host, device or VM here; known are {_names([*cluster.homes, *cluster.hosts, *vms, *placed])}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"
