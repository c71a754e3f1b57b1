"""A worker that kills itself at a chosen instant: `python -m tests.integration.sync_workers.dying`, HUTCH_TEST_DEATH=…"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from broker.connection import Publisher
from metadata.state import BatchResult, Decide, Submission
from metadata.store import Store
from sync_workers import __main__ as program


def die() -> NoReturn:
    """As by `kill -9`: nothing is flushed, closed or given back."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead by now")


class DyingStore(Store):
    """Dies in the transaction, all decided and nothing written; or right after its commit."""

    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult:
        if os.environ["HUTCH_TEST_DEATH"] == "before commit":
            return await super().commit_batch(submissions, lambda *_: die())
        result = await super().commit_batch(submissions, decide)
        if os.environ["HUTCH_TEST_DEATH"] == "before publish":
            die()
        return result


class DyingPublisher(Publisher):
    """Dies when the broker has confirmed, before anything is acknowledged."""

    async def publish(self, *arguments: Any, **options: Any) -> None:
        await super().publish(*arguments, **options)
        die()


if __name__ == "__main__":
    vars(program)["Store"] = DyingStore
    if os.environ["HUTCH_TEST_DEATH"] == "before ack":
        vars(program)["Publisher"] = DyingPublisher
    sys.exit(program.main())
