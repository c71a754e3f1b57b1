"""Follow the journal: notices as they come, the changes since the cursor when one is missing, a snapshot at first.

A notice is a hint. It is believed when its entries chain on from the cursor; else the metadata server is asked.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from agent.index import Batch, InFlight, Taken
from agent.patience import Patience
from agent.replay import Replayed, check_nodes, node_of, replay
from agent.replica import Replica, agree
from agent.scan import Problem
from agent.service import Service
from agent.trees import Node, Tree
from broker.errors import Corrupt, CursorUnknown, HutchError, Retryable
from broker.messages import ChangeNotice, JournalEntry, decode_entry
from broker.model import CopiedContent, Cursor, FullContent, Put, SplicedContent, extend_chain

log = structlog.get_logger()

PREDECESSOR_WAIT_S: Final = 0.2
"""How long a notice that came early waits for the one before it."""

QUEUE_WAIT_S: Final = 2.0
"""How long what is known to be missing may take to come out of the device's own queue."""

_ENTRIES_AT_ONCE: Final = 200
_MANIFESTS_AT_ONCE: Final = 4_000


class Receiver:
    """Keeps one folder's remote tree with the journal."""

    def __init__(self, replica: Replica, service: Service, look_at_all: Callable[[], None]) -> None:
        self._replica = replica
        self._look_at_all = look_at_all
        self._service = service
        self._taking = asyncio.Lock()
        self._early: dict[int, bytes] = {}
        self._heads: dict[int, bytes] = {}  # the chain at the end of each notice that is not taken yet
        self._behind = asyncio.Event()
        self._answered = asyncio.Event()
        self._expecting: asyncio.TimerHandle | None = None

    @property
    def answered(self) -> asyncio.Event:
        """Set when the request in flight was answered."""
        return self._answered

    def ask(self) -> None:
        """Ask the metadata server for what is missing, soon."""
        self._behind.set()

    def expect(self, wait_s: float = QUEUE_WAIT_S) -> None:
        """The journal goes on after the cursor: ask for the rest once it has stopped coming for `wait_s`."""
        loop, cursor = asyncio.get_running_loop(), self._replica.cursor
        if cursor is None:
            self.ask()
            return
        if self._expecting is not None:
            if self._expecting.when() <= loop.time() + wait_s:
                return
            self._expecting.cancel()
        self._expecting = loop.call_later(wait_s, self._ask_if_quiet, cursor.seq)

    def _ask_if_quiet(self, seq: int) -> None:
        self._expecting = None
        cursor = self._replica.cursor
        if not self._replica.is_behind:
            return
        if cursor is not None and cursor.seq > seq:
            self.expect()
        else:
            self.ask()

    async def run(self) -> None:
        """Catch up whenever something is missing. Runs until cancelled."""
        patience = Patience()
        if self._replica.cursor is None:
            self.ask()
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                await self._catch_up()
                self._replica.problems.pop("\0journal", None)
                patience = Patience()
            except CursorUnknown:
                log.warning("cursor.distrusted", workspace_id=str(self._replica.workspace_id))
                await self._replica.distrust()
                self._look_at_all()
                self._behind.set()
            except Retryable as error:
                log.info("changes.delayed", workspace_id=str(self._replica.workspace_id), error=str(error))
                self._behind.set()
                await patience.wait()
            except HutchError as error:
                log.error("changes.refused", workspace_id=str(self._replica.workspace_id), error=str(error))
                self._replica.problems["\0journal"] = Problem("", error.code, str(error))
                self._behind.set()
                await patience.wait()

    # --- notices

    async def take(self, notice: ChangeNotice) -> None:
        """Take a notice. When this returns, it is stored, or known to be fetched later: it may be acknowledged."""
        replica = self._replica
        replica.tell_head(notice.head)
        first = notice.head.seq - len(notice.entries) + 1
        for offset, entry in enumerate(notice.entries):
            self._early[first + offset] = entry
        if not notice.entries:
            self.ask()
            return
        if replica.cursor is None or notice.head.epoch != replica.cursor.epoch:
            self._early.clear()
            self._heads.clear()
            self.ask()
            return
        if notice.head.seq == replica.cursor.seq and notice.head.chain != replica.cursor.chain:
            self.ask()  # the service has another entry there: it was set back
        self._heads[notice.head.seq] = notice.head.chain
        await self._take_early()
        if self._early:
            missing = replica.cursor.seq + 1
            asyncio.get_running_loop().call_later(PREDECESSOR_WAIT_S, self._ask_if_missing, missing)

    def _ask_if_missing(self, seq: int) -> None:
        if self._replica.cursor is None or self._replica.cursor.seq < seq:
            self.ask()

    async def _take_early(self) -> None:
        async with self._taking:
            cursor = self._replica.cursor
            if cursor is None:
                return
            entries: list[bytes] = []
            while (entry := self._early.pop(cursor.seq + len(entries) + 1, None)) is not None:
                entries.append(entry)
            for seq in [seq for seq in self._early if seq <= cursor.seq]:
                del self._early[seq]
            if len(self._early) > _ENTRIES_AT_ONCE:
                self._early.clear()
                self._heads.clear()
                self.ask()
            if not entries:
                return
            if not self._follows(cursor, entries):
                log.warning(
                    "notice.disbelieved", workspace_id=str(self._replica.workspace_id), seq=cursor.seq
                )
                self._early.clear()
                self._heads.clear()
                self.ask()
                return
            await self._store(cursor, entries)

    def _follows(self, cursor: Cursor, entries: Sequence[bytes]) -> bool:
        """Whether entries chain on from the cursor as every notice that brought them has said."""
        chain = cursor.chain
        for seq, entry in enumerate(entries, cursor.seq + 1):
            chain = extend_chain(chain, entry)
            if self._heads.get(seq, chain) != chain:
                return False
        last = cursor.seq + len(entries)
        self._heads = {seq: told for seq, told in self._heads.items() if seq > last}
        return True

    # --- catching up

    async def _catch_up(self) -> None:
        cursor = self._replica.cursor
        if cursor is None:
            await self._take_snapshot()
            return
        async with self._service.changes(self._replica.workspace_id, cursor) as stream:
            entries: list[bytes] = []
            async for entry in stream:
                entries.append(entry)
                if len(entries) >= _ENTRIES_AT_ONCE:
                    await self._take_fetched(entries)
                    entries = []
            await self._take_fetched(entries)
            self._replica.tell_head(stream.head)
        reached = self._replica.cursor
        if reached is not None and reached.epoch == stream.head.epoch and reached.seq < stream.head.seq:
            raise Corrupt(f"the journal ends at {reached.seq}, before its head {stream.head.seq}")

    async def _take_fetched(self, entries: Sequence[bytes]) -> None:
        async with self._taking:
            cursor = self._replica.cursor
            assert cursor is not None
            fresh = [entry for entry in entries if decode_entry(entry).seq > cursor.seq]
            if fresh:
                await self._store(cursor, fresh)

    async def _take_snapshot(self) -> None:
        async with self._taking, self._service.snapshot(self._replica.workspace_id) as stream:
            batch, contents = Batch(), Batch()
            async for record in stream:
                node, content = node_of(record)
                batch.remote[node.node_id] = node
                if content is not None:
                    contents.manifests[node.digest] = content
                if len(contents.manifests) >= _MANIFESTS_AT_ONCE:
                    # Of no use before the rest is there, and of no harm either: they need not be held until then.
                    await self._replica.index.write(self._replica.key, contents)
                    contents = Batch()
            batch.manifests = contents.manifests
            check_nodes(batch.remote, Tree())
            self._replica.set_cursor(batch, stream.head)
            self._replica.joining = True
            await self._replica.write(batch)
            log.info("snapshot.taken", workspace_id=str(self._replica.workspace_id), seq=stream.head.seq)

    # --- storing

    async def _store(self, cursor: Cursor, entries: Sequence[bytes]) -> None:
        """Apply consecutive entries to the remote tree, with the cursor, in one transaction.

        The chain over them is part of the next cursor: when somebody has tampered, the next call with it says so.
        """
        batch = Batch()
        undo: dict[UUID, Node | None] = {}
        in_flight, answered = self._replica.in_flight, False
        try:
            for data in entries:
                entry = decode_entry(data)
                if entry.seq != cursor.seq + 1:
                    raise Corrupt(f"the journal has entry {entry.seq} after {cursor.seq}")
                cursor = Cursor(cursor.epoch, entry.seq, extend_chain(cursor.chain, data))
                replayed = await self._replay(entry, batch, undo)
                answered |= self._settle(entry, replayed, batch)
                own = entry.device_id == self._replica.device_id
                batch.commits[entry.seq] = Taken(entry.committed_ns, own)
        except BaseException:
            self._replica.trees.remote.update(undo)
            self._replica.in_flight = in_flight
            raise
        self._replica.set_cursor(batch, cursor)
        await self._replica.write(batch)
        log.info("cursor.advanced", workspace_id=str(self._replica.workspace_id), seq=cursor.seq)
        if answered:
            self._answered.set()

    async def _replay(self, entry: JournalEntry, batch: Batch, undo: dict[UUID, Node | None]) -> Replayed:
        remote = self._replica.trees.remote
        digests = [
            node.digest
            for operation in entry.operations
            if isinstance(operation, Put) and not isinstance(operation.content, FullContent)
            if (node := remote.get(_base_of(operation))) is not None
        ]
        known = await self._replica.manifests(digests) if digests else {}
        replayed = replay(entry, remote, lambda digest: batch.manifests.get(digest) or known.get(digest))
        # In memory at once: the next entry of this batch is replayed upon it.
        for node_id in replayed.nodes:
            undo.setdefault(node_id, remote.get(node_id))
        remote.update(replayed.nodes)
        batch.remote.update(replayed.nodes)
        batch.manifests.update(replayed.manifests)
        batch.tombstones.update(replayed.tombstones)
        for node_id, node in replayed.nodes.items():
            if node is not None:
                batch.tombstones[node_id] = None
        return replayed

    def _settle(self, entry: JournalEntry, replayed: Replayed, batch: Batch) -> bool:
        """An own entry is the answer to the request in flight: what was sent of each node is now agreed on."""
        request = self._replica.in_flight
        if request is None or not self._is_own(entry, request):
            return False
        for node_id, remote in replayed.nodes.items():
            if node_id in request.sent or remote is None:
                synced = batch.synced.get(node_id, self._replica.trees.synced.get(node_id))
                batch.synced[node_id] = agree(synced, remote, request.sent.get(node_id))
        self._replica.in_flight = None
        batch.columns["request"] = None
        return True

    def _is_own(self, entry: JournalEntry, request: InFlight) -> bool:
        replica = self._replica
        return (entry.device_id, entry.incarnation, entry.number) == (
            replica.device_id,
            replica.index.incarnation,
            request.number,
        )


def _base_of(operation: Put) -> UUID:
    content = operation.content
    if isinstance(content, CopiedContent):
        return content.node_id
    assert isinstance(content, SplicedContent)
    return operation.node_id
