"""The samples of `docs/protocol.md` are what the code sends: each block is made of a value here, and read back to it.

`python -m tests.unit.broker.test_samples` prints all blocks, to be put into the page.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args
from uuid import UUID

import msgpack
import pytest
from msgspec import Struct

from broker.messages import (
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    CommitRequest,
    Conflict,
    DeletedNode,
    HoldDecided,
    Inbox,
    JournalEntry,
    MembershipChanged,
    Request,
    RetainedVersion,
    SnapshotNode,
    StagedCommitRequest,
    StreamHead,
    decode_content,
    decode_deleted_node,
    decode_entry,
    decode_inbox,
    decode_request,
    decode_retained_version,
    decode_snapshot_node,
    decode_stream_head,
    encode,
)
from broker.model import (
    ROOT,
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
    Operation,
    Operations,
    Put,
    SetAttributes,
    Splice,
    SplicedContent,
    extend_chain,
    manifest_digest,
    subtree_digest,
)

PAGE: Final = Path(__file__).parents[3] / "docs" / "protocol.md"

WORKSPACE = UUID("3216c30f-c7e8-40cb-b64e-38d7fedd440b")
OTHER_WORKSPACE = UUID("8a4c62f1-5d1e-4a53-9d7b-60f3f2a1c9de")
INCARNATION = UUID("6b8f9d0c-2f53-4f5e-8a4e-0d1f2c3b4a59")
DEVICE = UUID("41c90415-85f8-4b62-b758-aa577628f649")
USER = UUID("d02a3a5e-7a2b-4f0e-9b6c-5f1f0c8e7d21")
TRIP = UUID("01934f7e-0a10-7c3b-8d2e-1f5a6b7c8d90")
NOTES = UUID("01934f7e-0b22-7a41-9c6d-2e3f4a5b6c7d")
PHOTO = UUID("01934f7e-0c37-7f58-8b1a-3d4e5f6a7b8c")
LINK = UUID("01934f7e-0d49-7e60-a2c3-4f5a6b7c8d9e")
SHARE = UUID("01934f7e-0e5a-7d71-b3d4-5a6b7c8d9eaf")

MTIME_NS = 1_795_387_452_770_652_000
ONE, TWO, THREE = Chunk(b"\x11" * 32, 65_536), Chunk(b"\x22" * 32, 48_211), Chunk(b"\x33" * 32, 50_102)

BEFORE = Cursor(epoch=1, seq=811, chain=b"\xaa" * 32)


def every_operation() -> Operations:
    """One of each kind, and a put with each kind of content."""
    return (
        MakeDirectory(node_id=TRIP, parent_id=ROOT, name="Trip", mode=0o755),
        Put(
            node_id=PHOTO,
            parent_id=TRIP,
            name="photo.raw",
            mode=0o644,
            mtime_ns=MTIME_NS,
            content=FullContent(16, (ONE, TWO)),
            xattrs=(("user.rating", b"5"), ("user.tags", b"sea")),
        ),
        Put(
            node_id=NOTES,
            base_version=790,
            parent_id=ROOT,
            name="notes.txt",
            mode=0o644,
            mtime_ns=MTIME_NS,
            content=SplicedContent(16, (Splice(1, 1, (THREE,)),), manifest_digest((ONE, THREE))),
        ),
        Put(
            node_id=UUID("01934f7e-0f6b-7c82-84e5-6b7c8d9eafb0"),
            parent_id=TRIP,
            name="copy of notes.txt",
            mode=0o600,
            mtime_ns=MTIME_NS,
            content=CopiedContent(NOTES, 790),
        ),
        MakeSymlink(node_id=LINK, parent_id=TRIP, name="latest", target="photo.raw", mtime_ns=MTIME_NS),
        Mount(node_id=SHARE, parent_id=ROOT, name="Band", mounted_workspace_id=OTHER_WORKSPACE),
        Move(
            node_id=UUID("01934f7e-1a7c-7b93-95f6-7c8d9eafb0c1"),
            base_version=640,
            parent_id=TRIP,
            name="list.txt",
        ),
        SetAttributes(node_id=UUID("01934f7e-1b8d-7aa4-a607-8d9eafb0c1d2"), base_version=655, mode=0o755),
        Delete(
            node_id=UUID("01934f7e-1c9e-79b5-b718-9eafb0c1d2e3"),
            base_version=702,
            subtree=subtree_digest([(LINK, 702)]),
        ),
    )


def short_operations() -> Operations:
    """What a saved file is."""
    return (
        Put(
            node_id=NOTES,
            base_version=790,
            parent_id=ROOT,
            name="notes.txt",
            mode=0o644,
            mtime_ns=MTIME_NS,
            content=FullContent(16, (THREE,)),
        ),
    )


ENTRY = JournalEntry(
    seq=812,
    user_id=USER,
    device_id=DEVICE,
    incarnation=INCARNATION,
    number=57,
    committed_ns=MTIME_NS + 310_000_000,
    operations=short_operations(),
)
AFTER = Cursor(epoch=1, seq=812, chain=extend_chain(BEFORE.chain, encode(ENTRY)))

SAMPLES: Final[dict[str, tuple[Struct, Callable[[bytes], Struct]]]] = {
    "CommitRequest": (
        CommitRequest(
            workspace_id=WORKSPACE,
            incarnation=INCARNATION,
            number=57,
            cursor=BEFORE,
            operations=every_operation(),
        ),
        decode_request,
    ),
    "StagedCommitRequest": (
        StagedCommitRequest(workspace_id=WORKSPACE, incarnation=INCARNATION, number=58, body=b"\x5a" * 32),
        decode_request,
    ),
    "JournalEntry": (ENTRY, decode_entry),
    "ChangeNotice": (
        ChangeNotice(workspace_id=WORKSPACE, head=AFTER, entries=(encode(ENTRY),)),
        decode_inbox,
    ),
    "CommitRefused": (
        CommitRefused(
            workspace_id=WORKSPACE,
            incarnation=INCARNATION,
            number=57,
            head=AFTER,
            conflicts=(
                Conflict(code=ConflictCode.STALE_VERSION, index=2, node_id=NOTES),
                Conflict(code=ConflictCode.MISSING_CHUNKS, index=1, node_id=PHOTO, hashes=(TWO.hash,)),
            ),
        ),
        decode_inbox,
    ),
    "CommitAccepted": (
        CommitAccepted(workspace_id=WORKSPACE, incarnation=INCARNATION, number=57, seq=812, head=AFTER),
        decode_inbox,
    ),
    "MembershipChanged": (MembershipChanged(), decode_inbox),
    "HoldDecided": (HoldDecided(workspace_id=WORKSPACE), decode_inbox),
    "StreamHead": (StreamHead(head=AFTER, count=1), decode_stream_head),
    "SnapshotNode": (
        SnapshotNode(
            node_id=NOTES,
            parent_id=ROOT,
            name="notes.txt",
            kind=Kind.FILE,
            version=812,
            mode=0o644,
            mtime_ns=MTIME_NS,
            content=FullContent(16, (THREE,)),
            content_version=812,
            xattrs=(("user.rating", b"5"),),
        ),
        decode_snapshot_node,
    ),
    "DeletedNode": (
        DeletedNode(
            node_id=NOTES,
            parent_id=UUID("01934f7d-9a01-7c0e-8b57-d41d8cd98f00"),
            name="report.txt",
            kind=Kind.FILE,
            version=813,
        ),
        decode_deleted_node,
    ),
    "RetainedVersion": (
        RetainedVersion(
            node_id=NOTES,
            version=812,
            digest=manifest_digest((THREE,)),
            content=encode(FullContent(16, (THREE,))),
        ),
        decode_retained_version,
    ),
}

ENCODED_WITHIN: Final = {
    "entries": ("JournalEntry", decode_entry),
    "content": ("FullContent", decode_content),
}
"""Fields whose bytes are a value of ours again: shown decoded, under its name."""


# --- the notation: JSON; a UUID (16 bytes) as usual, other bytes as <hex>, equal ones as <byte x count>


def show(value: Any, key: str = "") -> Any:
    """A decoded MessagePack value as the page writes it."""
    if isinstance(value, dict):
        return {name: show(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [show(item, key if key == "entries" else "") for item in value]
    if not isinstance(value, bytes):
        return value
    if key in ENCODED_WITHIN:
        name, decode = ENCODED_WITHIN[key]
        return {name: show(msgpack.unpackb(encode(decode(value))))}
    if len(value) == 16:
        return str(UUID(bytes=value))
    if len(value) > 2 and len(set(value)) == 1:
        return f"<{value[:1].hex()} x {len(value)}>"
    return f"<{value.hex()}>"


def read(value: Any) -> Any:
    """The way back."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)) in {name for name, _ in ENCODED_WITHIN.values()}:
            return msgpack.packb(read(next(iter(value.values()))))
        return {name: read(item) for name, item in value.items()}
    if isinstance(value, list):
        return [read(item) for item in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return UUID(value).bytes
    if same := re.fullmatch(r"<([0-9a-f]{2}) x (\d+)>", value):
        return bytes.fromhex(same[1]) * int(same[2])
    if some := re.fullmatch(r"<([0-9a-f]+)>", value):
        return bytes.fromhex(some[1])
    return value


def render(value: Struct) -> str:
    """A block of the page: a field a line; of a list of maps, a map a line."""
    lines = []
    for name, item in show(msgpack.unpackb(encode(value))).items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            inner = ",\n".join("    " + json.dumps(each, ensure_ascii=False) for each in item)
            lines.append(f"  {json.dumps(name)}: [\n{inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(name)}: {json.dumps(item, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def blocks() -> dict[str, str]:
    """The page's samples, by their headings."""
    found = re.findall(r"^### (\w+)$.*?^```json\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return {name: block.rstrip("\n") for name, block in found}


def test_every_message_and_record_has_a_sample():
    messages = {kind.__name__ for union in (Request, Inbox) for kind in get_args(union)}
    records = {"JournalEntry", "StreamHead", "SnapshotNode", "RetainedVersion", "DeletedNode"}
    assert messages | records == set(SAMPLES) == set(blocks())


def test_every_operation_has_a_sample():
    assert {type(op) for op in every_operation()} == set(get_args(Operation))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_shows_what_is_sent(name):
    assert blocks()[name] == render(SAMPLES[name][0])


@pytest.mark.parametrize("name", SAMPLES)
def test_what_the_page_shows_is_understood(name):
    value, decode = SAMPLES[name]
    assert decode(msgpack.packb(read(json.loads(blocks()[name])))) == value


if __name__ == "__main__":
    for title, (sample, _) in SAMPLES.items():
        print(f"### {title}\n\n```json\n{render(sample)}\n```\n")
