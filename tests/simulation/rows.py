"""Which row of the planner's node-level table a node is in: what the journal's side and what the disk's has done to it since the merge base.

The table of `tests/unit/agent/plan_cases.py` says what must come of people's doings; here a single node is looked at, as the planner
looks at it. A run counts which rows it has met.
"""

from typing import Final

from agent.trees import Node, same, same_attributes
from broker.model import Kind

_DONE: Final = {
    Kind.FILE: (
        "unchanged",
        "edited",
        "touched",
        "moved",
        "moved and edited",
        "moved and touched",
        "deleted",
    ),
    Kind.DIRECTORY: ("unchanged", "touched", "moved", "moved and touched", "deleted"),
    Kind.SYMLINK: ("unchanged", "edited", "moved", "moved and edited", "deleted"),
}
"""What one side can have done to a node that both had. An edit brings a time, and so counts for a touch as well."""

_NEW: Final = ("remote new", "local new", "both new, alike", "both new, unlike")


def list_rows() -> list[str]:
    """All rows that can occur. A node that is the same in all three trees is in none: the planner does not look at it."""
    found = []
    for kind, words in _DONE.items():
        unlike = [
            f"remote {remote}, local {local}"
            for remote in words
            for local in words
            if (remote, local) not in (("unchanged", "unchanged"), ("deleted", "deleted"))
        ]
        rows = [*unlike, *(f"both {word}" for word in words[1:]), *_NEW]
        if kind is Kind.FILE:
            rows += [f"remote {word}, local unread" for word in (*words, "new")]
        found += [f"{kind.name.lower()}: {row}" for row in rows]
    return found


def classify(remote: Node | None, local: Node | None, synced: Node | None) -> str:
    """The row of a node that the three trees do not agree on.

    Args:
        remote: As the journal has it. None: not there, in this as in the others.
        local: As the disk has it.
        synced: As both last had it.

    Returns:
        One of `list_rows`, such as `file: remote edited, local moved`. `both` says that the two have done the same.
    """
    node = remote or local or synced
    assert node is not None  # what no tree has is no node
    return f"{node.kind.name.lower()}: {_row(remote, local, synced)}"


def _row(remote: Node | None, local: Node | None, synced: Node | None) -> str:
    if local is not None and local.is_unhashed:
        return f"remote {_done(remote, synced) if synced else 'new'}, local unread"
    if synced is None:
        if remote is None or local is None:
            return "local new" if remote is None else "remote new"
        return "both new, alike" if same(remote, local) else "both new, unlike"
    if same(remote, local):
        return f"both {_done(remote, synced)}"
    return f"remote {_done(remote, synced)}, local {_done(local, synced)}"


def _done(node: Node | None, synced: Node) -> str:
    if node is None:
        return "deleted"
    words = []
    if node.place != synced.place:
        words.append("moved")
    if node.content != synced.content:
        words.append("edited")
    elif not same_attributes(node, synced):
        words.append("touched")
    return " and ".join(words) or "unchanged"
