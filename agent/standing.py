"""How a synced folder stands, as `hutch status --json` tells it: the same shape whether the agent runs or not."""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from agent.names import CONFLICT_MARK
from agent.scan import Problem, printable
from agent.trees import Tree

MAX_CONFLICT_PATHS: Final = 1_000
MAX_KEPT_PROBLEMS: Final = 1_000

_NOT_LEFT_OUT: Final = frozenset({"bad_rule"})


class KeptProblem(Struct, frozen=True, array_like=True):
    """A problem, as the database keeps it. `node_id`: the node that neither side shall change for it; None: none."""

    problem: Problem
    node_id: UUID | None = None


def encode_problems(problems: Sequence[KeptProblem]) -> bytes:
    """Problems, as `Index` keeps them: the first thousand."""
    return msgspec.msgpack.encode(problems[:MAX_KEPT_PROBLEMS])


def decode_problems(data: bytes | None) -> list[KeptProblem]:
    """What `encode_problems` made; none of what it did not make."""
    try:
        return msgspec.msgpack.decode(data or b"\x90", type=list[KeptProblem])
    except msgspec.MsgspecError:
        return []


def conflict_paths(local: Tree, copies: Iterable[UUID] | None = None) -> list[str]:
    """Where the conflict copies of a folder are, escaped, in order. `copies`: their ids; None: they are looked for."""
    if copies is None:
        copies = [node.node_id for node in local.nodes.values() if CONFLICT_MARK in node.name]
    return sorted(printable(local.path(node_id) or "") for node_id in copies)


def standing(
    *,
    name: str,
    workspace_id: UUID,
    folder: str,
    started: bool = True,
    cursor: int = 0,
    head: int = 0,
    placed: int = 0,
    pending_up: int = 0,
    pending_down: int = 0,
    conflicts: Sequence[str] = (),
    aliases: Iterable[tuple[str, str]] = (),
    problems: Iterable[Problem] = (),
) -> dict[str, Any]:
    """One of the `workspaces` of a status.

    Args:
        name: Of the workspace.
        workspace_id: Its id.
        folder: The synced folder's absolute path.
        started: Whether it was ever synced: False from `hutch add` to the first run.
        cursor: The sequence that was received.
        head: The farthest that was told of.
        placed: That up to which all stands on disk.
        pending_up: Operations to commit, and files to read for one.
        pending_down: Operations to place.
        conflicts: Paths of conflict copies, as `conflict_paths` gives them.
        aliases: Paths and own names of what stands under another name here.
        problems: What is wrong.
    """
    errors = [{"path": p.path, "code": p.code, "message": p.message} for p in problems]
    return {
        "name": name,
        "workspace_id": str(workspace_id),
        "folder": folder,
        "started": started,
        "cursor": cursor,
        "head": head,
        "placed": placed,
        "pending_up": pending_up,
        "pending_down": pending_down,
        "conflicts": len(conflicts),
        "conflict_paths": list(conflicts[:MAX_CONFLICT_PATHS]),
        "aliases": [{"path": path, "name": own} for path, own in aliases],
        "left_out": sum(is_left_out(error) for error in errors),
        "errors": errors,
    }


def is_left_out(error: dict[str, str]) -> bool:
    """Whether an error of a status is an entry that is not synced for it; others concern the whole folder, or none."""
    return bool(error["path"]) and error["code"] not in _NOT_LEFT_OUT
