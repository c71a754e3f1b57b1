"""Read the files whose content is not known: cut them into chunks and name what they hold.

What was read is believed only if the file looked the same before and after, and had rested for a moment: a write
that comes within one tick of the file system's clock could otherwise not be seen.
"""

import asyncio
import heapq
import os
import time
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from agent.chunk import CuttingCancelled, begins_with, choose_cut, cut_file
from agent.filesystem import SYNC_ALL_FROM, Root, print_of, sync_everything, sync_fd
from agent.index import Batch, Print
from agent.patience import next_delay_s
from agent.replica import Replica
from agent.scan import UNREADABLE, Problem, printable
from agent.trees import Node, replace
from agent.xattrs import Seen, see
from broker.model import FullContent, manifest_digest

log = structlog.get_logger()

SETTLE_NS: Final = 25_000_000
"""How long a file must have rested before it is read. The kernel's clock for inodes ticks every 4 to 10 ms."""

COARSE_TICKS_NS: Final = ((1_000_000_000, 2_000_000_000), (10_000_000, 10_000_000), (1_000_000, 1_000_000))
"""Ticks of file systems with coarse clocks, by what divides all their times: FAT has two seconds, ext3 one."""

GROWING_AFTER_S: Final = 5.0
"""How long a file may go on changing before it is read for all that."""

_GROUP_FILES: Final = 256
_GROUP_SIZE_BYTES: Final = 8 * 1024 * 1024
_LANES: Final = 2
_MANY: Final = 4_096
_CHOOSE_EVERY_S: Final = 2.0


class Job(Struct, frozen=True):
    """A file to read: the node, where it is, how it looked, and how to cut it.

    `growing`: it does not come to rest. What it held when it was looked at counts if it has merely grown since.
    `lacking` names extended attributes of it that the disk has not taken.
    """

    node: Node
    path: str
    look: Print
    cut: int
    growing: bool = False
    lacking: tuple[str, ...] = ()


class Read(Struct, frozen=True):
    """What came of a job: the content, and the extended attributes that it had with it.

    None, with the error where there was one: it has to be looked at again.
    """

    job: Job
    content: FullContent | None
    seen: Seen | None = None
    error: str | None = None


class Hasher:
    """Hashes one folder's files, small ones first, in two threads."""

    def __init__(self, replica: Replica, hint: Callable[[str], None]) -> None:
        self._replica = replica
        self._hint = hint
        self._busy: set[UUID] = set()
        self._tries: dict[UUID, int] = {}
        self._not_before: dict[UUID, float] = {}
        self._unreadable: set[UUID] = set()
        self._restless: dict[UUID, float] = {}  # since when a file was never at rest
        self._stopping = False
        self._chosen: list[UUID] = []
        self._choose_at = 0.0

    def _waiting(self, *, large: bool) -> list[Node]:
        """Some of the files whose content is not known yet: the smallest, or the largest when that is very large."""
        trees, now = self._replica.trees, asyncio.get_running_loop().time()
        nodes = [
            trees.local.nodes[node_id]
            for node_id in (trees.unread if len(trees.unread) <= _MANY else self._choose_some(now))
            if node_id not in self._busy
            and node_id not in trees.ignored
            and self._not_before.get(node_id, 0.0) <= now
        ]
        if large:
            largest = max(nodes, key=_size, default=None)
            if largest is not None and largest.size > _GROUP_SIZE_BYTES:
                return [largest]
        return heapq.nsmallest(_GROUP_FILES, nodes, key=_size)

    def _choose_some(self, now: float) -> list[UUID]:
        """Of very many, the smallest and the largest. To look at all takes its time: they are chosen anew only now and then."""
        trees = self._replica.trees
        some = [node_id for node_id in self._chosen if node_id in trees.unread]
        if now >= self._choose_at or len(some) < _GROUP_FILES:
            nodes = [
                trees.local.nodes[node_id]
                for node_id in trees.unread
                if node_id not in trees.ignored and self._not_before.get(node_id, 0.0) <= now
            ]
            chosen = [*heapq.nsmallest(_MANY, nodes, key=_size), *heapq.nlargest(1, nodes, key=_size)]
            self._chosen = some = list({node.node_id: None for node in chosen})
            self._choose_at = now + _CHOOSE_EVERY_S
        return some

    @property
    def is_done(self) -> bool:
        """Whether every file that can be read was read."""
        trees = self._replica.trees
        return trees.unread <= self._unreadable | trees.ignored

    @property
    def unreadable(self) -> frozenset[UUID]:
        """Files that cannot be read, and are left out."""
        return frozenset(self._unreadable)

    def is_filling(self) -> bool:
        """Whether small files are about to be known that were not looked at before, so that a commit gains by waiting."""
        trees = self._replica.trees
        return any(
            trees.local.nodes[node_id].size <= _GROUP_SIZE_BYTES
            for node_id in trees.unread
            if node_id not in self._tries and node_id not in trees.ignored
        )

    async def run(self) -> None:
        """Hash whatever needs it. Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for lane in range(_LANES):
                    group.create_task(self._lane(lane), name=f"hash {lane}")
        finally:
            self._stopping = True

    async def _lane(self, lane: int) -> None:
        changed = self._replica.listen()
        while True:
            changed.clear()
            jobs, wait_s = await self._next_jobs(large=lane == 0)
            if not jobs:
                try:
                    async with asyncio.timeout(wait_s):
                        await changed.wait()
                except TimeoutError:
                    pass
                continue
            self._busy.update(job.node.node_id for job in jobs)
            try:
                began = asyncio.get_running_loop().time()
                reads = await asyncio.to_thread(read_files, self._replica.root, jobs, lambda: self._stopping)
                await self._take(reads, (asyncio.get_running_loop().time() - began) / len(jobs))
            finally:
                self._busy.difference_update(job.node.node_id for job in jobs)

    # --- choosing

    async def _next_jobs(self, *, large: bool) -> tuple[list[Job], float | None]:
        """Some files to read now; or none, and how long until there may be some. One lane prefers the largest."""
        jobs: list[Job] = []
        soonest: float | None = None
        if len(self._restless) > 2 * len(self._replica.trees.unread) + _GROUP_FILES:
            unread = self._replica.trees.unread
            self._restless = {each: since for each, since in self._restless.items() if each in unread}
        total = 0
        for node in self._waiting(large=large):
            rest_s, growing = self._rest_s(node), self._is_restless(node.node_id)
            if rest_s > 0 and not growing:
                soonest = rest_s if soonest is None else min(soonest, rest_s)
                continue
            if jobs and (len(jobs) >= _GROUP_FILES or total + node.size > _GROUP_SIZE_BYTES):
                break
            path = self._replica.trees.local.path(node.node_id)
            if path is not None and node.node_id in self._replica.prints:
                lacking = self._replica.trees.lacking.get(node.node_id, ())
                look, cut = self._replica.prints[node.node_id], await self._cut(node)
                jobs.append(Job(node, path, look, cut, growing, lacking))
                total += node.size
        return jobs, soonest if soonest is not None else self._next_retry_s()

    def _is_restless(self, node_id: UUID) -> bool:
        """Whether a file has been changing for so long that nobody waits for its rest any more."""
        now = asyncio.get_running_loop().time()
        return now - self._restless.setdefault(node_id, now) >= GROWING_AFTER_S

    def _rest_s(self, node: Node) -> float:
        """How much longer to leave a file alone."""
        look = self._replica.prints.get(node.node_id)
        return 0.0 if look is None else rest_s(look)

    def _next_retry_s(self) -> float | None:
        """How long until the first of those that were put off may be tried again."""
        trees = self._replica.trees
        unread, now = trees.unread - trees.ignored, asyncio.get_running_loop().time()
        times = [when for node_id, when in self._not_before.items() if node_id in unread]
        return max(0.01, min(times) - now) if times else None

    async def _cut(self, node: Node) -> int:
        """As it was cut before: another cut would share nothing with its past."""
        remote = self._replica.trees.remote.get(node.node_id)
        if remote is not None and remote.digest:
            known = await self._replica.manifests([remote.digest])
            if remote.digest in known:
                return known[remote.digest].cut
        return choose_cut(node.size)

    # --- taking over

    async def _take(self, reads: Sequence[Read], took_s: float) -> None:
        replica, batch = self._replica, Batch()
        async with replica.disk:
            for read in reads:
                node_id = read.job.node.node_id
                node = self._still_wanted(read.job)
                if node is None:
                    continue  # another look has seen something newer meanwhile
                if read.content is None or read.seen is None:
                    self._try_later(read)
                    continue
                digest = manifest_digest(read.content.chunks)
                batch.local[node_id] = replace(node, digest=digest, xattrs=read.seen.xattrs)
                batch.prints[node_id] = read.job.look
                replica.fresh.discard(node_id)
                if read.seen.regained:
                    batch.lacking[node_id] = replica.without_regained(node_id, read.seen.regained)
                if read.seen.oversized is not (node_id in replica.trees.oversized):
                    batch.oversized[node_id] = read.seen.oversized
                batch.manifests[digest] = read.content
                self._restless.pop(node_id, None)
                self._pause(read.job, took_s)
                if node_id in self._unreadable:
                    self._unreadable.discard(node_id)
                    replica.problems.pop(read.job.path, None)
                self._tries.pop(node_id, None)
                self._not_before.pop(node_id, None)
            if batch.local:
                await replica.write(batch)

    def _still_wanted(self, job: Job) -> Node | None:
        """The node as it was when it was read, if that is still what is asked for; None: something newer is known of it."""
        node = self._replica.trees.local.get(job.node.node_id)
        if node is job.node:
            return node
        look = self._replica.prints.get(job.node.node_id)
        if (
            not job.growing
            or node is None
            or look is None
            or not node.is_unhashed
            or look.ino != job.look.ino
        ):
            return None
        return replace(node, size=job.node.size, mtime_ns=job.node.mtime_ns, mode=job.node.mode)

    def _pause(self, job: Job, took_s: float) -> None:
        """Leave a file alone for a while that changes again and again."""
        loop, replica = asyncio.get_running_loop(), self._replica
        if job.node.node_id in replica.trees.remote:
            rest_s = replica.pace.note(job.node.node_id, loop.time(), took_s)
            parent = job.path.rpartition("/")[0]
            if rest_s or job.growing:
                loop.call_later(rest_s, self._hint, parent)

    def _try_later(self, read: Read) -> None:
        """It changes while it is read, or cannot be read: look again, a little later each time."""
        node_id = read.job.node.node_id
        tries = self._tries[node_id] = self._tries.get(node_id, 0) + 1
        self._not_before[node_id] = asyncio.get_running_loop().time() + next_delay_s(tries, 0.5)
        if read.error is not None:
            self._unreadable.add(node_id)
            path = read.job.path
            self._replica.problems[path] = Problem(printable(path), UNREADABLE, read.error)
        self._hint(read.job.path.rpartition("/")[0])
        self._replica.notify()


def rest_s(look: Print) -> float:
    """How much longer to leave alone what looks like this, so that a later change of it shows. Not negative."""
    age_ns = time.time_ns() - look.ctime_ns  # noqa: TID251  # against the file system's own clock, on this host
    settle_ns = settling_ns(look)
    return (settle_ns - age_ns) / 1e9 if 0 <= age_ns < settle_ns else 0.0


def settling_ns(look: Print) -> int:
    """How long a file must have rested so that a later write shows: a tick of its file system's clock, and a little.

    A time of whole seconds, or of tens of milliseconds, is that of a file system that keeps no finer ones.
    """
    coarse = (tick_ns for divisor_ns, tick_ns in COARSE_TICKS_NS if look.ctime_ns % divisor_ns == 0)
    return SETTLE_NS + next(coarse, 0)


def _size(node: Node) -> int:
    return node.size


def read_files(root: Root, jobs: Sequence[Job], cancelled: Callable[[], bool]) -> list[Read]:
    """Read some files, one after the other, and make what was read durable. Blocks.

    What this device tells others must be here after a power cut too, with its name. Else a file could be torn by it,
    look as it did (its size and times were written, its bytes not), and be believed to hold what was read before; or
    it could be gone with a new directory, and be taken for one that a person deleted.
    """
    reads = []
    all_at_once = len(jobs) >= SYNC_ALL_FROM
    for job in jobs:
        try:
            reads.append(_read_file(root, job, cancelled, sync=not all_at_once))
        except CuttingCancelled:
            break
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            reads.append(Read(job, None, error=None if gone else error.strerror or str(error)))
    if all_at_once:
        sync_everything(root.fd)
    else:
        root.sync({read.job.path.rpartition("/")[0] for read in reads if read.content is not None})
    return reads


def _read_file(root: Root, job: Job, cancelled: Callable[[], bool], *, sync: bool) -> Read:
    with root.open(job.path) as fd:
        if job.growing:
            return _read_beginning(root, fd, job, cancelled)
        if not job.look.same_content(print_of(os.fstat(fd), 0)):
            return Read(job, None)
        chunks, size = cut_file(fd, cut=job.cut, cancelled=cancelled)
        if sync:
            sync_fd(fd)
        seen = see(root, fd, job.node.xattrs, job.lacking)
        if size != job.look.size or not job.look.same_content(print_of(os.fstat(fd), 0)):
            return Read(job, None)
    return Read(job, FullContent(job.cut, chunks), seen)


def _read_beginning(root: Root, fd: int, job: Job, cancelled: Callable[[], bool]) -> Read:
    """What a file held when it was looked at, if it has only grown since: read twice, so that no half of a change counts."""
    now = print_of(os.fstat(fd), 0)
    if (now.dev, now.ino) != (job.look.dev, job.look.ino) or now.size < job.look.size:
        return Read(job, None)
    chunks, size = cut_file(fd, cut=job.cut, cancelled=cancelled, size=job.look.size)
    sync_fd(fd)
    seen = see(root, fd, job.node.xattrs, job.lacking)
    if size != job.look.size or not begins_with(fd, chunks):
        return Read(job, None)
    return Read(job, FullContent(job.cut, chunks), seen)
