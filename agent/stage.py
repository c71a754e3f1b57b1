"""Bring new content to the stage, `.hutch/stage`: from the old file where it has it, from the gateway where not."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from uuid import UUID

from agent.chunk import read_chunk
from agent.filesystem import STAGE, SYNC_ALL_FROM, Root, sync_everything, sync_fd
from agent.finish import in_thread
from agent.place import Staged
from agent.plan import Change
from agent.transfer import Transfer
from agent.trees import Node
from agent.xattrs import write
from broker.errors import Corrupt
from broker.model import MAX_CHUNK_SIZE_BYTES, Chunk, FullContent, Kind

_ZEROS: Final = bytes(MAX_CHUNK_SIZE_BYTES)

Spot = tuple[str, int]  # a stage path, and an offset in it


class Source:
    """Where a file's content may lie on this device already: a path, and the manifest of what it holds."""

    def __init__(self, path: str, content: FullContent) -> None:
        self.path = path
        self.content = content


class Stager:
    """Stages the content of changes. `stage` may run for several sets of nodes at once."""

    def __init__(self, root: Root, transfer: Transfer, workspace_id: UUID) -> None:
        self._root = root
        self._transfer = transfer
        self._workspace_id = workspace_id

    async def stage(
        self,
        changes: Iterable[Change],
        manifests: dict[bytes, FullContent],
        sources: dict[UUID, Source],
        on_bytes: Callable[[int], None],
    ) -> tuple[dict[UUID, Staged], set[UUID]]:
        """Bring the new content of files and links to the stage, durably.

        Args:
            changes: Those that fill something (`Change.fills`) and are no directories.
            manifests: Of every new content, by digest.
            sources: For some nodes, a local file that shares chunks with the new content.
            on_bytes: Told of each number of bytes that has arrived.

        Returns:
            What lies ready, by node; and the nodes whose content cannot be had now.

        Raises:
            OSError: The disk is full, or fails.
            Unavailable: The gateway cannot be reached; what has arrived is thrown away.
        """
        nodes = [change.after for change in changes if change.after is not None]
        files = [node for node in nodes if node.kind is Kind.FILE]
        try:
            needed = await in_thread(self._begin, nodes, manifests, sources)
            absent = await self._fetch(needed, on_bytes)
            lost = {
                node.node_id
                for node in files
                if absent and any(chunk.hash in absent for chunk in manifests[node.digest].chunks)
            }
            kept = [node for node in nodes if node.node_id not in lost]
            if lost:
                await in_thread(self._discard, [node for node in nodes if node.node_id in lost])
            return await in_thread(self._finish, kept), lost
        except BaseException:
            await in_thread(self._discard, nodes)
            raise

    def discard(self, staged: Iterable[Staged]) -> None:
        """Throw away what is not needed any more, unless a person's own object lies there by now. Blocks."""
        for item in staged:
            look = self._root.look(item.path)
            if look is not None and look.ino == item.look.ino:
                self._root.remove_file(item.path)

    # --- making room, and what this device has itself

    def _begin(
        self, nodes: list[Node], manifests: dict[bytes, FullContent], sources: dict[UUID, Source]
    ) -> dict[Chunk, list[Spot]]:
        needed: dict[Chunk, list[Spot]] = {}
        for node in nodes:
            path = stage_path(node)
            with contextlib.suppress(FileNotFoundError):
                self._root.remove_file(path)
            if node.kind is Kind.SYMLINK:
                self._root.make_symlink(path, node.target, node.mtime_ns)
            else:
                self._make_file(path, node.size)
                self._fill(node, path, manifests[node.digest], sources.get(node.node_id), needed)
        return needed

    def _make_file(self, path: str, size: int) -> None:
        with self._root.parent(path) as (fd, name):
            file = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd
            )
        try:
            os.ftruncate(file, size)
        finally:
            os.close(file)

    def _fill(
        self,
        node: Node,
        path: str,
        content: FullContent,
        source: Source | None,
        needed: dict[Chunk, list[Spot]],
    ) -> None:
        total = sum(chunk.size for chunk in content.chunks)
        if total != node.size:
            raise Corrupt("a manifest does not add up to its file's size")
        have = _offsets(source.content) if source is not None else {}
        with contextlib.ExitStack() as stack:
            old = self._open_source(stack, source)
            out: int | None = None
            offset = 0
            for chunk in content.chunks:
                data = None
                if old is not None and chunk in have:
                    with contextlib.suppress(OSError):
                        data = read_chunk(old, have[chunk], chunk)
                if data is None:
                    needed.setdefault(chunk, []).append((path, offset))
                elif not _is_hole(data):
                    if out is None:
                        out = stack.enter_context(self._writing(path))
                    _write_all(out, data, offset)
                offset += chunk.size

    def _open_source(self, stack: contextlib.ExitStack, source: Source | None) -> int | None:
        if source is None:
            return None
        try:
            return stack.enter_context(self._root.open(source.path))
        except OSError:
            return None

    # --- what it has not

    async def _fetch(self, needed: dict[Chunk, list[Spot]], on_bytes: Callable[[int], None]) -> set[bytes]:
        if not needed:
            return set()

        arrived: set[Chunk] = set()

        def sink(chunk: Chunk, data: bytes) -> None:
            for path, offset in () if _is_hole(data) else needed[chunk]:
                with self._writing(path) as file:
                    _write_all(file, data, offset)
            arrived.add(chunk)

        absent = await self._transfer.download(self._workspace_id, list(needed), sink, on_bytes)
        # Where nothing was written there is a hole: only what has arrived counts, whatever was said of the rest.
        return absent | {chunk.hash for chunk in needed.keys() - arrived}

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[int]:
        with self._root.parent(path) as (fd, name):
            file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            yield file
        finally:
            os.close(file)

    # --- as it shall look

    def _finish(self, nodes: list[Node]) -> dict[UUID, Staged]:
        staged = {}
        all_at_once = len(nodes) >= SYNC_ALL_FROM
        for node in nodes:
            path = stage_path(node)
            lacking: tuple[str, ...] = ()
            if node.kind is Kind.FILE:
                with self._writing(path) as file:
                    lacking = write(file, (), node.xattrs)
                    os.utime(file, ns=(node.mtime_ns, node.mtime_ns))
                    os.fchmod(file, node.mode)
                    if not all_at_once:
                        sync_fd(file)
            look = self._root.look(path)
            if look is not None:
                staged[node.node_id] = Staged(path, look, lacking)
        if all_at_once:
            sync_everything(self._root.fd)
        return staged

    def _discard(self, nodes: list[Node]) -> None:
        for node in nodes:
            with contextlib.suppress(OSError):
                self._root.remove_file(stage_path(node))


def stage_path(node: Node) -> str:
    """Where a node's new content is staged."""
    return f"{STAGE}/{node.node_id.hex}.in"


def _offsets(content: FullContent) -> dict[Chunk, int]:
    offsets: dict[Chunk, int] = {}
    at = 0
    for chunk in content.chunks:
        offsets.setdefault(chunk, at)
        at += chunk.size
    return offsets


def _is_hole(data: bytes) -> bool:
    """Whether these bytes are there already: a staged file begins as one hole of its full size, which takes no room."""
    return not data[0] and not data[-1] and data == _ZEROS[: len(data)]


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written
