"""A follower of the journal, as simple as can be: it knows live nodes and their current content, and nothing else."""

from uuid import UUID

from msgspec import UnsetType
from msgspec.structs import replace

from broker.messages import decode_content, decode_entry, encode_xattrs
from broker.model import (
    Content,
    CopiedContent,
    Delete,
    FullContent,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Manifest,
    Mount,
    Move,
    Operation,
    Put,
    SetAttributes,
    SplicedContent,
    apply_splices,
    extend_chain,
    first_chain,
    manifest_digest,
)
from metadata.state import Node
from tests.commits.world import World


async def follow(world: World, workspace: str = "home") -> None:
    """Replay the journal from nothing; assert that it is gap-free and chained, and makes the tree that stands."""
    workspace_id = world.id(workspace)
    chain = first_chain(workspace_id)
    live: dict[UUID, Node] = {}
    contents: dict[UUID, Manifest] = {}
    for seq, (data, stored_chain) in enumerate(await world.backing.list_journal(workspace_id), 1):
        entry = decode_entry(data)
        chain = extend_chain(chain, data)
        assert (entry.seq, chain) == (seq, stored_chain)
        before = dict(contents)
        for op in entry.operations:
            _apply(op, seq, live, contents, before)
    await _compare(world, workspace_id, live, contents)


async def _compare(
    world: World, workspace_id: UUID, live: dict[UUID, Node], contents: dict[UUID, Manifest]
) -> None:
    standing = {
        n.node_id: n for n in (await world.backing.list_nodes(workspace_id)).values() if not n.deleted
    }
    assert live.keys() == standing.keys()
    for node_id, node in live.items():
        known = standing[node_id]
        assert replace(known, content_version=None, size_bytes=0) == node
        if node.kind is Kind.FILE:
            assert known.content_version is not None
            stored = decode_content(
                await world.backing.manifest(workspace_id, node_id, known.content_version)
            )
            assert stored.chunks == contents[node_id]
            assert known.size_bytes == sum(chunk.size for chunk in stored.chunks)


def _apply(
    op: Operation,
    seq: int,
    live: dict[UUID, Node],
    contents: dict[UUID, Manifest],
    before: dict[UUID, Manifest],
) -> None:
    match op:
        case Delete():
            _delete(op.node_id, live)
        case SetAttributes():
            node = live[op.node_id]
            mtime_ns = node.mtime_ns if op.mtime_ns is None else op.mtime_ns
            xattrs = _xattrs(op, live)
            live[op.node_id] = replace(node, mode=op.mode, mtime_ns=mtime_ns, xattrs=xattrs, version=seq)
        case Move():
            node = live[op.node_id]
            live[op.node_id] = replace(node, parent_id=op.parent_id, name=op.name, version=seq)
        case Put():
            contents[op.node_id] = _read(op.content, op.node_id, before)
            xattrs = _xattrs(op, live)
            live[op.node_id] = _make(op, Kind.FILE, seq, mode=op.mode, mtime_ns=op.mtime_ns, xattrs=xattrs)
        case MakeDirectory():
            live[op.node_id] = _make(op, Kind.DIRECTORY, seq, mode=op.mode, xattrs=_xattrs(op, live))
        case MakeSymlink():
            live[op.node_id] = _make(op, Kind.SYMLINK, seq, mtime_ns=op.mtime_ns, target=op.target)
        case Mount():
            live[op.node_id] = _make(op, Kind.MOUNT, seq, mounted_workspace_id=op.mounted_workspace_id)


def _xattrs(op: Put | MakeDirectory | SetAttributes, live: dict[UUID, Node]) -> bytes | None:
    if not isinstance(op.xattrs, UnsetType):
        return encode_xattrs(op.xattrs)
    return live[op.node_id].xattrs if op.node_id in live else None


def _make(op: Put | MakeDirectory | MakeSymlink | Mount, kind: Kind, seq: int, **values: object) -> Node:
    node = Node(node_id=op.node_id, parent_id=op.parent_id, name=op.name, kind=kind, version=seq)
    return replace(node, **values)


def _delete(node_id: UUID, live: dict[UUID, Node]) -> None:
    live.pop(node_id, None)
    for child in [n.node_id for n in live.values() if n.parent_id == node_id]:
        _delete(child, live)


def _read(content: Content, node_id: UUID, before: dict[UUID, Manifest]) -> Manifest:
    match content:
        case FullContent():
            return content.chunks
        case SplicedContent():
            chunks = apply_splices(before[node_id], content.splices)
            assert manifest_digest(chunks) == content.digest
            return chunks
        case CopiedContent():
            return before[content.node_id]
