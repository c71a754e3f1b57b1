"""When the service holds this device's commits in a folder: what a person has decided of it, and taking it back.

While they are held nothing is asked of the journal; looking, receiving and placing go on. The service says what is
held and what was decided: this device asks when it begins, when it is refused, when it is told, and every few minutes.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import structlog

from agent.index import Batch
from agent.look import Looker
from agent.patience import Patience, jittered
from agent.plan import Change
from agent.replica import Replica
from agent.scan import Problem
from agent.service import HoldInfo, Service
from agent.trees import Trees
from broker.errors import HutchError, Retryable
from broker.model import Kind

log = structlog.get_logger()

HELD: Final = "\0held"
"""Under which a replica's problems say that a person has to decide."""

ASK_AGAIN_S: Final = 300.0
"""How often it is asked what was decided, should nobody have told."""

OLD_S: Final = 3600.0
"""What was in the journal so long ago is old: what the service's guard counts, by its own clock."""

_MARK_S: Final = 60.0


class Hold:
    """One folder's hold, if there is one.

    Attributes:
        is_held: Whether nothing may be asked of the journal now.
    """

    def __init__(self, replica: Replica, service: Service, looker: Looker) -> None:
        self.is_held = False
        self._replica = replica
        self._service = service
        self._looker = looker
        self._asked = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._refused: frozenset[Change] | None = None

    def begin(self) -> None:
        """A commit was refused because this device is held."""
        self.is_held = True
        self._refused = None
        self._show("what this device would delete or rewrite waits for `hutch review`")
        self.ask()

    def ask(self) -> None:
        """Ask the service what is held, and what was decided, soon."""
        self._asked.set()

    async def run(self) -> None:
        """Follow what is decided. Runs until cancelled."""
        patience = Patience()
        self.ask()
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._look()
                patience = Patience()
            except Retryable as error:
                log.info("hold.delayed", workspace_id=str(self._replica.workspace_id), error=str(error))
                self._asked.set()
                await patience.wait()
            except HutchError as error:
                log.warning("hold.unknown", workspace_id=str(self._replica.workspace_id), error=str(error))
                self._ask_later()

    async def _look(self) -> None:
        holds = await self._service.holds(self._replica.workspace_id)
        own = next((hold for hold in holds if hold.current), None)
        if own is None and self.is_held and self._refused is None:
            # Refused, and nothing is held: whatever that is, it is not asked for again without end.
            self._refused = frozenset()
            self._ask_later()
        elif own is None or own.verdict == "accepted":
            self._end()
        elif own.verdict == "undone":
            self.is_held = True
            await self._undo(own.hold_id)
            await self._service.release_hold(self._replica.workspace_id, own.hold_id)
            self._end()
        else:
            self._wait_for_person(own)

    def _wait_for_person(self, own: HoldInfo) -> None:
        self.is_held = True
        self._show(describe(own))
        waiting = frozenset(self._replica.plan().commit)
        if self._refused is None:
            self._refused = waiting
        elif self._refused != waiting:
            # It is not what the person is shown any more: have the service hold this instead.
            self._end()
            return
        self._ask_later()

    def _end(self) -> None:
        if not self.is_held:
            return
        self.is_held = False
        self._replica.problems.pop(HELD, None)
        self._replica.notify()

    def _show(self, text: str) -> None:
        self._replica.problems[HELD] = Problem("", "held", text)

    def _ask_later(self) -> None:
        if not self.is_held:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(jittered(ASK_AGAIN_S), self.ask)

    async def _undo(self, hold_id: UUID) -> None:
        """Have the journal's state come back: what was agreed on of it is forgotten, and the rest is merging as ever.

        What is not on this disk is then new to it; what is here with other content is a conflict, of which the journal's
        side keeps the name. So a deleted file comes back, and what a person wrote stays beside it.
        """
        replica = self._replica
        if replica.undone == hold_id:
            return
        await self._until_answered()
        await self._looker.look_at_all()
        async with replica.disk:
            batch = Batch()
            batch.synced.update(dict.fromkeys(find_undone(replica.trees)))
            batch.columns["undone"] = hold_id.bytes
            replica.undone = hold_id
            await replica.write(batch)
        log.info("hold.undone", workspace_id=str(replica.workspace_id), nodes=len(batch.synced))

    async def _until_answered(self) -> None:
        """A request that is still under way may be told of what is about to be undone."""
        replica = self._replica
        changed = replica.listen()
        try:
            while replica.in_flight is not None:
                changed.clear()
                await changed.wait()
        finally:
            replica.unlisten(changed)


def find_undone(trees: Trees) -> list[UUID]:
    """The nodes that this device has deleted, or given other content, and the journal has not heard of it."""
    ignored = trees.all_ignored()
    found = []
    for node_id in trees.dirty:
        remote, local = trees.remote.get(node_id), trees.local.get(node_id)
        synced = trees.synced.get(node_id)
        if remote is None or synced is None or node_id in ignored:
            continue
        if local is None or local.content != synced.content:
            found.append(node_id)
    return found


def describe(hold: HoldInfo) -> str:
    """What is held, for a person."""
    parts = [f"{hold.deleted} deletions and {hold.rewritten} changes"]
    if hold.to_follow:
        parts.append(f"({hold.to_follow} more would follow)")
    return " ".join([*parts, "wait for `hutch review`"])


class Ages:
    """Which nodes are old: those that were in the journal an hour ago, or when this agent began. Pure but for its memory."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def old_seq(self, now_s: float, seq: int) -> int:
        """The journal's sequence an hour ago, as far as it is known, given where it stands now."""
        if not self._marks or self._marks[-1][0] <= now_s - _MARK_S:
            self._marks.append((now_s, seq))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - OLD_S:
            self._marks.popleft()
        return self._marks[0][1]


def count_touched(changes: Iterable[Change], old_seq: int) -> int:
    """How many old nodes these changes of the journal delete or give other content."""
    return sum(_touches(change) and change.before.version <= old_seq for change in changes if change.before)


def _touches(change: Change) -> bool:
    if change.after is None:
        return True
    return change.fills and change.after.kind is not Kind.DIRECTORY
