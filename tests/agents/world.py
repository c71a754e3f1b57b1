"""A service in memory, and real agents' folders on it: the store's twin with the real decision, real files, real SQLite.

Messages are delivered by a task per device, so that a test can hold them back, drop them, or cut a device off.
"""

import asyncio
import contextlib
import hashlib
import os
import pickle
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import msgspec

from agent.folder import Folder
from agent.home import Credential, FolderRecord
from agent.index import Index
from agent.marker import Marker, read_marker, write_marker
from agent.service import HoldInfo, Stream
from broker.errors import CursorUnknown, Unavailable
from broker.messages import (
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    DeletedNode,
    RetainedVersion,
    SnapshotNode,
    decode_content,
    decode_inbox,
    decode_request,
    decode_xattrs,
)
from broker.model import Chunk, Cursor, Kind, first_chain
from metadata.memory import MemoryStore
from metadata.state import Accepted, Refused, Replayed, Submission
from sync_workers.decide import decide

T = TypeVar("T")

Inbox = ChangeNotice | CommitRefused | CommitAccepted


class World:
    """One user's workspace, and the devices on it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.store = MemoryStore()
        self.user_id = uuid4()
        self.workspace_id = uuid4()
        self.chunks: dict[bytes, bytes] = {}
        self.devices: dict[str, Device] = {}

    @classmethod
    async def make(cls, base: Path, quota_bytes: int | None = None) -> "World":
        """A world with nobody in it yet."""
        world = cls(base)
        await world.store.add_user(world.user_id, quota_bytes)
        await world.store.add_workspace(world.workspace_id, world.user_id)
        return world

    async def device(self, name: str) -> "Device":
        """Link a device, with an empty folder."""
        device = Device(self, name)
        self.devices[name] = device
        await self.store.add_device(device.device_id, self.user_id, f"device.{name}")
        return device

    async def settle(self, *devices: "Device", timeout_s: float = 60) -> None:
        """Wait until the devices (all, when none is named) have looked afresh and agree with the journal."""
        chosen = devices or tuple(self.devices.values())
        async with asyncio.timeout(timeout_s):
            for device in chosen:
                await device.folder.looker.look_at_all()
            await self._until(lambda: all(device.is_settled(self.head) for device in chosen), chosen)

    async def _until(self, condition: Callable[[], bool], devices: Iterable["Device"]) -> None:
        """Wait for a condition of the devices' replicas; each change of one of them is a reason to ask again."""
        replicas = [device.folder.replica for device in devices]
        events = [replica.listen() for replica in replicas]
        try:
            while not condition():
                waits = [asyncio.create_task(event.wait()) for event in events]
                await asyncio.wait(waits, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                for task, event in zip(waits, events, strict=True):
                    task.cancel()
                    event.clear()
        finally:
            for replica, event in zip(replicas, events, strict=True):
                replica.unlisten(event)

    @property
    def head(self) -> Cursor:
        """Where the journal stands."""
        return self.store.workspaces[self.workspace_id].head

    def backup(self) -> bytes:
        """What the service holds now."""
        return pickle.dumps(self.store)

    def restore(self, backup: bytes, *, new_epoch: bool = True) -> None:
        """Put a backup in place, under a new epoch as it should be."""
        self.store = pickle.loads(backup)  # our own bytes
        workspace = self.store.workspaces[self.workspace_id]
        self.store.workspaces[self.workspace_id] = msgspec.structs.replace(
            workspace, epoch=workspace.epoch + int(new_epoch)
        )

    async def commit(self, device_id: UUID, body: bytes) -> None:
        """What a sync worker does with a request."""
        request = decode_request(body)
        result = await self.store.commit_batch([Submission(device_id=device_id, request=request)], decide)
        outcome = result.outcomes[0]
        message: Inbox
        match outcome:
            case Accepted(head=head, entry=entry):
                message = ChangeNotice(workspace_id=self.workspace_id, head=head, entries=(entry,))
                for device in self.devices.values():
                    device.inbox.put_nowait(message)
            case Replayed(at=Cursor() as at, entry=entry):
                self.device_of(device_id).inbox.put_nowait(
                    CommitAccepted(
                        workspace_id=self.workspace_id,
                        incarnation=request.incarnation,
                        number=request.number,
                        seq=at.seq,
                        head=self.head,
                    )
                )
            case Refused(refusal=refusal):
                self.device_of(device_id).inbox.put_nowait(refusal)
            case Replayed(refusal=bytes() as refusal_bytes):
                refused = decode_inbox(refusal_bytes)
                assert isinstance(refused, CommitRefused)
                self.device_of(device_id).inbox.put_nowait(refused)
            case _:
                raise AssertionError(outcome)

    def device_of(self, device_id: UUID) -> "Device":
        """The device of that id."""
        return next(device for device in self.devices.values() if device.device_id == device_id)


class Device:
    """One device: its folder, its database, and its line to the service."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.device_id = uuid4()
        self.path = world.base / name
        self.path.mkdir()
        self.home = world.base / f"{name}.home"
        self.home.mkdir()
        self.inbox: asyncio.Queue[Inbox] = asyncio.Queue()
        self.online = asyncio.Event()
        self.online.set()
        self.may_run = asyncio.Event()
        self.may_run.set()
        self._task: asyncio.Task[None] | None = None
        self._folder: Folder | None = None
        self._is_added = False  # a folder gets its mark when it is added, not at each start

    @property
    def folder(self) -> Folder:
        """The folder, while the agent runs."""
        assert self._folder is not None
        return self._folder

    def is_settled(self, head: Cursor) -> bool:
        """Whether it has nothing to do and knows the whole journal."""
        self.check()
        return self.inbox.empty() and self.folder.is_settled and self.folder.replica.cursor == head

    def check(self) -> None:
        """Raise what has ended the agent, if anything has."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def start(self) -> None:
        """Run the agent."""
        if not self._is_added and read_marker(self.path) is None:
            write_marker(self.path, Marker(workspace_id=self.world.workspace_id, device_id=self.device_id))
        self._is_added = True
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(ready), name=f"agent {self.name}")
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([self._task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self.check()

    async def stop(self) -> None:
        """Stop it, as a crash would where it is: at whatever await it has reached."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self, ready: asyncio.Event) -> None:
        index = await asyncio.to_thread(Index, self.home / "index.sqlite")
        line = Line(self)
        try:
            self._folder = await Folder.open(
                FolderRecord(folder=str(self.path), workspace_id=self.world.workspace_id, name="home"),
                self._credential(),
                index,
                transfer=line,  # type: ignore[arg-type]
                service=line,  # type: ignore[arg-type]
                publisher=line,
                may_run=self.may_run,
            )
            self._folder.compare_head(self.world.head)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._folder.run())
                group.create_task(self._listen(self._folder))
                ready.set()
        finally:
            await index.close()

    async def _listen(self, folder: Folder) -> None:
        while True:
            message = await self.inbox.get()
            await self.online.wait()
            await folder.take(message)

    def _credential(self) -> Credential:
        return Credential(
            device_id=self.device_id,
            device_secret="",
            user_id=self.world.user_id,
            email="",
            device_name=self.name,
            metadata_url="",
            gateway_url="",
            amqp_url="",
            amqp_password="",
            queue="",
        )

    # --- a person's hands

    def write(self, path: str, content: bytes | str) -> None:
        """Save a file, with the directories that it needs."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return (self.path / path).read_bytes()

    def tree(self) -> dict[str, tuple[object, ...]]:
        """All that is in the folder: kind, mode, time and content by path."""
        found: dict[str, tuple[object, ...]] = {}
        for directory, names, files in os.walk(self.path):
            here = Path(directory)
            if here == self.path:
                names.remove(".hutch")
            for name in [*names, *files]:
                path = here / name
                found[str(path.relative_to(self.path))] = describe(path)
            names[:] = [name for name in names if not (here / name).is_symlink()]
        return found

    def contents(self) -> set[str]:
        """The SHA-256 of every file."""
        return {str(entry[3]) for entry in self.tree().values() if entry[0] == "file"}

    def stage(self) -> list[str]:
        """What lies in the stage."""
        return sorted(os.listdir(self.path / ".hutch" / "stage"))


def describe(path: Path) -> tuple[object, ...]:
    """What one path is, as far as it is synced."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return ("symlink", os.readlink(path))
    mode = status.st_mode & 0o777
    if stat.S_ISDIR(status.st_mode):
        return ("directory", mode)
    return ("file", mode, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())


class Line:
    """A device's publisher, transfer and metadata service, in memory. Fails while the device is offline."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.world = device.world

    def _check(self) -> None:
        if not self.device.online.is_set():
            raise Unavailable("offline")

    # publisher

    async def __aenter__(self) -> "Line":
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def publish(
        self, exchange: str, routing_key: str, body: bytes, *, timeout_s: float = 30, headers: object = None
    ) -> None:
        await asyncio.sleep(0)
        self._check()
        await self.world.commit(self.device.device_id, body)

    # transfer

    async def missing(self, workspace_id: UUID, hashes: Sequence[bytes]) -> set[bytes]:
        await asyncio.sleep(0)
        self._check()
        store = self.world.store
        usable = {hash_ for _, hash_ in store.proofs | store.workspace_chunks}
        return {hash_ for hash_ in hashes if hash_ not in usable}

    async def upload(
        self,
        workspace_id: UUID,
        chunks: Iterable[tuple[Chunk, Callable[[], bytes | None]]],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        stored = set()
        for chunk, reader in chunks:
            self._check()
            try:
                data = await asyncio.to_thread(reader)
            except OSError:
                continue
            if data is not None:
                self.world.chunks[chunk.hash] = data
                await self.world.store.add_chunk(chunk.hash, chunk.size)
                await self.world.store.prove(self.world.user_id, chunk.hash)
                stored.add(chunk.hash)
        return stored

    async def download(
        self,
        workspace_id: UUID,
        chunks: Sequence[Chunk],
        sink: Callable[[Chunk, bytes], None],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        absent = set()
        for chunk in chunks:
            self._check()
            data = self.world.chunks.get(chunk.hash)
            if data is None:
                absent.add(chunk.hash)
            else:
                await asyncio.to_thread(sink, chunk, data)
        return absent

    # metadata server

    async def put_body(self, sha: bytes, body: bytes) -> None:
        self._check()
        await self.world.store.stage(self.device.device_id, sha, body)

    async def holds(self, workspace_id: UUID) -> tuple[HoldInfo, ...]:
        await asyncio.sleep(0)
        self._check()
        store = self.world.store
        return tuple(
            HoldInfo(
                hold_id=new.hold_id,
                workspace_id=workspace_id,
                device_id=device_id,
                device_name="",
                verdict=store.holds[workspace_id, device_id].verdict,
                held_at="",
                deleted=new.deleted,
                rewritten=new.rewritten,
                to_follow=new.to_follow,
                current=device_id == self.device.device_id,
            )
            for device_id, new in (await store.list_holds(workspace_id)).items()
        )

    async def release_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        self._check()
        await self.world.store.release_hold(hold_id, self.device.device_id)

    @asynccontextmanager
    async def changes(self, workspace_id: UUID, cursor: Cursor) -> AsyncIterator[Stream[bytes]]:
        await asyncio.sleep(0)
        self._check()
        journal = self.world.store.journal[workspace_id]
        known = first_chain(workspace_id) if cursor.seq == 0 else None
        if 0 < cursor.seq <= len(journal):
            known = journal[cursor.seq - 1][1]
        if known != cursor.chain or cursor.epoch != self.world.head.epoch:
            raise CursorUnknown("no such entry")
        entries = [entry for entry, _ in journal[cursor.seq :]]
        yield Stream(self.world.head, len(entries), _stream(entries))

    @asynccontextmanager
    async def snapshot(self, workspace_id: UUID) -> AsyncIterator[Stream[SnapshotNode]]:
        await asyncio.sleep(0)
        self._check()
        nodes = [
            SnapshotNode(
                node_id=node.node_id,
                parent_id=node.parent_id,
                name=node.name,
                kind=node.kind,
                version=node.version,
                mode=node.mode,
                mtime_ns=node.mtime_ns,
                target=node.target or "",
                content=decode_content(
                    await self.world.store.manifest(workspace_id, node.node_id, node.content_version or 0)
                )
                if node.kind is Kind.FILE
                else None,
                content_version=node.content_version or 0,
                xattrs=decode_xattrs(node.xattrs) or msgspec.UNSET,
            )
            for node in self.world.store.nodes[workspace_id].values()
            if not node.deleted
        ]
        yield Stream(self.world.head, len(nodes), _stream(nodes))

    @asynccontextmanager
    async def versions(
        self, workspace_id: UUID, node_ids: Sequence[UUID]
    ) -> AsyncIterator[Stream[RetainedVersion]]:
        self._check()
        found = [
            RetainedVersion(node_id=v.node_id, version=v.version, digest=v.digest, content=v.manifest)
            for v in self.world.store.versions.values()
            if v.workspace_id == workspace_id and v.node_id in node_ids
        ]
        yield Stream(self.world.head, len(found), _stream(found))

    @asynccontextmanager
    async def deleted(self, workspace_id: UUID) -> AsyncIterator[Stream[DeletedNode]]:
        self._check()
        kept = {version.node_id for version in self.world.store.versions.values()}
        nodes = [
            DeletedNode(
                node_id=node.node_id,
                parent_id=node.parent_id,
                name=node.name,
                kind=node.kind,
                version=node.version,
                target=node.target or "",
            )
            for node in self.world.store.nodes[workspace_id].values()
            if node.deleted and (node.kind is not Kind.FILE or node.node_id in kept)
        ]
        yield Stream(self.world.head, len(nodes), _stream(nodes))


async def _stream(items: Sequence[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
