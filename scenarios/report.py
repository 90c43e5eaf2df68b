"""What a run came to: the figures of the last migration, the verdicts, and whatever is not as it should be."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from actors.messages import Inspected, Verdict
from paging.guest import Manifest, PageCounts
from scenarios.timeline import Entry


@attrs.frozen(kw_only=True)
class Asked:
    """A migration as the user saw it; times are Unix seconds."""

    vm: str
    target: str
    at: float
    verdict: Verdict | None = None
    ended: float | None = None


@attrs.frozen(kw_only=True)
class Played:
    """What the runner brings back."""

    migrations: tuple[Asked, ...]
    verified: bool | None
    """whether every memory check passed, one of them after the last migration; None: there was none"""
    after: Mapping[str, Inspected]
    """how each guest's memory lies in the end"""
    broken: tuple[str, ...]
    """steps that failed, verdicts that a step did not expect"""
    slots_away: int = 0
    """slots that are not at home in the end, and devices that are shared without need"""


@attrs.frozen(kw_only=True)
class Figures:
    """Figures of one migration, as far as it came; times in milliseconds."""

    halted: PageCounts | None = None
    manifest: Manifest | None = None
    grant_messages_bytes: int = 0
    downtime_ms: float | None = None
    """from the word to halt until the machine runs again (here or there), so a little more than the guest felt"""
    total_ms: float | None = None


@attrs.frozen(kw_only=True)
class Report:
    """Everything that `swapferry run` tells."""

    name: str
    outcome: str
    played: Played
    figures: Figures
    entries: tuple[Entry, ...]
    started: float
    bus: str
    guest: str
    broken: tuple[str, ...]

    @property
    def last(self) -> Inspected | None:
        """How the memory of the guest that moved last lies in the end."""
        return self.played.after.get(self.played.migrations[-1].vm) if self.played.migrations else None

    @property
    def resident_max(self) -> int:
        """Largest allocated memory of the last moved guest's RAM file, in bytes, at source and target."""
        after = self.last.counts if self.last is not None else None
        return max((counts.resident_bytes_max for counts in (self.figures.halted, after) if counts is not None), default=0)

    @property
    def faults_after_move(self) -> int:
        """Page-ins since the halt: of the new instance, or of the old one that went on."""
        after, halted = self.last.counts if self.last is not None else None, self.figures.halted
        before = halted.faults if halted is not None and self.outcome != "done" else 0
        return after.faults - before if after is not None else 0

    def timeline(self) -> list[Entry]:
        """What is shown, from the first migration on."""
        return [entry for entry in self.entries if entry.shown and entry.t >= self.started]

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        figures, manifest, halted = self.figures, self.figures.manifest, self.figures.halted
        after = self.last.counts if self.last is not None else None
        return {
            "scenario": self.name,
            "outcome": self.outcome,
            "verified": self.played.verified,
            "reason": self.reason,
            "pages": {
                "total": halted.total if halted else 0,
                "resident": halted.resident if halted else 0,
                "swapped": halted.swapped if halted else 0,
                "granted": manifest.pages_granted if manifest else 0,
                "sent": manifest.pages_sent if manifest else 0,
                "zero": manifest.pages_zero if manifest else 0,
            },
            "bytes_sent": manifest.bytes_sent if manifest else 0,
            "grant_messages_bytes": figures.grant_messages_bytes,
            "downtime_ms": figures.downtime_ms,
            "total_ms": figures.total_ms,
            "faults_after_move": self.faults_after_move,
            "slots_away": self.played.slots_away,
            "page_in_us": {"p50": after.page_in_us_p50 if after else 0.0, "p99": after.page_in_us_p99 if after else 0.0},
            "resident_max": self.resident_max,
            "bus": self.bus,
            "guest": self.guest,
            "timeline": [
                {"t_ms": milliseconds(entry.t - self.started), "actor": entry.actor, "row": entry.row, "event": entry.event}
                for entry in self.timeline()
            ],
            "broken": list(self.broken),
        }

    @property
    def reason(self) -> str:
        """What the user was told about the last migration."""
        verdict = self.played.migrations[-1].verdict if self.played.migrations else None
        return verdict.reason if verdict is not None else ""


def figures_of(asked: Asked | None, entries: Sequence[Entry]) -> Figures:
    """The figures of one migration from the entries that were made while it ran."""
    if asked is None:
        return Figures()
    during = [entry for entry in entries if entry.t >= asked.at]
    last = {entry.event: entry for entry in reversed(during) if not entry.shown}
    grants = {entry.detail["name"]: int(entry.detail["bytes"]) for entry in during if entry.event == "grant message"}
    halt = last.get("halt asked")
    runs = next((entry for entry in during if entry.event == "runs" and halt and entry.t > halt.t), None)
    return Figures(
        halted=_detail(last, "halted", "counts", PageCounts),
        manifest=_detail(last, "sent", "manifest", Manifest),
        grant_messages_bytes=sum(grants.values()),
        downtime_ms=milliseconds(runs.t - halt.t) if halt and runs else None,
        total_ms=milliseconds(asked.ended - asked.at) if asked.ended else None,
    )


def _detail(last: Mapping[str, Entry], event: str, key: str, kind: Any) -> Any:
    return kind(**last[event].detail[key]) if event in last else None


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to a tenth."""
    return round(seconds * 1000, 1)
