"""What is in hand: deliveries made into jobs, jobs made into batches, outcomes made into what is published. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from broker.delivery import Delivery
from broker.errors import Corrupt
from broker.messages import (
    MAX_MESSAGE_SIZE_BYTES,
    ChangeNotice,
    CommitAccepted,
    Request,
    StagedCommitRequest,
    decode_request,
    encode,
)
from broker.model import Cursor
from broker.topology import CHANGES, DELIVERY_LIMIT
from metadata.state import Accepted, BatchResult, Refused, Replayed, Submission

MAX_ENTRIES_SIZE_BYTES: Final = MAX_MESSAGE_SIZE_BYTES - 4 * 1024
"""Of one notice: what the rest of the message needs is far below the margin."""

_ENTRY_OVERHEAD_BYTES: Final = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """A delivery that is a request, of a device that the broker vouches for."""

    delivery: Delivery
    submission: Submission

    @property
    def alone(self) -> bool:
        """What may have broken a worker before, or is large, must not take neighbours with it."""
        return self.delivery.redelivered or isinstance(self.submission.request, StagedCommitRequest)

    @property
    def last_chance(self) -> bool:
        """The broker delivers it no more: answer it now, or nobody will."""
        return self.delivery.delivery_count >= DELIVERY_LIMIT


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A delivery that is no request that anyone may make. `reason` is a stable word."""

    delivery: Delivery
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Post:
    """A message to publish. `workspace_id` is for the log."""

    exchange: str
    routing_key: str
    body: bytes
    workspace_id: UUID


def admit(delivery: Delivery, relay_user: str) -> Job | Misfit:
    """Read a delivery. Whose it is says the broker's verified `user_id`, and the relay for others."""
    if delivery.user_id is None:
        return Misfit(delivery=delivery, reason="missing_user_id")
    try:
        request = decode_request(delivery.body)
    except Corrupt as error:
        return Misfit(delivery=delivery, reason=error.code, detail=str(error))
    device_id = _find_device(delivery.user_id, request, relay_user)
    if device_id is None:
        return Misfit(delivery=delivery, reason="foreign_user_id")
    return Job(delivery=delivery, submission=Submission(device_id=device_id, request=request))


def _find_device(user_id: str, request: Request, relay_user: str) -> UUID | None:
    if user_id == relay_user:
        return request.on_behalf_of
    if request.on_behalf_of is not None:
        return None
    try:
        return UUID(user_id)
    except ValueError:
        return None


def split(jobs: Iterable[Job]) -> list[list[Job]]:
    """Make batches, in order: what must be alone is, all that lies between goes together."""
    batches: list[list[Job]] = []
    together = False
    for job in jobs:
        if job.alone or not together:
            batches.append([])
        batches[-1].append(job)
        together = not job.alone
    return batches


def halve(jobs: Sequence[Job]) -> tuple[Sequence[Job], Sequence[Job]]:
    """Two halves of a batch of at least two, to find the one that breaks it."""
    middle = len(jobs) // 2
    return jobs[:middle], jobs[middle:]


# --- what is published


def make_posts(jobs: Sequence[Job], result: BatchResult, *, retried: bool) -> list[Post]:
    """What to publish for a batch that is durable: a workspace's entries in one notice, the rest to its author.

    Args:
        jobs: The batch.
        result: What became of it.
        retried: It was tried before, and may have been applied then without being announced: its replays are
            announced again, as those of redelivered requests are.
    """
    entries: dict[UUID, list[tuple[Cursor, bytes]]] = {}
    posts: list[Post] = []
    for job, outcome in zip(jobs, result.outcomes, strict=True):
        workspace_id = job.submission.request.workspace_id
        if isinstance(outcome, Accepted):
            entries.setdefault(workspace_id, []).append((outcome.head, outcome.entry))
            continue
        if isinstance(outcome, Replayed) and outcome.at and (retried or job.delivery.redelivered):
            posts.extend(_notice_posts(workspace_id, [(outcome.at, outcome.entry)]))
        body = _answer(job, outcome, result)
        queue = result.queues.get(job.submission.device_id)
        if body is not None and queue is not None:
            posts.append(Post(exchange="", routing_key=queue, body=body, workspace_id=workspace_id))
    news = (post for workspace_id, added in entries.items() for post in _notice_posts(workspace_id, added))
    return [*news, *posts]


def _answer(job: Job, outcome: object, result: BatchResult) -> bytes | None:
    """What goes to the author alone; an accepted commit's answer is its notice."""
    if isinstance(outcome, Refused):
        return encode(outcome.refusal)
    if not isinstance(outcome, Replayed):
        return None
    if outcome.at is None:
        return outcome.refusal
    request = job.submission.request
    return encode(
        CommitAccepted(
            workspace_id=request.workspace_id,
            incarnation=request.incarnation,
            number=request.number,
            seq=outcome.at.seq,
            head=result.heads[request.workspace_id],
        )
    )


def _notice_posts(workspace_id: UUID, entries: Sequence[tuple[Cursor, bytes]]) -> list[Post]:
    return [
        Post(exchange=CHANGES, routing_key=str(workspace_id), body=encode(notice), workspace_id=workspace_id)
        for notice in make_notices(workspace_id, entries)
    ]


def make_notices(workspace_id: UUID, entries: Sequence[tuple[Cursor, bytes]]) -> list[ChangeNotice]:
    """Put consecutive entries into as few notices as they fit; one that fits none is announced without its bytes."""
    groups: list[list[tuple[Cursor, bytes]]] = []
    size = 0
    for head, entry in entries:
        entry_size = len(entry) + _ENTRY_OVERHEAD_BYTES
        if not groups or size + entry_size > MAX_ENTRIES_SIZE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append((head, entry))
        size += entry_size
    return [_make_notice(workspace_id, group) for group in groups]


def _make_notice(workspace_id: UUID, group: Sequence[tuple[Cursor, bytes]]) -> ChangeNotice:
    told = tuple(entry for _, entry in group)
    if len(told[0]) + _ENTRY_OVERHEAD_BYTES > MAX_ENTRIES_SIZE_BYTES:
        told = ()
    return ChangeNotice(workspace_id=workspace_id, head=group[-1][0], entries=told)
