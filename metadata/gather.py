"""Which rows a batch of commits needs: pure, so that the store can fetch them all with a fixed number of statements."""

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from msgspec import Struct, field

from broker.messages import CommitRequest
from broker.model import (
    CopiedContent,
    Delete,
    FullContent,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Operation,
    Put,
    SplicedContent,
)
from metadata.state import Resolved, State, Watched

Key = tuple[UUID, UUID]


class NodeKeys(Struct, kw_only=True):
    """Where to look for nodes, as (workspace, node) pairs.

    Attributes:
        seeds: To be loaded, with all their ancestors.
        tops: To be loaded with all that is live below.
        names: (workspace, parent, name) whose live occupants matter.
    """

    seeds: set[Key] = field(default_factory=set)
    tops: set[Key] = field(default_factory=set)
    names: set[tuple[UUID, UUID, str]] = field(default_factory=set)


def fresh(state: State, requests: Sequence[Resolved]) -> list[tuple[UUID, CommitRequest]]:
    """The requests that have yet to be decided, each with its author's user; answered ones need no rows."""
    found = []
    for request in requests:
        submission = request.submission
        author = state.authors.get(submission.device_id)
        last = state.last.get(submission.key)
        answered = last is not None and submission.request.number <= last.number
        if author and not author.revoked and request.body and not answered:
            found.append((author.user_id, request.body))
    return found


def mounted(requests: Iterable[Resolved]) -> set[UUID]:
    """The workspaces that the requests mount: their members matter too."""
    bodies = (request.body for request in requests if request.body)
    return {op.mounted_workspace_id for body in bodies for op in body.operations if isinstance(op, Mount)}


def node_keys(bodies: Iterable[CommitRequest]) -> NodeKeys:
    """Where to look for the nodes that these commits are about."""
    keys = NodeKeys()
    moved: set[Key] = set()
    deleting: set[UUID] = set()
    for body in bodies:
        for op in body.operations:
            key = (body.workspace_id, op.node_id)
            keys.seeds.add(key)
            if isinstance(op, Put | MakeDirectory | MakeSymlink | Mount | Move):
                keys.seeds.add((body.workspace_id, op.parent_id))
                if "\0" not in op.name:  # PostgreSQL has no such text, and nobody such a name
                    keys.names.add((body.workspace_id, op.parent_id, op.name))
            if isinstance(op, Delete):
                keys.tops.add(key)
                deleting.add(body.workspace_id)
            elif isinstance(op, MakeDirectory | Move) and op.base_version is not None:
                moved.add(key)
            if isinstance(op, Put) and isinstance(op.content, CopiedContent):
                keys.seeds.add((body.workspace_id, op.content.node_id))
    # What was moved below a directory that a later commit of the batch deletes goes with it.
    keys.tops.update(key for key in moved if key[0] in deleting)
    return keys


def manifest_keys(state: State, bodies: Iterable[CommitRequest]) -> set[tuple[UUID, UUID, int]]:
    """The content that these commits are written against: bases, copies, and what a move brings back."""
    return {
        key
        for body in bodies
        for op in body.operations
        for key in _content_keys(state, body.workspace_id, op)
    }


def _content_keys(state: State, workspace_id: UUID, op: Operation) -> Iterator[tuple[UUID, UUID, int]]:
    if isinstance(op, Put) and isinstance(op.content, CopiedContent):
        yield (workspace_id, op.content.node_id, op.content.version)
    spliced = isinstance(op, Put) and isinstance(op.content, SplicedContent)
    if spliced or isinstance(op, Move):
        node = state.nodes.get(workspace_id, {}).get(op.node_id)
        if node and node.content_version is not None and (spliced or node.deleted):
            yield (workspace_id, op.node_id, node.content_version)


def chunk_keys(commits: Iterable[tuple[UUID, CommitRequest]]) -> set[tuple[UUID, bytes]]:
    """(user, chunk hash) for each chunk that a commit names itself; those of bases are the workspace's already."""
    keys: set[tuple[UUID, bytes]] = set()
    for user_id, body in commits:
        for op in body.operations:
            if isinstance(op, Put) and isinstance(op.content, FullContent):
                keys.update((user_id, chunk.hash) for chunk in op.content.chunks)
            elif isinstance(op, Put) and isinstance(op.content, SplicedContent):
                keys.update((user_id, c.hash) for splice in op.content.splices for c in splice.inserted)
    return keys


# --- the guard


def watched(state: State, requests: Sequence[Resolved]) -> dict[Watched, int]:
    """Whom the guard looks at: the authors of the requests that have yet to be decided.

    Returns:
        For each, how many more nodes it says that it is about to touch after one of its commits: the most of them.
    """
    found: dict[Watched, int] = {}
    for request in requests:
        submission, body = request.submission, request.body
        last = state.last.get(submission.key)
        if body is None or (last is not None and submission.request.number <= last.number):
            continue
        if body.workspace_id in state.workspaces and submission.device_id in state.authors:
            key = (body.workspace_id, submission.device_id)
            found[key] = max(found.get(key, 0), body.to_follow)
    return found


def touchable_keys(state: State, bodies: Iterable[CommitRequest]) -> set[Key]:
    """The known nodes that these commits may delete or give other content. Those below a deleted one are loaded by now."""
    keys: set[Key] = set()
    for body in bodies:
        workspace_id = body.workspace_id
        known = state.nodes.get(workspace_id, {})
        if any(isinstance(op, Delete) for op in body.operations):
            keys.update((workspace_id, node_id) for node_id in known)
            continue
        for op in body.operations:
            if isinstance(op, Put | MakeSymlink) and op.base_version is not None and op.node_id in known:
                keys.add((workspace_id, op.node_id))
    return keys


def enough(state: State, to_follow: dict[Watched, int], keys: Iterable[Key]) -> dict[Watched, int]:
    """For whom it has to be known how many nodes stand, and how many are enough to tell that nothing is unusual."""
    per_workspace: dict[UUID, int] = {}
    for workspace_id, _ in keys:
        per_workspace[workspace_id] = per_workspace.get(workspace_id, 0) + 1
    found = {}
    for key, more in to_follow.items():
        may_touch = per_workspace.get(key[0], 0)
        most = state.touched.get(key, 0) + may_touch + more
        if may_touch and most > state.guard.min_nodes:
            found[key] = most * 100 // state.guard.share_percent + 1
    return found
