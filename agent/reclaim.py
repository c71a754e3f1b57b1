"""Know old copies of deleted files for what they are, when the merge base is not to be trusted.

A device that has lost its database, or was linked anew to a folder of old, finds files that the journal does not have.
They are new; or they were deleted by somebody meanwhile, and must not come back. The bytes tell: what equals a kept
version of the node that stood at that path is that version, and its deletion is then merged as any other.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from agent.chunk import matches
from agent.index import Batch, Print
from agent.patience import Patience
from agent.replica import Replica
from agent.service import MAX_NODES_PER_VERSIONS_CALL, Service
from agent.trees import Node, Tree, replace
from broker.errors import HutchError, NotFound
from broker.messages import DeletedNode, decode_content
from broker.model import ROOT, FullContent, Kind, manifest_digest

log = structlog.get_logger()

_COLUMN: Final = "unclaimed"


class Claim(Struct, frozen=True):
    """A local node of which nobody else knows, and the deleted nodes that stood at its path, the latest first."""

    local: Node
    candidates: tuple[DeletedNode, ...]


def find_claims(local: Tree, remote: Tree, deleted: Iterable[DeletedNode]) -> list[Claim]:
    """Match local nodes that the journal does not have to deleted ones by path, parents first.

    A path leads through whatever directories have borne its names, live or deleted: any of them may have held the
    node. What stands at the path of a live node is not looked at: it is that node, or in conflict with it.
    """
    by_place: dict[tuple[UUID, str], list[DeletedNode]] = {}
    for dead in deleted:
        by_place.setdefault((dead.parent_id, dead.name), []).append(dead)
    claims: list[Claim] = []
    stack: list[tuple[UUID, tuple[UUID, ...]]] = [(ROOT, (ROOT,))] if by_place else []
    while stack:
        parent_id, ancestors = stack.pop()
        for node in local.children(parent_id):
            live = [twin for each in ancestors if (twin := remote.child(each, node.name)) is not None]
            gone = [
                dead
                for each in ancestors
                for dead in by_place.get((each, node.name), ())
                if dead.kind is node.kind and dead.node_id not in local and dead.node_id not in remote
            ]
            gone.sort(key=lambda dead: -dead.version)
            if gone and not live and node.node_id not in remote:
                claims.append(Claim(node, tuple(gone)))
            if node.kind is Kind.DIRECTORY:
                ids = {node.node_id, *(twin.node_id for twin in live), *(dead.node_id for dead in gone)}
                stack.append((node.node_id, tuple(sorted(ids, key=lambda each: each.int))))
    return claims


class Reclaimer:
    """Asks, once for each untrusted merge base, what the unknown files of a folder may have been."""

    def __init__(self, replica: Replica, service: Service) -> None:
        self._replica = replica
        self._service = service

    async def run(self) -> None:
        """Settle the question whenever it is open: until then nothing is told to the journal. Runs until cancelled."""
        changed, patience = self._replica.listen(), Patience()
        while True:
            changed.clear()
            if not self._is_due():
                await changed.wait()
                continue
            try:
                await self._reclaim()
                patience = Patience()
            except HutchError as error:
                log.info("changes.delayed", workspace_id=str(self._replica.workspace_id), error=str(error))
                await patience.wait()

    def _is_due(self) -> bool:
        replica = self._replica
        if not (replica.unclaimed and replica.looked) or replica.cursor is None:
            return False
        plan = replica.plan()
        return not (plan.adoptions or plan.asides)  # these have to do with live nodes, and come first

    async def _reclaim(self) -> None:
        replica = self._replica
        deleted = await self._ask_deleted() if self._has_unknown() else []
        claims = find_claims(replica.trees.local, replica.trees.remote, deleted)
        files = [dead.node_id for c in claims if c.local.kind is Kind.FILE for dead in c.candidates]
        versions = await self._ask_versions(files)
        async with replica.disk:
            batch = Batch()
            await self._decide(claims, versions, batch)
            batch.columns[_COLUMN] = 0
            replica.unclaimed = False
            await replica.write(batch)
        log.info("base.settled", workspace_id=str(replica.workspace_id), nodes=len(batch.synced))

    def _has_unknown(self) -> bool:
        trees = self._replica.trees
        return any(node_id not in trees.remote for node_id in trees.local.nodes)

    async def _ask_deleted(self) -> list[DeletedNode]:
        try:
            async with self._service.deleted(self._replica.workspace_id) as stream:
                return [node async for node in stream]
        except NotFound:
            return []  # a server from before this question: what it cannot tell of is taken for new, as it always was

    async def _ask_versions(self, node_ids: Sequence[UUID]) -> dict[UUID, list[FullContent]]:
        found: dict[UUID, list[FullContent]] = {}
        for at in range(0, len(node_ids), MAX_NODES_PER_VERSIONS_CALL):
            page = node_ids[at : at + MAX_NODES_PER_VERSIONS_CALL]
            async with self._service.versions(self._replica.workspace_id, page) as stream:
                async for version in stream:
                    found.setdefault(version.node_id, []).append(decode_content(version.content))
        return found

    # --- what is what

    async def _decide(
        self, claims: Iterable[Claim], versions: dict[UUID, list[FullContent]], batch: Batch
    ) -> None:
        """Give each local node that is known again the id that it had, and the merge base that it was."""
        trees, taken = self._replica.trees, set[UUID]()
        for claim in claims:
            node = batch.local.get(claim.local.node_id, trees.local.get(claim.local.node_id))
            if node is None or not _is_same_place(node, claim.local, batch):
                continue
            for dead in claim.candidates:
                if dead.node_id in taken or dead.node_id in trees.local or dead.node_id in trees.remote:
                    continue  # revived since the question was asked: it is a live node's matter now
                known = await self._as_it_was(node, dead, versions.get(dead.node_id, []), batch)
                if known is not None:
                    taken.add(dead.node_id)
                    self._take_id(node, known, dead.version, batch)
                    break

    async def _as_it_was(
        self, node: Node, dead: DeletedNode, contents: list[FullContent], batch: Batch
    ) -> Node | None:
        """The local node under the id of the deleted one, if it holds what that one has held; else None."""
        if node.kind is Kind.DIRECTORY or (node.kind is Kind.SYMLINK and node.target == dead.target):
            return replace(node, node_id=dead.node_id)
        path, look = self._replica.trees.local.path(node.node_id), self._replica.prints.get(node.node_id)
        if node.kind is not Kind.FILE or path is None or look is None:
            return None
        content = await asyncio.to_thread(self._match, path, look, contents)
        if content is None:
            return None
        digest = manifest_digest(content.chunks)
        batch.manifests[digest] = content
        return replace(node, node_id=dead.node_id, digest=digest)

    def _match(self, path: str, look: Print, contents: list[FullContent]) -> FullContent | None:
        root = self._replica.root
        try:
            now = root.look(path)
            if now is None or not now.same_content(look):
                return None
            with root.open(path) as fd:
                return next(
                    (content for content in _sized(contents, look) if matches(fd, content.chunks)), None
                )
        except OSError:
            return None

    def _take_id(self, node: Node, known: Node, version: int, batch: Batch) -> None:
        replica, old_id, new_id = self._replica, node.node_id, known.node_id
        batch.local[old_id], batch.local[new_id] = None, known
        batch.prints[new_id], batch.prints[old_id] = replica.prints.get(old_id), None
        replica.carry_marks(batch, old_id, new_id)
        batch.synced[new_id] = replace(known, version=0)
        batch.tombstones[new_id] = version
        for child in replica.trees.local.children(old_id):
            batch.local[child.node_id] = replace(child, parent_id=new_id)


def _is_same_place(node: Node, before: Node, batch: Batch) -> bool:
    """Whether a node is where it was when the question was asked, but for a parent that has been given its id back."""
    return node.name == before.name and (node.parent_id == before.parent_id or node.parent_id in batch.synced)


def _sized(contents: Iterable[FullContent], look: Print) -> Iterator[FullContent]:
    return (content for content in contents if sum(chunk.size for chunk in content.chunks) == look.size)
