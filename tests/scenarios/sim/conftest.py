"""Simulated worlds do not log: a line of a million events is nobody's."""

from collections.abc import Iterator

import pytest
import structlog

from swapferry.cli_chaos import be_quiet


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log lines while a world is played."""
    before = structlog.get_config()
    be_quiet()
    yield
    structlog.configure(**before)
