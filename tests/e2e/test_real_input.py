"""Real input on real parts: identical on both, through a time apart in which both sides work on."""

import pytest

from tests.e2e.device import Pair
from tests.e2e.real_input import there_and_back
from tests.e2e.stack import Stack

BIG_BYTES = 1_000_000_000


@pytest.mark.timeout(600)
async def test_a_library_and_a_large_file_there_and_back(running: Stack, pair: Pair) -> None:
    await there_and_back(running, pair, BIG_BYTES, "one")
