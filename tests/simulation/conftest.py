"""The many runs go on beside all other tests, which wait for servers most of the time: nicely, and in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = 240
CHECKOUT = Path(__file__).parents[2]

_beside = pytest.StashKey["subprocess.Popen[str]"]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin as soon as it is known that they are wanted."""
    if any("simulated" in getattr(item, "fixturenames", ()) for item in session.items):
        session.config.stash[_beside] = subprocess.Popen(
            ["nice", "-n", "10", sys.executable, "-W", "ignore", "-m", "tests.simulation",
             "--runs", str(RUNS), "--jobs", "1"],
            cwd=CHECKOUT, env={**os.environ, "PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing outlives the tests."""
    process = session.config.stash.get(_beside, None)
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture
def simulated(request: pytest.FixtureRequest) -> "subprocess.Popen[str]":
    """The process that simulates `RUNS` runs."""
    process: subprocess.Popen[str] = request.config.stash[_beside]
    return process
