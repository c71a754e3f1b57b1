"""Every message of Hutch, with its wire form. Samples stand in `docs/protocol.md`; nothing else goes over a queue.

A message is one MessagePack map with its type under `type` and its version under `v`. Unknown fields are ignored,
so that a newer sender may say more; an unknown type or version, or a value out of range, is `Corrupt`. Requests are
imperative, answers and notices say what has happened. Every handler may see a message twice.
"""

from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from broker.errors import Corrupt
from broker.model import (
    MAX_OPERATIONS_PER_COMMIT,
    ConflictCode,
    Cursor,
    FullContent,
    Hash,
    Kind,
    Mode,
    Nanoseconds,
    Operation,
    Sequence,
    Xattrs,
)

MAX_MESSAGE_SIZE_BYTES: Final = 256 * 1024
"""What the broker takes. A larger commit's body is staged at the metadata server and named by its hash."""

MAX_BODY_SIZE_BYTES: Final = 64 * 1024 * 1024
"""What the metadata server takes as one staged body."""

RequestNumber = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Version = Literal[1]


class _Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    v: Version = 1


class CommitRequest(_Message, frozen=True, kw_only=True, tag="commit"):
    """Please do all of these operations, or none.

    (device, `incarnation`, `workspace_id`, `number`) names the request for good: it is sent again unchanged until it
    is answered. The device is the broker's verified `user_id`, never anything in the body. `cursor` is where the
    author stands in the journal. The metadata server, and nobody else, may set `on_behalf_of` (a device).
    `to_follow` says how many more nodes the author is about to delete or rewrite after this: a change too large for one
    commit is then held as a whole.
    """

    workspace_id: UUID
    incarnation: UUID
    number: RequestNumber
    cursor: Cursor
    operations: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=MAX_OPERATIONS_PER_COMMIT)]
    on_behalf_of: UUID | None = None
    to_follow: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class StagedCommitRequest(_Message, frozen=True, kw_only=True, tag="commit_staged"):
    """The same, of a commit too large for a message.

    `body` is the SHA-256 of an encoded `CommitRequest` that was put to the metadata server (`PUT /v1/bodies/…`) by the
    same device; its workspace, incarnation and number must be those given here.
    """

    workspace_id: UUID
    incarnation: UUID
    number: RequestNumber
    body: Hash
    on_behalf_of: UUID | None = None


Request = CommitRequest | StagedCommitRequest


class JournalEntry(Struct, frozen=True, kw_only=True):
    """One accepted commit. Its encoded bytes are what the chain is made over, and are stored and sent unchanged.

    `operations` are those of the request, but that content which a follower of the journal might not have (a copy of
    a version that is no more the current one) is written out whole. `version` of every touched node becomes `seq`.
    """

    seq: Sequence
    user_id: UUID
    device_id: UUID
    incarnation: UUID
    number: RequestNumber
    committed_ns: Nanoseconds
    operations: tuple[Operation, ...]


class ChangeNotice(_Message, frozen=True, kw_only=True, tag="changes"):
    """A workspace's journal has grown by `entries`, which are consecutive and end at `head`.

    Goes to every member device, the author's among them, whose answer it is. `entries` are encoded `JournalEntry`
    values, to be chained over as they are. Empty `entries`: the news is too large for a message; fetch the changes.
    """

    workspace_id: UUID
    head: Cursor
    entries: tuple[bytes, ...] = ()


class Conflict(Struct, frozen=True, kw_only=True):
    """Why an operation was refused. `index` is its place in the request; None: the commit as a whole.

    `names` and `hashes` say which, where there is something to name: the chunks that are missing (as many as fit).
    """

    code: ConflictCode
    index: int | None = None
    node_id: UUID | None = None
    detail: str = ""
    hashes: tuple[Hash, ...] = ()


class CommitRefused(_Message, frozen=True, kw_only=True, tag="refused"):
    """None of it was done. Reach `head` first, then plan again. Goes to the author alone."""

    workspace_id: UUID
    incarnation: UUID
    number: RequestNumber
    head: Cursor
    conflicts: tuple[Conflict, ...]


class CommitAccepted(_Message, frozen=True, kw_only=True, tag="accepted"):
    """The answer to a request that had been answered before: it was accepted as entry `seq`."""

    workspace_id: UUID
    incarnation: UUID
    number: RequestNumber
    seq: Sequence
    head: Cursor


class MembershipChanged(_Message, frozen=True, kw_only=True, tag="membership"):
    """The device's workspaces, or its role in one, have changed: ask the metadata server which they are."""


class HoldDecided(_Message, frozen=True, kw_only=True, tag="hold_decided"):
    """A person has decided on what is held of the device in a workspace: ask the metadata server what."""

    workspace_id: UUID


Inbox = ChangeNotice | CommitRefused | CommitAccepted | MembershipChanged | HoldDecided
"""What comes to a device's response queue."""


class SnapshotNode(Struct, frozen=True, kw_only=True):
    """A live node, as a snapshot tells of it. Parents come before their children.

    `content_version` is the sequence that gave a file its content: `CopiedContent` names it by that. `xattrs` is left
    out where there are none.
    """

    node_id: UUID
    parent_id: UUID
    name: str
    kind: Kind
    version: Sequence
    mode: Mode = 0
    mtime_ns: Nanoseconds = 0
    target: str = ""
    content: FullContent | None = None
    content_version: Sequence = 0
    mounted_workspace_id: UUID | None = None
    xattrs: Xattrs | UnsetType = UNSET


class StreamHead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a stream of the metadata server begins: `count` values follow, as bins. `head` is where they lead."""

    head: Cursor | None = None
    count: Annotated[int, Meta(ge=0)]


class RetainedVersion(Struct, frozen=True, kw_only=True):
    """What a file held from a version on, as history tells of it. `content` is an encoded `FullContent`."""

    node_id: UUID
    version: Sequence
    digest: Hash
    content: bytes


class DeletedNode(Struct, frozen=True, kw_only=True):
    """A node that was deleted, as a returning device is told of it: where it stood, and what a link said.

    `version` is the sequence of the deletion.
    """

    node_id: UUID
    parent_id: UUID
    name: str
    kind: Kind
    version: Sequence
    target: str = ""


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_inbox_decoder: msgspec.msgpack.Decoder[Inbox] = msgspec.msgpack.Decoder(Inbox)
_entry_decoder = msgspec.msgpack.Decoder(JournalEntry)
_snapshot_decoder = msgspec.msgpack.Decoder(SnapshotNode)
_content_decoder = msgspec.msgpack.Decoder(FullContent)
_stream_head_decoder = msgspec.msgpack.Decoder(StreamHead)
_retained_decoder = msgspec.msgpack.Decoder(RetainedVersion)
_xattrs_decoder = msgspec.msgpack.Decoder(Xattrs)
_deleted_decoder = msgspec.msgpack.Decoder(DeletedNode)


def encode(value: Struct) -> bytes:
    """The wire bytes of any value of this module, or of `broker.model`. The same value always gives the same bytes."""
    return _encoder.encode(value)


def decode_request(data: bytes) -> Request:
    """Read a message of the request queue.

    Raises:
        Corrupt: When it is malformed, out of range, of an unknown type, or of an unknown version.
    """
    return _decode(_request_decoder, data)


def decode_inbox(data: bytes) -> Inbox:
    """Read a message of a device's response queue. Raises `Corrupt` as `decode_request` does."""
    return _decode(_inbox_decoder, data)


def decode_entry(data: bytes) -> JournalEntry:
    """Read one journal entry. Raises `Corrupt` as `decode_request` does."""
    return _decode(_entry_decoder, data)


def decode_snapshot_node(data: bytes) -> SnapshotNode:
    """Read one record of a snapshot. Raises `Corrupt` as `decode_request` does."""
    return _decode(_snapshot_decoder, data)


def decode_content(data: bytes) -> FullContent:
    """Read a stored manifest. Raises `Corrupt` as `decode_request` does."""
    return _decode(_content_decoder, data)


def encode_xattrs(xattrs: Xattrs) -> bytes | None:
    """Extended attributes as databases keep them; None for none."""
    return _encoder.encode(xattrs) if xattrs else None


def decode_xattrs(data: bytes | None) -> Xattrs:
    """The way back. Raises `Corrupt` as `decode_request` does."""
    return _decode(_xattrs_decoder, data) if data else ()


def decode_stream_head(data: bytes) -> StreamHead:
    """Read a stream's first object. Raises `Corrupt` as `decode_request` does."""
    return _decode(_stream_head_decoder, data)


def decode_retained_version(data: bytes) -> RetainedVersion:
    """Read one record of a stream of versions. Raises `Corrupt` as `decode_request` does."""
    return _decode(_retained_decoder, data)


def decode_deleted_node(data: bytes) -> DeletedNode:
    """Read one record of a stream of deleted nodes. Raises `Corrupt` as `decode_request` does."""
    return _decode(_deleted_decoder, data)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"not a message of ours: {error}") from error
