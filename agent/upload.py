"""Send what the gateway lacks of new content, before it is committed: small files together, large ones one at a time."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from agent.chunk import read_chunk
from agent.errors import StoreFull
from agent.filesystem import Root
from agent.patience import Patience
from agent.plan import Change
from agent.replica import Replica
from agent.scan import Problem
from agent.transfer import Transfer
from agent.trees import Node
from broker.errors import HutchError, Retryable
from broker.model import Chunk, FullContent, Kind

log = structlog.get_logger()

SMALL_SIZE_BYTES: Final = 4 * 1024 * 1024
LEASE_S: Final = 6 * 3600.0
"""How long an upload is counted on before the gateway is asked again; its own lease is longer."""

_SENDING: Final = "\0upload"
_GROUP_FILES: Final = 1_000
_GROUP_SIZE_BYTES: Final = 32 * 1024 * 1024


class Uploader:
    """Uploads one folder's new content, in two lanes."""

    def __init__(
        self, replica: Replica, transfer: Transfer, hint: Callable[[str], None], may_run: asyncio.Event
    ) -> None:
        self._replica = replica
        self._transfer = transfer
        self._hint = hint
        self._may_run = may_run
        self._done: dict[bytes, float] = {}
        self._busy: set[bytes] = set()
        self._failing = False

    def is_ready(self, change: Change) -> bool:
        """Whether a change's content is where a commit may use it."""
        after = change.after
        if after is None or after.kind is not Kind.FILE or not change.fills or after.size == 0:
            return True
        when = self._done.get(after.digest)
        return when is not None and asyncio.get_running_loop().time() - when < LEASE_S

    def is_filling(self) -> bool:
        """Whether more small files are about to be ready, so that a commit gains by waiting for them."""
        return not self._failing and bool(self._wanted(small=True) or self._busy & self._small_digests())

    def forget(self) -> None:
        """The service misses chunks that were thought to be there: ask for everything again."""
        self._done.clear()
        self._replica.notify()

    async def run(self) -> None:
        """Upload whatever is planned. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lane(small=True), name="upload small")
            group.create_task(self._lane(small=False), name="upload large")

    async def _lane(self, *, small: bool) -> None:
        changed, patience = self._replica.listen(), Patience()
        while True:
            changed.clear()
            await self._may_run.wait()
            nodes = self._group(self._wanted(small=small), small=small)
            if not nodes:
                await changed.wait()
                continue
            self._busy.update(node.digest for node in nodes)
            try:
                await self._send(nodes)
                self._failing, patience = False, Patience()
                self._replica.problems.pop(_SENDING, None)
            except HutchError as error:
                self._failing = True
                self._report(error)
                log.info("upload.delayed", workspace_id=str(self._replica.workspace_id), error=str(error))
                await patience.wait()
            finally:
                self._busy.difference_update(node.digest for node in nodes)
                self._replica.notify()

    def _report(self, error: HutchError) -> None:
        """Show what only a person can mend. That the service is away shows in the state already."""
        if isinstance(error, StoreFull) or not isinstance(error, Retryable):
            self._replica.problems[_SENDING] = Problem("", error.code, str(error))

    # --- choosing

    def _wanted(self, *, small: bool) -> list[Node]:
        """New content that is neither sent nor being sent, each once."""
        wanted: dict[bytes, Node] = {}
        for change in self._replica.plan().commit:
            node = change.after
            if node is None or self.is_ready(change) or node.digest in self._busy:
                continue
            if (node.size <= SMALL_SIZE_BYTES) == small:
                wanted.setdefault(node.digest, node)
        return list(wanted.values())

    def _small_digests(self) -> set[bytes]:
        return {
            change.after.digest
            for change in self._replica.plan().commit
            if change.after is not None and change.after.size <= SMALL_SIZE_BYTES
        }

    def _group(self, nodes: list[Node], *, small: bool) -> list[Node]:
        """What goes in one round. What was saved last goes first: a person waits for that, and not for the bulk before it."""
        if not small:
            return sorted(nodes, key=lambda node: node.size)[:1]
        prints = self._replica.prints
        nodes = sorted(
            nodes, key=lambda node: -prints[node.node_id].ctime_ns if node.node_id in prints else 0
        )
        group: list[Node] = []
        total = 0
        for node in nodes[:_GROUP_FILES]:
            if group and total + node.size > _GROUP_SIZE_BYTES:
                break
            group.append(node)
            total += node.size
        return group

    # --- sending

    async def _send(self, nodes: list[Node]) -> None:
        replica = self._replica
        manifests = await replica.manifests(node.digest for node in nodes)
        nodes = [node for node in nodes if node.digest in manifests]
        hashes = list({chunk.hash for node in nodes for chunk in manifests[node.digest].chunks})
        missing = await self._transfer.missing(replica.workspace_id, hashes)
        stored: set[bytes] = set()
        if missing:
            stored = await self._transfer.upload(
                replica.workspace_id, self._readers(nodes, manifests, missing), lambda size: None
            )
        now = asyncio.get_running_loop().time()
        for node in nodes:
            if all(
                chunk.hash not in missing or chunk.hash in stored for chunk in manifests[node.digest].chunks
            ):
                self._done[node.digest] = now
            else:
                self._look_again(node)

    def _readers(
        self, nodes: list[Node], manifests: dict[bytes, FullContent], missing: set[bytes]
    ) -> Iterator[tuple[Chunk, Callable[[], bytes | None]]]:
        sent: set[bytes] = set()
        for node in nodes:
            offset = 0
            for chunk in manifests[node.digest].chunks:
                if chunk.hash in missing and chunk.hash not in sent:
                    sent.add(chunk.hash)
                    yield chunk, _Reader(self._replica, node, offset, chunk)
                offset += chunk.size

    def _look_again(self, node: Node) -> None:
        """The file does not hold any more what was read of it: it has changed since, or the disk lies."""
        path = self._replica.trees.local.path(node.node_id)
        if path is not None:
            self._hint(path.rpartition("/")[0])


class _Reader:
    """Reads one chunk of a file from wherever the file is by then."""

    def __init__(self, replica: Replica, node: Node, offset: int, chunk: Chunk) -> None:
        self._root: Root = replica.root
        self._path = replica.trees.local.path(node.node_id)
        self._offset = offset
        self._chunk = chunk

    def __call__(self) -> bytes | None:
        if self._path is None:
            return None
        with self._root.open(self._path) as fd:
            return read_chunk(fd, self._offset, self._chunk)
