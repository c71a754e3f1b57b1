"""How long to wait before the next try."""

import asyncio
import random
from typing import Final

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 30.0


def next_delay_s(attempt: int, chance: float) -> float:
    """The wait before try number `attempt` (from 1): doubling from 0.2 s to 30 s, times 0.5 to 1 by `chance` in [0, 1)."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 20))
    return longest * (0.5 + chance / 2)


def jittered(seconds: float) -> float:
    """A period, a quarter longer or shorter by chance, so that devices do not all come at once."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311  # no secret


class Patience:
    """Counts failures in a row, and waits longer after each."""

    def __init__(self) -> None:
        self._attempt = 0

    async def wait(self, until: asyncio.Event | None = None) -> None:
        """Wait for the next try's time, or until an event is set."""
        self._attempt += 1
        delay_s = next_delay_s(self._attempt, random.random())  # noqa: S311  # no secret
        if until is None:
            await asyncio.sleep(delay_s)
            return
        try:
            async with asyncio.timeout(delay_s):
                await until.wait()
        except TimeoutError:
            return
