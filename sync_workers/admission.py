"""Whether one operation may be applied to its node at all: kind, version, name, target, mount. Pure.

What depends on other operations of the commit (names, parents, cycles, emptiness) is `tree.Draft`'s, at the end.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct, UnsetType

from broker.model import (
    ROOT,
    ConflictCode,
    Delete,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Operation,
    Put,
    Role,
    SetAttributes,
    name_problem,
    target_problem,
    xattrs_problem,
)
from metadata.state import Author, Node, Workspace
from sync_workers.content import Manifests
from sync_workers.tree import Draft, Tree

Problem = tuple[ConflictCode, str]

KINDS: Final[Mapping[type, Kind]] = {
    Put: Kind.FILE,
    MakeDirectory: Kind.DIRECTORY,
    MakeSymlink: Kind.SYMLINK,
    Mount: Kind.MOUNT,
}


class Context(Struct, frozen=True, kw_only=True):
    """What a commit is decided on, as the earlier ones of its batch have left it.

    Attributes:
        seq: The sequence that it will have, and the version of all that it touches.
        usable: Chunk hash to raw size, of what the author may use now.
        just_used: The same, of what the workspace has been given earlier in the batch.
    """

    author: Author
    workspace: Workspace
    seq: int
    tree: Tree
    manifests: Manifests
    usable: Mapping[bytes, int]
    just_used: Mapping[bytes, int]
    roles: Mapping[tuple[UUID, UUID], Role]


def find_problem(context: Context, draft: Draft, op: Operation) -> Problem | None:
    """Say why an operation cannot be applied to the draft as it stands; None when it can."""
    if op.node_id == ROOT:
        return ConflictCode.BAD_NAME, "the root cannot be changed"
    before = draft.before(op.node_id)
    if (before.version if before else None) != op.base_version:
        return ConflictCode.STALE_VERSION, ""
    if op.node_id in draft.deletes:
        return ConflictCode.STALE_VERSION, "an earlier operation of this commit deletes the node"
    node = draft.get(op.node_id)
    if (problem := _find_xattrs_problem(op)) is not None:
        return problem
    if isinstance(op, SetAttributes | Delete):
        gone = node is None or node.deleted
        return (ConflictCode.STALE_VERSION, "the node is deleted") if gone else None
    return _find_misfit(op, node) or _find_mount_problem(context, op, node)


def _find_xattrs_problem(op: Operation) -> Problem | None:
    if not isinstance(op, Put | MakeDirectory | SetAttributes) or isinstance(op.xattrs, UnsetType):
        return None
    problem = xattrs_problem(op.xattrs)
    return (ConflictCode.BAD_NAME, problem) if problem else None


def _find_misfit(op: Put | MakeDirectory | MakeSymlink | Mount | Move, node: Node | None) -> Problem | None:
    kind = KINDS.get(type(op))
    if kind and node and node.kind is not kind:
        return ConflictCode.BAD_NAME, f"the node is a {node.kind}, and remains one"
    problem = name_problem(op.name)
    if problem is None and isinstance(op, MakeSymlink):
        problem = target_problem(op.target)
    return (ConflictCode.BAD_NAME, problem) if problem else None


def _find_mount_problem(context: Context, op: Operation, node: Node | None) -> Problem | None:
    mounts_anew = isinstance(op, Mount)
    revives = isinstance(op, Move) and node is not None and node.deleted and node.kind is Kind.MOUNT
    if not (mounts_anew or revives):
        return None
    if context.workspace.members > 1:
        return ConflictCode.NESTED_SHARE, "a shared workspace holds no mounts"
    return _find_target_problem(context, op, node) if isinstance(op, Mount) else None


def _find_target_problem(context: Context, op: Mount, node: Node | None) -> Problem | None:
    if op.mounted_workspace_id == context.workspace.workspace_id:
        return ConflictCode.NESTED_SHARE, "a workspace cannot stand within itself"
    if (op.mounted_workspace_id, context.author.user_id) not in context.roles:
        return ConflictCode.FORBIDDEN, "not a member of the mounted workspace"
    if node and node.mounted_workspace_id != op.mounted_workspace_id:
        return ConflictCode.BAD_NAME, "a mount shows one workspace for good"
    return None
