"""One synced folder at work: the rooms that look, hash, upload, commit, receive and place, joined around its replica."""

import asyncio
import os
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from agent.commit import Committer
from agent.errors import DiskFull, NotWritable
from agent.fetch import PLACING, Fetcher
from agent.filesystem import Root
from agent.hashing import Hasher
from agent.hold import Hold
from agent.home import Credential, FolderRecord
from agent.index import Batch, Index
from agent.look import Looker
from agent.marker import Marker, read_marker, write_marker
from agent.plan import Change
from agent.receive import QUEUE_WAIT_S, Receiver
from agent.reclaim import Reclaimer
from agent.replica import Replica
from agent.resolve import Resolver
from agent.scan import Problem, RootGone, printable
from agent.service import Service
from agent.standing import KeptProblem, conflict_paths, decode_problems, encode_problems, standing
from agent.transfer import Transfer
from agent.trees import Trees
from agent.upload import Uploader
from broker.delivery import Publishing
from broker.errors import HutchError
from broker.messages import ChangeNotice, CommitAccepted, CommitRefused
from broker.model import MAX_XATTRS, MAX_XATTRS_SIZE_BYTES, Cursor

log = structlog.get_logger()

REOPEN_S: Final = 5.0


def new_node_id() -> UUID:
    """A UUIDv7: the time in milliseconds, then randomness (RFC 9562, section 5.7)."""
    stamp = time.time_ns() // 1_000_000  # noqa: TID251  # an id may bear the wall clock; nothing is decided by it
    value = (stamp & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


class Folder:
    """One folder, from the opening of its directory to its closing."""

    def __init__(
        self,
        replica: Replica,
        *,
        transfer: Transfer,
        service: Service,
        publisher: Publishing,
        may_run: asyncio.Event,
    ) -> None:
        self.replica = replica
        self._kept = decode_problems(replica.kept_problems)
        self.looker = Looker(replica, new_node_id)
        self.hasher = Hasher(replica, self.looker.hint)
        self.receiver = Receiver(replica, service, lambda: self.looker.hint("", deep=True))
        self.reclaimer = Reclaimer(replica, service)
        self.uploader = Uploader(replica, transfer, self.looker.hint, may_run)
        self.hold = Hold(replica, service, self.looker)
        self.committer = Committer(
            replica,
            self.uploader,
            self.receiver,
            publisher,
            service,
            may_run,
            self._is_filling,
            self.looker,
            self.hold,
        )
        self.fetcher = Fetcher(replica, transfer, service, self.looker.hint, may_run)
        self.resolver = Resolver(replica, self.fetcher, transfer, self.looker.hint)
        self._recovering = True

    @classmethod
    async def open(
        cls,
        record: FolderRecord,
        credential: Credential,
        index: Index,
        *,
        transfer: Transfer,
        service: Service,
        publisher: Publishing,
        may_run: asyncio.Event,
    ) -> "Folder":
        """Open a folder, and decide whether its database is to be believed.

        Raises:
            RootGone: When it is not in its place, or its mark is another one's.
        """
        path = Path(record.folder)
        replica, marker = await open_replica(record, credential, index)
        if replica.generation < marker.generation:
            if replica.cursor is not None:
                log.warning("index.rolled_back", workspace_id=str(record.workspace_id))
                await replica.distrust()
            replica.unclaimed = (
                True  # another database has synced this folder: others may have deleted what lies here
            )
        await _next_generation(replica, path, marker)
        return cls(replica, transfer=transfer, service=service, publisher=publisher, may_run=may_run)

    async def run(self) -> None:
        """Keep the folder in step. Runs until cancelled."""
        try:
            await self.fetcher.recover()
            self._recovering = False
            async with asyncio.TaskGroup() as group:
                for name, work in (
                    ("receive", self.receiver.run()),
                    ("reclaim", self.reclaimer.run()),
                    ("look", self.looker.run()),
                    ("hash", self.hasher.run()),
                    ("upload", self.uploader.run()),
                    ("commit", self.committer.run()),
                    ("hold", self.hold.run()),
                    ("fetch", self.fetcher.run()),
                    ("keep problems", self._keep_problems_as_they_come()),
                ):
                    group.create_task(work, name=f"{name} {self.replica.name}")
        finally:
            self.replica.root.close()

    def _is_filling(self) -> bool:
        """Whether more of what was saved together is about to be ready: it is committed together."""
        return self.hasher.is_filling() or self.uploader.is_filling()

    # --- messages

    async def take(self, message: ChangeNotice | CommitRefused | CommitAccepted) -> None:
        """Take one message of the device's queue; stored when this returns."""
        try:
            match message:
                case ChangeNotice():
                    await self.receiver.take(message)
                case CommitRefused():
                    await self.committer.refused(message)
                case CommitAccepted():
                    await self.committer.accepted(message)
        except HutchError as error:
            log.error("message.refused", workspace_id=str(self.replica.workspace_id), error=str(error))
            self.receiver.ask()

    def compare_head(self, head: Cursor, wait_s: float = QUEUE_WAIT_S) -> None:
        """The service has told where its journal stands: see to what is missing.

        Args:
            head: As told.
            wait_s: What has not come out of the device's own queue after so long is asked for.
        """
        cursor = self.replica.cursor
        if (
            cursor is None
            or cursor.epoch != head.epoch
            or cursor.seq != head.seq
            or cursor.chain != head.chain
        ):
            self.replica.tell_head(head)
            if cursor is not None and cursor.epoch == head.epoch and cursor.seq < head.seq:
                self.receiver.expect(wait_s)
            else:
                self.receiver.ask()  # an older head was overtaken by a notice, or the service was set back: it can tell

    # --- for people

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do that can be done now."""
        replica = self.replica
        return (
            not self.looker.is_looking
            and replica.in_flight is None
            and not replica.is_behind
            and not replica.unclaimed
            and self.hasher.is_done
            and self.fetcher.is_done
            and replica.plan().is_empty
        )

    @property
    def is_held_up(self) -> bool:
        """Whether all that is left to do is what a person has to decide on first."""
        replica = self.replica
        return (
            self.hold.is_held
            and not self._recovering
            and not self.looker.is_looking
            and not replica.is_behind
            and self.hasher.is_done
            and self.fetcher.is_done
            and not replica.plan().place
        )

    @property
    def stuck(self) -> Problem | None:
        """Why nothing more can be done until a person has mended it: no room, or no leave to write, to place the rest.

        None: that is not all that is left to do.
        """
        replica = self.replica
        problem = replica.problems.get(PLACING)
        if problem is None or problem.code not in (DiskFull.code, NotWritable.code):
            return None
        has_looked = (
            not self.looker.is_looking or replica.intent is not None
        )  # half placed: it looks when that is whole
        is_all = (
            has_looked and replica.in_flight is None and self.hasher.is_done and not replica.plan().commit
        )
        return problem if self._recovering or is_all else None

    def status(self) -> dict[str, Any]:
        """What `hutch status --json` says of this folder."""
        replica = self.replica
        plan = replica.plan()
        trees = replica.trees
        unread = trees.unread - trees.ignored - self.hasher.unreadable
        return standing(
            name=replica.name,
            workspace_id=replica.workspace_id,
            folder=str(replica.root.folder),
            cursor=replica.cursor.seq if replica.cursor else 0,
            head=replica.head.seq if replica.head else 0,
            placed=placed_seq(replica.cursor, trees, plan.place),
            pending_up=len(plan.commit) + len(unread),
            pending_down=len(plan.place) + _missing(replica),
            conflicts=conflict_paths(trees.local, replica.conflicts),
            aliases=[
                (printable(trees.local.path(node_id) or ""), printable(trees.local.nodes[node_id].name))
                for node_id in trees.local.aliases
            ],
            problems=[kept.problem for kept in self._problems()],
        )

    def _problems(self) -> list[KeptProblem]:
        replica = self.replica
        held = [*replica.parked.items(), *replica.broken.items()]
        return [
            *(
                KeptProblem(problem)
                for problem in (*replica.problems.values(), *_xattr_problems(replica.trees))
            ),
            *(KeptProblem(problem, node_id) for node_id, problem in held),
        ]

    async def keep_problems(self) -> None:
        """Write down what is wrong, so that it can be told when the agent does not run. Before the first look: nothing."""
        problems = self._problems()
        if not self.replica.looked or problems == self._kept:
            return
        batch = Batch()
        batch.columns["problems"] = encode_problems(problems)
        await self.replica.index.write(self.replica.key, batch)
        self._kept = problems

    async def _keep_problems_as_they_come(self) -> None:
        changed = self.replica.listen()
        while True:
            changed.clear()
            await self.keep_problems()
            await changed.wait()


def _today() -> str:
    """The date by the person's own calendar, for the names of conflict copies alone."""
    return date.today().isoformat()  # noqa: DTZ011, TID251


def placed_seq(cursor: Cursor | None, trees: Trees, place: Iterable[Change]) -> int:
    """The highest sequence of which everything stands on disk; the cursor says what was merely received."""
    if cursor is None:
        return 0
    waiting = []
    for change in place:
        node = trees.remote.get(change.node_id)
        waiting.append(trees.tombstones.get(change.node_id, 0) if node is None else node.version)
    return min([cursor.seq, *(version - 1 for version in waiting if version)])


def _xattr_problems(trees: Trees) -> list[Problem]:
    found = [
        Problem(
            printable(trees.local.path(node_id) or ""),
            "xattrs_too_large",
            f"more than {MAX_XATTRS} extended attributes, or {MAX_XATTRS_SIZE_BYTES // 1024} KiB of them: they are not synced",
        )
        for node_id in sorted(trees.oversized, key=lambda node_id: node_id.int)
    ]
    if trees.lacking:
        text = f"this disk does not take some extended attributes ({len(trees.lacking)} files or folders): others keep them"
        found.append(Problem("", "xattrs_not_kept", text))
    return found


def _missing(replica: Replica) -> int:
    if replica.cursor is None or replica.head is None:
        return 0
    return max(0, replica.head.seq - replica.cursor.seq)


async def open_replica(record: FolderRecord, credential: Credential, index: Index) -> tuple[Replica, Marker]:
    """A folder as the database has it, with its open root directory, which the caller closes; and its mark.

    Raises:
        RootGone: When it is not in its place, or its mark is another one's.
    """
    path = Path(record.folder)
    root = await asyncio.to_thread(_open_root, path)
    try:
        marker = await asyncio.to_thread(check_marker, path, record, credential)
        state, trees = await index.load(record.workspace_id)
    except BaseException:
        root.close()
        raise
    replica = Replica(
        workspace_id=record.workspace_id,
        name=record.name,
        device_id=credential.device_id,
        device_name=credential.device_name,
        index=index,
        root=root,
        state=state,
        trees=trees,
        today=_today,
    )
    if state.cursor is None and state.left_folder == record.folder:
        replica.unclaimed = True  # it was taken off, and comes back: others may have deleted what lies here
    return replica, marker


def _open_root(path: Path) -> Root:
    try:
        return Root(path)
    except OSError as error:
        raise RootGone(
            f"{path} cannot be opened ({error.strerror}): nothing is synced until it can"
        ) from error


def check_marker(path: Path, record: FolderRecord, credential: Credential) -> Marker:
    """The mark of a folder. Raises `RootGone` when it has none, or another one's. Blocks."""
    marker = read_marker(path)
    if marker is None:
        raise RootGone(
            f"{path} does not bear Hutch's mark (unmounted, emptied or replaced?): nothing is synced"
        )
    if (marker.workspace_id, marker.device_id) != (record.workspace_id, credential.device_id):
        raise RootGone(f"{path} bears the mark of another workspace or device: nothing is synced")
    return marker


async def _next_generation(replica: Replica, path: Path, marker: Marker) -> None:
    """Each start counts, here and in the folder: a database from yesterday's backup is then seen to be one.

    The database first: after a crash between the two it is ahead by one, which no backup ever is.
    """
    generation = max(replica.generation, marker.generation) + 1
    batch = Batch()
    batch.columns.update(generation=generation, unclaimed=int(replica.unclaimed), left_folder=None)
    await replica.index.write(replica.key, batch)
    await asyncio.to_thread(
        write_marker,
        path,
        Marker(workspace_id=marker.workspace_id, device_id=marker.device_id, generation=generation),
    )
    replica.generation = generation
