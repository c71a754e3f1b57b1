"""A small cast for commits: some people, their devices, a workspace; in memory, or in a real database.

alice owns `home` (shared with bob, an editor, and carol, a viewer), `alone` and `other`; dave is a member of nothing
here. Chunks are letters, of ten bytes each: small ones were uploaded by alice and bob, capital ones by nobody.
"""

import hashlib
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID, uuid4

from broker.messages import CommitRequest, decode_content
from broker.model import ROOT, Chunk, Cursor, Kind, Operation, Role, first_chain
from metadata.state import Accepted, BatchResult, Decide, NewHold, Node, Outcome, Refused, Submission
from sync_workers.decide import decide

CHUNK_SIZE_BYTES = 10
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Backing(Protocol):
    """What a world stands on: `metadata.memory.MemoryStore`, or `tests.commits.postgres.PostgresBacking`."""

    async def add_user(self, user_id: UUID, quota_bytes: int | None = None) -> None: ...
    async def set_quota(self, user_id: UUID, quota_bytes: int | None) -> None: ...
    async def add_device(self, device_id: UUID, user_id: UUID, queue_name: str) -> None: ...
    async def revoke(self, device_id: UUID) -> None: ...
    async def add_workspace(self, workspace_id: UUID, owner_id: UUID) -> None: ...
    async def set_role(self, workspace_id: UUID, user_id: UUID, role: Role | None) -> None: ...
    async def add_chunk(self, hash_: bytes, raw_bytes: int) -> None: ...
    async def prove(self, user_id: UUID, hash_: bytes) -> None: ...
    async def expire_proofs(self) -> None: ...
    async def forget_versions(self, workspace_id: UUID, node_id: UUID) -> None: ...
    async def stage(self, device_id: UUID, hash_: bytes, body: bytes) -> None: ...
    async def list_nodes(self, workspace_id: UUID) -> dict[UUID, Node]: ...
    async def list_journal(self, workspace_id: UUID) -> list[tuple[bytes, bytes]]: ...
    async def manifest(self, workspace_id: UUID, node_id: UUID, version: int) -> bytes: ...
    async def used_bytes(self, user_id: UUID) -> int: ...
    async def pass_time(self, time: timedelta) -> None: ...
    async def list_holds(self, workspace_id: UUID) -> dict[UUID, NewHold]: ...
    async def accept_hold(self, workspace_id: UUID, hold_id: UUID) -> None: ...
    async def undo_hold(self, workspace_id: UUID, hold_id: UUID) -> None: ...
    async def release_hold(self, hold_id: UUID, device_id: UUID) -> None: ...
    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult: ...


def letter_chunk(letter: str) -> Chunk:
    """The chunk of a letter."""
    return Chunk(hashlib.sha256(letter.encode()).digest(), CHUNK_SIZE_BYTES)


class World:
    """The cast, with names for ids, and a number for each request."""

    def __init__(self, backing: Backing) -> None:
        self.backing = backing
        self.heads: dict[str, Cursor] = {}
        self.nodes: dict[UUID, Node] = {}
        self._ids: dict[str, UUID] = {"/": ROOT}
        self._numbers = itertools.count(1)

    @classmethod
    async def make(cls, backing: Backing, quota_bytes: int | None = None) -> "World":
        """Set the stage."""
        world = cls(backing)
        for letter in LETTERS:
            await backing.add_chunk(letter_chunk(letter).hash, CHUNK_SIZE_BYTES)
        for user in ("alice", "bob", "carol", "dave"):
            await backing.add_user(world.id(user), quota_bytes)
            await backing.add_device(world.id(f"{user}'s"), world.id(user), f"device.{world.id(user).hex}")
        for user in ("alice", "bob"):
            for letter in LETTERS:
                await backing.prove(world.id(user), letter_chunk(letter).hash)
        for workspace in ("home", "alone", "other"):
            await backing.add_workspace(world.id(workspace), world.id("alice"))
        await backing.set_role(world.id("home"), world.id("bob"), Role.EDITOR)
        await backing.set_role(world.id("home"), world.id("carol"), Role.VIEWER)
        return world

    def id(self, name: str) -> UUID:
        """The id that goes by this name in the test."""
        return self._ids.setdefault(name, uuid4())

    async def look(self, workspace: str = "home") -> None:
        """Read the tree and the head anew."""
        self.nodes = await self.backing.list_nodes(self.id(workspace))
        journal = await self.backing.list_journal(self.id(workspace))
        chain = journal[-1][1] if journal else first_chain(self.id(workspace))
        self.heads[workspace] = Cursor(1, len(journal), chain)

    def request(
        self,
        operations: Sequence[Operation],
        *,
        workspace: str = "home",
        device: str = "alice's",
        number: int | None = None,
        cursor: Cursor | None = None,
        incarnation: str | None = None,
        to_follow: int = 0,
    ) -> Submission:
        """A submission with the next number, and the cursor of the last look."""
        request = CommitRequest(
            workspace_id=self.id(workspace),
            incarnation=self.id(incarnation or f"incarnation of {device}"),
            number=number or next(self._numbers),
            cursor=cursor or self.heads[workspace],
            operations=tuple(operations),
            to_follow=to_follow,
        )
        return Submission(device_id=self.id(device), request=request)

    async def submit(self, *submissions: Submission, decide: Decide = decide) -> list[Outcome]:
        """One batch."""
        result = await self.backing.commit_batch(submissions, decide)
        return result.outcomes

    async def tree(self, workspace: str = "home") -> dict[str, str]:
        """What is live, by path: letters of a file, `/` of a directory, `-> target`, `@` of a mount."""
        await self.look(workspace)
        return {
            self._path(node): await self._describe(workspace, node)
            for node in self.nodes.values()
            if not node.deleted
        }

    def _path(self, node: Node) -> str:
        if node.parent_id == ROOT:
            return node.name
        parent = self.nodes[node.parent_id]
        return f"gone/{node.name}" if parent.deleted else f"{self._path(parent)}/{node.name}"

    async def _describe(self, workspace: str, node: Node) -> str:
        match node.kind:
            case Kind.DIRECTORY:
                return "/"
            case Kind.SYMLINK:
                return f"-> {node.target}"
            case Kind.MOUNT:
                return "@"
            case Kind.FILE:
                assert node.content_version is not None
                manifest = await self.backing.manifest(self.id(workspace), node.node_id, node.content_version)
                return spell(decode_content(manifest).chunks)


def spell(chunks: Sequence[Chunk]) -> str:
    """Letters for chunks."""
    letters = {letter_chunk(letter).hash: letter for letter in LETTERS + LETTERS.upper()}
    return "".join(letters[chunk.hash] for chunk in chunks)


def codes(outcome: Outcome) -> list[tuple[str, int | None]]:
    """The conflicts of a refusal, as (code, index); empty when it was accepted."""
    if isinstance(outcome, Accepted):
        return []
    assert isinstance(outcome, Refused), outcome
    return [(conflict.code.value, conflict.index) for conflict in outcome.refusal.conflicts]
