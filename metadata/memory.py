"""The store's in-memory twin, for tests and simulations: the same batches, the same decision, no database.

One suite of cases holds it and the real store to the same outcomes. It loads everything it has for each batch, so it
cannot show what the real one forgets to load; that suite can.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from broker.errors import Corrupt, NotFound
from broker.messages import CommitRequest, decode_request
from broker.model import Role, first_chain
from metadata.state import (
    Author,
    BatchResult,
    Dead,
    Decide,
    Decisions,
    Guard,
    Hold,
    LastRequest,
    NewHold,
    NewVersion,
    Node,
    Owner,
    RequestKey,
    Resolved,
    State,
    Submission,
    Verdict,
    Watched,
    Workspace,
)

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class Held(Struct, kw_only=True):
    """A held commit, and what was decided of it."""

    new: NewHold
    verdict: Verdict = Verdict.HELD
    allowed: int = 0
    expires_at: datetime | None = None


class MemoryStore:
    """A journal in memory. Its clock moves by a millisecond a batch."""

    def __init__(self) -> None:
        """Begin with nobody, and nothing."""
        self.authors: dict[UUID, Author] = {}
        self.workspaces: dict[UUID, Workspace] = {}
        self.members: dict[tuple[UUID, UUID], Role] = {}
        self.owners: dict[UUID, Owner] = {}
        self.nodes: dict[UUID, dict[UUID, Node]] = {}
        self.versions: dict[tuple[UUID, UUID, int], NewVersion] = {}
        self.journal: dict[UUID, list[tuple[bytes, bytes]]] = {}
        self.chunks: dict[bytes, int] = {}
        self.workspace_chunks: set[tuple[UUID, bytes]] = set()
        self.proofs: set[tuple[UUID, bytes]] = set()
        self.staged: dict[tuple[UUID, bytes], bytes] = {}
        self.last: dict[RequestKey, LastRequest] = {}
        self.guard = Guard()
        self.made: dict[tuple[UUID, UUID], datetime] = {}
        self.touches: dict[tuple[UUID, UUID, UUID], datetime] = {}
        self.holds: dict[Watched, Held] = {}
        self._now = _BEGINNING

    async def add_user(self, user_id: UUID, quota_bytes: int | None = None) -> None:
        """A person."""
        self.owners[user_id] = Owner(quota_bytes=quota_bytes, used_bytes=0)

    async def set_quota(self, user_id: UUID, quota_bytes: int | None) -> None:
        """A person may keep more, or less, from now on."""
        self.owners[user_id] = replace(self.owners[user_id], quota_bytes=quota_bytes)

    async def add_device(self, device_id: UUID, user_id: UUID, queue_name: str) -> None:
        """A linked device."""
        author = Author(device_id=device_id, user_id=user_id, queue_name=queue_name, revoked=False)
        self.authors[device_id] = author

    async def revoke(self, device_id: UUID) -> None:
        """Cut a device off."""
        self.authors[device_id] = replace(self.authors[device_id], revoked=True)

    async def add_workspace(self, workspace_id: UUID, owner_id: UUID) -> None:
        """An empty workspace, of which its owner is a member."""
        chain = first_chain(workspace_id)
        self.workspaces[workspace_id] = Workspace(
            workspace_id=workspace_id, owner_id=owner_id, epoch=1, seq=0, chain=chain
        )
        self.nodes[workspace_id] = {}
        self.journal[workspace_id] = []
        await self.set_role(workspace_id, owner_id, Role.OWNER)

    async def set_role(self, workspace_id: UUID, user_id: UUID, role: Role | None) -> None:
        """What a user may do in a workspace; None: nothing any more."""
        self.members.pop((workspace_id, user_id), None)
        if role is not None:
            self.members[workspace_id, user_id] = role

    async def add_chunk(self, hash_: bytes, raw_bytes: int) -> None:
        """A chunk that somebody has uploaded."""
        self.chunks[hash_] = raw_bytes

    async def prove(self, user_id: UUID, hash_: bytes) -> None:
        """The user uploaded it."""
        self.proofs.add((user_id, hash_))

    async def expire_proofs(self) -> None:
        """All leases end."""
        self.proofs.clear()

    async def forget_versions(self, workspace_id: UUID, node_id: UUID) -> None:
        """A node's history has expired."""
        self.versions = {key: v for key, v in self.versions.items() if key[:2] != (workspace_id, node_id)}

    async def stage(self, device_id: UUID, hash_: bytes, body: bytes) -> None:
        """A body too large for a message."""
        self.staged[device_id, hash_] = body

    async def pass_time(self, time: timedelta) -> None:
        """So much later."""
        self._now += time

    async def list_holds(self, workspace_id: UUID) -> dict[UUID, NewHold]:
        """What is held, or was decided on and not done yet, by device."""
        self._expire_holds()
        return {device_id: held.new for (each, device_id), held in self.holds.items() if each == workspace_id}

    async def accept_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        """As `metadata.registry.Registry.accept_hold`."""
        key, held = self._find_hold(hold_id)
        if held.verdict is Verdict.UNDONE:
            raise NotFound("it is to be taken back already")
        if held.verdict is Verdict.HELD:
            held.verdict, held.expires_at = Verdict.ACCEPTED, self._now + timedelta(days=1)
            held.allowed = held.new.deleted + held.new.rewritten + held.new.to_follow
            self.touches = {touch: at for touch, at in self.touches.items() if touch[:2] != key}

    async def undo_hold(self, workspace_id: UUID, hold_id: UUID) -> None:
        """As `metadata.registry.Registry.undo_hold`."""
        _, held = self._find_hold(hold_id)
        held.verdict, held.allowed, held.expires_at = Verdict.UNDONE, 0, None

    async def release_hold(self, hold_id: UUID, device_id: UUID) -> None:
        """As `metadata.registry.Registry.release_hold`."""
        self.holds = {
            key: held
            for key, held in self.holds.items()
            if (held.new.hold_id, key[1], held.verdict) != (hold_id, device_id, Verdict.UNDONE)
        }

    def _find_hold(self, hold_id: UUID) -> tuple[Watched, Held]:
        self._expire_holds()
        for key, held in self.holds.items():
            if held.new.hold_id == hold_id:
                return key, held
        raise NotFound("nothing of that kind is held any more: look again")

    def _expire_holds(self) -> None:
        self.holds = {
            key: held
            for key, held in self.holds.items()
            if held.expires_at is None or held.expires_at > self._now
        }

    async def list_nodes(self, workspace_id: UUID) -> dict[UUID, Node]:
        """All rows, tombstones among them."""
        return dict(self.nodes[workspace_id])

    async def list_journal(self, workspace_id: UUID) -> list[tuple[bytes, bytes]]:
        """(entry, chain) from the first on."""
        return list(self.journal[workspace_id])

    async def manifest(self, workspace_id: UUID, node_id: UUID, version: int) -> bytes:
        """A version's encoded content."""
        return self.versions[workspace_id, node_id, version].manifest

    async def used_bytes(self, user_id: UUID) -> int:
        """What counts for the user's quota."""
        return self.owners[user_id].used_bytes

    async def commit_batch(self, submissions: Sequence[Submission], decide: Decide) -> BatchResult:
        """As `metadata.store.Store.commit_batch`."""
        self._now += timedelta(milliseconds=1)
        decisions = decide(self._state(), [self._resolve(submission) for submission in submissions])
        self._apply(decisions)
        for submission, outcome in zip(submissions, decisions.outcomes, strict=True):
            if not isinstance(submission.request, CommitRequest) and not isinstance(outcome, Dead):
                self.staged.pop((submission.device_id, submission.request.body), None)
        queues = {a.device_id: a.queue_name for a in self.authors.values() if not a.revoked}
        heads = {workspace_id: workspace.head for workspace_id, workspace in self.workspaces.items()}
        return BatchResult(outcomes=decisions.outcomes, queues=queues, heads=heads)

    def _resolve(self, submission: Submission) -> Resolved:
        request = submission.request
        if isinstance(request, CommitRequest):
            return Resolved(submission=submission, body=request)
        data = self.staged.get((submission.device_id, request.body))
        if data is None:
            return Resolved(submission=submission, body=None)
        try:
            body = decode_request(data)
        except Corrupt:
            return Resolved(submission=submission, body=None, dead="corrupt_body")
        named = (request.workspace_id, request.incarnation, request.number)
        if not isinstance(body, CommitRequest) or (body.workspace_id, body.incarnation, body.number) != named:
            return Resolved(submission=submission, body=None, dead="foreign_body")
        return Resolved(submission=submission, body=body)

    def _state(self) -> State:
        self._expire_holds()
        since = self._now - self.guard.window
        members = [workspace_id for workspace_id, _ in self.members]
        readable = {(user_id, w) for w, user_id in self.members}
        may_use = self.proofs | {
            (user_id, hash_) for w, hash_ in self.workspace_chunks for user_id, r in readable if r == w
        }
        usable: dict[UUID, dict[bytes, int]] = {}
        for (_, device_id), held in self.holds.items():
            may_use |= {(self.authors[device_id].user_id, hash_) for hash_ in held.new.chunks}
        for user_id, hash_ in may_use:
            if hash_ in self.chunks:
                usable.setdefault(user_id, {})[hash_] = self.chunks[hash_]
        return State(
            now=self._now,
            authors=dict(self.authors),
            workspaces={k: replace(w, members=members.count(k)) for k, w in self.workspaces.items()},
            roles=dict(self.members),
            owners=dict(self.owners),
            last=dict(self.last),
            chains={
                (workspace_id, seq): chain
                for workspace_id, entries in self.journal.items()
                for seq, (_, chain) in enumerate(entries, 1)
            },
            nodes={workspace_id: dict(nodes) for workspace_id, nodes in self.nodes.items()},
            manifests={key: version.manifest for key, version in self.versions.items()},
            usable=usable,
            guard=self.guard,
            holds={
                key: Hold(
                    hold_id=held.new.hold_id,
                    verdict=held.verdict,
                    digest=held.new.digest,
                    allowed=held.allowed,
                )
                for key, held in self.holds.items()
            },
            **self._measure(since),
        )

    def _measure(self, since: datetime) -> dict[str, Any]:
        """What the guard measures: all of it, for everybody who has touched anything, or may."""
        old = {key for key, at in self.made.items() if at <= since}
        counted: dict[Watched, set[UUID]] = {}
        for (workspace_id, device_id, node_id), at in self.touches.items():
            if at > since:
                counted.setdefault((workspace_id, device_id), set()).add(node_id)
        living = Counter(w for w, node_id in old if not self.nodes[w][node_id].deleted)
        keys = [(workspace_id, device_id) for workspace_id in self.workspaces for device_id in self.authors]
        young: dict[UUID, set[UUID]] = {}
        for workspace_id, node_id in self.made.keys() - old:
            young.setdefault(workspace_id, set()).add(node_id)
        return {
            "touched": {key: len(nodes) for key, nodes in counted.items()},
            "counted": counted,
            "standing": {
                key: living[key[0]] + sum(self.nodes[key[0]][n].deleted for n in counted.get(key, ()))
                for key in keys
            },
            "young": young,
        }

    def _apply(self, decisions: Decisions) -> None:
        for workspace_id, head in decisions.heads.items():
            workspace = self.workspaces[workspace_id]
            self.workspaces[workspace_id] = replace(workspace, seq=head.seq, chain=head.chain)
        for workspace_id, _, chain, entry in decisions.journal:
            self.journal[workspace_id].append((entry, chain))
        for (workspace_id, node_id), node in decisions.nodes.items():
            self.nodes[workspace_id][node_id] = node
            self.made.setdefault((workspace_id, node_id), self._now)
        for new in decisions.versions:
            self.versions[new.workspace_id, new.node_id, new.version] = new
        self.workspace_chunks |= decisions.chunks
        for user_id, added in decisions.used_bytes.items():
            owner = self.owners[user_id]
            self.owners[user_id] = replace(owner, used_bytes=owner.used_bytes + added)
        self.last.update(decisions.last)
        self.touches.update(dict.fromkeys(decisions.touches, self._now))
        self.holds.update({key: Held(new=new) for key, new in decisions.holds.items()})
        for key, left in decisions.allowances.items():
            if left:
                self.holds[key].allowed = left
            else:
                del self.holds[key]
