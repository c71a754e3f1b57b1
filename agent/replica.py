"""One folder as the agent knows it: its three trees, kept alike in memory and in the database, and who waits for what.

The rooms around it (`look`, `hash`, `commit`, `receive`, `fetch`) read it freely, since all run in one event loop,
and change it through `write` alone. Whoever changes the local tree, or places files, holds `disk`.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from typing import Final, TypeVar
from uuid import UUID

from msgspec import structs

from agent.filesystem import Root
from agent.index import Batch, FolderState, Index, InFlight, Prints, cursor_columns
from agent.names import CONFLICT_MARK
from agent.pace import Pace
from agent.plan import Plan, plan
from agent.scan import Problem
from agent.trees import Node, Trees, agreed_xattrs, replace, same
from broker.model import Cursor, FullContent

K = TypeVar("K")
V = TypeVar("V")

MAX_REST_S: Final = 5.0
_REST_SHARE: Final = 10
_QUICK_S: Final = 0.005
_MANIFESTS_CACHED: Final = 512


class Replica:
    """A folder's state. Not safe for use from two loops or threads.

    Attributes:
        disk: Held by whoever looks at the disk as a whole, or changes it.
        pace: Which files change so often that they are left alone for a while.
        changed: Called after every change, to wake whoever waits.
        parked: Nodes whose commit was refused for good, with the reason, until they change.
        bases: For a conflict copy that was made here, the digest of what it and its original both came from.
        broken: Nodes whose content cannot be had from the service, with the reason.
        problems: What the last looks could not sync, by path.
        placing: Nodes that are being put in place: nothing else is staged for them, and their tombstones are kept.
        unclaimed: Whether it is still to be asked what deleted nodes the local files may have been, because the merge
            base was lost: nothing is told to the journal before.
        joining: Whether a snapshot was taken, and not all that lies here has been matched with it yet.
        rules: By which rules of what to ignore (`Rules.digest`) the whole folder was looked at last; None: by none yet.
        conflicts: Local nodes that bear the name of a conflict copy.
        undone: The held commit that was taken back last.
        kept_problems: What was wrong at the last look, as it was written down (`agent.standing`).
        fresh: Nodes whose extended attributes are to be read at the next look, however they look: a change right after
            they were read may not show, since the clock of inodes is coarse.
        looked: Whether the whole folder was looked at since it was opened, or distrusted: nothing is planned before.
        head: The farthest place in the journal that anybody has told of.
    """

    def __init__(
        self,
        *,
        workspace_id: UUID,
        name: str,
        device_id: UUID,
        device_name: str,
        index: Index,
        root: Root,
        state: FolderState,
        trees: Trees,
        today: Callable[[], str],
    ) -> None:
        self.workspace_id = workspace_id
        self.name = name
        self.device_id = device_id
        self.device_name = device_name
        self.index = index
        self.root = root
        self.key = state.key
        self.generation = state.generation
        self.trees = trees
        self.prints: Prints = state.prints
        self.rules = state.rules
        local = trees.local.nodes.items()
        self.conflicts = {node_id for node_id, node in local if CONFLICT_MARK in node.name}
        self.lingering = state.lingering
        self.bases = state.bases
        self.cursor: Cursor | None = state.cursor
        self.number = state.number
        self.in_flight: InFlight | None = state.request
        self.intent = state.intent
        self.unclaimed = state.unclaimed
        self.kept_problems = state.problems
        self.undone = state.undone
        self.today = today
        self.head = state.cursor
        self.looked = False
        self.joining = False
        self.placing: set[UUID] = set()
        self.xattrs_read = state.xattrs_read
        self.fresh: set[UUID] = set() if state.xattrs_read else set(trees.local.nodes)
        self._kept_back: set[UUID] = set()
        self.disk = asyncio.Lock()
        self.pace = Pace()
        self.parked: dict[UUID, Problem] = {}
        self.broken: dict[UUID, Problem] = {}
        self.problems: dict[str, Problem] = {}
        self._listeners: list[asyncio.Event] = []
        self._rest_s = 0.0
        self._told = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._plan: Plan | None = None
        self._manifests: dict[bytes, FullContent] = {}

    # --- telling

    def listen(self) -> asyncio.Event:
        """An event that is set whenever something changes. Clear it before looking."""
        event = asyncio.Event()
        event.set()
        self._listeners.append(event)
        return event

    def unlisten(self, event: asyncio.Event) -> None:
        """Stop setting an event."""
        self._listeners.remove(event)

    def notify(self) -> None:
        """Say that something has changed that a plan, or a waiting task, should know of.

        Where there is much to plan, it is told less often: planning is to take a small share of the time.
        """
        self._plan = None
        if self._telling is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._told + self._rest_s - loop.time()
        if wait_s <= 0:
            self._tell()
        else:
            self._telling = loop.call_later(wait_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._told = asyncio.get_running_loop().time()
        for event in self._listeners:
            event.set()

    # --- planning

    def plan(self) -> Plan:
        """What is to be done now. The same object until something changes. Empty before the first snapshot."""
        if self._plan is None:
            held = {*self.parked, *self.broken, *self.trees.all_ignored()}
            began = time.perf_counter()
            self._plan = (
                Plan()
                if self.cursor is None or not self.looked
                else plan(self.trees, device=self.device_name, date=self.today(), held=held)
            )
            if self.unclaimed:
                self._plan = structs.replace(self._plan, commit=())
            took_s = time.perf_counter() - began
            self._rest_s = min(MAX_REST_S, _REST_SHARE * took_s) if took_s > _QUICK_S else 0.0
        return self._plan

    @property
    def is_behind(self) -> bool:
        """Whether the journal is known to go on after the cursor."""
        return self.cursor is None or (self.head is not None and _is_after(self.head, self.cursor))

    # --- changing

    async def write(self, batch: Batch) -> None:
        """Take over a batch: in memory at once, and durably when this returns."""
        trees = self.trees
        self._tidy_aliases(batch)
        batch.bases.update(
            {n: None for n in self.bases.keys() & batch.local.keys() if batch.local[n] is None}
        )
        trees.remote.update(batch.remote)
        trees.local.update(batch.local)
        trees.local.rename_on_disk(batch.aliases)
        trees.synced.update(batch.synced)
        self._note_conflicts(batch)
        _merge(self.prints, batch.prints)
        _merge(trees.tombstones, batch.tombstones)
        _merge(trees.copies, batch.copies)
        self._drop_marks(batch)
        _merge(trees.lacking, batch.lacking)
        for node_id, is_oversized in batch.oversized.items():
            (trees.oversized.add if is_oversized else trees.oversized.discard)(node_id)
        _merge(self.lingering, batch.lingering)
        _merge(self.bases, batch.bases)
        for node_id, stays in batch.unannounced.items():
            (trees.unannounced.add if stays else trees.unannounced.discard)(node_id)
        for node_id, is_ignored in batch.ignored.items():
            (trees.ignored.add if is_ignored else trees.ignored.discard)(node_id)
        touched = {*batch.remote, *batch.local, *batch.synced}
        trees.touch(touched)
        self._forget_settled(batch, touched)
        self._remember(batch.manifests)
        self.notify()
        await self.index.write(self.key, batch)

    def _note_conflicts(self, batch: Batch) -> None:
        for node_id, node in batch.local.items():
            is_copy = node is not None and CONFLICT_MARK in node.name
            (self.conflicts.add if is_copy else self.conflicts.discard)(node_id)

    def _tidy_aliases(self, batch: Batch) -> None:
        """What has gone has no alias; nor has what the disk calls by its own name."""
        local = self.trees.local
        if not local.aliases and not batch.aliases:
            return
        for node_id in {*batch.aliases, *(local.aliases.keys() & batch.local.keys())}:
            node = batch.local[node_id] if node_id in batch.local else local.get(node_id)
            alias = batch.aliases.get(node_id, local.aliases.get(node_id))
            batch.aliases[node_id] = None if node is None or alias == node.name else alias
        for node_id in [n for n, alias in batch.aliases.items() if alias is None and n not in local.aliases]:
            del batch.aliases[node_id]

    def _drop_marks(self, batch: Batch) -> None:
        """Nothing is noted of the extended attributes of what is not there."""
        trees = self.trees
        for node_id in [node_id for node_id, node in batch.local.items() if node is None]:
            self.fresh.discard(node_id)
            if node_id in trees.lacking or node_id in batch.lacking:
                batch.lacking[node_id] = None
            if node_id in trees.oversized or node_id in batch.oversized:
                batch.oversized[node_id] = False

    def without_regained(self, node_id: UUID, regained: Collection[str]) -> tuple[str, ...] | None:
        """What of a node's extended attributes the disk lacks, but for those that somebody has set there; None: nothing."""
        names = self.trees.lacking.get(node_id, ())
        return tuple(name for name in names if name not in regained) or None

    def carry_marks(self, batch: Batch, old_id: UUID, new_id: UUID) -> None:
        """Note in a batch that what one node had on disk is another's: its extended attributes are as they were noted."""
        trees = self.trees
        if old_id in trees.lacking or new_id in trees.lacking:
            batch.lacking[new_id] = trees.lacking.get(old_id)
        if old_id in trees.oversized or new_id in trees.oversized:
            batch.oversized[new_id] = old_id in trees.oversized
        self.fresh.add(new_id)

    def _forget_settled(self, batch: Batch, touched: Collection[UUID]) -> None:
        """A tombstone, and a directory that had to stay, matter only as long as something of the node is left.

        What is being placed comes to be in a moment, whatever the journal has said of it since.
        """
        trees = self.trees
        for node_id in {*touched, *self._kept_back}:
            if node_id in batch.local:
                self.parked.pop(node_id, None)
            if node_id in batch.remote:
                self.broken.pop(node_id, None)
            if node_id in self.placing:
                self._kept_back.add(node_id)
                continue
            self._kept_back.discard(node_id)
            if node_id in trees.local or node_id in trees.synced:
                continue
            if trees.tombstones.pop(node_id, None) is not None:
                batch.tombstones[node_id] = None
            if node_id in trees.unannounced:
                trees.unannounced.discard(node_id)
                batch.unannounced[node_id] = False

    def set_cursor(self, batch: Batch, cursor: Cursor) -> None:
        """Note in a batch, and here, what was received."""
        self.cursor = cursor
        if self.head is None or _is_after(cursor, self.head):
            self.head = cursor
        batch.columns.update(cursor_columns(cursor))

    def tell_head(self, head: Cursor) -> None:
        """Somebody has told how far the journal goes."""
        if self.head is None or _is_after(head, self.head):
            self.head = head
            self.notify()

    async def distrust(self) -> None:
        """Forget what this device believed of both sides: the merge base is not to be trusted.

        What is on disk is then looked at afresh and matched to the journal by path: nothing is deleted anywhere.
        """
        async with self.disk:
            trees, batch = self.trees, Batch()
            for tree, changes in (
                (trees.remote, batch.remote),
                (trees.local, batch.local),
                (trees.synced, batch.synced),
            ):
                changes.update(dict.fromkeys(tree.nodes))
            batch.prints.update(dict.fromkeys(self.prints))
            batch.tombstones.update(dict.fromkeys(trees.tombstones))
            batch.copies.update(dict.fromkeys(trees.copies))
            batch.unannounced.update(dict.fromkeys(trees.unannounced, False))
            batch.ignored.update(dict.fromkeys(trees.ignored, False))
            batch.columns.update(chain=None, seq=0, request=None, unclaimed=1, rules=None)
            batch.forgets_commits = True  # another epoch has others of these numbers
            self.rules = None
            self.unclaimed = True
            self.cursor = self.head = self.in_flight = None
            self.looked = False
            await self.write(batch)

    # --- manifests

    async def manifests(self, digests: Iterable[bytes]) -> dict[bytes, FullContent]:
        """The known manifests of some digests."""
        wanted = {digest for digest in digests if digest}
        found = {digest: self._manifests[digest] for digest in wanted if digest in self._manifests}
        if len(found) < len(wanted):
            found.update(await self.index.manifests(list(wanted - found.keys())))
        return found

    async def holders(self, digests: Iterable[bytes]) -> dict[bytes, list[UUID]]:
        """Some of the nodes that hold, in one of the trees, the content of these digests. Ask the tree whether they still do."""
        wanted = [digest for digest in digests if digest]
        return await self.index.holders(self.key, wanted) if wanted else {}

    def _remember(self, manifests: dict[bytes, FullContent]) -> None:
        small = {d: content for d, content in manifests.items() if len(content.chunks) <= 4}
        self._manifests.update(small)
        while len(self._manifests) > _MANIFESTS_CACHED:
            del self._manifests[next(iter(self._manifests))]


def _is_after(one: Cursor, other: Cursor) -> bool:
    """Whether a place in the journal comes after another. One of an earlier epoch is of a journal that is no more."""
    return (one.epoch, one.seq) > (other.epoch, other.seq)


def agree(synced: Node | None, remote: Node | None, local: Node | None) -> Node | None:
    """The merge base after the two sides were seen to be like this: it takes over every aspect on which they agree."""
    if remote is None or local is None:
        return None if remote is local else synced
    if same(remote, local):
        return remote
    if synced is None:
        return None
    place = remote if remote.place == local.place else synced
    content = remote if remote.content == local.content else synced
    times = remote if remote.content == local.content and remote.mtime_ns == local.mtime_ns else synced
    return replace(
        synced,
        version=remote.version,
        parent_id=place.parent_id,
        name=place.name,
        mode=remote.mode if remote.mode == local.mode else synced.mode,
        mtime_ns=times.mtime_ns,
        size=content.size,
        digest=content.digest,
        target=content.target,
        xattrs=agreed_xattrs(remote.xattrs, local.xattrs, synced.xattrs),
    )


def _merge(target: MutableMapping[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value
