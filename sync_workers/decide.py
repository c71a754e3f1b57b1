"""What becomes of a batch of commits: a function from what was loaded to what is to be written. Pure.

Each request is decided over the earlier ones of its batch, as if they had come one by one. `commit.py` decides the
operations of one; here stand the order of the checks around them, replays, and the sums over the batch.
"""

from collections.abc import Sequence
from uuid import UUID

from broker.messages import CommitRefused, CommitRequest, Conflict, JournalEntry, encode
from broker.model import ConflictCode, Cursor, Role, extend_chain, first_chain
from metadata.state import (
    Accepted,
    Author,
    Dead,
    Decisions,
    Hold,
    LastRequest,
    Outcome,
    Refused,
    Replayed,
    Resolved,
    State,
    Submission,
    Verdict,
    Watched,
    Workspace,
)
from sync_workers import guard
from sync_workers.admission import Context
from sync_workers.commit import Changes, plan_commit
from sync_workers.tree import Tree

MAX_CONFLICTS = 256
"""In one refusal. The author reaches the head and plans again in any case; a refusal has to fit a message."""


def decide(state: State, requests: Sequence[Resolved]) -> Decisions:
    """Decide each request over the earlier ones of the batch.

    Args:
        state: All that they need, loaded under the locks of their workspaces.
        requests: In the order in which they came.

    Returns:
        One outcome per request, and the rows to write for all of them together.
    """
    batch = _Batch(state)
    for request in requests:
        batch.decisions.outcomes.append(batch.decide(request))
    return batch.decisions


def refuse_all(state: State, requests: Sequence[Resolved], code: ConflictCode) -> Decisions:
    """Refuse each request with one code, unless it was answered already. Looks at no operation."""
    batch = _Batch(state)
    for request in requests:
        batch.decisions.outcomes.append(batch.decide(request, refuse_with=code))
    return batch.decisions


class _Batch:
    """The state as the earlier requests of the batch leave it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.decisions = Decisions()
        self._trees: dict[UUID, Tree] = {}
        self._chunks: dict[UUID, dict[bytes, int]] = {}
        self._watches: dict[Watched, guard.Watch] = {}
        heads = {(w.workspace_id, w.seq): w.chain for w in state.workspaces.values()}
        self._chains = {**state.chains, **heads}

    def decide(self, request: Resolved, refuse_with: ConflictCode | None = None) -> Outcome:
        submission = request.submission
        author = self.state.authors.get(submission.device_id)
        if author is None or author.revoked:
            return Dead(reason="unknown_device" if author is None else "revoked_device")
        workspace = self.state.workspaces.get(submission.request.workspace_id)
        role = self.state.roles.get((submission.request.workspace_id, author.user_id))
        if workspace is None or role is None:
            return _refuse_stranger(submission)
        answered = self._find_answer(submission, workspace)
        if answered:
            return answered
        if request.dead:
            return Dead(reason=request.dead)
        if refuse_with is not None:
            return self._refuse(submission, workspace, Conflict(code=refuse_with))
        if role is Role.VIEWER:
            return self._refuse(submission, workspace, Conflict(code=ConflictCode.FORBIDDEN))
        if request.body is None:
            lost = Conflict(code=ConflictCode.BASE_GONE, detail="the staged body is not there any more")
            return self._refuse(submission, workspace, lost)
        return self._decide_body(submission, request.body, author, workspace)

    def _head(self, workspace: Workspace) -> Cursor:
        return self.decisions.heads.get(workspace.workspace_id, workspace.head)

    def _find_answer(self, submission: Submission, workspace: Workspace) -> Outcome | None:
        last = self.decisions.last.get(submission.key) or self.state.last.get(submission.key)
        if last is None or submission.request.number > last.number:
            return None
        if submission.request.number == last.number:
            return last.outcome
        superseded = (Conflict(code=ConflictCode.SUPERSEDED),)
        return Refused(
            refusal=_refusal(submission, self._head(workspace), superseded),
            recorded=False,
        )

    def _refuse(self, submission: Submission, workspace: Workspace, *conflicts: Conflict) -> Refused:
        refusal = _refusal(submission, self._head(workspace), conflicts[:MAX_CONFLICTS])
        self._answer(submission, Replayed(refusal=encode(refusal)))
        return Refused(refusal=refusal)

    def _answer(self, submission: Submission, outcome: Replayed) -> None:
        number = submission.request.number
        self.decisions.last[submission.key] = LastRequest(number=number, outcome=outcome)

    def _decide_body(
        self, submission: Submission, body: CommitRequest, author: Author, workspace: Workspace
    ) -> Outcome:
        head = self._head(workspace)
        if not self._follows(body.cursor, workspace, head):
            return self._refuse(submission, workspace, Conflict(code=ConflictCode.CURSOR_UNKNOWN))
        changes = plan_commit(self._context(author, workspace, head), body.operations)
        if not changes.conflicts:
            changes.conflicts.extend(self._check_quota(workspace, changes))
        if changes.conflicts:
            return self._refuse(submission, workspace, *changes.conflicts)
        watch = self._watch(submission)
        touched = self._find_touched(workspace, changes)
        if watch.is_held or guard.is_unusual(self.state.guard, watch, touched, body.to_follow):
            return self._hold(submission, body, workspace, watch, touched, changes)
        self._count(submission, watch, touched, body.to_follow)
        return self._accept(submission, author, workspace, head, changes)

    # --- the guard

    def _watch(self, submission: Submission) -> guard.Watch:
        key = (submission.request.workspace_id, submission.device_id)
        state = self.state
        if key not in self._watches:
            self._watches[key] = guard.Watch(
                touched=state.touched.get(key, 0),
                counted=set(state.counted.get(key, ())),
                standing=state.standing.get(key),
                hold=state.holds.get(key),
            )
        return self._watches[key]

    def _find_touched(self, workspace: Workspace, changes: Changes) -> guard.Touched:
        workspace_id = workspace.workspace_id
        stood, young = self.state.nodes.get(workspace_id, {}), self.state.young.get(workspace_id, ())
        return guard.find_touched(self._trees[workspace_id].nodes, changes.nodes, stood, young)

    def _count(
        self, submission: Submission, watch: guard.Watch, touched: guard.Touched, to_follow: int
    ) -> None:
        key = (submission.request.workspace_id, submission.device_id)
        was_allowed = watch.allowed
        self.decisions.touches.update((*key, node_id) for node_id in guard.count(watch, touched, to_follow))
        if watch.allowed != was_allowed:
            self.decisions.allowances[key] = watch.allowed

    def _hold(
        self,
        submission: Submission,
        body: CommitRequest,
        workspace: Workspace,
        watch: guard.Watch,
        touched: guard.Touched,
        changes: Changes,
    ) -> Refused:
        """Refuse a commit, and keep it for a person to see, in the place of what was kept of its author before.

        What is to be taken back stays as it was decided on, until its author has done so.
        """
        key = (workspace.workspace_id, submission.device_id)
        held = watch.hold
        is_same = held is not None and watch.is_held and held.digest == guard.digest_of(body)
        if not is_same and not (held is not None and held.verdict is Verdict.UNDONE):
            tree = self._trees[workspace.workspace_id].nodes
            new = guard.make_hold(body, submission.device_id, watch, touched, tree, changes.chunks)
            watch.hold = Hold(hold_id=new.hold_id, verdict=Verdict.HELD, digest=new.digest)
            self.decisions.holds[key] = new
            self.decisions.allowances.pop(key, None)
        return self._refuse(submission, workspace, Conflict(code=ConflictCode.HELD))

    # --- what is accepted

    def _follows(self, cursor: Cursor, workspace: Workspace, head: Cursor) -> bool:
        if cursor.epoch != head.epoch or cursor.seq > head.seq:
            return False
        if cursor.seq == 0:
            return cursor.chain == first_chain(workspace.workspace_id)
        if cursor.seq == head.seq:
            return cursor.chain == head.chain
        return cursor.chain == self._chains.get((workspace.workspace_id, cursor.seq))

    def _context(self, author: Author, workspace: Workspace, head: Cursor) -> Context:
        workspace_id = workspace.workspace_id
        if workspace_id not in self._trees:
            self._trees[workspace_id] = Tree(self.state.nodes.get(workspace_id, {}))
        return Context(
            author=author,
            workspace=workspace,
            seq=head.seq + 1,
            tree=self._trees[workspace_id],
            manifests=self.state.manifests,
            usable=self.state.usable.get(author.user_id, {}),
            just_used=self._chunks.get(workspace_id, {}),
            roles=self.state.roles,
        )

    def _check_quota(self, workspace: Workspace, changes: Changes) -> list[Conflict]:
        owner = self.state.owners[workspace.owner_id]
        if owner.quota_bytes is None or changes.added_bytes <= 0:
            return []
        used = owner.used_bytes + self.decisions.used_bytes.get(workspace.owner_id, 0)
        if used + changes.added_bytes <= owner.quota_bytes:
            return []
        return [Conflict(code=ConflictCode.OVER_QUOTA)]

    def _accept(
        self, submission: Submission, author: Author, workspace: Workspace, head: Cursor, changes: Changes
    ) -> Accepted:
        workspace_id = workspace.workspace_id
        entry = encode(
            JournalEntry(
                seq=head.seq + 1,
                user_id=author.user_id,
                device_id=author.device_id,
                incarnation=submission.request.incarnation,
                number=submission.request.number,
                committed_ns=round(self.state.now.timestamp() * 1_000_000) * 1_000,
                operations=changes.operations,
            )
        )
        after = Cursor(head.epoch, head.seq + 1, extend_chain(head.chain, entry))
        decisions = self.decisions
        decisions.heads[workspace_id] = after
        decisions.journal.append((workspace_id, after.seq, after.chain, entry))
        decisions.nodes.update(((workspace_id, node_id), node) for node_id, node in changes.nodes.items())
        decisions.versions.extend(changes.versions)
        decisions.chunks.update((workspace_id, chunk) for chunk in changes.chunks)
        used = decisions.used_bytes.get(workspace.owner_id, 0)
        decisions.used_bytes[workspace.owner_id] = used + changes.added_bytes
        self._trees[workspace_id].apply(changes.nodes)
        self._chunks.setdefault(workspace_id, {}).update(changes.chunks)
        self._chains[workspace_id, after.seq] = after.chain
        self._answer(submission, Replayed(at=after, entry=entry))
        return Accepted(head=after, entry=entry)


def _refuse_stranger(submission: Submission) -> Refused:
    """Not a member, or no such workspace: the two look the same, and tell nothing of a head.

    It is not recorded: who is no member must not be able to fill a workspace's table.
    """
    nowhere = Cursor(0, 0, first_chain(submission.request.workspace_id))
    forbidden = (Conflict(code=ConflictCode.FORBIDDEN),)
    return Refused(refusal=_refusal(submission, nowhere, forbidden), recorded=False)


def _refusal(submission: Submission, head: Cursor, conflicts: Sequence[Conflict]) -> CommitRefused:
    return CommitRefused(
        workspace_id=submission.request.workspace_id,
        incarnation=submission.request.incarnation,
        number=submission.request.number,
        head=head,
        conflicts=tuple(conflicts),
    )
