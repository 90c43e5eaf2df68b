"""What tests of several packages need."""

from collections.abc import Iterator

import pytest

from tests.support.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A real broker of this test run. Fails with the remedy, never skips, where RabbitMQ is not installed."""
    with RabbitMQ() as broker:
        yield broker
