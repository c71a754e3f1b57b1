"""The wire: each message there and back, held to an independent MessagePack, and what is none is `Corrupt`."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import msgpack
import pytest
from msgspec import Struct

from broker import messages
from broker.errors import Corrupt
from broker.messages import (
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    CommitRequest,
    Conflict,
    JournalEntry,
    MembershipChanged,
    SnapshotNode,
    StagedCommitRequest,
    decode_content,
    decode_entry,
    decode_inbox,
    decode_request,
    decode_snapshot_node,
    encode,
)
from broker.model import (
    Chunk,
    ConflictCode,
    CopiedContent,
    Cursor,
    Delete,
    FullContent,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Mount,
    Move,
    Put,
    SetAttributes,
    Splice,
    SplicedContent,
)

A, B, C = (UUID(int=number) for number in (1, 2, 3))
HASH = bytes(range(32))
CURSOR = Cursor(epoch=1, seq=7, chain=HASH)
CHUNK = Chunk(hash=HASH, size=4 * 1024 * 1024)
FULL = FullContent(cut=20, chunks=(CHUNK,))

OPERATIONS = (
    Put(node_id=A, parent_id=B, name="ä b", mode=0o644, mtime_ns=-1, content=FULL),
    Put(
        node_id=A,
        base_version=3,
        parent_id=B,
        name="x",
        mode=0o600,
        mtime_ns=2**63 - 1,
        content=SplicedContent(cut=20, splices=(Splice(start=1, removed=0, inserted=(CHUNK,)),), digest=HASH),
    ),
    Put(
        node_id=A, parent_id=B, name="y", mode=0, mtime_ns=0, content=CopiedContent(node_id=C, version=9)
    ),
    MakeDirectory(node_id=A, parent_id=B, name="d", mode=0o755),
    MakeSymlink(node_id=A, base_version=1, parent_id=B, name="l", target="../x", mtime_ns=5),
    Mount(node_id=A, parent_id=B, name="m", mounted_workspace_id=C),
    Move(node_id=A, base_version=1, parent_id=B, name="n"),
    SetAttributes(node_id=A, base_version=1, mode=0o700),
    Delete(node_id=A, base_version=1, subtree=HASH),
)  # fmt: skip

REQUEST = CommitRequest(workspace_id=A, incarnation=B, number=1, cursor=CURSOR, operations=OPERATIONS)
CONFLICT = Conflict(code=ConflictCode.MISSING_CHUNKS, index=2, node_id=A, hashes=(HASH,))
ENTRY = JournalEntry(
    seq=8, user_id=A, device_id=B, incarnation=C, number=4, committed_ns=10**18, operations=OPERATIONS
)

REQUESTS = (
    REQUEST,
    StagedCommitRequest(workspace_id=A, incarnation=B, number=2**63 - 1, body=HASH, on_behalf_of=C),
)
INBOX = (
    ChangeNotice(workspace_id=A, head=CURSOR, entries=(encode(ENTRY),)),
    CommitRefused(workspace_id=A, incarnation=B, number=1, head=CURSOR, conflicts=(CONFLICT,)),
    CommitAccepted(workspace_id=A, incarnation=B, number=1, seq=7, head=CURSOR),
    MembershipChanged(),
)


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_arrives_as_it_was(message: messages.Request):
    assert decode_request(encode(message)) == message


@pytest.mark.parametrize("message", INBOX, ids=lambda message: type(message).__name__)
def test_what_comes_to_a_device_arrives_as_it_was(message: messages.Inbox):
    assert decode_inbox(encode(message)) == message


def test_entries_nodes_and_contents_arrive_as_they_were():
    node = SnapshotNode(node_id=A, parent_id=B, name="n", kind=Kind.FILE, version=3, content=FULL)
    assert decode_entry(encode(ENTRY)) == ENTRY
    assert decode_snapshot_node(encode(node)) == node
    assert decode_content(encode(FULL)) == FULL


@pytest.mark.parametrize("message", [*REQUESTS, *INBOX], ids=lambda message: type(message).__name__)
def test_a_message_is_one_map_with_its_type_and_version(message: Struct):
    wire = msgpack.unpackb(encode(message))
    assert wire["type"] == type(message).__struct_config__.tag
    assert wire["v"] == 1


def test_the_wire_is_what_another_implementation_writes():
    wire = msgpack.packb(
        {
            "type": "commit_staged",
            "v": 1,
            "workspace_id": A.bytes,
            "incarnation": B.bytes,
            "number": 5,
            "body": HASH,
            "on_behalf_of": None,
        }
    )
    staged = StagedCommitRequest(workspace_id=A, incarnation=B, number=5, body=HASH)
    assert encode(staged) == wire
    assert decode_request(wire) == staged


def _changed(**fields: Any) -> bytes:
    wire = msgpack.unpackb(encode(REQUEST))
    changed: bytes = msgpack.packb({**wire, **fields})
    return changed


def test_a_newer_sender_may_say_more():
    assert decode_request(_changed(mood="good")) == REQUEST


WRONG = {
    "nothing": b"",
    "not MessagePack": b"\xc1",
    "cut off": encode(REQUEST)[:-1],
    "bytes after the end": encode(REQUEST) + b"\x00",
    "no map": msgpack.packb([1, 2]),
    "no type": msgpack.packb({"v": 1}),
    "an unknown type": _changed(type="commit2"),
    "a message of the other direction": encode(MembershipChanged()),
    "an unknown version": _changed(v=2),
    "a number of nought": _changed(number=0),
    "a number too large": _changed(number=2**63),
    "no operations": _changed(operations=[]),
    "a short hash": _changed(cursor=[1, 7, HASH[:-1]]),
    "a missing field": msgpack.packb({"type": "commit", "v": 1}),
    "text for bytes": _changed(workspace_id=7),
    "nested without end": b"\x91" * 100_000,
    "an array that claims too much": b"\xdd" + struct.pack(">I", 2**32 - 1),
    "a string that is no UTF-8": msgpack.packb(
        {"type": b"\xff".decode("utf-8", "surrogateescape")}, unicode_errors="surrogateescape"
    ),
}


@pytest.mark.parametrize("wire", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_request_is_corrupt(wire: bytes):
    with pytest.raises(Corrupt):
        decode_request(wire)
