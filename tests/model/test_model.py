"""The protocol model of docs/model, run as its own checker runs it: a few histories without, and with, something wrong in it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

MODEL = Path(__file__).resolve().parents[2] / "docs" / "model"
SEEDS = range(1, 201)


@pytest.fixture(scope="module")
def defects() -> Iterator[ModuleType]:
    sys.path.insert(0, str(MODEL))
    try:
        yield importlib.import_module("defects")
    finally:
        sys.path.remove(str(MODEL))


def test_no_history_of_the_model_violates_an_invariant(defects: ModuleType) -> None:
    history = defects.checker(None).history

    violations = {seed: violation for seed in SEEDS if (violation := history(seed)[0])}

    assert violations == {}


@pytest.mark.parametrize("name", ["no_idle_rule", "grant_before_halted", "welcome_unchecked", "resume_before_commit"])
def test_the_checker_catches_a_planted_defect(defects: ModuleType, name: str) -> None:
    seed, violation = defects.seeds_until_caught(name, SEEDS.stop)

    assert seed is not None, f"{name} was not caught"
    assert violation


def test_every_planted_defect_still_fits_the_model(defects: ModuleType) -> None:
    for name in defects.DEFECTS:
        assert defects.checker(name).history
