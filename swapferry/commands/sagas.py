"""What open sagas are waiting for, read from the progress that each of their players has recorded."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from actors.domain.hosting import Instance
from actors.messages import MANAGER, Cast, hypervisor, swap_device
from actors.runtime.saga import Progress
from actors.sagas.migration import MIGRATION
from swapferry.commands.books import Cluster, Known


@attrs.frozen(kw_only=True)
class Player:
    """One actor in a saga."""

    actor: str
    role: str
    done: str
    """the last row it did; empty: none"""
    begun: str
    """the row that it has begun and that waits for something; empty: none"""
    undone: bool
    since: float


@attrs.frozen(kw_only=True)
class SagaView:
    """One open saga."""

    cast: Cast
    stage: str
    """open, committed or undone"""
    done: str
    """the last row that anybody did"""
    row: str
    """the row that is next"""
    waits_for: tuple[str, ...]
    because: str
    since: float
    """of the last thing that happened in it"""
    asked: int
    """how often its opener has asked again"""
    due: float
    """when it asks next"""
    players: tuple[Player, ...]

    def to_json(self) -> Mapping[str, Any]:
        """For machines."""
        cast = self.cast
        return {
            "saga": cast.saga, "vm": cast.vm, "source": cast.source, "target": cast.target, "devices": list(cast.devices),
            "stage": self.stage, "done": self.done, "row": self.row, "waits_for": list(self.waits_for),
            "because": self.because, "since": self.since, "asked": self.asked, "asks_next": self.due,
            "players": [attrs.asdict(player) for player in self.players],
        }  # fmt: skip


def sagas_of(cluster: Cluster) -> list[SagaView]:
    """All sagas that are not over."""
    found: dict[str, list[tuple[Known, Progress]]] = {}
    for known in cluster.everybody():
        for saga, progress in known.record.all(Progress).items():
            found.setdefault(saga, []).append((known, progress))
    return [_view(cluster, parts) for _, parts in sorted(found.items()) if _is_open(parts)]


def _is_open(parts: Iterable[tuple[Known, Progress]]) -> bool:
    """The opener drops its record at the end; the manager has closed it before. Others keep theirs until they hear of a later
    saga."""
    close = MIGRATION.index("close")
    return any(
        known.book.actor == hypervisor(progress.cast.opener) or (known.book.actor == MANAGER and progress.row < close)
        for known, progress in parts
    )


def _view(cluster: Cluster, parts: list[tuple[Known, Progress]]) -> SagaView:
    cast = parts[0][1].cast
    players = tuple(_player(known, progress) for known, progress in parts)
    undone = any(progress.undone for _, progress in parts)
    committed = any(progress.row >= MIGRATION.index(MIGRATION.pivot) and not progress.undone for _, progress in parts)
    last = max(progress.row for _, progress in parts)
    row, waits_for = _undoing(cast, parts, last) if undone else _next(cast, parts, last)
    opener = cluster.hosts.get(cast.opener)
    timer = opener.book.timers.get(f"ask:{cast.saga}") if opener else None
    return SagaView(
        cast=cast,
        stage="undone" if undone else "committed" if committed else "open",
        done=MIGRATION.rows[last].name if last >= 0 else "",
        row=row,
        waits_for=tuple(waits_for),
        because=_because(cluster, cast, parts),
        since=max(player.since for player in players),
        asked=timer.count if timer else 0,
        due=timer.due if timer else 0.0,
        players=players,
    )


def _player(known: Known, progress: Progress) -> Player:
    rows = MIGRATION.rows
    waiting = progress.begun > progress.row and not progress.undone
    return Player(
        actor=known.book.actor,
        role=_role(known.book.actor, progress.cast),
        done=rows[progress.row].name if progress.row >= 0 else "",
        begun=rows[progress.begun].name if waiting else "",
        undone=progress.undone,
        since=known.since(Progress, progress.cast.saga),
    )


def _role(actor: str, cast: Cast) -> str:
    roles = {MANAGER: "manager", hypervisor(cast.source): "source", hypervisor(cast.target): "target"}
    return roles.get(actor, "device")


def actors_of(cast: Cast, role: str) -> list[str]:
    """Who plays a role."""
    match role:
        case "manager":
            return [MANAGER]
        case "source":
            return [hypervisor(cast.source)]
        case "target":
            return [hypervisor(cast.target)]
        case _:
            return [swap_device(device) for device in cast.devices]


def _next(cast: Cast, parts: list[tuple[Known, Progress]], last: int) -> tuple[str, list[str]]:
    """Whose turn it is. Of several devices, those that have not granted."""
    rows = MIGRATION.rows
    rows_done = {known.book.actor: progress.row for known, progress in parts}
    grant = MIGRATION.index("grant")
    if last == grant:
        late = [actor for actor in actors_of(cast, "device") if rows_done.get(actor, -1) < grant]
        if late:
            return "grant", late
    row = rows[min(last + 1, len(rows) - 1)]
    if row.role == "device" and not cast.devices:
        row = rows[MIGRATION.index("hand over")]
    return row.name, actors_of(cast, row.role)


def _undoing(cast: Cast, parts: list[tuple[Known, Progress]], last: int) -> tuple[str, list[str]]:
    if last >= MIGRATION.index("close"):
        return _next(cast, parts, last)
    undone = {known.book.actor for known, progress in parts if progress.undone}
    route = [MANAGER, *actors_of(cast, "device"), hypervisor(cast.source), hypervisor(cast.target)]
    left = [actor for actor in route if actor not in undone and actor not in {hypervisor(host) for host in cast.dead}]
    return ("undo", left[:1]) if left else ("close", [MANAGER])


def _because(cluster: Cluster, cast: Cast, parts: list[tuple[Known, Progress]]) -> str:
    """What somebody has said of why."""
    reasons = [progress.reason for _, progress in parts if progress.reason]
    for known in cluster.hosts.values():
        for instance in known.record.all(Instance).values():
            if cast.saga in (instance.leaving_by, instance.brought_by):
                reasons += [sentence for sentence in (instance.failed, instance.stalled) if sentence]
                if not instance.reached:
                    reasons.append(f"machine {instance.id} is not yet {instance.wanted}")
    return "; ".join(dict.fromkeys(reasons))
