"""One service for all end-to-end tests of a session; each test has an account of its own."""

from collections.abc import Iterator

import pytest

from tests.e2e.device import Pair
from tests.e2e.stack import Stack, running_stack


@pytest.fixture(scope="session")
def running() -> Iterator[Stack]:
    """The session's service."""
    with running_stack() as stack:
        yield stack


@pytest.fixture
def pair(running: Stack) -> Iterator[Pair]:
    """A new account with two running devices; whatever agents run at the test's end are killed."""
    running.wait_ready()
    yield running.add_pair()
    for device in running.devices:
        if device.process is not None:
            device.kill()
    running.devices.clear()
