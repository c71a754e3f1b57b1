"""The names that nodes get on a disk that takes some of their own for one. Pure.

Names are unique by their exact bytes in the journal. Where a disk folds case, or tells no spellings of Unicode apart, the
second of two such nodes stands there under an alias, which is told to nobody; it gets its own name as soon as it can.
"""

from collections.abc import Collection, Iterable
from uuid import UUID

from agent.names import Folding, alias_name
from agent.plan import Change
from agent.trees import Tree


def choose_aliases(changes: Iterable[Change], local: Tree, folding: Folding) -> dict[UUID, str]:
    """Which of the nodes that are placed get an alias, and what: all others get their own names.

    Args:
        changes: What is placed together.
        local: What is on disk.
        folding: Which names are one to it.
    """
    if not (folding.any or local.aliases):
        return {}
    changes = sorted(changes, key=lambda change: change.node_id.int)
    named = {c.node_id for c in changes if c.after is None or _is_named(c, local)}
    taken: dict[UUID, set[str]] = {}
    aliases: dict[UUID, str] = {}
    for change in changes:
        if change.after is None or not _is_named(change, local):
            continue
        parent_id, name = change.after.place
        names = taken.get(parent_id)
        if names is None:
            names = taken[parent_id] = names_taken(local, parent_id, folding, but=named)
        if folding.fold(name) in names:
            name = _alias(name, names, folding)
            aliases[change.node_id] = name
        names.add(folding.fold(name))
    return aliases


def alias_beside(local: Tree, parent_id: UUID, name: str, folding: Folding) -> str:
    """What a name comes to be in a directory on this disk: an alias when it would be another node's, else itself."""
    if not (folding.any or local.aliases):
        return name
    taken = names_taken(local, parent_id, folding)
    return _alias(name, taken, folding) if folding.fold(name) in taken else name


def nodes_to_rename(local: Tree, folding: Folding) -> list[UUID]:
    """Nodes under an alias that could have their own names by now."""
    free = []
    for node_id in local.aliases:
        node = local.nodes[node_id]
        taken = names_taken(local, node.parent_id, folding, but={node_id})
        if folding.fold(node.name) not in taken:
            free.append(node_id)
    return free


def names_taken(local: Tree, parent_id: UUID, folding: Folding, but: Collection[UUID] = ()) -> set[str]:
    """The names that the disk has in a directory, folded."""
    nodes = (node for node in local.children(parent_id) if node.node_id not in but)
    return {folding.fold(local.name_on_disk(node)) for node in nodes}


def _is_named(change: Change, local: Tree) -> bool:
    """Whether what a node is called on disk is chosen anew."""
    return change.before is None or change.moves or change.node_id in local.aliases


def _alias(name: str, taken: set[str], folding: Folding) -> str:
    return alias_name(name, lambda candidate: folding.fold(candidate) not in taken)
