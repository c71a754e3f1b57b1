"""What a device reads to follow a journal: changes since its cursor, a whole snapshot, a node's history; as streams.

Each stream is an async generator of pieces of the wire form (`docs/protocol.md`): a head, then so many bins. A piece
is about a megabyte at most, but for one single value that is larger. Close the generator when you stop early
(`contextlib.aclosing`): snapshots and histories hold a connection, and one transaction, until they end.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET

from broker.errors import CursorUnknown, NotFound, Unavailable
from broker.messages import (
    DeletedNode,
    RetainedVersion,
    SnapshotNode,
    StreamHead,
    decode_content,
    decode_xattrs,
    encode,
)
from broker.model import Cursor, Kind, first_chain
from metadata import sql
from metadata.database import translate
from metadata.registry import Workspace

PAGE_SIZE_BYTES: Final = 1024**2
PAGE_ROWS: Final = 128
INLINE_MANIFEST_BYTES: Final = 8 * 1024
"""A larger manifest is read alone, so that a page of rows stays below a megabyte."""

_Q = sql.load("registry.sql")
_bin_encoder = msgspec.msgpack.Encoder()

Encode = Callable[[Any, bytes | None], bytes]
"""Makes one encoded value of a row and of its manifest, where it has one."""


class CatchUp:
    """Reads journals and trees for those who follow them. May be used by many tasks at once."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def check_cursor(self, workspace: Workspace, cursor: Cursor) -> None:
        """Raise `CursorUnknown` unless the workspace's journal went through this very cursor."""
        head = workspace.head
        known = None
        if cursor.epoch == head.epoch and cursor.seq == 0:
            known = first_chain(workspace.workspace_id)
        elif cursor.epoch == head.epoch and cursor.seq <= head.seq:
            with translate():
                known = await self._pool.fetchval(_Q["journal_chain"], workspace.workspace_id, cursor.seq)
        if known != cursor.chain:
            raise CursorUnknown("the journal has no such cursor: take a snapshot, and delete nothing by it")

    async def changes(self, workspace: Workspace, after: int) -> AsyncIterator[bytes]:
        """The entries after sequence `after`, up to the head that `workspace` has.

        The journal only grows, so pages need no common transaction, and a slow reader holds no connection.
        """
        head = workspace.head
        yield encode(StreamHead(head=head, count=head.seq - after))
        while after < head.seq:
            with translate():
                rows = await self._pool.fetch(
                    _Q["changes_page"], workspace.workspace_id, after, head.seq, PAGE_SIZE_BYTES
                )
            if not rows or rows[0]["seq"] != after + 1:
                raise Unavailable("the journal changed while it was read: ask again")
            after = rows[-1]["seq"]
            yield b"".join(_bin_encoder.encode(row["entry"]) for row in rows)

    async def snapshot(self, workspace_id: UUID) -> AsyncIterator[bytes]:
        """The head and every live node of one instant, parents before their children."""
        with translate():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                head = await connection.fetchrow(_Q["snapshot_head"], workspace_id)
                if head is None:
                    raise NotFound("there is no such workspace")
                cursor = Cursor(epoch=head["epoch"], seq=head["head_seq"], chain=head["head_chain"])
                yield encode(StreamHead(head=cursor, count=head["live"]))
                query = (_Q["snapshot_nodes"], workspace_id, INLINE_MANIFEST_BYTES)
                async for piece in _stream(connection, workspace_id, query, _encode_node):
                    yield piece

    async def versions(self, workspace_id: UUID, node_ids: Sequence[UUID]) -> AsyncIterator[bytes]:
        """Every version that is kept of these nodes, deleted ones included, by node and version."""
        with translate():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                count = await connection.fetchval(_Q["count_versions"], workspace_id, node_ids)
                yield encode(StreamHead(count=count))
                query = (_Q["retained_versions"], workspace_id, node_ids, INLINE_MANIFEST_BYTES)
                async for piece in _stream(connection, workspace_id, query, _encode_version):
                    yield piece

    async def deleted(self, workspace_id: UUID) -> AsyncIterator[bytes]:
        """The deleted nodes by which an old copy can be known, the latest deletions first."""
        with translate():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                count = await connection.fetchval(_Q["count_deleted"], workspace_id)
                yield encode(StreamHead(count=count))
                query = (_Q["deleted_nodes"], workspace_id)
                async for piece in _stream(connection, workspace_id, query, _encode_deleted):
                    yield piece


async def _stream(
    connection: Any, workspace_id: UUID, query: tuple[Any, ...], encode_row: Encode
) -> AsyncIterator[bytes]:
    """Read a query by a server-side cursor, and join rows into pieces of bounded size."""
    cursor = await connection.cursor(*query)
    while rows := await cursor.fetch(PAGE_ROWS):
        small: list[Any] = []
        room = PAGE_SIZE_BYTES
        for row in rows:
            size_bytes = len(row.get("xattrs") or b"")
            if size_bytes > room:  # many may be much, though one is not
                yield await asyncio.to_thread(_encode_rows, small, encode_row)
                small, room = [], PAGE_SIZE_BYTES
            room -= size_bytes
            if row["manifest"] is None and row["content_version"] is not None:
                yield await asyncio.to_thread(_encode_rows, small, encode_row)
                small = []
                manifest = await connection.fetchval(
                    _Q["manifest"], workspace_id, row["node_id"], row["content_version"]
                )
                yield await asyncio.to_thread(_encode_alone, row, manifest, encode_row)
            else:
                small.append(row)
        yield await asyncio.to_thread(_encode_rows, small, encode_row)


def _encode_rows(rows: Sequence[Any], encode_row: Encode) -> bytes:
    return b"".join(_encode_alone(row, row["manifest"], encode_row) for row in rows)


def _encode_alone(row: Any, manifest: bytes | None, encode_row: Encode) -> bytes:
    return _bin_encoder.encode(encode_row(row, manifest))


def _encode_node(row: Any, manifest: bytes | None) -> bytes:
    node = SnapshotNode(
        node_id=row["node_id"],
        parent_id=row["parent_id"],
        name=row["name"],
        kind=Kind(row["kind"]),
        version=row["version"],
        mode=row["mode"],
        mtime_ns=row["mtime_ns"],
        target=row["target"] or "",
        content=decode_content(manifest) if manifest is not None else None,
        content_version=row["content_version"] or 0,
        mounted_workspace_id=row["mounted_workspace_id"],
        xattrs=decode_xattrs(row["xattrs"]) or UNSET,
    )
    return encode(node)


def _encode_deleted(row: Any, _: bytes | None) -> bytes:
    node = DeletedNode(
        node_id=row["node_id"],
        parent_id=row["parent_id"],
        name=row["name"],
        kind=Kind(row["kind"]),
        version=row["version"],
        target=row["target"] or "",
    )
    return encode(node)


def _encode_version(row: Any, manifest: bytes | None) -> bytes:
    version = RetainedVersion(
        node_id=row["node_id"], version=row["version"], digest=row["digest"], content=manifest or b""
    )
    return encode(version)
