"""Conflict copies: which there are, and what a person decides of them, carried out without losing anything.

Only what the journal has already is replaced or removed, so that it stays in the history; only what is as it was last seen,
and what no program has open. All goes by the same placing as what the journal brings: staged, intended, exchanged.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Final, Literal
from uuid import UUID

import structlog
from msgspec import Struct, structs

from agent.chunk import choose_cut, cut_file
from agent.fetch import Fetcher
from agent.filesystem import STAGE, Root, sync_fd
from agent.finish import in_thread
from agent.index import Batch
from agent.names import free_name, read_conflict_name
from agent.place import Staged
from agent.plan import Change
from agent.replica import Replica
from agent.stage import Source, Stager, stage_path
from agent.transfer import Transfer
from agent.trees import Node, replace
from broker.errors import NotFound, Refused
from broker.model import FullContent, Kind, manifest_digest

log = structlog.get_logger()

MAX_MERGED_SIZE_BYTES: Final = 1024 * 1024

Choice = Literal["mine", "theirs", "both", "merged"]


class Copy(Struct, frozen=True, kw_only=True):
    """A conflict copy, as people and scripts are told of it. Paths are relative to the folder, as the disk has them.

    Attributes:
        original: What has the name that the copy lost; None when nothing has.
        synced: Whether the service has the content of both, so that either may be replaced.
        base: The chunks (hexadecimal hash, size) of what both came from; None when this device did not make the copy, or
            there was nothing before.
    """

    path: str
    original: str | None
    device: str
    date: str
    kind: str
    size_bytes: int
    mtime_ns: int
    synced: bool
    node_id: UUID
    original_id: UUID | None
    version: int
    digest: str
    original_digest: str | None
    base: list[tuple[str, int]] | None = None


class Resolver:
    """Lists one folder's conflict copies, and does with them what a person says."""

    def __init__(
        self, replica: Replica, fetcher: Fetcher, transfer: Transfer, hint: Callable[[str], None]
    ) -> None:
        self._replica = replica
        self._fetcher = fetcher
        self._stager = Stager(replica.root, transfer, replica.workspace_id)
        self._hint = hint

    # --- looking

    def copies(self) -> list[Copy]:
        """All conflict copies in the folder, by path."""
        nodes = self._replica.trees.local.nodes.values()
        found = (self._describe(node) for node in nodes if "(conflicted copy of " in node.name)
        return sorted((copy for copy in found if copy is not None), key=lambda copy: copy.path)

    async def copy(self, path: str) -> Copy:
        """One conflict copy, with what it came from. Raises `NotFound`."""
        copy = self._describe(self._find(path))
        if copy is None:
            raise _no_copy(path)
        digest = self._replica.bases.get(copy.node_id)
        manifests = {} if digest is None else await self._replica.manifests([digest])
        base = manifests.get(digest) if digest is not None else None
        if base is None:
            return copy
        return structs.replace(copy, base=[(chunk.hash.hex(), chunk.size) for chunk in base.chunks])

    def _find(self, path: str) -> Node:
        node = self._replica.trees.local.find(path)
        if node is None or read_conflict_name(node.name) is None:
            raise _no_copy(path)
        return node

    def _describe(self, node: Node) -> Copy | None:
        local, says = self._replica.trees.local, read_conflict_name(node.name)
        path = local.path(node.node_id)
        if says is None or path is None:
            return None
        original = self._original(node)
        return Copy(
            path=path,
            original=None if original is None else local.path(original.node_id),
            device=says.device,
            date=says.date,
            kind=str(node.kind),
            size_bytes=node.size,
            mtime_ns=node.mtime_ns,
            synced=self._why_not(node) is None and (original is None or self._why_not(original) is None),
            node_id=node.node_id,
            original_id=None if original is None else original.node_id,
            version=self._version(node),
            digest=node.digest.hex(),
            original_digest=None if original is None else original.digest.hex(),
        )

    def _version(self, node: Node) -> int:
        remote = self._replica.trees.remote.get(node.node_id)
        return 0 if remote is None else remote.version

    def _original(self, copy: Node) -> Node | None:
        """What a copy was made of: where it was made here, by identity, even renamed since; else by its name."""
        trees = self._replica.trees
        for node_id, copy_id in trees.copies.items():
            if copy_id == copy.node_id and node_id in trees.local:
                return trees.local.nodes[node_id]
        says = read_conflict_name(copy.name)
        return None if says is None else trees.local.child(copy.parent_id, says.original)

    def _why_not(self, node: Node) -> str | None:
        """Why a node cannot be replaced or removed now; None when it can: the journal has it, as it is here."""
        replica, node_id = self._replica, node.node_id
        trees = replica.trees
        if node_id in replica.parked:
            return f"the service refuses it ({replica.parked[node_id].message})"
        if not replica.looked or replica.intent is not None:
            return "the folder is being looked at"
        in_flight = replica.in_flight is not None and node_id in replica.in_flight.sent
        if node_id in trees.dirty or node_id in trees.unread or node_id in replica.placing or in_flight:
            return "it is not synced yet"
        if node_id not in trees.remote or node_id in trees.all_ignored():
            return "the service does not have it"
        return None

    # --- acting

    async def resolve(
        self, path: str, choice: Choice, *, expected: tuple[str, str] | None = None, content: bytes = b""
    ) -> dict[str, str | None]:
        """Do what a person has decided of a conflict copy.

        Args:
            path: Of the copy.
            choice: `mine`: its content becomes that of the original, and the copy goes. `theirs`: the copy goes. `both`: it
                gets an ordinary name. `merged`: `content` becomes that of the original, and the copy goes.
            expected: The digests of copy and original that the person has seen; None: whatever they are.
            content: For `merged`.

        Returns:
            `path`, where what was kept stands now, and `copy`, as it was.

        Raises:
            NotFound: There is no such copy, or no original.
            Refused: Something is not synced yet, open in a program, or not as it was seen: nothing is lost, and nothing
                done but what the message says.
        """
        copy = self._find(path)
        original = self._original(copy)
        if choice == "both" or (choice == "mine" and original is None):
            return {"path": await self._rename(copy, path, choice), "copy": path}
        if original is None:
            raise NotFound(f"{path} has no original here any more: `keep mine` gives it its name back")
        if expected is not None and expected != (copy.digest.hex(), original.digest.hex()):
            raise Refused("the files have changed since you were asked: look again", "changed")
        for node in (copy, original):
            await self._check(node)
        if choice == "merged":
            await self._replace(original, content=content)
        elif choice == "mine" and copy.content != original.content:
            await self._replace(original, copy=copy)
        await self._remove(copy)
        log.info("conflict.resolved", workspace_id=str(self._replica.workspace_id), choice=choice)
        return {"path": self._replica.trees.local.path(original.node_id), "copy": path}

    async def _check(self, node: Node) -> None:
        """See that a file may be replaced or removed."""
        path = self._replica.trees.local.path(node.node_id) or node.name
        if node.kind is not Kind.FILE:
            raise Refused(f"{path} is no file: move it yourself, or `keep both`", "no_file")
        if (why := self._why_not(node)) is not None:
            raise Refused(f"{path} cannot be replaced now: {why}; `hutch wait`, then try again", "not_synced")
        if await in_thread(self._replica.root.is_open_for_writing, path):
            raise Refused(f"a program has {path} open: close it, and try again", "open")

    async def _rename(self, copy: Node, path: str, choice: Choice) -> str:
        """Give a copy an ordinary name, never over anything. The next look finds it there, by its inode."""
        replica = self._replica
        says = read_conflict_name(copy.name)
        assert says is not None
        head = path.rpartition("/")[0]
        refused: set[str] = set()

        def is_free(name: str) -> bool:
            trees = (replica.trees.local, replica.trees.remote)
            return name not in refused and all(tree.child(copy.parent_id, name) is None for tree in trees)

        async with replica.disk:
            seen = replica.prints.get(copy.node_id)
            now = await in_thread(replica.root.look, path)
            if seen is None or now is None or (now.dev, now.ino) != (seen.dev, seen.ino):
                self._hint(head)
                raise _changed(path)
            while True:
                # With no original its own name is free, unless it has come back in this very moment.
                name = says.original if choice == "mine" else free_name(says.original, is_free)
                target = f"{head}/{name}" if head else name
                try:
                    await in_thread(replica.root.rename, path, target)
                    break
                except FileExistsError:
                    if choice == "mine":
                        raise Refused(f"{target} has come back: look again", "changed") from None
                    refused.add(name)
            await in_thread(replica.root.sync, [head])
        self._hint(head)
        return target

    async def _replace(self, original: Node, *, copy: Node | None = None, content: bytes = b"") -> None:
        """Give the original other content; what it held stays in the history."""
        replica, node_id = self._replica, original.node_id
        with self._fetcher.reserve(node_id) as is_mine:
            if not is_mine:
                raise _changed(original.name)
            with contextlib.suppress(FileExistsError):
                await in_thread(replica.root.make_directory, STAGE)
            if copy is None:
                after, staged = await self._stage_content(original, content)
            else:
                after, staged = await self._stage_copy(original, copy)
            done = False
            try:
                async with replica.disk:
                    is_same = replica.trees.local.get(node_id) is original and self._why_not(original) is None
                    if is_same:
                        change = Change(original, after)
                        done = await self._fetcher.place_decided(change, staged)
            finally:
                if not done and replica.intent is None:
                    await in_thread(self._stager.discard, [staged])
        now = replica.trees.local.get(node_id)
        if not done or now is None or now.content != after.content:
            raise _changed(original.name)

    async def _stage_copy(self, original: Node, copy: Node) -> tuple[Node, Staged]:
        replica = self._replica
        after = replace(original, digest=copy.digest, size=copy.size, mtime_ns=copy.mtime_ns)
        manifests = await replica.manifests([copy.digest])
        path = replica.trees.local.path(copy.node_id)
        if copy.digest not in manifests or path is None:
            raise _changed(copy.name)
        source = Source(path, manifests[copy.digest])
        staged, lost = await self._stager.stage(
            [Change(original, after)], manifests, {original.node_id: source}, lambda size: None
        )
        if lost or original.node_id not in staged:
            raise _changed(copy.name)
        return after, staged[original.node_id]

    async def _stage_content(self, original: Node, content: bytes) -> tuple[Node, Staged]:
        if len(content) > MAX_MERGED_SIZE_BYTES:
            raise Refused("that is too large to be merged", "too_large")
        manifest, staged = await in_thread(_write_staged, self._replica.root, original, content)
        digest, batch = manifest_digest(manifest.chunks), Batch()
        batch.manifests[digest] = manifest
        await self._replica.write(batch)
        return replace(original, digest=digest, size=len(content), mtime_ns=staged.look.mtime_ns), staged

    async def _remove(self, copy: Node) -> None:
        """Let a copy go; its content stays in the history."""
        replica = self._replica
        with self._fetcher.reserve(copy.node_id) as is_mine:
            done = False
            async with replica.disk:
                is_same = replica.trees.local.get(copy.node_id) is copy and self._why_not(copy) is None
                if is_mine and is_same:
                    done = await self._fetcher.place_decided(Change(copy, None), None)
        if not done or copy.node_id in replica.trees.local:
            raise Refused(f"{copy.name} has changed meanwhile, and was kept", "changed")


def _no_copy(path: str) -> NotFound:
    return NotFound(f"{path} is no conflict copy: `hutch conflicts` lists them")


def _changed(path: str) -> Refused:
    return Refused(f"{path} is changing just now: nothing was done; `hutch wait`, then try again", "changed")


def _write_staged(root: Root, node: Node, content: bytes) -> tuple[FullContent, Staged]:
    """Write new content to the stage, durably, with the node's mode. Blocks."""
    path = stage_path(node)
    with contextlib.suppress(FileNotFoundError):
        root.remove_file(path)
    with root.parent(path) as (fd, name):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=fd)
    try:
        with os.fdopen(os.dup(file), "wb") as stream:
            stream.write(content)
        os.fchmod(file, node.mode)
        sync_fd(file)
        cut = choose_cut(len(content))
        chunks, _ = cut_file(file, cut=cut, cancelled=lambda: False)
    finally:
        os.close(file)
    look = root.look(path)
    if look is None:
        raise _changed(node.name)
    return FullContent(cut, chunks), Staged(path, look)
