"""The loop: take what waits, decide and apply it in one transaction, tell everybody, and only then acknowledge."""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from broker.delivery import Consuming, Delivery, Publishing, dead_letter
from broker.errors import NotFound
from broker.messages import CommitRequest
from broker.model import ConflictCode, Cursor, first_chain
from metadata.state import Accepted, BatchResult, Dead, Decide, Outcome, Refused, Replayed, Submission
from sync_workers.batch import Job, Misfit, Post, admit, halve, make_posts, split
from sync_workers.decide import decide, refuse_all
from sync_workers.metrics import Metrics
from sync_workers.patience import AbandonedError, Patience

PUBLISH_TIMEOUT_S: Final = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Committing(Protocol):
    """Where batches are applied: `metadata.store.Store`, or its twin of `metadata.memory`."""

    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult:
        """See `metadata.store.Store.commit_batch`."""


class Worker:
    """One worker: any number of them may share the request queue.

    Args:
        consumer: Of the request queue.
        publisher: On a connection of its own.
        store: Where batches are applied.
        metrics: Counted into.
        prefetch: The consumer's: no batch is larger.
        relay_user: Whose `on_behalf_of` is believed.
    """

    def __init__(
        self,
        *,
        consumer: Consuming,
        publisher: Publishing,
        store: Committing,
        metrics: Metrics,
        prefetch: int,
        relay_user: str,
    ) -> None:
        self._consumer = consumer
        self._publisher = publisher
        self._store = store
        self._metrics = metrics
        self._prefetch = prefetch
        self._relay_user = relay_user
        self._inbox: asyncio.Queue[Delivery | None] = asyncio.Queue(prefetch + 1)
        self._stop = asyncio.Event()
        self._patience = Patience(self._stop, metrics)

    @property
    def ready(self) -> bool:
        """Whether requests can arrive, and nothing is held because a server is away."""
        return self._consumer.connected and not self._patience.holding

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish what is in hand, and return.

        Raises:
            HutchError: As `Consumer.run` does, when the queue cannot be consumed at all.
        """
        try:
            async with asyncio.TaskGroup() as group:
                consuming = group.create_task(self._consumer.run(self._take), name="consume requests")
                ending = group.create_task(self._end_on(stop), name="wait for the stop")
                await self._work()
                ending.cancel()
                consuming.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _take(self, delivery: Delivery) -> None:
        if not self._stop.is_set():  # else it goes back to the queue when the connection is closed
            await self._inbox.put(delivery)

    async def _end_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stop.set()
        await self._inbox.put(None)

    async def _work(self) -> None:
        last = False
        while not last:
            deliveries, last = await self._next_deliveries()
            try:
                await self._handle(deliveries)
            except AbandonedError:
                log.warning("batch.abandoned", size=len(deliveries))
                return

    async def _next_deliveries(self) -> tuple[list[Delivery], bool]:
        """What waits by now, at least one; and whether it is the last, because the worker is to stop."""
        waiting = [await self._inbox.get()]
        while len(waiting) < self._prefetch and not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        return [delivery for delivery in waiting if delivery is not None], None in waiting

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        jobs: list[Job] = []
        for delivery in deliveries:
            admitted = admit(delivery, self._relay_user)
            if isinstance(admitted, Misfit):
                await self._bury(delivery, admitted.reason, admitted.detail)
            else:
                jobs.append(admitted)
        for batch in split(jobs):
            began_s = perf_counter()
            if batch[0].last_chance:
                await self._poison(batch[0])
            else:
                await self._settle(batch)
            self._metrics.batch_s.observe(perf_counter() - began_s)

    # --- a batch

    async def _settle(self, batch: Sequence[Job]) -> None:
        """Commit, tell, acknowledge. What breaks the whole is found by halves, and given back alone."""
        try:
            result, retried = await self._commit(batch, decide)
        except AbandonedError:
            raise
        except Exception as error:  # whatever one request can do to the statements or the decision
            await self._divide(batch, error)
            return
        await self._tell(batch, result, retried=retried)
        for job, outcome in zip(batch, result.outcomes, strict=True):
            if isinstance(outcome, Dead):
                await self._bury(job.delivery, outcome.reason)
            else:
                await job.delivery.ack()

    async def _divide(self, batch: Sequence[Job], error: Exception) -> None:
        log.error("batch.broke", size=len(batch), error=type(error).__name__, exc_info=len(batch) == 1)
        if len(batch) > 1:
            for half in halve(batch):
                await self._settle(half)
        else:
            await batch[0].delivery.reject(requeue=True)

    async def _poison(self, job: Job) -> None:
        """Answer a request that has broken its workers until the broker would deliver it no more."""
        request = job.submission.request
        bare = CommitRequest(
            workspace_id=request.workspace_id,
            incarnation=request.incarnation,
            number=request.number,
            cursor=Cursor(0, 0, first_chain(request.workspace_id)),
            operations=(),
        )
        batch = [Job(delivery=job.delivery, submission=replace(job.submission, request=bare))]
        refuse = partial(refuse_all, code=ConflictCode.POISONED)
        try:
            result, _ = await self._commit(batch, refuse)
        except AbandonedError:
            raise
        except Exception as error:
            await self._bury(job.delivery, "poisoned", type(error).__name__)
            return
        await self._tell(batch, result, retried=True)
        if isinstance(result.outcomes[0], Replayed):  # it was answered in truth, and only never acknowledged
            await job.delivery.ack()
        else:
            await self._bury(job.delivery, "poisoned")

    async def _commit(self, batch: Sequence[Job], decide: Decide) -> tuple[BatchResult, bool]:
        submissions = [job.submission for job in batch]

        async def commit() -> BatchResult:
            began_s = perf_counter()
            result = await self._store.commit_batch(submissions, decide)
            duration_s = perf_counter() - began_s
            self._metrics.transaction_s.observe(duration_s)
            for job, outcome in zip(batch, result.outcomes, strict=True):
                _log_outcome(job, outcome, duration_s)
            return result

        result, retried = await self._patience.hold("commit", len(batch), commit)
        self._metrics.count_outcomes(result.outcomes)
        return result, retried

    # --- telling

    async def _tell(self, batch: Sequence[Job], result: BatchResult, *, retried: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for post in make_posts(batch, result, retried=retried):
                    group.create_task(self._publish(post, len(batch)), name="publish an outcome")
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _publish(self, post: Post, size: int) -> None:
        async def publish() -> None:
            await self._publisher.publish(
                post.exchange, post.routing_key, post.body, timeout_s=PUBLISH_TIMEOUT_S
            )

        try:
            await self._patience.hold("publish", size, publish)
        except NotFound as error:
            # Nobody's queue takes it: the devices catch up when they come back.
            log.info("outcome.dropped", workspace_id=str(post.workspace_id), error=error.code)

    async def _bury(self, delivery: Delivery, reason: str, detail: str = "") -> None:
        self._metrics.dead_letters.labels(reason).inc()
        log.warning("request.dead_lettered", reason=reason, user_id=delivery.user_id, error=detail)
        bury = partial(dead_letter, self._publisher, delivery, reason, detail)
        await self._patience.hold("dead-letter", 1, bury)


def _log_outcome(job: Job, outcome: Outcome, duration_s: float) -> None:
    request = job.submission.request
    bound = log.bind(
        workspace_id=str(request.workspace_id),
        device_id=str(job.submission.device_id),
        number=request.number,
        duration_s=round(duration_s, 4),
    )
    match outcome:
        case Accepted():
            bound.info("commit.accepted", seq=outcome.head.seq, size_bytes=len(outcome.entry))
        case Refused():
            codes = sorted({conflict.code.value for conflict in outcome.refusal.conflicts})
            bound.info("commit.refused", conflicts=len(outcome.refusal.conflicts), codes=codes)
        case Replayed():
            bound.info("commit.replayed", accepted=outcome.at is not None)
        case Dead():
            bound.info("commit.rejected", reason=outcome.reason)
