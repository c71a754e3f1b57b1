"""One commit's operations: what each does to the tree, and how the journal tells of it. Pure.

Operations apply in order to a draft. Versions are compared with those before the commit; names, parents, cycles and
emptiness are checked once, in the final state, so that names may be swapped and rotated within a commit. Deletes
take effect in the final state too: what an earlier or later operation moves out of a directory is not deleted with it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, assert_never
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.structs import replace

from broker.messages import Conflict, decode_content, decode_xattrs, encode_xattrs
from broker.model import (
    ConflictCode,
    CopiedContent,
    Delete,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Operation,
    Operations,
    Put,
    SetAttributes,
    SplicedContent,
    Xattrs,
)
from metadata.state import NewVersion, Node
from sync_workers.admission import KINDS, Context, find_problem
from sync_workers.content import MAX_MISSING_HASHES, Whole, load_manifest, make_whole
from sync_workers.tree import Draft


class Changes(Struct, kw_only=True):
    """What a commit comes to. With any `conflicts`, nothing else of it counts.

    Attributes:
        operations: As the journal tells them to followers.
        chunks: What the author named and the workspace may use from now on, with raw sizes.
        added_bytes: Change of the live files' sizes.
    """

    conflicts: list[Conflict] = field(default_factory=list)
    operations: Operations = ()
    nodes: dict[UUID, Node] = field(default_factory=dict)
    versions: list[NewVersion] = field(default_factory=list)
    chunks: dict[bytes, int] = field(default_factory=dict)
    added_bytes: int = 0


def plan_commit(context: Context, operations: Operations) -> Changes:
    """Apply operations in order, then check the final state.

    Returns:
        The changes, or every conflict that was found: first those of single operations; only when there are none,
        those of the final state, which would mostly repeat them.
    """
    work = _Work(context, operations)
    for index, op in enumerate(operations):
        work.apply(index, op)
    conflicts = work.conflicts or work.draft.settle()
    if conflicts:
        return Changes(conflicts=conflicts)
    after = work.draft.changed
    before = (old for node_id in after if (old := work.draft.before(node_id)))
    return Changes(
        operations=work.tell(operations),
        nodes=after,
        versions=[work.version(node_id) for node_id in work.contents],
        chunks=work.chunks,
        added_bytes=_live_bytes(after.values()) - _live_bytes(before),
    )


def _live_bytes(nodes: Iterable[Node]) -> int:
    return sum(node.size_bytes for node in nodes if not node.deleted)


class _Work:
    """A commit half applied."""

    def __init__(self, context: Context, operations: Operations) -> None:
        self.context = context
        self.draft = Draft(context.tree, context.seq)
        self.conflicts: list[Conflict] = []
        self.contents: dict[UUID, Whole] = {}
        self.chunks: dict[bytes, int] = {}
        self._whole_at: dict[int, Whole] = {}
        self._told_as: dict[int, Operation] = {}
        self._puts = Counter(op.node_id for op in operations if isinstance(op, Put))
        self._missing_left = MAX_MISSING_HASHES

    # --- applying

    def apply(self, index: int, op: Operation) -> None:
        """Apply one operation, or note what speaks against it."""
        problem = find_problem(self.context, self.draft, op)
        if problem:
            self._refuse(index, op, *problem)
            return
        match op:
            case Put():
                self._put(index, op)
            case MakeDirectory():
                self._place(index, op, mode=op.mode, xattrs=self._xattrs(op))
            case MakeSymlink():
                self._place(index, op, target=op.target, mtime_ns=op.mtime_ns)
            case Mount():
                self._place(index, op, mounted_workspace_id=op.mounted_workspace_id)
            case Move():
                self._move(index, op)
            case SetAttributes():
                self._set_attributes(index, op)
            case Delete():
                self.draft.delete(index, op, self._known(op.node_id))
            case _ as never:
                assert_never(never)

    def _refuse(self, index: int, op: Operation, code: ConflictCode, detail: str = "") -> None:
        self.conflicts.append(Conflict(code=code, index=index, node_id=op.node_id, detail=detail))

    def _known(self, node_id: UUID) -> Node:
        node = self.draft.get(node_id)
        assert node is not None, "its version was compared"
        return node

    def _place(self, index: int, op: Put | MakeDirectory | MakeSymlink | Mount | Move, **values: Any) -> None:
        """Put the operation's node at its place, alive, with `values` over what it had."""
        values.update(parent_id=op.parent_id, name=op.name, version=self.draft.seq, deleted=False)
        old = self.draft.get(op.node_id)
        if old is None:
            self.draft.place(index, Node(node_id=op.node_id, kind=KINDS[type(op)], **values))
        else:
            self.draft.place(index, replace(old, **values))

    def _move(self, index: int, op: Move) -> None:
        node = self._known(op.node_id)
        if node.deleted:
            told = self._tell_revival(op, node)
            if told is None:
                self._refuse(index, op, ConflictCode.BASE_GONE)
                return
            self._told_as[index] = told
        self._place(index, op)

    def _set_attributes(self, index: int, op: SetAttributes) -> None:
        """Set what the node's kind has: all who follow must come to the same values."""
        node = self._known(op.node_id)
        mode = op.mode if node.kind in (Kind.FILE, Kind.DIRECTORY) else 0
        mtime_ns = op.mtime_ns if node.kind in (Kind.FILE, Kind.SYMLINK) else None
        xattrs = op.xattrs if node.kind in (Kind.FILE, Kind.DIRECTORY) else UNSET
        op = self._told_as[index] = replace(op, mode=mode, mtime_ns=mtime_ns, xattrs=xattrs)
        if mtime_ns is None:
            mtime_ns = node.mtime_ns
        self.draft.changed[op.node_id] = replace(
            node, mode=mode, mtime_ns=mtime_ns, xattrs=self._xattrs(op), version=self.draft.seq
        )

    def _xattrs(self, op: Put | MakeDirectory | SetAttributes) -> bytes | None:
        """As the node's row shall have them."""
        if not isinstance(op.xattrs, UnsetType):
            return encode_xattrs(op.xattrs)
        node = self.draft.get(op.node_id)
        return None if node is None or node.deleted else node.xattrs

    # --- content

    def _put(self, index: int, op: Put) -> None:
        before = self.draft.before(op.node_id)
        workspace_id = self.context.workspace.workspace_id
        whole = make_whole(op.content, workspace_id, before, self.context.manifests)
        if isinstance(whole, ConflictCode):
            self._refuse(index, op, whole)
            return
        self._use_chunks(index, op, whole)
        self._whole_at[index] = self.contents[op.node_id] = whole
        self._place(
            index,
            op,
            mode=op.mode,
            mtime_ns=op.mtime_ns,
            size_bytes=whole.size_bytes,
            content_version=self.draft.seq,
            xattrs=self._xattrs(op),
        )

    def _use_chunks(self, index: int, op: Put, whole: Whole) -> None:
        missing: dict[bytes, None] = {}
        usable, just_used = self.context.usable, self.context.just_used
        for chunk in whole.named:
            if chunk.size in (usable.get(chunk.hash), just_used.get(chunk.hash)):
                self.chunks[chunk.hash] = chunk.size
            else:
                missing[chunk.hash] = None
        if missing:
            hashes = tuple(missing)[: self._missing_left]
            self._missing_left -= len(hashes)
            code = ConflictCode.MISSING_CHUNKS
            self.conflicts.append(Conflict(code=code, index=index, node_id=op.node_id, hashes=hashes))

    def version(self, node_id: UUID) -> NewVersion:
        """The history's row of a content that was put."""
        node, whole = self._known(node_id), self.contents[node_id]
        return NewVersion(
            workspace_id=self.context.workspace.workspace_id,
            node_id=node_id,
            version=self.draft.seq,
            manifest=whole.manifest,
            digest=whole.digest,
            size_bytes=whole.size_bytes,
            mtime_ns=node.mtime_ns,
            mode=node.mode,
            user_id=self.context.author.user_id,
            device_id=self.context.author.device_id,
        )

    # --- telling: who follows the journal has live nodes and their current content, and nothing else

    def tell(self, operations: Operations) -> Operations:
        """The operations as the journal tells them, with all that a follower might not have written out.

        Deletes come last: a follower that applies them one by one sweeps along what the final state does.
        """
        told = [self._tell(index, op) for index, op in enumerate(operations)]
        told.sort(key=lambda op: isinstance(op, Delete))
        return tuple(told)

    def _tell(self, index: int, op: Operation) -> Operation:
        if isinstance(op, Put) and not self._can_follow(op):
            return replace(op, content=decode_content(self._whole_at[index].manifest))
        return self._told_as.get(index, op)

    def _can_follow(self, op: Put) -> bool:
        """Whether a follower has, before this commit and throughout it, what the content is written against."""
        if isinstance(op.content, SplicedContent):
            before = self.draft.before(op.node_id)
            return before is not None and not before.deleted and self._puts[op.node_id] == 1
        if isinstance(op.content, CopiedContent):
            return self._keeps(op.content, op.node_id)
        return True

    def _keeps(self, content: CopiedContent, node_id: UUID) -> bool:
        before, after = self.draft.before(content.node_id), self.draft.get(content.node_id)
        if before is None or before.deleted or before.content_version != content.version:
            return False
        if content.node_id == node_id:
            return self._puts[node_id] == 1
        return after is not None and not after.deleted and after.content_version == content.version

    def _tell_revival(self, op: Move, node: Node) -> Operation | None:
        """The move of a tombstone as followers can do it, who may never have known the node: as if it were made."""
        place: dict[str, Any] = {
            "node_id": op.node_id,
            "base_version": op.base_version,
            "parent_id": op.parent_id,
            "name": op.name,
        }
        xattrs: Xattrs | UnsetType = decode_xattrs(node.xattrs) or UNSET
        match node.kind:
            case Kind.DIRECTORY:
                return MakeDirectory(**place, mode=node.mode, xattrs=xattrs)
            case Kind.SYMLINK:
                return MakeSymlink(**place, target=node.target or "", mtime_ns=node.mtime_ns)
            case Kind.MOUNT:
                assert node.mounted_workspace_id is not None, "a mount's row says what it mounts"
                return Mount(**place, mounted_workspace_id=node.mounted_workspace_id)
            case Kind.FILE:
                workspace_id = self.context.workspace.workspace_id
                content = load_manifest(
                    self.context.manifests, workspace_id, op.node_id, node.content_version
                )
                if content is None:
                    return None
                attributes: dict[str, Any] = {"mode": node.mode, "mtime_ns": node.mtime_ns, "xattrs": xattrs}
                return Put(**place, **attributes, content=content)
