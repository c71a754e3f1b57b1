"""A workspace's tree as a commit would leave it: what is placed, deleted and swept along, checked in its final state.

Pure. A `Tree` holds what was loaded and what earlier commits of the batch made of it; a `Draft` is one commit's
changes over it, which are thrown away when the commit is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from broker.messages import Conflict
from broker.model import ROOT, ConflictCode, Delete, Kind, subtree_digest
from metadata.state import Node

Place = tuple[UUID, str]

_NOBODY: Final[frozenset[UUID]] = frozenset()


class Tree:
    """The loaded nodes of a workspace, by id, by live name and by live parent."""

    def __init__(self, nodes: Mapping[UUID, Node]) -> None:
        """Index `nodes`, tombstones among them."""
        self.nodes: dict[UUID, Node] = {}
        self.names: dict[Place, UUID] = {}
        self.children: dict[UUID, set[UUID]] = {}
        self.apply(nodes)

    def apply(self, changed: Mapping[UUID, Node]) -> None:
        """Take over a commit's changes, whose live names are known not to clash."""
        for node_id in changed:
            old = self.nodes.get(node_id)
            if old and not old.deleted:
                del self.names[old.parent_id, old.name]
                self.children[old.parent_id].discard(node_id)
        for node_id, node in changed.items():
            self.nodes[node_id] = node
            if not node.deleted:
                self.names[node.parent_id, node.name] = node_id
                self.children.setdefault(node.parent_id, set()).add(node_id)


class Draft:
    """One commit's changes over a tree. Its own are seen first."""

    def __init__(self, tree: Tree, seq: int) -> None:
        """Begin with no changes. `seq` becomes the version of all that is touched."""
        self.tree = tree
        self.seq = seq
        self.changed: dict[UUID, Node] = {}
        self.placed: dict[UUID, int] = {}
        self.deletes: dict[UUID, tuple[int, Delete]] = {}
        self._gone: set[UUID] = set()

    def before(self, node_id: UUID) -> Node | None:
        """The node as it was before this commit."""
        return self.tree.nodes.get(node_id)

    def get(self, node_id: UUID) -> Node | None:
        """The node as this commit has it so far."""
        return self.changed.get(node_id) or self.tree.nodes.get(node_id)

    def place(self, index: int, node: Node) -> None:
        """Put a live node where its `parent_id` and `name` say; `index` is the operation's."""
        self.changed[node.node_id] = node
        self.placed[node.node_id] = index

    def delete(self, index: int, op: Delete, node: Node) -> None:
        """Delete a node; what is below it is settled when all operations are known."""
        self.changed[node.node_id] = replace(node, deleted=True, version=self.seq)
        self.deletes[node.node_id] = (index, op)

    def settle(self) -> list[Conflict]:
        """Sweep along what is below the deleted, then check the final state. To be called once, at the end."""
        conflicts = self._sweep()
        if conflicts:  # what they leave behind would only be reported again
            return conflicts
        return [*self._check_parents(), *self._check_names(), *self._check_cycles()]

    # --- deletion

    def _sweep(self) -> list[Conflict]:
        conflicts = []
        moved_in = self._children()
        swept: dict[UUID, Node] = {}
        for node_id, (index, op) in self.deletes.items():
            below = list(self._below(node_id, moved_in))
            code = self._delete_problem(op, below)
            if code:
                conflicts.append(Conflict(code=code, index=index, node_id=node_id))
            swept.update((node.node_id, node) for node in below)
        for node in swept.values():
            self.changed[node.node_id] = replace(node, deleted=True, version=self.seq)
        self._gone = set(swept)
        return conflicts

    def _delete_problem(self, op: Delete, below: list[Node]) -> ConflictCode | None:
        node = self.changed[op.node_id]
        if node.kind is not Kind.DIRECTORY or (op.subtree is None and not below):
            return None
        if op.subtree is None:
            return ConflictCode.NOT_EMPTY
        known = ((n.node_id, old.version) for n in below if (old := self.before(n.node_id)))
        return None if subtree_digest(known) == op.subtree else ConflictCode.SUBTREE_CHANGED

    def _children(self) -> dict[UUID, list[UUID]]:
        children: dict[UUID, list[UUID]] = {}
        for node in self.changed.values():
            if not node.deleted:
                children.setdefault(node.parent_id, []).append(node.node_id)
        return children

    def _below(self, top: UUID, moved_in: Mapping[UUID, list[UUID]]) -> Iterator[Node]:
        """All live nodes strictly below, reached through live ones: what a deleted one held is that delete's own."""
        pending = [top]
        seen = {top}
        while pending:
            parent_id = pending.pop()
            stayed = (n for n in self.tree.children.get(parent_id, _NOBODY) if n not in self.changed)
            for node_id in (*stayed, *moved_in.get(parent_id, ())):
                if node_id not in seen:
                    seen.add(node_id)
                    pending.append(node_id)
                    yield self.changed.get(node_id) or self.tree.nodes[node_id]

    # --- the final state

    def _live_placed(self) -> Iterator[tuple[int, Node]]:
        for node_id, index in self.placed.items():
            node = self.changed[node_id]
            if not node.deleted:
                yield index, node

    def _check_parents(self) -> Iterator[Conflict]:
        for node_id, index in self.placed.items():
            node = self.changed[node_id]
            if node_id in self._gone or (not node.deleted and not self._is_directory(node.parent_id)):
                yield Conflict(code=ConflictCode.PARENT_GONE, index=index, node_id=node_id)

    def _is_directory(self, node_id: UUID) -> bool:
        if node_id == ROOT:
            return True
        node = self.get(node_id)
        return node is not None and not node.deleted and node.kind is Kind.DIRECTORY

    def _check_names(self) -> Iterator[Conflict]:
        claims: dict[Place, UUID] = {}
        for node in self.changed.values():
            if not node.deleted and node.node_id not in self.placed:
                claims[node.parent_id, node.name] = node.node_id
        for index, node in self._live_placed():
            place = (node.parent_id, node.name)
            holder = claims.setdefault(place, node.node_id)
            if holder == node.node_id:
                stayed = self.tree.names.get(place)
                if stayed is None or stayed in self.changed:
                    continue
            yield Conflict(code=ConflictCode.NAME_TAKEN, index=index, node_id=node.node_id)

    def _check_cycles(self) -> Iterator[Conflict]:
        rooted: set[UUID] = {ROOT}
        for index, node in self._live_placed():
            if node.kind is Kind.DIRECTORY and not self._reaches_root(node, rooted):
                yield Conflict(code=ConflictCode.CYCLE, index=index, node_id=node.node_id)

    def _reaches_root(self, node: Node, rooted: set[UUID]) -> bool:
        """Whether the way up ends, rather than coming round. `rooted` grows by all that was walked."""
        path: set[UUID] = set()
        at: Node | None = node
        while at is not None and at.node_id not in rooted:
            if at.node_id in path:
                return False
            path.add(at.node_id)
            at = self.get(at.parent_id)
        rooted |= path
        return True
