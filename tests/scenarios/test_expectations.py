"""Each thing that a scenario expects is held against what came, and said in a sentence when it is not so."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from actors.domain.lifecycle import Outcome
from actors.messages import Inspected, Verdict
from paging.guest import Manifest, PageCounts
from scenarios.expectations import unmet
from scenarios.load import load
from scenarios.report import Asked, Figures, Played, Report
from scenarios.scenario import Expect
from tests.swapferry.scenes import SMALL

MIB = 1 << 20
COUNTS = PageCounts(total=4096, resident=1000, swapped=2000, zero=1096, resident_bytes_max=4 * MIB)
MANIFEST = Manifest(
    pages_sent=1000, pages_granted=2000, pages_zero=1096, bytes_sent=4 * MIB, pages_digest="", table_digest="", state_bytes=1,
    state_digest="",
)  # fmt: skip
VERDICT = Verdict(request="r", vm="web1", outcome=Outcome.DONE, reason="web1 runs on h2")


def good(**changes: Any) -> Report:
    """A run that went well, but for these changes."""
    after = Inspected(request="l", vm="web1", instance="i", host="h2", ok=True, words="", counts=COUNTS)
    asked = Asked(vm="web1", target="h2", at=1.0, verdict=VERDICT, ended=2.0)
    report = Report(
        name="small", outcome="done", played=Played(migrations=(asked,), verified=True, after={"web1": after}, broken=()),
        figures=Figures(halted=COUNTS, manifest=MANIFEST), entries=(), started=1.0, bus="embedded", guest="fake", broken=(),
    )  # fmt: skip
    return attrs.evolve(report, **changes)


def said(tmp_path: Path, expect: Expect, report: Report) -> list[str]:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return unmet(attrs.evolve(load(path), expect=expect), report)


def test_what_is_met_is_not_mentioned(tmp_path: Path) -> None:
    everything = Expect(
        outcome="done", verified=True, reason="runs on", at="h2", granted_min=7 * MIB, sent_max=4 * MIB, swapped_share_min=0.6
    )

    assert said(tmp_path, everything, good()) == []


@pytest.mark.parametrize(
    ("expect", "sentence"),
    [
        (Expect(outcome="undone"), "outcome: expected undone, it is done (web1 runs on h2)"),
        (Expect(outcome="done", reason="no room"), 'reason: expected to hold "no room", it is "web1 runs on h2"'),
        (Expect(outcome="done", verified=False), "verified: expected False, it is True"),
        (Expect(outcome="done", at="h1"), "web1: expected on h1, it is on h2"),
        (Expect(outcome="done", granted_min=8 * MIB), "granted: expected at least 8 MiB, it is 7.8 MiB"),
        (Expect(outcome="done", sent_max=MIB), "sent: expected at most 1 MiB, it is 4 MiB"),
        (Expect(outcome="done", swapped_share_min=0.7), "swapped: expected a share of at least 0.7, it is 0.67"),
    ],
)
def test_what_is_not_met_is_a_sentence(tmp_path: Path, expect: Expect, sentence: str) -> None:
    assert said(tmp_path, expect, good()) == [sentence]


def test_a_guest_that_was_never_verified_is_not_taken_for_sound(tmp_path: Path) -> None:
    report = good(played=attrs.evolve(good().played, verified=None))

    assert said(tmp_path, Expect(outcome="done", verified=True), report) == ["verified: expected True, it is None"]


def test_more_ram_than_the_limit_and_one_batch_is_always_a_failure(tmp_path: Path) -> None:
    too_much = attrs.evolve(COUNTS, resident_bytes_max=4 * MIB + 65 * 4096)

    problems = said(tmp_path, Expect(outcome="done"), good(figures=Figures(halted=too_much, manifest=MANIFEST)))

    assert problems == ["resident: at most 4 MiB and one batch of 64 pages, it was 4.3 MiB"]
