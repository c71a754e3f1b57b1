"""Call the metadata server: one method a call of `docs/protocol.md`, with typed answers."""

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import msgpack
import msgspec
from msgspec import Meta, Struct

from agent.http import Http
from broker.errors import Corrupt, NotFound, Unavailable
from broker.messages import (
    DeletedNode,
    RetainedVersion,
    SnapshotNode,
    StreamHead,
    decode_deleted_node,
    decode_retained_version,
    decode_snapshot_node,
)
from broker.model import Cursor, Role
from broker.model import Sequence as JournalSequence

MAX_NODES_PER_VERSIONS_CALL: Final = 1_000

_MAX_JSON_SIZE_BYTES: Final = 16 * 1024 * 1024
_MAX_RECORD_SIZE_BYTES: Final = 192 * 1024 * 1024  # a staged body, with the content of its copies written out

HexHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
T = TypeVar("T")


class Head(Struct, frozen=True, kw_only=True):
    """Where a workspace's journal stands."""

    workspace_id: UUID
    epoch: JournalSequence
    seq: JournalSequence
    chain: HexHash

    @property
    def cursor(self) -> Cursor:
        """The head, as a cursor that has received everything."""
        return Cursor(self.epoch, self.seq, bytes.fromhex(self.chain))


class WorkspaceInfo(Head, frozen=True, kw_only=True):
    """A workspace that the device's user is a member of. `owner` is the owner's e-mail address."""

    name: str
    role: Role
    owner: str


class Session(Struct, frozen=True, kw_only=True):
    """What a linked device needs to know. `amqp_url` is without credentials."""

    device_id: UUID
    user_id: UUID
    email: str
    gateway_url: str
    amqp_url: str
    queue: str
    workspaces: tuple[WorkspaceInfo, ...]


class LinkedSession(Session, frozen=True, kw_only=True):
    """The answer to linking: the only time that the two secrets are told. They do not print."""

    device_secret: str
    amqp_password: str

    @property
    def credential(self) -> str:
        """What the device says of itself over HTTP from now on."""
        return f"{self.device_id}.{self.device_secret}"

    def __repr__(self) -> str:
        return f"LinkedSession(device_id={self.device_id}, secrets hidden)"


class DeviceInfo(Struct, frozen=True, kw_only=True):
    """One of the user's devices. Times are ISO 8601; `seen_at` is None when it never came back after linking."""

    device_id: UUID
    name: str
    created_at: str
    seen_at: str | None = None
    current: bool = False


class HoldInfo(Struct, frozen=True, kw_only=True):
    """A commit of one of the user's devices that the guard holds: see `docs/protocol.md`. Paths are as they are."""

    hold_id: UUID
    workspace_id: UUID
    device_id: UUID
    device_name: str
    verdict: str
    held_at: str
    deleted: int
    rewritten: int
    to_follow: int = 0
    recent: int = 0
    deleted_paths: tuple[str, ...] = ()
    rewritten_paths: tuple[str, ...] = ()
    current: bool = False


class _Holds(Struct):
    holds: tuple[HoldInfo, ...]


class _Heads(Struct):
    workspaces: tuple[Head, ...]


class _Workspaces(Struct):
    workspaces: tuple[WorkspaceInfo, ...]


class _Devices(Struct):
    devices: tuple[DeviceInfo, ...]


class Stream(Generic[T]):
    """Records as they arrive: iterate once. What came before an error is as good as the caller can verify it.

    Attributes:
        head: Where the journal stands that the records lead to.
        count: How many records there are to come in all.

    Raises (while iterating):
        Unavailable: The stream broke off before its last record.
        Corrupt: A record is none of ours.
    """

    def __init__(self, head: Cursor, count: int, records: AsyncIterator[T]) -> None:
        self.head = head
        self.count = count
        self._records = records

    def __aiter__(self) -> AsyncIterator[T]:
        return self._records


class Service(Http):
    """The metadata server's calls. Use as `async with`, or `close()` it at the end; many calls may run at once.

    Every method may raise `Unavailable`, `Forbidden` (the device is revoked, or was never linked), `NotFound`, or
    `Refused` with the server's code.
    """

    async def ca(self) -> bytes | None:
        """PEM of the service's own certificate authority; None when it has none.

        Trusts whoever answers: the caller shows the fingerprint to the person before it is kept.
        """
        try:
            async with self.call("GET", "/v1/ca", ssl=False) as response:
                return await self.read_all(response, _MAX_JSON_SIZE_BYTES)
        except NotFound:
            return None

    async def link(self, *, email: str, password: str, device_name: str, platform: str) -> LinkedSession:
        """Make this a device of the account. Raises `Forbidden` with code `wrong_password`."""
        body = {"email": email, "password": password, "device_name": device_name, "platform": platform}
        return await self._json(LinkedSession, "POST", "/v1/link", json=body)

    async def session(self) -> Session:
        """Have the device's old broker connections closed, its queue repaired, and be told where things are."""
        return await self._json(Session, "POST", "/v1/session")

    async def heads(self) -> tuple[Head, ...]:
        """Where the journals of the user's workspaces stand."""
        return (await self._json(_Heads, "GET", "/v1/heads")).workspaces

    async def workspaces(self) -> tuple[WorkspaceInfo, ...]:
        """The workspaces that the user is a member of."""
        return (await self._json(_Workspaces, "GET", "/v1/workspaces")).workspaces

    async def make_workspace(self, name: str) -> WorkspaceInfo:
        """The user's own workspace of that name, made when there is none."""
        return await self._json(WorkspaceInfo, "POST", "/v1/workspaces", json={"name": name})

    async def devices(self) -> tuple[DeviceInfo, ...]:
        """The user's devices."""
        return (await self._json(_Devices, "GET", "/v1/devices")).devices

    async def revoke(self, device_id: UUID) -> None:
        """Cut a device of the user off, at once and for good. Its own: unlink."""
        async with self.call("DELETE", f"/v1/devices/{device_id}"):
            pass

    async def put_body(self, sha: bytes, body: bytes) -> None:
        """Stage the body of a commit that is too large for a message. `sha` is its SHA-256."""
        async with self.call("PUT", f"/v1/bodies/{sha.hex()}", data=io.BytesIO(body)):
            pass

    async def holds(self, workspace_id: UUID) -> tuple[HoldInfo, ...]:
        """What the guard holds of the user's devices in a workspace, the oldest first."""
        return (await self._json(_Holds, "GET", f"/v1/workspaces/{workspace_id}/holds")).holds

    async def accept_hold(self, workspace_id: UUID, hold_id: UUID, password: str | None = None) -> HoldInfo:
        """Let the held device do it. The held device itself has to bring the account's password.

        Raises:
            Forbidden: With code `wrong_password`.
            NotFound: It is not held any more, or the device has asked for something else since.
        """
        path = f"/v1/workspaces/{workspace_id}/holds/{hold_id}/accept"
        body = {} if password is None else {"password": password}
        return await self._json(HoldInfo, "POST", path, json=body)

    async def undo_hold(self, workspace_id: UUID, hold_id: UUID) -> HoldInfo:
        """Have the held device take it back. Raises `NotFound` as `accept_hold` does."""
        return await self._json(HoldInfo, "POST", f"/v1/workspaces/{workspace_id}/holds/{hold_id}/undo")

    async def release_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        """This device has taken it back."""
        async with self.call("DELETE", f"/v1/workspaces/{workspace_id}/holds/{hold_id}"):
            pass

    def changes(self, workspace_id: UUID, cursor: Cursor) -> AbstractAsyncContextManager[Stream[bytes]]:
        """The encoded journal entries after `cursor`, in order.

            async with service.changes(workspace_id, cursor) as changes:
                async for entry in changes: ...

        The entries prove themselves by the chain: those that came before the stream broke off may be kept. Raises
        `CursorUnknown` when the journal has no such cursor.
        """
        query = {"epoch": str(cursor.epoch), "after": str(cursor.seq), "chain": cursor.chain.hex()}
        return self._stream(bytes, "GET", f"/v1/workspaces/{workspace_id}/changes", params=query)

    def snapshot(self, workspace_id: UUID) -> AbstractAsyncContextManager[Stream[SnapshotNode]]:
        """The live nodes of one instant, parents first. All of them, or the caller throws them away."""
        return self._stream(decode_snapshot_node, "GET", f"/v1/workspaces/{workspace_id}/snapshot")

    def versions(
        self, workspace_id: UUID, node_ids: Sequence[UUID]
    ) -> AbstractAsyncContextManager[Stream[RetainedVersion]]:
        """All retained versions of at most 1,000 nodes, deleted ones' included. The stream's `head` means nothing."""
        if len(node_ids) > MAX_NODES_PER_VERSIONS_CALL:
            raise ValueError(f"at most {MAX_NODES_PER_VERSIONS_CALL} nodes a call")
        body = msgpack.packb([node_id.bytes for node_id in node_ids])
        path = f"/v1/workspaces/{workspace_id}/versions"
        return self._stream(decode_retained_version, "POST", path, data=body)

    def deleted(self, workspace_id: UUID) -> AbstractAsyncContextManager[Stream[DeletedNode]]:
        """The deleted nodes by which an old copy can be known, latest deletions first. The stream's `head` means nothing."""
        return self._stream(decode_deleted_node, "GET", f"/v1/workspaces/{workspace_id}/deleted")

    async def _json(self, kind: type[T], method: str, path: str, **options: Any) -> T:
        async with self.call(method, path, **options) as response:
            body = await self.read_all(response, _MAX_JSON_SIZE_BYTES)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"the server's answer to {method} {path} is not understood: {error}") from error

    @asynccontextmanager
    async def _stream(
        self, decode: Callable[[bytes], T], method: str, path: str, **options: Any
    ) -> AsyncIterator[Stream[T]]:
        async with self.call(method, path, **options) as response:
            objects = _objects(self.pieces(response))
            try:
                head = _stream_head(await anext(objects, None))
                yield Stream(head.head or _NOWHERE, head.count, _records(objects, head.count, decode))
            finally:
                await objects.aclose()


_NOWHERE: Final = Cursor(0, 0, bytes(32))


def _stream_head(first: object) -> StreamHead:
    if first is None:
        raise Unavailable("the stream ended before it began")
    try:
        return msgspec.convert(first, StreamHead)
    except msgspec.ValidationError as error:
        raise Corrupt(f"the stream's head is not understood: {error}") from error


async def _objects(pieces: AsyncIterator[bytes]) -> AsyncGenerator[object, None]:
    unpacker = msgpack.Unpacker(max_buffer_size=_MAX_RECORD_SIZE_BYTES)
    async for data in pieces:
        try:
            unpacker.feed(data)
            for value in unpacker:
                yield value
        except (ValueError, msgpack.UnpackException) as error:
            raise Corrupt(f"the stream is no MessagePack: {error}") from error


async def _records(
    objects: AsyncIterator[object], count: int, decode: Callable[[bytes], T]
) -> AsyncIterator[T]:
    for _ in range(count):
        record = await anext(objects, None)
        if record is None:
            raise Unavailable("the stream broke off before its last record")
        if not isinstance(record, bytes):
            raise Corrupt("a record of the stream is not one of ours")
        yield _decoded(decode, record)


def _decoded(decode: Callable[[bytes], T], record: bytes) -> T:
    try:
        return decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a record of the stream is not understood: {error}") from error
