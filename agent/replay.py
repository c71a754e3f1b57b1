"""What a journal entry makes of the remote tree, and what a set of changes asks of the journal. Pure."""

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from agent.plan import Change
from agent.trees import Node, Tree, replace
from broker.errors import Corrupt
from broker.messages import JournalEntry, SnapshotNode
from broker.model import (
    ROOT,
    Content,
    CopiedContent,
    Delete,
    FullContent,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Operation,
    Put,
    SetAttributes,
    SplicedContent,
    Xattrs,
    apply_splices,
    make_splices,
    manifest_digest,
    name_problem,
    subtree_digest,
    target_problem,
    xattrs_problem,
)

ManifestOf = Callable[[bytes], FullContent | None]


class Replayed(Struct, frozen=True):
    """What an entry changes: nodes (None: deleted), tombstones' versions, and the manifests that came with it."""

    nodes: dict[UUID, Node | None]
    tombstones: dict[UUID, int]
    manifests: dict[bytes, FullContent]


def replay(entry: JournalEntry, remote: Tree, manifest_of: ManifestOf) -> Replayed:
    """Apply an entry to the remote tree, and say what changes by it. The tree itself is left as it is.

    Args:
        entry: The next entry.
        remote: The tree up to the entry before it.
        manifest_of: Gives the stored manifest of a digest.

    Raises:
        Corrupt: When the entry does not fit the tree: a hostile or broken service.
    """
    run = _Replay(entry.seq, remote, manifest_of)
    for operation in entry.operations:
        run.apply(operation)
    check_nodes(run.nodes, remote)
    return Replayed(run.nodes, run.tombstones, run.manifests)


class _Replay:
    def __init__(self, seq: int, remote: Tree, manifest_of: ManifestOf) -> None:
        self.seq = seq
        self.remote = remote
        self.manifest_of = manifest_of
        self.nodes: dict[UUID, Node | None] = {}
        self.tombstones: dict[UUID, int] = {}
        self.manifests: dict[bytes, FullContent] = {}

    def apply(self, operation: Operation) -> None:
        match operation:
            case Put():
                self._put(operation)
            case MakeDirectory():
                self._set(operation, Kind.DIRECTORY, mode=operation.mode, xattrs=self._xattrs(operation))
            case MakeSymlink():
                if target_problem(operation.target) is not None:
                    raise Corrupt("the journal has a link that no device may have")
                self._set(operation, Kind.SYMLINK, mtime_ns=operation.mtime_ns, target=operation.target)
            case Mount():
                self._set(operation, Kind.MOUNT)
            case Move():
                _check_name(operation.name)
                self.nodes[operation.node_id] = replace(
                    self._known_node(operation.node_id),
                    parent_id=operation.parent_id,
                    name=operation.name,
                    version=self.seq,
                )
            case SetAttributes():
                node = self._known_node(operation.node_id)
                mtime_ns = node.mtime_ns if operation.mtime_ns is None else operation.mtime_ns
                self.nodes[operation.node_id] = replace(
                    node,
                    mode=operation.mode,
                    mtime_ns=mtime_ns,
                    xattrs=self._xattrs(operation),
                    version=self.seq,
                )
            case Delete():
                self._delete(operation.node_id)

    def _current(self, node_id: UUID) -> Node | None:
        return self.nodes[node_id] if node_id in self.nodes else self.remote.get(node_id)

    def _known_node(self, node_id: UUID) -> Node:
        node = self._current(node_id)
        if node is None:
            raise Corrupt("the journal changes a node that it has not told of")
        return node

    def _set(
        self, operation: MakeDirectory | MakeSymlink | Mount | Put, kind: Kind, **fields: object
    ) -> None:
        _check_name(operation.name)
        before = self._current(operation.node_id)
        if before is not None and before.kind is not kind:
            raise Corrupt("the journal makes a node another kind of thing")
        self.nodes[operation.node_id] = replace(
            Node(
                node_id=operation.node_id,
                parent_id=operation.parent_id,
                name=operation.name,
                kind=kind,
                version=self.seq,
            ),
            **fields,
        )

    def _xattrs(self, operation: Put | MakeDirectory | SetAttributes) -> Xattrs:
        """What a node has then: where an operation does not say, what it had."""
        if isinstance(operation.xattrs, UnsetType):
            before = self._current(operation.node_id)
            return () if before is None else before.xattrs
        _check_xattrs(operation.xattrs)
        return operation.xattrs

    def _put(self, operation: Put) -> None:
        content = self._content(operation.content, operation.node_id)
        digest = manifest_digest(content.chunks)
        self.manifests[digest] = content
        size = sum(chunk.size for chunk in content.chunks)
        self._set(
            operation,
            Kind.FILE,
            mode=operation.mode,
            mtime_ns=operation.mtime_ns,
            size=size,
            digest=digest,
            content_version=self.seq,
            xattrs=self._xattrs(operation),
        )

    def _content(self, content: Content, node_id: UUID) -> FullContent:
        match content:
            case FullContent():
                return content
            case SplicedContent():
                base = self._known(self.remote.get(node_id))
                try:
                    chunks = apply_splices(base.chunks, content.splices)
                except ValueError as error:
                    raise Corrupt(f"the journal has a splice that does not fit: {error}") from error
                if manifest_digest(chunks) != content.digest:
                    raise Corrupt("the journal has a splice of another base")
                return FullContent(content.cut, chunks)
            case CopiedContent():
                return self._known(self.remote.get(content.node_id))

    def _known(self, node: Node | None) -> FullContent:
        content = None if node is None else self.manifest_of(node.digest)
        if content is None:
            raise Corrupt("the journal names content that it has not told of")
        return content

    def _delete(self, node_id: UUID) -> None:
        self.nodes[node_id] = None
        self.tombstones[node_id] = self.seq
        moved_in = [node for node in self.nodes.values() if node is not None]
        stack = [node_id]
        while stack:
            parent_id = stack.pop()
            below = [n for n in self.remote.children(parent_id) if n.node_id not in self.nodes]
            below += [node for node in moved_in if node.parent_id == parent_id]
            for node in below:
                self.nodes[node.node_id] = None
                self.tombstones[node.node_id] = self.seq
                stack.append(node.node_id)


def check_nodes(changed: Mapping[UUID, Node | None], tree: Tree) -> None:
    """Refuse changes after which the tree would not be one: for hostile or broken services.

    Args:
        changed: What was set or (None) deleted.
        tree: The tree before.

    Raises:
        Corrupt: For two nodes of one name, a parent that is not there or no directory, or a ring.
    """
    places: dict[tuple[UUID, str], UUID] = {}
    rooted = {ROOT}
    for node_id, node in changed.items():
        if node is None:
            continue
        other = tree.child(*node.place)
        taken = other is not None and other.node_id not in changed
        if node_id == ROOT or taken or places.setdefault(node.place, node_id) != node_id:
            raise Corrupt("the journal has two nodes of one name")
        _check_rooted(node, changed, tree, rooted)


def _check_rooted(node: Node, changed: Mapping[UUID, Node | None], tree: Tree, rooted: set[UUID]) -> None:
    walked: set[UUID] = {node.node_id}
    parent_id = node.parent_id
    while parent_id not in rooted:
        parent = changed[parent_id] if parent_id in changed else tree.get(parent_id)
        if parent is None or parent.kind is not Kind.DIRECTORY or parent_id in walked:
            raise Corrupt("the journal has a node that stands in no directory")
        walked.add(parent_id)
        parent_id = parent.parent_id
    walked.discard(node.node_id)
    rooted |= walked


def _check_name(name: str) -> None:
    if (problem := name_problem(name)) is not None:
        raise Corrupt(f"the journal has a name that no device may have: {problem}")


def _check_xattrs(xattrs: Xattrs) -> None:
    if (problem := xattrs_problem(xattrs)) is not None:
        raise Corrupt(f"the journal has what no device may have: {problem}")


def node_of(record: SnapshotNode) -> tuple[Node, FullContent | None]:
    """A snapshot's record as a node of the remote tree, with its content.

    Raises:
        Corrupt: When no device may have such a node.
    """
    _check_name(record.name)
    content = record.content
    if (record.kind is Kind.FILE) != (content is not None):
        raise Corrupt("the snapshot has a file without content, or content that is no file's")
    if record.kind is Kind.SYMLINK and target_problem(record.target) is not None:
        raise Corrupt("the snapshot has a link that no device may have")
    chunks = content.chunks if content is not None else ()
    xattrs = record.xattrs or ()
    _check_xattrs(xattrs)
    return Node(
        node_id=record.node_id,
        parent_id=record.parent_id,
        name=record.name,
        kind=record.kind,
        version=record.version,
        mode=0 if record.kind is Kind.SYMLINK else record.mode,
        mtime_ns=0 if record.kind is Kind.DIRECTORY else record.mtime_ns,
        size=sum(chunk.size for chunk in chunks),
        digest=manifest_digest(chunks) if content is not None else b"",
        target=record.target,
        content_version=record.content_version,
        xattrs=xattrs if record.kind in (Kind.FILE, Kind.DIRECTORY) else (),
    ), content


# --- the other way: changes into operations


def operations(
    changes: Iterable[Change],
    remote: Tree,
    tombstones: Mapping[UUID, int],
    manifest_of: ManifestOf,
    *,
    whole: bool = False,
    holders: Mapping[bytes, Iterable[UUID]] | None = None,
) -> tuple[Operation, ...]:
    """What to ask of the journal so that it has these changes.

    A directory's deletion stands for all below it, with the digest of what this device knows there; content goes as
    a splice against what the node held, as a copy of what another node holds, or (always, with `whole`) whole.

    Args:
        changes: What the journal lacks.
        remote: The tree that the journal has.
        tombstones: The versions of deleted nodes.
        manifest_of: Gives the stored manifest of a digest.
        whole: Send no splices and no copies.
        holders: Nodes that may hold some content, by its digest; None: whichever do, for which all are looked at.
    """
    changes = list(changes)
    deleted = {change.node_id for change in changes if change.after is None}
    made: list[Operation] = []
    gone: list[Operation] = []
    copies = None if whole else _CopyFinder(remote, {c.node_id for c in changes}, holders)
    for change in changes:
        if change.after is not None:
            made.extend(_make(change, change.after, tombstones, manifest_of, copies))
        elif change.before is not None and change.before.parent_id not in deleted:
            gone.append(_delete(change.before, remote, deleted))
    return (*made, *gone)


class _CopyFinder:
    """Finds a node, untouched by this commit, that holds some content."""

    def __init__(
        self, remote: Tree, touched: set[UUID], holders: Mapping[bytes, Iterable[UUID]] | None
    ) -> None:
        self._remote = remote
        self._touched = touched
        self._holders = holders

    def find(self, digest: bytes) -> Node | None:
        candidates = self._remote.nodes if self._holders is None else self._holders.get(digest, ())
        for node_id in candidates:
            node = self._remote.get(node_id)
            if node is None or node_id in self._touched:
                continue
            if node.digest == digest and node.content_version:
                return node
        return None


def _make(
    change: Change,
    after: Node,
    tombstones: Mapping[UUID, int],
    manifest_of: ManifestOf,
    copies: _CopyFinder | None,
) -> Iterable[Operation]:
    before = change.before
    base_version = before.version if before is not None else tombstones.get(after.node_id)
    if before is None or before.content != after.content:
        yield _create(before, after, base_version, manifest_of, copies)
        return
    if change.moves:
        yield Move(
            node_id=after.node_id, base_version=before.version, parent_id=after.parent_id, name=after.name
        )
    xattrs = _xattrs(before, after)
    if before.mode != after.mode or before.mtime_ns != after.mtime_ns or xattrs is not UNSET:
        mtime_ns = after.mtime_ns if after.kind is Kind.FILE else None
        yield SetAttributes(
            node_id=after.node_id,
            base_version=before.version,
            mode=after.mode,
            mtime_ns=mtime_ns,
            xattrs=xattrs,
        )


def _xattrs(before: Node | None, after: Node) -> Xattrs | UnsetType:
    """Left out where they stay as they are; a new or revived node has none by itself."""
    had = () if before is None else before.xattrs
    return UNSET if after.xattrs == had else after.xattrs


def _create(
    before: Node | None,
    after: Node,
    base_version: int | None,
    manifest_of: ManifestOf,
    copies: _CopyFinder | None,
) -> Operation:
    if after.kind is Kind.DIRECTORY:
        return MakeDirectory(
            node_id=after.node_id,
            base_version=base_version,
            parent_id=after.parent_id,
            name=after.name,
            mode=after.mode,
            xattrs=_xattrs(before, after),
        )
    if after.kind is Kind.SYMLINK:
        return MakeSymlink(
            node_id=after.node_id,
            base_version=base_version,
            parent_id=after.parent_id,
            name=after.name,
            target=after.target,
            mtime_ns=after.mtime_ns,
        )
    return Put(
        node_id=after.node_id,
        base_version=base_version,
        parent_id=after.parent_id,
        name=after.name,
        mode=after.mode,
        mtime_ns=after.mtime_ns,
        content=_content(before, after, manifest_of, copies),
        xattrs=_xattrs(before, after),
    )


def _content(
    before: Node | None, after: Node, manifest_of: ManifestOf, copies: _CopyFinder | None
) -> Content:
    whole = manifest_of(after.digest)
    assert whole is not None  # a change is ready only when its content was cut
    if len(whole.chunks) <= 1 or copies is None:
        return whole
    base = manifest_of(before.digest) if before is not None else None
    if base is not None:
        splices = make_splices(base.chunks, whole.chunks)
        if sum(len(splice.inserted) for splice in splices) < len(whole.chunks):
            return SplicedContent(whole.cut, splices, after.digest)
    same = copies.find(after.digest)
    return whole if same is None else CopiedContent(same.node_id, same.content_version)


def _delete(node: Node, remote: Tree, deleted: set[UUID]) -> Delete:
    if node.kind is not Kind.DIRECTORY:
        return Delete(node_id=node.node_id, base_version=node.version)
    return Delete(
        node_id=node.node_id,
        base_version=node.version,
        subtree=subtree_digest((n.node_id, n.version) for n in _deleted_below(node.node_id, remote, deleted)),
    )


def _deleted_below(node_id: UUID, remote: Tree, deleted: set[UUID]) -> Iterable[Node]:
    """What goes with a directory. What moves out of it takes along even those below it that are deleted for themselves."""
    stack = [node_id]
    while stack:
        for child in remote.children(stack.pop()):
            if child.node_id in deleted:
                yield child
                stack.append(child.node_id)
