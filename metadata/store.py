"""The journal's store: applies a batch of commits in one transaction, whatever the pure decision makes of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.messages import StagedCommitRequest
from metadata.database import translate
from metadata.load import columns, load_batch
from metadata.sql import load
from metadata.state import (
    BatchResult,
    Dead,
    Decide,
    Decisions,
    Guard,
    LastRequest,
    RequestKey,
    State,
    Submission,
)

COMMIT_SETTINGS: Final[Mapping[str, str]] = {
    # All statements look up keys, however many. The planner, which plans for tables as they were when it looked
    # (empty, mostly), must not choose to read whole ones.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""For the pool of a program that commits: see `metadata.database.connect`."""

MAX_STATEMENTS: Final = 26
"""What a batch costs at most, its BEGIN and COMMIT aside, however many requests it has. Empty writes are left out."""

ACQUIRE_TIMEOUT_S: Final = 30.0

GUARD: Final = Guard()

_Q: Final = load("queries.sql")


class Store:
    """Applies batches to the journal. Any number of stores, in any number of processes, may do so at once."""

    def __init__(self, pool: Any, name: str, guard: Guard = GUARD) -> None:
        """Write through `pool`, record `name` as who answered, and measure mass changes by `guard`."""
        self._pool = pool
        self._name = name
        self._guard = guard

    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult:
        """Decide requests, in order, and apply what is accepted: all in one transaction.

        Args:
            submissions: At least one. A commit that is refused fails no other.
            decide: The pure decision. It runs in a thread.

        Returns:
            An outcome for each, durable by now. They have yet to be told to anyone.

        Raises:
            Unavailable: PostgreSQL cannot serve now. Whether the batch was applied is not known: submit it again,
                and what was applied is answered as a replay.
            asyncpg.PostgresError: A statement failed, because of one of the submissions. Nothing was applied.
        """
        with translate():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
                batch = await load_batch(connection, submissions, self._guard)
                decisions = await asyncio.to_thread(decide, batch.state, batch.requests)
                await self._write(connection, batch.state, decisions)
                await _drop_staged_bodies(connection, submissions, decisions)
        return _to_result(batch.state, decisions)

    async def _write(self, connection: Any, state: State, decisions: Decisions) -> None:
        await _write_journal(connection, decisions)
        await _write_nodes(connection, decisions)
        await _write_versions(connection, state, decisions)
        await _execute(connection, "grant_chunks", sorted(decisions.chunks))
        used = [(user_id, added) for user_id, added in decisions.used_bytes.items() if added]
        await _execute(connection, "add_used_bytes", used)
        await _write_guard(connection, decisions)
        answers = [_answer_row(key, last) for key, last in decisions.last.items()]
        await _execute(connection, "write_answers", answers, self._name)


def _to_result(state: State, decisions: Decisions) -> BatchResult:
    heads = {workspace_id: workspace.head for workspace_id, workspace in state.workspaces.items()}
    return BatchResult(
        outcomes=decisions.outcomes,
        queues={a.device_id: a.queue_name for a in state.authors.values() if not a.revoked},
        heads={**heads, **decisions.heads},
    )


async def _execute(connection: Any, query: str, rows: Sequence[tuple[Any, ...]], *more: object) -> None:
    """Run a query on rows as arrays, unless there are none."""
    if rows:
        await connection.execute(_Q[query], *columns(rows, 0), *more)


async def _write_journal(connection: Any, decisions: Decisions) -> None:
    heads = [(workspace_id, head.seq, head.chain) for workspace_id, head in decisions.heads.items()]
    await _execute(connection, "advance_heads", heads)
    await _execute(connection, "write_journal", decisions.journal)


async def _write_nodes(connection: Any, decisions: Decisions) -> None:
    rows = [
        (
            workspace_id,
            node.node_id,
            node.parent_id,
            node.name,
            node.kind.value,
            node.version,
            node.deleted,
            node.mode,
            node.mtime_ns,
            node.size_bytes,
            node.content_version,
            node.target,
            node.mounted_workspace_id,
            node.xattrs,
        )
        for (workspace_id, _), node in decisions.nodes.items()
    ]
    await _execute(connection, "write_nodes", rows)


async def _write_versions(connection: Any, state: State, decisions: Decisions) -> None:
    rows = [
        (
            new.workspace_id,
            new.node_id,
            new.version,
            new.manifest,
            new.digest,
            new.size_bytes,
            new.mtime_ns,
            new.mode,
            new.user_id,
            new.device_id,
        )
        for new in decisions.versions
    ]
    await _execute(connection, "write_versions", rows, state.now)


async def _write_guard(connection: Any, decisions: Decisions) -> None:
    await _execute(connection, "write_touches", sorted(decisions.touches))
    rows = [
        (
            *key,
            hold.hold_id,
            hold.digest,
            hold.request,
            hold.deleted,
            hold.rewritten,
            hold.to_follow,
            hold.recent,
            "//".join(hold.deleted_paths),
            "//".join(hold.rewritten_paths),
        )
        for key, hold in decisions.holds.items()
    ]
    await _execute(connection, "write_holds", rows)
    await _execute(connection, "drop_hold_chunks", list(decisions.holds))
    chunks = [(*key, chunk) for key, hold in decisions.holds.items() for chunk in hold.chunks]
    await _execute(connection, "write_hold_chunks", chunks)
    await _execute(connection, "use_allowances", [(*key, left) for key, left in decisions.allowances.items()])


def _answer_row(key: RequestKey, last: LastRequest) -> tuple[Any, ...]:
    at = last.outcome.at
    return (*key, last.number, at.seq if at else None, last.outcome.refusal)


async def _drop_staged_bodies(
    connection: Any, submissions: Sequence[Submission], decisions: Decisions
) -> None:
    done = {
        (submission.device_id, submission.request.body)
        for submission, outcome in zip(submissions, decisions.outcomes, strict=True)
        if isinstance(submission.request, StagedCommitRequest) and not isinstance(outcome, Dead)
    }
    await _execute(connection, "drop_staged_bodies", sorted(done))
