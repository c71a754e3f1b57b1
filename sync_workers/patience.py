"""Holding what is in hand while a server is away: try in place, never give it back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from broker.errors import Retryable
from sync_workers.metrics import Metrics

FIRST_DELAY_S: Final = 0.1
LAST_DELAY_S: Final = 5.0

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class AbandonedError(Exception):
    """The worker stops, and a server is away: what is in hand goes back to the queue unanswered."""


def next_delay_s(attempt: int) -> float:
    """How long to wait after `attempt` failures in a row, at least 1."""
    return float(min(LAST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt - 1, 16)))


class Patience:
    """Tries again and again, until it works or `stop` is set."""

    def __init__(self, stop: asyncio.Event, metrics: Metrics) -> None:
        self._stop = stop
        self._metrics = metrics
        self.holding = False

    async def hold(self, what: str, size: int, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Do `work`, again after each `Retryable`.

        Args:
            what: For the log.
            size: How many deliveries wait for it.
            work: May have had its effect even when it raised.

        Returns:
            What it gives, and whether it was tried more than once.

        Raises:
            AbandonedError: It failed, and the worker is to stop.
        """
        attempt = 0
        while True:
            try:
                result = await work()
            except Retryable as error:
                attempt += 1
                await self._wait(what, size, attempt, error)
            else:
                self._note(0)
                return result, attempt > 0

    async def _wait(self, what: str, size: int, attempt: int, error: Retryable) -> None:
        delay_s = next_delay_s(attempt)
        self._note(size)
        log.warning("batch.held", what=what, size=size, attempt=attempt, delay_s=delay_s, error=str(error))
        try:
            await asyncio.wait_for(self._stop.wait(), delay_s)
        except TimeoutError:
            return
        raise AbandonedError from error

    def _note(self, size: int) -> None:
        self.holding = size > 0
        self._metrics.held.set(size)
