"""Worlds from seeds: no rule is broken, a seed is a history, and what breaks a rule is made small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from actors.sagas import cleanup
from scenarios.sim.chaos import Wish, chaos, play
from scenarios.sim.faults import CRASH_POINTS, PROFILES
from scenarios.sim.shrink import shrink
from scenarios.sim.turns import LABELS
from scenarios.sim.world import Limits, Size
from tests.scenarios.sim.defects import DEFECTS

ROOT = Path(__file__).resolve().parents[3]
SEEDS = int(os.environ.get("SWAPFERRY_TEST_SEEDS", "20"))
"""of each profile; `make sim` plays more"""


@pytest.mark.parametrize("profile", PROFILES)
def test_no_world_breaks_a_rule(profile: str):
    report = chaos(SEEDS, Wish(profile=profile), start=100)

    assert report.broken == []
    assert all(report.coverage.rows[label] for label in LABELS[:12]), "a row of the migration was never played"


def test_a_bigger_world_breaks_no_rule():
    wish = Wish(profile="rough", size=Size(hosts=6, vms=12, devices=5))

    assert play(1, wish).broken is None


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_is_a_history(profile: str):
    wish = Wish(profile=profile, limits=Limits(story=True))

    first, second = play(7, wish), play(7, wish)

    assert first.story == second.story
    assert first.digest == second.digest
    assert play(8, wish).digest != first.digest


def test_neither_the_hash_seed_nor_the_number_of_processes_changes_a_digest():
    digests = {_digest(hash_seed, jobs) for hash_seed, jobs in (("0", "1"), ("1", "2"))}

    assert len(digests) == 1


def _digest(hash_seed: str, jobs: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "swapferry", "chaos", "--seeds", "6", "--profile", "brutal", "--jobs", jobs]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
    )
    return str(json.loads(done.stdout)["digest"])


def test_a_broken_rule_ends_the_command_with_1_and_a_history_made_small(monkeypatch: pytest.MonkeyPatch):
    DEFECTS["commit_moves_nothing"].apply(monkeypatch)
    wish = Wish(profile="brutal")
    history = play(0, wish)
    assert history.broken is not None

    smaller, shortest = shrink(history, wish)

    assert shortest.broken is not None
    assert shortest.broken.checker == history.broken.checker
    assert smaller.size.vms < wish.size.vms
    assert (smaller.limits.faults_max or 0) <= history.faults
    assert any("VIOLATION" in line for line in shortest.story)


def test_fewer_faults_are_a_prefix_of_the_same_history():
    wish = Wish(profile="brutal", limits=Limits(story=True))
    whole = play(3, wish)
    part = play(3, attrs.evolve(wish, limits=Limits(story=True, faults_max=whole.faults)))

    assert part.digest == whole.digest


def test_the_report_names_every_row_crash_point_and_fault():
    report = chaos(2, Wish(profile="rough")).to_json()

    assert set(report) >= {"seeds", "start", "profile", "violations", "digest", "coverage", "seeds_per_s"}
    assert set(report["coverage"]["crash_points"]) == set(LABELS)
    assert all(set(points) == set(CRASH_POINTS) for points in report["coverage"]["crash_points"].values())


def test_without_faults_nothing_is_undone_but_by_a_cancel():
    wish = Wish(profile="calm", limits=Limits(story=True, faults_max=0))

    undone = [line for seed in range(4) for line in play(seed, wish).story if ": undone" in line]

    assert all("cancelled" in line for line in undone)


def test_slots_come_home_in_every_world(monkeypatch: pytest.MonkeyPatch):
    """The rule itself can fail: without the word that brings them home, they do not."""
    monkeypatch.setattr(cleanup, "_returns", lambda *_: iter(()))

    broken = [found for seed in range(12) if (found := play(seed, Wish(profile="calm")).broken)]

    assert broken
    assert {one.checker for one in broken} <= {"home", "liveness"}
