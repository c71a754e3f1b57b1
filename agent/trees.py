"""The three trees of a synced folder: what the journal says, what is on disk, and what both last agreed on.

Nodes are values and trees are dictionaries of them, by identity; nothing here touches a disk, a clock or a network.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct, structs

from broker.model import ROOT, Kind, Xattrs, xattrs_problem

UNHASHED: Final = b""
"""The digest of a file whose bytes have not been read since it last changed."""


class Node(Struct, frozen=True, kw_only=True, gc=False):
    """One file, directory or symbolic link, in one of the trees.

    Attributes:
        version: The journal sequence that last changed it; 0 in the local tree.
        content_version: The sequence that gave a file its content; known in the remote tree alone, 0 elsewhere.
        mode: Permission bits; 0 for symbolic links.
        mtime_ns: Modification time, nanoseconds since 1970; 0 for directories.
        size: Bytes; 0 for anything but files.
        digest: `manifest_digest` of a file's content; `UNHASHED` while it is not known.
        target: What a symbolic link says.
        xattrs: Extended attributes of a file or directory.
    """

    node_id: UUID
    parent_id: UUID
    name: str
    kind: Kind
    version: int = 0
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: bytes = b""
    target: str = ""
    content_version: int = 0
    xattrs: Xattrs = ()

    @property
    def place(self) -> tuple[UUID, str]:
        """Where it stands: the parent's id, and the name there."""
        return (self.parent_id, self.name)

    @property
    def content(self) -> tuple[bytes, str]:
        """What it holds: a file's digest, a link's target; the same for all directories."""
        return (self.digest, self.target)

    @property
    def is_unhashed(self) -> bool:
        """Whether this is a file whose content is not known yet."""
        return self.kind is Kind.FILE and self.digest == UNHASHED


def replace(node: Node, **changes: object) -> Node:
    """The same node with other fields."""
    return structs.replace(node, **changes)


def same_attributes(one: Node, other: Node) -> bool:
    """Whether two nodes agree on mode, extended attributes and, where it counts, modification time. A link's own are not compared."""
    if one.kind is Kind.SYMLINK:
        return True
    same_time = one.kind is not Kind.FILE or one.mtime_ns == other.mtime_ns
    return same_time and one.mode == other.mode and one.xattrs == other.xattrs


def merge_xattrs(remote: Xattrs, local: Xattrs, synced: Xattrs) -> Xattrs:
    """Each extended attribute merged for itself: the journal's where the journal has changed it, else the disk's.

    Where both together are more than a node may have, the journal's alone.
    """
    if remote in (synced, local):
        return local
    theirs, ours, base = dict(remote), dict(local), dict(synced)
    merged = {
        name: value
        for name in theirs.keys() | ours.keys()
        if (value := (theirs if theirs.get(name) != base.get(name) else ours).get(name)) is not None
    }
    found = tuple(sorted(merged.items()))
    return remote if xattrs_problem(found) is not None else found


def agreed_xattrs(remote: Xattrs, local: Xattrs, synced: Xattrs) -> Xattrs:
    """Of extended attributes what the two sides agree on; where they do not, what they last agreed on."""
    if remote == local:
        return remote
    theirs, ours, base = dict(remote), dict(local), dict(synced)
    found = {
        name: value
        for name in theirs.keys() | ours.keys() | base.keys()
        if (value := (ours if ours.get(name) == theirs.get(name) else base).get(name)) is not None
    }
    return tuple(sorted(found.items()))


def same(one: Node | None, other: Node | None) -> bool:
    """Whether two trees agree on a node: its place, content and attributes, whatever its version."""
    if one is None or other is None:
        return one is other
    return (
        one.place == other.place
        and one.kind is other.kind
        and one.content == other.content
        and not one.is_unhashed
        and same_attributes(one, other)
    )


class Tree:
    """Nodes by identity, with the names in each directory. The root has the id `ROOT` and is no node.

    Two nodes may claim one name (the merge base is learned node by node): the one that came last is found by it, the
    other is `shadowed`. A disk that takes the names of two nodes for one has one of them under an alias: `path` and `find`
    go by the names on disk, all else by the names that the journal has. Not safe for use from two threads.
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes: dict[UUID, Node] = {}
        self.shadowed: set[UUID] = set()
        self.aliases: dict[UUID, str] = {}
        self._by_alias: dict[tuple[UUID, str], UUID] = {}
        self._names: dict[UUID, dict[str, UUID]] = {}
        self.update({node.node_id: node for node in nodes})

    def __contains__(self, node_id: UUID) -> bool:
        return node_id in self.nodes

    def __len__(self) -> int:
        return len(self.nodes)

    def get(self, node_id: UUID) -> Node | None:
        """The node of that id; None when the tree has none."""
        return self.nodes.get(node_id)

    def child(self, parent_id: UUID, name: str) -> Node | None:
        """The node of that name in a directory; None when the name is free."""
        node_id = self._names.get(parent_id, {}).get(name)
        return None if node_id is None else self.nodes[node_id]

    def names(self, parent_id: UUID) -> Mapping[str, UUID]:
        """The ids of the nodes directly in a directory, by the journal's names for them. Not to be kept."""
        return self._names.get(parent_id, {})

    def children(self, parent_id: UUID) -> list[Node]:
        """The nodes directly in a directory, in no order."""
        return [self.nodes[node_id] for node_id in self._names.get(parent_id, {}).values()]

    def below(self, node_id: UUID) -> Iterator[Node]:
        """All nodes strictly below one, parents first."""
        stack = [node_id]
        while stack:
            for node in self.children(stack.pop()):
                yield node
                if node.kind is Kind.DIRECTORY:
                    stack.append(node.node_id)

    def name_on_disk(self, node: Node) -> str:
        """What the disk calls a node of this tree."""
        return self.aliases.get(node.node_id, node.name)

    def child_on_disk(self, parent_id: UUID, name: str) -> Node | None:
        """The node that the disk has under a name in a directory; None when there is none."""
        node_id = self._by_alias.get((parent_id, name))
        if node_id is not None:
            return self.nodes[node_id]
        node = self.child(parent_id, name)
        return None if node is None or node.node_id in self.aliases else node

    def path(self, node_id: UUID) -> str | None:
        """The path on disk from the root, without a leading slash; `""` for the root; None when it is not connected to it."""
        names: list[str] = []
        while node_id != ROOT:
            node = self.nodes.get(node_id)
            if node is None or len(names) > len(self.nodes):
                return None
            names.append(self.aliases.get(node_id, node.name))
            node_id = node.parent_id
        return "/".join(reversed(names))

    def find(self, path: str) -> Node | None:
        """The node at a path as `path` gives it; None for the root and where there is none."""
        node_id, node = ROOT, None
        for name in path.split("/") if path else ():
            node = self.child_on_disk(node_id, name)
            if node is None:
                return None
            node_id = node.node_id
        return node

    def copy(self) -> "Tree":
        """Another tree of the same nodes: what is done to the one does not show in the other."""
        other = Tree()
        other.nodes, other.shadowed = dict(self.nodes), set(self.shadowed)
        other.aliases, other._by_alias = dict(self.aliases), dict(self._by_alias)
        other._names = {parent_id: dict(names) for parent_id, names in self._names.items()}
        return other

    def update(self, changes: Mapping[UUID, Node | None]) -> None:
        """Set (or, with None, drop) many nodes at once. Names may be swapped and rotated among them."""
        for node_id in changes if self.nodes else ():
            old = self.nodes.pop(node_id, None)
            if old is not None:
                self.shadowed.discard(node_id)
                self._forget_alias(old)
                # Another node may have this name by now: a merge base, learned node by node, can be between two trees.
                names = self._names.get(old.parent_id)
                if names is not None and names.get(old.name) == node_id:
                    del names[old.name]
                    self._give_back(old.parent_id, old.name)
                    if not names:
                        del self._names[old.parent_id]
        for node_id, node in changes.items():
            if node is not None:
                self.nodes[node_id] = node
                names = self._names.setdefault(node.parent_id, {})
                if (other := names.get(node.name)) is not None:
                    self.shadowed.add(other)
                names[node.name] = node_id
                if self.aliases and node_id in self.aliases:
                    # Until it is renamed it may bear the alias of one that stands there: that one keeps it.
                    self._by_alias.setdefault((node.parent_id, self.aliases[node_id]), node_id)
            else:
                self.aliases.pop(node_id, None)

    def _give_back(self, parent_id: UUID, name: str) -> None:
        """A name that is free again is that of a node that had lost it to another, if there is one."""
        for node_id in self.shadowed:
            node = self.nodes[node_id]
            if (node.parent_id, node.name) == (parent_id, name):
                self._names[parent_id][name] = node_id
                self.shadowed.discard(node_id)
                return

    def rename_on_disk(self, aliases: Mapping[UUID, str | None]) -> None:
        """Note what the disk calls some nodes of this tree; None: by their own names."""
        for node_id, alias in aliases.items():
            node = self.nodes.get(node_id)
            if node is not None:
                self._forget_alias(node)
            if node is None or alias is None or alias == node.name:
                self.aliases.pop(node_id, None)
            else:
                self.aliases[node_id] = alias
                self._by_alias[node.parent_id, alias] = node_id

    def _forget_alias(self, node: Node) -> None:
        place = (node.parent_id, self.aliases.get(node.node_id, ""))
        if self._by_alias.get(place) == node.node_id:
            del self._by_alias[place]


class Trees:
    """The three trees of one folder, the tombstones a revival needs, and which nodes the trees do not agree on.

    Attributes:
        remote: The journal up to the cursor.
        local: What the last look at the disk saw.
        synced: The last state on which the two agreed (the merge base), aspect by aspect.
        tombstones: The version of each remote deletion of a node that the disk or the merge base still has.
        copies: For a node whose content has lost on this device, the conflict copy that it was given.
        unannounced: Directories that another device deleted and that had to stay: they are told to nobody.
        ignored: Nodes that the rules of this folder ignore: each device keeps what it has of them.
        lacking: Names of a node's extended attributes that this disk has not taken. They count as being there.
        oversized: Nodes whose object has more extended attributes than are synced: what was known of them stands.
        dirty: Ids whose three states may differ. All others are equal in all three trees, or are in `unread`.
        unread: Local files whose content is not known. Those that only the disk has are not `dirty`: nothing can be
            decided of them yet, and there may be very many.
    """

    def __init__(self) -> None:
        self.remote = Tree()
        self.local = Tree()
        self.synced = Tree()
        self.tombstones: dict[UUID, int] = {}
        self.copies: dict[UUID, UUID] = {}
        self.unannounced: set[UUID] = set()
        self.ignored: set[UUID] = set()
        self.lacking: dict[UUID, tuple[str, ...]] = {}
        self.oversized: set[UUID] = set()
        self.dirty: set[UUID] = set()
        self.unread: set[UUID] = set()

    def copy(self) -> "Trees":
        """The same state once more, to see what would become of it."""
        other = Trees()
        other.remote, other.local, other.synced = self.remote.copy(), self.local.copy(), self.synced.copy()
        other.tombstones, other.copies = dict(self.tombstones), dict(self.copies)
        other.unannounced, other.ignored = set(self.unannounced), set(self.ignored)
        other.dirty, other.unread = set(self.dirty), set(self.unread)
        return other

    def touch(self, node_ids: Iterable[UUID]) -> None:
        """Look at these ids again: dirty where the trees differ, clean where they agree."""
        for node_id in node_ids:
            remote, local, synced = (
                self.remote.get(node_id),
                self.local.get(node_id),
                self.synced.get(node_id),
            )
            is_unread = local is not None and local.is_unhashed
            (self.unread.add if is_unread else self.unread.discard)(node_id)
            is_undecided = is_unread and remote is None and synced is None
            if is_undecided or (same(remote, local) and same(remote, synced)):
                self.dirty.discard(node_id)
                self._share(node_id, remote)
            else:
                self.dirty.add(node_id)

    def _share(self, node_id: UUID, remote: Node | None) -> None:
        """Where all agree, one object stands in all three trees: most nodes do, most of the time."""
        if remote is not None and node_id in self.local and node_id in self.synced:
            self.local.nodes[node_id] = self.synced.nodes[node_id] = remote

    def all_ignored(self) -> set[UUID]:
        """Nodes that are ignored, and what others have put into such directories since."""
        found = set(self.ignored)
        for node_id in self.dirty if found else ():
            way: list[UUID] = []
            node = self.remote.get(node_id)
            while node is not None and node.node_id not in found and len(way) <= len(self.remote):
                way.append(node.node_id)
                node = self.remote.get(node.parent_id)
            if node is not None:
                found.update(way)
        return found

    def touch_all(self) -> None:
        """Look at every id again, as after loading."""
        self.dirty.clear()
        self.unread.clear()
        self.touch({*self.remote.nodes, *self.local.nodes, *self.synced.nodes})
