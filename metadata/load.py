"""Loads what a batch of commits is decided on, under the locks that keep it so until the transaction ends."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from broker.errors import Corrupt
from broker.messages import CommitRequest, StagedCommitRequest, decode_request
from broker.model import Cursor, Kind, Role
from metadata import gather
from metadata.sql import load
from metadata.state import (
    Author,
    Guard,
    Hold,
    LastRequest,
    Node,
    Owner,
    Replayed,
    Resolved,
    State,
    Submission,
    Verdict,
    Workspace,
)

_Q: Final = load("queries.sql")
_BIG_BODY_BYTES: Final = 256 * 1024


class Batch(Struct, frozen=True):
    """The state that was loaded, and the requests with their bodies."""

    state: State
    requests: list[Resolved]


async def load_batch(connection: Any, submissions: Sequence[Submission], guard: Guard) -> Batch:
    """Lock the workspaces and their owners, and load all that the batch needs, and `guard` measures.

    Must run in a transaction, which holds the locks. Runs a fixed number of statements.
    """
    device_ids = {submission.device_id for submission in submissions}
    authors = {
        row["device_id"]: Author(**row) for row in await connection.fetch(_Q["find_authors"], device_ids)
    }
    requests = await _resolve(connection, submissions)
    workspaces = await _lock_workspaces(connection, submissions)
    owner_ids = {workspace.owner_id for workspace in workspaces.values()}
    owners = {
        row["user_id"]: Owner(quota_bytes=row["quota_bytes"], used_bytes=row["used_bytes"])
        for row in await connection.fetch(_Q["lock_owners"], owner_ids)
    }
    state = State(
        now=await connection.fetchval(_Q["read_clock"]),
        authors=authors,
        workspaces=workspaces,
        owners=owners,
        last=await _find_answers(connection, submissions, workspaces),
        guard=guard,
    )
    await _load_roles(connection, state, requests)
    commits = gather.fresh(state, requests)
    bodies = [body for _, body in commits]
    await _load_chains(connection, state, bodies)
    await _load_nodes(connection, state, bodies)
    await _load_manifests(connection, state, bodies)
    await _load_chunks(connection, state, commits)
    await _load_guard(connection, state, requests, bodies)
    return Batch(state, requests)


async def fetch(connection: Any, query: str, rows: Collection[tuple[Any, ...]]) -> Sequence[Any]:
    """Run a query on rows as arrays, unless there are none."""
    if not rows:
        return ()
    found: Sequence[Any] = await connection.fetch(_Q[query], *columns(rows, 0))
    return found


def columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into one array per column: what `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


# --- requests


async def _resolve(connection: Any, submissions: Sequence[Submission]) -> list[Resolved]:
    staged = [s for s in submissions if isinstance(s.request, StagedCommitRequest)]
    wanted = {(s.device_id, s.request.body) for s in staged if isinstance(s.request, StagedCommitRequest)}
    rows = await fetch(connection, "find_staged_bodies", wanted)
    bodies = {(row["device_id"], row["hash"]): row["body"] for row in rows}
    return [await _resolve_one(submission, bodies) for submission in submissions]


async def _resolve_one(submission: Submission, bodies: dict[tuple[UUID, bytes], bytes]) -> Resolved:
    request = submission.request
    if isinstance(request, CommitRequest):
        return Resolved(submission=submission, body=request)
    data = bodies.get((submission.device_id, request.body))
    if data is None:
        return Resolved(submission=submission, body=None)
    try:
        big = len(data) > _BIG_BODY_BYTES
        body = await asyncio.to_thread(decode_request, data) if big else decode_request(data)
    except Corrupt:
        return Resolved(submission=submission, body=None, dead="corrupt_body")
    named = (request.workspace_id, request.incarnation, request.number)
    if not isinstance(body, CommitRequest) or (body.workspace_id, body.incarnation, body.number) != named:
        return Resolved(submission=submission, body=None, dead="foreign_body")
    return Resolved(submission=submission, body=body)


async def _lock_workspaces(connection: Any, submissions: Sequence[Submission]) -> dict[UUID, Workspace]:
    workspace_ids = {submission.request.workspace_id for submission in submissions}
    return {
        row["workspace_id"]: Workspace(
            workspace_id=row["workspace_id"],
            owner_id=row["owner_id"],
            epoch=row["epoch"],
            seq=row["head_seq"],
            chain=row["head_chain"],
        )
        for row in await connection.fetch(_Q["lock_workspaces"], workspace_ids)
    }


async def _find_answers(
    connection: Any, submissions: Sequence[Submission], workspaces: dict[UUID, Workspace]
) -> dict[tuple[UUID, UUID, UUID], LastRequest]:
    asked = {(*submission.key, submission.request.number) for submission in submissions}
    last: dict[tuple[UUID, UUID, UUID], LastRequest] = {}
    for row in await fetch(connection, "find_answers", asked):
        key = (row["workspace_id"], row["device_id"], row["incarnation"])
        outcome = Replayed(refusal=row["refusal"])
        if row["entry"] is not None:
            at = Cursor(workspaces[key[0]].epoch, row["seq"], row["chain"])
            outcome = Replayed(at=at, entry=row["entry"])
        # Several numbers of one incarnation may be asked for: the row of the very number brings the entry.
        if key not in last or row["entry"] is not None:
            last[key] = LastRequest(number=row["number"], outcome=outcome)
    return last


# --- what they need


async def _load_roles(connection: Any, state: State, requests: Sequence[Resolved]) -> None:
    workspace_ids = set(state.workspaces) | gather.mounted(requests)
    user_ids = {author.user_id for author in state.authors.values()}
    for row in await connection.fetch(_Q["find_roles"], workspace_ids, user_ids):
        workspace_id = row["workspace_id"]
        state.roles[workspace_id, row["user_id"]] = Role(row["role"])
        if workspace_id in state.workspaces:
            workspace = state.workspaces[workspace_id]
            state.workspaces[workspace_id] = replace(workspace, members=row["members"])


async def _load_chains(connection: Any, state: State, bodies: Sequence[CommitRequest]) -> None:
    known = {(workspace.workspace_id, workspace.seq) for workspace in state.workspaces.values()}
    wanted = {(body.workspace_id, body.cursor.seq) for body in bodies if body.cursor.seq} - known
    for row in await fetch(connection, "find_chains", wanted):
        state.chains[row["workspace_id"], row["seq"]] = row["chain"]


async def _load_nodes(connection: Any, state: State, bodies: Sequence[CommitRequest]) -> None:
    keys = gather.node_keys(bodies)
    if not keys.seeds:
        return
    arrays = (*columns(keys.seeds, 2), *columns(keys.tops, 2), *columns(keys.names, 3))
    for row in await connection.fetch(_Q["find_nodes"], *arrays, state.now - state.guard.window):
        young, workspace_id, node_id, parent_id, name, kind, *rest = row
        node = Node(node_id, parent_id, name, Kind(kind), *rest)
        state.nodes.setdefault(workspace_id, {})[node_id] = node
        if young:
            state.young.setdefault(workspace_id, set()).add(node_id)


async def _load_manifests(connection: Any, state: State, bodies: Sequence[CommitRequest]) -> None:
    keys = gather.manifest_keys(state, bodies)
    for row in await fetch(connection, "find_manifests", keys):
        state.manifests[row["workspace_id"], row["node_id"], row["version"]] = row["manifest"]


async def _load_chunks(connection: Any, state: State, commits: Iterable[tuple[UUID, CommitRequest]]) -> None:
    keys = gather.chunk_keys(commits)
    for user_id, chunk, raw_bytes in await fetch(connection, "find_usable_chunks", keys):
        state.usable.setdefault(user_id, {})[chunk] = raw_bytes


async def _load_guard(
    connection: Any, state: State, requests: Sequence[Resolved], bodies: Sequence[CommitRequest]
) -> None:
    to_follow = gather.watched(state, requests)
    if not to_follow:
        return
    since = state.now - state.guard.window
    keys = gather.touchable_keys(state, bodies)
    arrays = (*columns(to_follow, 2), *columns(keys, 2))
    for row in await connection.fetch(_Q["find_guard"], *arrays, since):
        key = (row["workspace_id"], row["device_id"])
        state.touched[key], state.counted[key] = row["touched"], set(row["counted"])
        if row["hold_id"] is not None:
            verdict = Verdict(row["verdict"])
            state.holds[key] = Hold(
                hold_id=row["hold_id"], verdict=verdict, digest=row["digest"], allowed=row["allowed"]
            )
    wanted = [(*key, enough) for key, enough in gather.enough(state, to_follow, keys).items()]
    if wanted:
        for row in await connection.fetch(_Q["count_standing"], *columns(wanted, 3), since):
            state.standing[row["workspace_id"], row["device_id"]] = row["standing"]
