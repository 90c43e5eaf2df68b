"""Holds what a run came to against what its scenario expects. Pure; each thing that is not so is a sentence."""

from collections.abc import Iterator

from paging.device import PAGE_BYTES
from paging.policy import BATCH_PAGES
from scenarios.report import Report
from scenarios.rules import size
from scenarios.scenario import Expect, Scenario


def unmet(scenario: Scenario, report: Report) -> list[str]:
    """What was expected and is not so."""
    rules = (_outcome, _verified, _places, _amounts, _home)
    return [sentence for rule in rules for sentence in rule(scenario.expect, report)] + list(_budget(scenario, report))


def _outcome(expect: Expect, report: Report) -> Iterator[str]:
    if report.outcome != expect.outcome:
        yield f"outcome: expected {expect.outcome}, it is {report.outcome}" + (f" ({report.reason})" if report.reason else "")
    if expect.reason not in report.reason:
        yield f'reason: expected to hold "{expect.reason}", it is "{report.reason}"'


def _verified(expect: Expect, report: Report) -> Iterator[str]:
    if expect.verified is not None and report.played.verified is not expect.verified:
        yield f"verified: expected {expect.verified}, it is {report.played.verified}"


def _places(expect: Expect, report: Report) -> Iterator[str]:
    if expect.at:
        for vm, after in report.played.after.items():
            if after.host != expect.at:
                yield f"{vm}: expected on {expect.at}, it is on {after.host or 'no host'}"


def _amounts(expect: Expect, report: Report) -> Iterator[str]:
    manifest, halted = report.figures.manifest, report.figures.halted
    granted = manifest.pages_granted * PAGE_BYTES if manifest else 0
    if granted < expect.granted_min:
        yield f"granted: expected at least {size(expect.granted_min)}, it is {size(granted)}"
    if expect.sent_max is not None and manifest is not None and manifest.bytes_sent > expect.sent_max:
        yield f"sent: expected at most {size(expect.sent_max)}, it is {size(manifest.bytes_sent)}"
    if halted is not None and halted.swapped < expect.swapped_share_min * (halted.total - halted.zero):
        share = halted.swapped / (halted.total - halted.zero)
        yield f"swapped: expected a share of at least {expect.swapped_share_min}, it is {share:.2f}"


def _home(expect: Expect, report: Report) -> Iterator[str]:
    if expect.slots_away_max is not None and report.played.slots_away > expect.slots_away_max:
        yield f"slots: expected at most {expect.slots_away_max} away from home, {report.played.slots_away} are"


def _budget(scenario: Scenario, report: Report) -> Iterator[str]:
    """Over-commitment is real all the time: RAM never exceeds the resident limit by more than one batch."""
    if not report.played.migrations:
        return
    limit = scenario.vm(report.played.migrations[-1].vm).resident
    if report.resident_max > limit + BATCH_PAGES * PAGE_BYTES:
        yield f"resident: at most {size(limit)} and one batch of {BATCH_PAGES} pages, it was {size(report.resident_max)}"
