"""Ask the journal for this device's changes: one request in flight, sent unchanged until it is answered."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import structlog

from agent.caution import Caution
from agent.hold import Ages, Hold, count_touched
from agent.index import Batch, InFlight
from agent.look import Looker
from agent.patience import Patience, next_delay_s
from agent.plan import Change, Plan, select
from agent.receive import Receiver
from agent.replay import operations
from agent.replica import Replica
from agent.scan import Problem, printable
from agent.service import Service
from agent.trees import Node
from agent.upload import Uploader
from broker import topology
from broker.delivery import Publishing
from broker.errors import HutchError, Unavailable
from broker.messages import (
    MAX_BODY_SIZE_BYTES,
    MAX_MESSAGE_SIZE_BYTES,
    CommitAccepted,
    CommitRefused,
    CommitRequest,
    Conflict,
    StagedCommitRequest,
    encode,
)
from broker.model import (
    MAX_OPERATIONS_PER_COMMIT,
    PERMANENT_CODES,
    ConflictCode,
    FullContent,
    Kind,
    Operation,
)

log = structlog.get_logger()

ANSWER_WAIT_S: Final = 20.0
"""How long to wait for an answer before sending the same request again."""

MESSAGE_SIZE_BYTES: Final = MAX_MESSAGE_SIZE_BYTES - 8 * 1024
"""How large a request may be to go as a message: the notice of it must fit as well."""

FILLING_S: Final = 1.0
"""How long what is ready waits for what was saved with it."""

_USUAL_LIMIT: Final = 4_000
_ENOUGH: Final = 1_000
_RETRY_PARKED_S: Final = 300.0
_NUMBER_LEAP: Final = 1_000

_REFUSALS: Final = {
    ConflictCode.FORBIDDEN: "you may read this workspace, and not change it",
    ConflictCode.OVER_QUOTA: "it does not fit into the quota of the workspace's owner",
    ConflictCode.BAD_NAME: "no device may have a file of this name",
    ConflictCode.POISONED: "the service broke on this change: please report it",
}


class Committer:
    """Commits one folder's changes."""

    def __init__(
        self,
        replica: Replica,
        uploader: Uploader,
        receiver: Receiver,
        publisher: Publishing,
        service: Service,
        may_run: asyncio.Event,
        is_filling: Callable[[], bool],
        looker: Looker,
        hold: Hold,
    ) -> None:
        self._replica = replica
        self._uploader = uploader
        self._receiver = receiver
        self._publisher = publisher
        self._service = service
        self._may_run = may_run
        self._is_filling = is_filling
        self._looker = looker
        self._hold = hold
        self._caution = Caution()
        self._ages = Ages()
        self._filling_since: float | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._limit = _USUAL_LIMIT
        self._refusals = 0
        self._refused = False
        self._whole = False
        self._at_server: bytes | None = None  # the hash of the body that was put to the metadata server last

    async def run(self) -> None:
        """Commit whatever is ready. Runs until cancelled."""
        changed, patience = self._replica.listen(), Patience()
        while True:
            changed.clear()
            await self._may_run.wait()
            try:
                if self._replica.in_flight is not None:
                    await self._deliver(self._replica.in_flight)
                elif not await self._begin():
                    await changed.wait()
                patience = Patience()
            except HutchError as error:
                log.info("commit.delayed", workspace_id=str(self._replica.workspace_id), error=str(error))
                await patience.wait()

    # --- a new request

    async def _begin(self) -> bool:
        """Put a request together, and store it. False: there is nothing to ask for now."""
        replica = self._replica
        plan = replica.plan()
        if plan.adoptions or plan.asides or replica.is_behind or self._looker.rules_pending:
            return False
        if self._hold.is_held:
            return False
        may_delete = self._may_delete(plan)
        changes = select(
            plan.commit,
            limit=self._limit,
            is_ready=lambda c: self._uploader.is_ready(c) and (may_delete or c.after is not None),
            tree=replica.trees.remote,
        )
        if not changes or (len(changes) < _ENOUGH and self._shall_wait()):
            return False
        manifests = await replica.manifests(self._digests(changes))
        holders = await replica.holders(d for d, content in manifests.items() if len(content.chunks) > 1)
        if any(change.after is None for change in changes) and not await self._looker.check_in_place():
            return False
        if replica.plan() is not plan:
            return True
        may_go = [change for change in plan.commit if may_delete or change.after is not None]
        await self._store(changes, manifests, holders, self._count_touched(may_go))
        return True

    def _count_touched(self, changes: Iterable[Change]) -> int:
        """How much of this the service's guard will count."""
        cursor = self._replica.cursor
        old_seq = self._ages.old_seq(asyncio.get_running_loop().time(), cursor.seq if cursor else 0)
        return count_touched(changes, old_seq)

    def _shall_wait(self) -> bool:
        """Whether more of what was saved together is about to be ready. What is urgent does not wait for long."""
        loop = asyncio.get_running_loop()
        if not self._is_filling():
            self._filling_since = None
            return False
        if self._filling_since is None:
            self._filling_since = loop.time()
        if loop.time() - self._filling_since < FILLING_S:
            self._ask_later(FILLING_S)
            return True
        self._filling_since = None
        return False

    def _may_delete(self, plan: Plan) -> bool:
        """Whether deletions may be told of now; if not, it is asked again in time."""
        deletions = sum(change.after is None for change in plan.commit)
        if not deletions:
            return True
        live = len(self._replica.trees.remote)
        wait_s = self._caution.wait_s(deletions, live, self._looker.quiet_s())
        if wait_s <= 0 and not self._looker.is_looking:
            return True
        self._ask_later(max(wait_s, 0.05))
        return False

    def _ask_later(self, wait_s: float) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().call_later(wait_s, self._ask_again)

    def _ask_again(self) -> None:
        self._asking = None
        self._replica.notify()

    @staticmethod
    def _digests(changes: Iterable[Change]) -> set[bytes]:
        return {
            node.digest
            for change in changes
            if change.fills
            for node in (change.before, change.after)
            if node is not None and node.kind is Kind.FILE
        }

    async def _store(
        self,
        changes: list[Change],
        manifests: dict[bytes, FullContent],
        holders: Mapping[bytes, Iterable[UUID]],
        all_touched: int,
    ) -> None:
        """Make a request of the changes, or of some of them, and store it. `all_touched`: see `_count_touched`."""
        replica = self._replica
        sent = self._sent(changes)
        while True:
            asked = self._operations(changes, manifests, holders)
            body = self._body(asked, max(0, all_touched - self._count_touched(changes)))
            if len(body) <= MESSAGE_SIZE_BYTES or len(changes) == 1:
                break
            is_whole = len(asked) <= MAX_OPERATIONS_PER_COMMIT and len(body) <= MAX_BODY_SIZE_BYTES
            if is_whole and await self._stage(body):
                break
            changes = select(
                changes,
                limit=max(1, len(changes) // 2),
                is_ready=lambda change: True,
                tree=replica.trees.remote,
            )
            sent = self._sent(changes)
            if len(self._operations(changes, manifests, holders)) == len(asked):
                break  # they need each other: it is this, whole, or nothing
        if len(asked) > MAX_OPERATIONS_PER_COMMIT:
            self._park_all(changes)
            return
        number = replica.number + 1
        staged = hashlib.sha256(body).digest() if len(body) > MESSAGE_SIZE_BYTES else None
        request = InFlight(number, body, staged, sent)
        batch = Batch()
        batch.columns.update(number=number, request=encode(request))
        replica.number, replica.in_flight = number, request
        await replica.write(batch)
        self._caution.tell(sum(change.after is None for change in changes))
        log.info(
            "commit.asked",
            workspace_id=str(replica.workspace_id),
            number=number,
            operations=len(asked),
            size_bytes=len(body),
        )

    def _sent(self, changes: Iterable[Change]) -> dict[UUID, Node | None]:
        local = self._replica.trees.local
        return {change.node_id: local.get(change.node_id) for change in changes}

    def _operations(
        self,
        changes: list[Change],
        manifests: dict[bytes, FullContent],
        holders: Mapping[bytes, Iterable[UUID]],
    ) -> tuple[Operation, ...]:
        trees = self._replica.trees
        return operations(
            changes, trees.remote, trees.tombstones, manifests.get, whole=self._whole, holders=holders
        )

    def _body(self, asked: tuple[Operation, ...], to_follow: int) -> bytes:
        replica = self._replica
        assert replica.cursor is not None
        return encode(
            CommitRequest(
                workspace_id=replica.workspace_id,
                incarnation=replica.index.incarnation,
                number=replica.number + 1,
                cursor=replica.cursor,
                operations=asked,
                to_follow=to_follow,
            )
        )

    async def _stage(self, body: bytes) -> bool:
        """Put a body that is too large for a message to the metadata server. False when that cannot be reached."""
        staged = hashlib.sha256(body).digest()
        try:
            await self._service.put_body(staged, body)
        except Unavailable:
            return False
        self._at_server = staged
        return True

    # --- a request in flight

    async def _deliver(self, request: InFlight) -> None:
        """Send a request, and wait for its answer for a while."""
        self._receiver.answered.clear()
        if self._replica.in_flight is not request:
            return
        if request.staged is not None and request.staged != self._at_server:
            await self._service.put_body(request.staged, request.body)
            self._at_server = request.staged
        await self._publisher.publish(topology.REQUESTS, topology.REQUESTS, self._message(request))
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                await self._receiver.answered.wait()
        except TimeoutError:
            if request.staged is not None:
                await self._stage(request.body)
            self._receiver.ask()  # the answer may be in the journal, its notice lost
            log.info("commit.sent_again", workspace_id=str(self._replica.workspace_id), number=request.number)
        if self._replica.in_flight is None:
            await self._after_answer()

    async def _after_answer(self) -> None:
        """After a refusal commits are smaller, and come later each time; after an acceptance as usual."""
        if self._refused:
            self._refused = False
            if self._refusals > 1:
                await asyncio.sleep(next_delay_s(self._refusals - 1, 0.5))
            return
        self._refusals, self._whole = 0, False
        self._limit = min(self._limit * 2, _USUAL_LIMIT)

    def _message(self, request: InFlight) -> bytes:
        if request.staged is None:
            return request.body
        return encode(
            StagedCommitRequest(
                workspace_id=self._replica.workspace_id,
                incarnation=self._replica.index.incarnation,
                number=request.number,
                body=request.staged,
            )
        )

    # --- its answer, where that is not a notice

    async def accepted(self, answer: CommitAccepted) -> None:
        """A request was accepted earlier: its entry is in the journal."""
        replica = self._replica
        replica.tell_head(answer.head)
        request = replica.in_flight
        if request is None or not self._is_answer(answer, request):
            return
        if replica.cursor is None or answer.seq > replica.cursor.seq:
            self._receiver.ask()
            return
        # That entry was received, and was not this request's: an older copy of this database counts on.
        replica.number += _NUMBER_LEAP
        await self._forget(request)

    async def _forget(self, request: InFlight) -> None:
        """A request is answered, and nothing of it was done."""
        replica, batch = self._replica, Batch()
        log.warning("request.dropped", workspace_id=str(replica.workspace_id), number=request.number)
        batch.columns["request"] = None
        replica.in_flight = None
        await replica.write(batch)
        self._receiver.answered.set()
        replica.notify()

    async def refused(self, answer: CommitRefused) -> None:
        """Nothing of a request was done: reach the head that the refusal names, then plan again."""
        replica = self._replica
        request = replica.in_flight
        if request is None or not self._is_answer(answer, request):
            return
        log.info(
            "commit.refused",
            workspace_id=str(replica.workspace_id),
            number=request.number,
            codes=sorted({str(conflict.code) for conflict in answer.conflicts}),
        )
        batch = Batch()
        batch.columns["request"] = None
        replica.in_flight = None
        await replica.write(batch)
        replica.tell_head(answer.head)
        if replica.is_behind:
            self._receiver.ask()
        self._at_server = None
        self._mind(answer.conflicts, request)
        self._receiver.answered.set()
        replica.notify()

    def _is_answer(self, answer: CommitRefused | CommitAccepted, request: InFlight) -> bool:
        return (answer.incarnation, answer.number) == (self._replica.index.incarnation, request.number)

    def _mind(self, conflicts: Sequence[Conflict], request: InFlight) -> None:
        codes = {conflict.code for conflict in conflicts}
        if ConflictCode.HELD in codes:
            self._hold.begin()
            return
        is_permanent = bool(codes & PERMANENT_CODES)
        self._refused = True
        # What is permanent is set aside, and what is left is tried at once; all else may need time.
        self._refusals = 1 if is_permanent else self._refusals + 1
        if is_permanent or self._refusals > 1:
            self._limit = max(1, min(self._limit, len(request.sent)) // 2)
        if ConflictCode.MISSING_CHUNKS in codes:
            self._uploader.forget()
        if ConflictCode.BASE_GONE in codes:
            self._whole = True
        if ConflictCode.CURSOR_UNKNOWN in codes:
            self._receiver.ask()
        if (
            ConflictCode.SUPERSEDED in codes
        ):  # an older copy of this database counts on: leave its numbers behind
            self._replica.number += _NUMBER_LEAP
        for conflict in conflicts:
            if conflict.code in PERMANENT_CODES:
                self._set_aside(conflict, request)

    def _set_aside(self, conflict: Conflict, request: InFlight) -> None:
        """Park the node that was refused for good. A refusal of the whole is halved down to the nodes it is due to."""
        if conflict.node_id is not None:
            self._park_refused(conflict.node_id, conflict)
        elif len(request.sent) == 1 or conflict.code is ConflictCode.FORBIDDEN:
            for node_id in request.sent:
                self._park_refused(node_id, conflict)

    def _park_refused(self, node_id: UUID, conflict: Conflict) -> None:
        text = conflict.detail or _REFUSALS.get(conflict.code, "the service refused this")
        self._park(node_id, str(conflict.code), text)

    def _park(self, node_id: UUID, code: str, text: str) -> None:
        """Set aside what planning again cannot mend, and try it again much later: quotas and roles do change."""
        replica = self._replica
        path = replica.trees.local.path(node_id) or replica.trees.remote.path(node_id) or ""
        replica.parked[node_id] = Problem(printable(path), code, text)
        asyncio.get_running_loop().call_later(_RETRY_PARKED_S, self._unpark, node_id)

    def _park_all(self, changes: Iterable[Change]) -> None:
        """No commit may have so many changes, and none of these can go without the others."""
        detail = f"more than {MAX_OPERATIONS_PER_COMMIT} changes that need each other: undo some of them"
        for change in changes:
            self._park(change.node_id, "too_many", detail)
        self._replica.notify()

    def _unpark(self, node_id: UUID) -> None:
        if self._replica.parked.pop(node_id, None) is not None:
            self._replica.trees.touch([node_id])
            self._replica.notify()
