"""What all tests share: the real servers."""

from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for itself: not for the tests after it."""
    yield
    structlog.reset_defaults()
