"""Bring what the journal has and the disk has not: settle who is who, stage content, put it in place.

Content is staged in two lanes, so that a small change never waits behind a large file. What one commit brought is
put in place together, once all of it is staged.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from uuid import UUID

import structlog

from agent import place
from agent.alias import alias_beside, choose_aliases, nodes_to_rename
from agent.chunk import matches
from agent.errors import DiskFull, NotWritable, is_disk_full, is_not_writable
from agent.filesystem import STAGE
from agent.finish import finish, in_thread
from agent.ignore import RULES_NAME
from agent.index import Batch, Print
from agent.patience import Patience
from agent.place import Intent, Outcome, Staged, Step, decode_intent
from agent.plan import Adoption, Change, KeepAside, Plan, overlay, select
from agent.replica import Replica, agree
from agent.scan import Problem, printable
from agent.service import Service
from agent.stage import Source, Stager
from agent.transfer import Transfer
from agent.trees import Node, replace
from broker.errors import HutchError, Unavailable
from broker.messages import decode_content, encode
from broker.model import FullContent, Kind, manifest_digest

log = structlog.get_logger()

SMALL_SIZE_BYTES: Final = 16 * 1024 * 1024
LINGER_LOOK_S: Final = 5.0
UNTOLD_S: Final = 60.0
PLACING: Final = "\0place"
"""The key of the problem that keeps everything from being placed: no path, so that no look drops it."""
PLACE_AT_ONCE: Final = 5_000
"""About how many nodes go into one placing; a larger commit still goes whole."""

_GROUP_SIZE_BYTES: Final = 64 * 1024 * 1024
_GROUP_FILES: Final = 4_000
_RETRY_BROKEN_S: Final = 60.0


class Fetcher:
    """Fetches and places for one folder."""

    def __init__(
        self,
        replica: Replica,
        transfer: Transfer,
        service: Service,
        hint: Callable[[str], None],
        may_run: asyncio.Event,
    ) -> None:
        self._replica = replica
        self._service = service
        self._stager = Stager(replica.root, transfer, replica.workspace_id)
        self._hint = hint
        self._may_run = may_run
        self._staged: dict[UUID, tuple[Node, Staged]] = {}
        self._busy: set[UUID] = set()
        self._untold: dict[str, float] = {}  # since when nobody could tell whether a replaced file is open
        if replica.intent is not None:  # notices may come before it could be carried out
            replica.placing = {step.node.node_id for step in decode_intent(replica.intent).steps}

    @property
    def is_done(self) -> bool:
        """Whether nothing is staged, or being placed."""
        return not (self._staged or self._busy or self._replica.intent)

    # --- starting

    async def recover(self) -> None:
        """Finish the placing that a crash has interrupted, and clear the stage. Before anything else.

        Where the disk has no room for it now, it is tried until it has.
        """
        patience = Patience()
        while True:
            try:
                await self._recover()
                return
            except OSError as error:
                self._report(error)
                await patience.wait()

    async def _recover(self) -> None:
        replica = self._replica
        async with replica.disk:
            await asyncio.to_thread(self._make_stage)
            with contextlib.suppress(OSError):  # no room, say: it is asked again before anything is placed
                await asyncio.to_thread(replica.root.probe)
            await self._resume()
            keep = set(replica.lingering)
            returned = await asyncio.to_thread(
                place.sweep, replica.root, keep, "recovered", replica.device_name, replica.today()
            )
            for _ in returned:
                self._hint("")

    async def _resume(self) -> bool:
        """Finish a placing that has begun, if one has. The caller holds the disk."""
        replica = self._replica
        if replica.intent is None:
            return True
        intent = decode_intent(replica.intent)
        log.info("placing.resumed", workspace_id=str(replica.workspace_id), steps=len(intent.steps))
        return await self._carry_out(intent)

    def _make_stage(self) -> None:
        try:
            self._replica.root.make_directory(STAGE)
        except FileExistsError:
            return

    async def run(self) -> None:
        """Fetch and place whatever is planned. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lane(small=True), name="stage small")
            group.create_task(self._lane(small=False), name="stage large")
            group.create_task(self._look_at_lingering(), name="lingering")
            await self._work()

    async def _work(self) -> None:
        changed, patience = self._replica.listen(), Patience()
        while True:
            changed.clear()
            await self._may_run.wait()
            try:
                outcome = await self._step()
            except (HutchError, OSError) as error:
                self._report(error)
                outcome = False
            if outcome is None:
                patience = Patience()
                if not self._replica.plan().place:
                    self._replica.problems.pop(PLACING, None)
                await changed.wait()
            elif outcome:
                patience = Patience()
            else:
                await patience.wait()

    async def _step(self) -> bool | None:
        """Do what can be done now. None: nothing; False: something stood in the way."""
        if self._replica.intent is not None:
            async with self._replica.disk:
                return await self._resume()
        plan = self._replica.plan()
        if plan.adoptions or plan.asides:
            return await self._identify(plan)
        if plan.agreed:
            await self._agree(plan.agreed)
            return True
        await self._drop_stale(plan)
        ready = select(
            plan.place,
            limit=PLACE_AT_ONCE,
            is_ready=self._is_ready,
            commit_of=self._commit_of,
            tree=self._replica.trees.local,
        )
        if ready:
            return await self._place(plan, ready)
        if plan.is_empty and self._replica.looked and not self._replica.trees.unread:
            self._replica.joining = False
        renamed = self._to_rename()
        return await self._place(plan, renamed) if renamed else None

    def _to_rename(self) -> list[Change]:
        """Nodes under an alias whose own names are free by now, and that nothing else is to be done to."""
        replica = self._replica
        local = replica.trees.local
        if not local.aliases or not replica.looked:
            return []
        nodes = (local.nodes[node_id] for node_id in nodes_to_rename(local, replica.root.folding))
        return [Change(node, node) for node in nodes if node.node_id not in replica.trees.dirty]

    async def _drop_stale(self, plan: Plan) -> None:
        """What was staged for a plan that has changed since is thrown away."""
        wanted = {change.node_id for change in plan.place}
        stale = [node_id for node_id in self._staged if node_id not in wanted and node_id not in self._busy]
        if stale:
            entries = [self._staged.pop(node_id)[1] for node_id in stale]
            self._busy.update(stale)  # nothing is staged at these paths meanwhile
            try:
                await in_thread(self._stager.discard, entries)
            finally:
                self._busy.difference_update(stale)
                self._replica.notify()

    def _report(self, error: Exception) -> None:
        """Show what keeps the journal's changes from the disk, until something could be placed."""
        replica = self._replica
        code, message = "placing_failed", str(error)
        if is_disk_full(error):
            code, message = DiskFull.code, "the disk is full: nothing is fetched until there is room"
        elif isinstance(error, OSError) and is_not_writable(error):
            code = NotWritable.code
            message = f"the folder cannot be written ({error.strerror}): nothing is fetched until it can"
        replica.problems[PLACING] = Problem("", code, message)
        log.warning(
            "placing.delayed", workspace_id=str(replica.workspace_id), error=type(error).__name__, code=code
        )

    def _report_refused(self, directory: str, reason: str) -> None:
        """Show which directory takes nothing, until all that belongs there was placed."""
        text = f"nothing may be written there ({reason}): what belongs there waits until it may"
        shown = printable(directory or str(self._replica.root.folder))
        self._replica.problems[PLACING] = Problem(shown, NotWritable.code, text)

    # --- who is who

    async def _identify(self, plan: Plan) -> bool:
        replica = self._replica
        known = await self._earlier_versions(plan.asides)
        async with replica.disk:
            if replica.plan() is not plan:
                return True
            if plan.adoptions:
                await self._adopt(plan.adoptions)
                return True
            going_well = True
            for aside in plan.asides:
                going_well &= await self._keep_aside(aside, known.get(aside.remote.node_id, []))
            return going_well

    async def _adopt(self, adoptions: Iterable[Adoption]) -> None:
        """The disk's nodes take the journal's ids; only the database changes."""
        replica, batch = self._replica, Batch()
        local = replica.trees.local
        new_ids = {adoption.local_id: adoption.remote_id for adoption in adoptions}
        for old_id, new_id in new_ids.items():
            node = local.get(old_id)
            if node is None:
                continue
            batch.local.setdefault(old_id, None)
            batch.prints[old_id] = None
            batch.prints[new_id] = replica.prints.get(old_id)
            replica.carry_marks(batch, old_id, new_id)
            parent_id = new_ids.get(node.parent_id, node.parent_id)
            batch.local[new_id] = replace(node, node_id=new_id, parent_id=parent_id)
            for child in local.children(old_id):
                if child.node_id not in new_ids:
                    batch.local[child.node_id] = replace(child, parent_id=new_id)
        if batch.local:
            await replica.write(batch)

    async def _earlier_versions(self, asides: Iterable[KeepAside]) -> dict[UUID, list[FullContent]]:
        """What the service keeps of nodes that this device does not know: an old copy here is no edit."""
        synced = self._replica.trees.synced
        node_ids = list({a.remote.node_id for a in asides if a.remote.node_id not in synced})
        found: dict[UUID, list[FullContent]] = {}
        for at in range(0, len(node_ids), 1_000):
            try:
                async with self._service.versions(
                    self._replica.workspace_id, node_ids[at : at + 1_000]
                ) as stream:
                    async for version in stream:
                        found.setdefault(version.node_id, []).append(decode_content(version.content))
            except Unavailable:
                if self._replica.unclaimed or self._replica.joining:
                    raise  # with no merge base an old copy would be taken for an edit
                break
        return found

    async def _keep_aside(self, aside: KeepAside, earlier: list[FullContent]) -> bool:
        """Equal bytes, cut otherwise, are no conflict; nor is an earlier version. All else gets its conflict name."""
        replica = self._replica
        path = replica.trees.local.path(aside.local.node_id)
        look = replica.prints.get(aside.local.node_id)
        if path is None or look is None:
            return False
        manifests = await replica.manifests([aside.remote.digest])
        current = manifests.get(aside.remote.digest)
        contents = [content for content in (current, *earlier) if content is not None]
        match = (
            await asyncio.to_thread(self._matching, path, look, contents)
            if aside.local.kind is Kind.FILE
            else None
        )
        batch = Batch()
        if match is not None:
            self._take_for(aside, match, match is current, batch)
            await replica.write(batch)
            return True
        if aside.onto is not None:
            return await self._replace_copy(aside, aside.onto, path, look)
        return await self._rename_aside(aside, path, look)

    def _matching(self, path: str, look: Print, contents: list[FullContent]) -> FullContent | None:
        sized = [c for c in contents if sum(chunk.size for chunk in c.chunks) == look.size]
        if not sized:
            return None
        try:
            with self._replica.root.open(path) as fd:
                return next((content for content in sized if matches(fd, content.chunks)), None)
        except OSError:
            return None

    def _take_for(self, aside: KeepAside, content: FullContent, is_current: bool, batch: Batch) -> None:
        """The disk's file holds a version of the journal's: it is that node, as it was then."""
        digest = manifest_digest(content.chunks)
        old_id, node_id = aside.local.node_id, aside.remote.node_id
        batch.manifests[digest] = content
        if is_current and aside.new_id == old_id:
            batch.local[old_id] = replace(aside.local, digest=digest)
            return
        node = replace(aside.local, node_id=node_id, digest=digest)
        if old_id != node_id:
            batch.local[old_id] = None
            batch.prints[old_id] = None
            batch.prints[node_id] = self._replica.prints[old_id]
            self._replica.carry_marks(batch, old_id, node_id)
        batch.local[node_id] = node
        if not is_current:
            batch.synced[node_id] = replace(node, version=0)

    async def _rename_aside(self, aside: KeepAside, path: str, look: Print) -> bool:
        replica, batch = self._replica, Batch()
        head, _, _ = path.rpartition("/")
        name = alias_beside(replica.trees.local, aside.local.parent_id, aside.name, replica.root.folding)
        target = f"{head}/{name}" if head else name
        now = await asyncio.to_thread(replica.root.look, path)
        if now is None or not now.same_content(look):
            self._hint(head)
            return False
        # The database first: were it the disk, a crash between would make a copy of the copy.
        if aside.new_id != aside.local.node_id:
            self._let_go(aside.local.node_id, batch)
        batch.local[aside.new_id] = replace(aside.local, node_id=aside.new_id, name=aside.name)
        batch.aliases[aside.new_id] = name
        batch.prints[aside.new_id] = look
        replica.carry_marks(batch, aside.local.node_id, aside.new_id)
        batch.copies[aside.remote.node_id] = aside.new_id
        self._note_base(aside, batch)
        await replica.write(batch)
        log.info("conflict.kept", workspace_id=str(replica.workspace_id))
        return await self._move_aside(aside.new_id, path, target, look)

    def _note_base(self, aside: KeepAside, batch: Batch) -> None:
        """Remember what both sides came from: by that, a person may merge them later."""
        synced = self._replica.trees.synced.get(aside.local.node_id)
        batch.bases[aside.new_id] = synced.digest if synced is not None and synced.digest else None

    @staticmethod
    def _let_go(node_id: UUID, batch: Batch) -> None:
        """The disk has nothing of a node any more, and nobody has deleted it.

        The merge base goes as well: should the journal's content turn back to what it was then, a node that is
        missing here would be taken for one that was deleted.
        """
        batch.local[node_id] = batch.prints[node_id] = batch.synced[node_id] = None

    async def _move_aside(self, new_id: UUID, path: str, target: str, look: Print) -> bool:
        """Move what has lost to its conflict name, as the database has it already."""
        replica, head = self._replica, path.rpartition("/")[0]
        try:
            await asyncio.to_thread(replica.root.rename, path, target)
        except OSError:
            self._hint(head)
            return False
        moved = await asyncio.to_thread(replica.root.look, target)
        if moved is not None and moved.same_file(look):
            fresh = Batch()
            fresh.prints[new_id] = moved
            await replica.write(fresh)
        else:
            self._hint(head)
        return True

    async def _replace_copy(self, aside: KeepAside, copy: Node, path: str, look: Print) -> bool:
        """What has lost becomes the next version of the copy that there is: the journal holds the one before.

        The copy's old file leaves by the stage, so that a write to it in this very moment is found there.
        """
        replica, batch = self._replica, Batch()
        target, seen = replica.trees.local.path(copy.node_id), replica.prints.get(copy.node_id)
        if target is None or seen is None:
            return False
        stage = f"{STAGE}/{copy.node_id.hex}.{seen.ino}.open"
        if not await asyncio.to_thread(self._stand_as_seen, {path: look, target: seen}):
            return False
        if aside.local.node_id != copy.node_id:
            self._let_go(aside.local.node_id, batch)
        batch.local[copy.node_id] = replace(
            copy,
            version=0,
            content_version=0,
            mode=aside.local.mode,
            mtime_ns=aside.local.mtime_ns,
            xattrs=aside.local.xattrs,
            size=aside.local.size,
            digest=aside.local.digest,
        )
        batch.prints[copy.node_id] = look
        replica.carry_marks(batch, aside.local.node_id, copy.node_id)
        batch.lingering[stage] = (target, seen)
        self._note_base(aside, batch)
        await replica.write(batch)
        log.info("conflict.kept", workspace_id=str(replica.workspace_id))
        try:
            await asyncio.to_thread(replica.root.rename, target, stage)
        except OSError:
            self._hint(target.rpartition("/")[0])
            return False
        moved = await self._move_aside(copy.node_id, path, target, look)
        await self._settle_lingering()
        return moved

    def _stand_as_seen(self, looks: dict[str, Print]) -> bool:
        """Whether these files are what the last look saw; where one is not, it is looked at again."""
        as_seen = True
        for path, seen in looks.items():
            now = self._replica.root.look(path)
            if now is None or not now.same_content(seen):
                self._hint(path.rpartition("/")[0])
                as_seen = False
        return as_seen

    async def _agree(self, node_ids: Iterable[UUID]) -> None:
        trees, batch = self._replica.trees, Batch()
        for node_id in node_ids:
            batch.synced[node_id] = trees.remote.get(node_id)
        await self._replica.write(batch)

    # --- staging

    def _is_ready(self, change: Change) -> bool:
        after = change.after
        if after is None or after.kind is Kind.DIRECTORY or not change.fills:
            return True
        entry = self._staged.get(change.node_id)
        return entry is not None and change.node_id not in self._busy and _looks_alike(entry[0], after)

    def _commit_of(self, change: Change) -> int:
        remote = self._replica.trees.remote.get(change.node_id)
        if remote is not None:
            return remote.version
        return self._replica.trees.tombstones.get(change.node_id, 0)

    async def _lane(self, *, small: bool) -> None:
        changed, patience = self._replica.listen(), Patience()
        while True:
            changed.clear()
            await self._may_run.wait()
            group = self._group(small)
            if not group:
                await changed.wait()
                continue
            self._busy.update(change.node_id for change in group)
            try:
                await self._stage(group)
                patience = Patience()
            except (HutchError, OSError) as error:
                self._report(error)
                await patience.wait()
            finally:
                self._busy.difference_update(change.node_id for change in group)
                self._replica.notify()

    def _group(self, small: bool) -> list[Change]:
        """Whole commits, as many as are worth one round; large commits have a lane of their own."""
        plan = self._replica.plan()
        if plan.adoptions or plan.asides:
            return []
        by_commit: dict[int, list[Change]] = {}
        for change in plan.place:
            if not self._is_ready(change) and change.node_id not in self._busy | self._replica.placing:
                by_commit.setdefault(self._commit_of(change), []).append(change)
        group: list[Change] = []
        total = 0
        for _, changes in sorted(by_commit.items()):
            size = sum(change.after.size for change in changes if change.after is not None)
            if (size <= SMALL_SIZE_BYTES) != small:
                continue
            if group and (not small or total + size > _GROUP_SIZE_BYTES or len(group) > _GROUP_FILES):
                break
            group.extend(changes)
            total += size
        return group

    async def _stage(self, group: list[Change]) -> None:
        replica = self._replica
        if await self._leave_out_refused(group):
            return  # before anything is fetched for them
        manifests = await replica.manifests(c.after.digest for c in group if c.after is not None)
        sources = await self._sources(group)
        for change in group:
            self._staged.pop(change.node_id, None)
        staged, lost = await self._stager.stage(group, manifests, sources, lambda size: None)
        for change in group:
            if change.node_id in staged and change.after is not None:
                self._staged[change.node_id] = (change.after, staged[change.node_id])
        for node_id in lost:
            self._break(node_id)
        replica.problems.pop(PLACING, None)

    def _break(self, node_id: UUID) -> None:
        """Content that the service cannot give is left out, said so, and asked for again later."""
        log.error("content.missing", workspace_id=str(self._replica.workspace_id), node_id=str(node_id))
        text = "the service does not have this file's content"
        self._leave_out(node_id, Problem(self._shown(node_id), "missing_chunks", text))

    def _leave_out(self, node_id: UUID, problem: Problem) -> None:
        """Place all but this node, until it changes or some time has gone by."""
        self._replica.broken[node_id] = problem
        self._replica.notify()
        asyncio.get_running_loop().call_later(_RETRY_BROKEN_S, self._mend, node_id)

    def _mend(self, node_id: UUID) -> None:
        if self._replica.broken.pop(node_id, None) is not None:
            self._replica.notify()

    async def _sources(self, group: list[Change]) -> dict[UUID, Source]:
        """For each new content, a local file that has some of it: the node's old one, or an equal one elsewhere."""
        local = self._replica.trees.local
        equal = await self._equal_files({c.after.digest for c in group if c.after is not None})
        found: dict[UUID, Node] = {}
        for change in group:
            if change.after is None or change.after.kind is not Kind.FILE:
                continue
            node = equal.get(change.after.digest) or change.before
            if node is not None and node.kind is Kind.FILE and node.digest:
                found[change.node_id] = node
        manifests = await self._replica.manifests(node.digest for node in found.values())
        return {
            node_id: Source(path, manifests[node.digest])
            for node_id, node in found.items()
            if node.digest in manifests and (path := local.path(node.node_id)) is not None
        }

    async def _equal_files(self, digests: set[bytes]) -> dict[bytes, Node]:
        local = self._replica.trees.local
        holders = await self._replica.holders(digests)
        nodes = [local.get(node_id) for node_ids in holders.values() for node_id in node_ids]
        return {
            node.digest: node for node in nodes if node is not None and node.digest and node.digest in digests
        }

    # --- placing

    async def _place(self, plan: Plan, changes: list[Change]) -> bool:
        replica = self._replica
        async with replica.disk:
            if replica.plan() is not plan:
                return True
            # From here on nothing else is staged for these nodes.
            replica.placing = {change.node_id for change in changes}
            intent: Intent | bool = False
            try:
                intent = await self._intend(plan, changes)
            finally:
                if not isinstance(intent, Intent):
                    replica.placing = set()
            if not isinstance(intent, Intent):
                return intent
            return await self._begin(intent)

    # --- what a person has decided

    @contextlib.contextmanager
    def reserve(self, node_id: UUID) -> Iterator[bool]:
        """Keep everybody else from staging a node's content meanwhile. False: somebody is at it already."""
        if node_id in self._busy or node_id in self._staged or node_id in self._replica.placing:
            yield False
            return
        self._busy.add(node_id)
        try:
            yield True
        finally:
            self._busy.discard(node_id)
            self._replica.notify()

    async def place_decided(self, change: Change, staged: Staged | None) -> bool:
        """Put a change in place that a person has decided on, as what the journal says is put there.

        The caller holds the disk, and has reserved the node. The merge base stays: what is new here is told of then.

        Returns:
            Whether it was done. If not, something is not as it was, and is looked at again.
        """
        replica = self._replica
        local = replica.trees.local
        if replica.intent is not None:
            return False
        intent = place.prepare(
            [change],
            path_before=local.path,
            path_after=local.path,
            prints=replica.prints.get,
            staged=lambda node_id: staged,
            remote=replica.trees.remote.get,
            device=replica.device_name,
            date=replica.today(),
        )
        wrong = await asyncio.to_thread(place.check, replica.root, intent)
        if wrong:
            for path in wrong:
                self._hint(path)
            return False
        replica.placing = {change.node_id}
        return await self._begin(intent)

    async def _begin(self, intent: Intent) -> bool:
        """Write an intent down, and carry it out."""
        replica, batch = self._replica, Batch()
        replica.intent = encode(intent)
        batch.columns["intent"] = replica.intent
        await replica.index.write(replica.key, batch)
        return await finish(self._carry_out(intent))

    async def _intend(self, plan: Plan, changes: list[Change]) -> Intent | bool:
        """What is to be done, once all was checked; or whether to plan again at once (True), or a little later."""
        replica = self._replica
        local = replica.trees.local
        if await self._leave_out_refused(changes) or replica.plan() is not plan:
            return True
        aliases = choose_aliases(changes, local, replica.root.folding)
        intent = place.prepare(
            changes,
            path_before=local.path,
            path_after=overlay(local, changes, aliases),
            prints=replica.prints.get,
            staged=self._staged_for(changes),
            remote=replica.trees.remote.get,
            device=replica.device_name,
            date=replica.today(),
        )
        wrong = await asyncio.to_thread(place.check, replica.root, intent)
        for path in wrong:
            self._hint(path)
        return intent if not wrong else False

    async def _leave_out_refused(self, changes: list[Change]) -> bool:
        """Leave out those whose names this disk refuses."""
        root = self._replica.root
        await asyncio.to_thread(root.probe)
        arriving = [c for c in changes if c.after is not None and (c.before is None or c.moves)]
        names = {change.after.name for change in arriving if change.after is not None}
        refused = await asyncio.to_thread(root.refusals, names)
        found = dict[UUID, Problem]()
        for change in arriving:
            assert change.after is not None
            reason = refused.get(change.after.name)
            if reason is not None:
                text = f"this device's file system does not take the name ({reason}): it is not here"
                found[change.node_id] = Problem(self._shown(change.node_id), "name_refused", text)
        for node_id, problem in found.items():
            self._leave_out(node_id, problem)
        return bool(found)

    def _shown(self, node_id: UUID) -> str:
        return printable(self._replica.trees.remote.path(node_id) or "")

    def _staged_for(self, changes: Iterable[Change]) -> Callable[[UUID], Staged | None]:
        fills = {change.node_id for change in changes if change.fills}

        def staged(node_id: UUID) -> Staged | None:
            entry = self._staged.get(node_id) if node_id in fills else None
            return entry[1] if entry is not None else None

        return staged

    async def _carry_out(self, intent: Intent) -> bool:
        outcome = await in_thread(place.carry_out, self._replica.root, intent)
        for path in outcome.look_again:  # before it is settled: what came late is not known yet
            self._hint(path)
        await self._settle(intent, outcome)
        if outcome.refused is not None:
            self._report_refused(*outcome.refused)
        return len(outcome.placed) + len(outcome.stayed) == len(intent.steps)

    async def _settle(self, intent: Intent, outcome: Outcome) -> None:
        """Take over how everything stands now; only now does the merge base learn of it."""
        replica, batch = self._replica, Batch()
        left = [
            s.staged for s in intent.steps if s.staged is not None and s.node.node_id not in outcome.placed
        ]
        await in_thread(self._stager.discard, left)
        if any(RULES_NAME in (step.source, step.target) for step in intent.steps):
            self._hint("")  # nothing is told of before it is known what to ignore now
        for step in intent.steps:
            node_id = step.node.node_id
            if step.staged is not None:
                self._staged.pop(node_id, None)
            if node_id in outcome.stayed:
                batch.synced[node_id] = None
                batch.unannounced[node_id] = True
            elif node_id in outcome.placed:
                look = outcome.placed[node_id]
                local = None if look is None or step.after is None else replace(step.after, version=0)
                batch.local[node_id] = local
                if step.target is not None and local is not None:
                    batch.aliases[node_id] = step.target.rpartition("/")[2]
                batch.prints[node_id] = look
                self._settle_xattrs(step, outcome, batch)
                batch.synced[node_id] = agree(replica.trees.synced.get(node_id), step.remote, local)
        replica.fresh |= outcome.disputed
        batch.lingering = dict(outcome.lingering)
        batch.columns["intent"] = None
        replica.intent = None
        self._replica.placing = set()
        await replica.write(batch)
        log.info(
            "changes.placed",
            workspace_id=str(replica.workspace_id),
            nodes=len(outcome.placed),
            left=len(intent.steps) - len(outcome.placed),
            late=outcome.late,
        )

    def _settle_xattrs(self, step: Step, outcome: Outcome, batch: Batch) -> None:
        """Those that the disk did not take count as being there. A program may have set some right after."""
        node, replica = step.node, self._replica
        if node.kind is Kind.SYMLINK or step.after is None:
            return
        if node.node_id in outcome.lacking:
            left = () if step.staged is not None else replica.trees.lacking.get(node.node_id, ())
            batch.lacking[node.node_id] = _still_lacking(step, left, outcome.lacking[node.node_id]) or None
        if step.staged is not None and node.node_id in replica.trees.oversized:
            batch.oversized[node.node_id] = False
        replica.fresh.add(node.node_id)

    # --- what programs still had open

    async def _look_at_lingering(self) -> None:
        changed = self._replica.listen()
        while True:
            if self._replica.lingering:
                await asyncio.sleep(LINGER_LOOK_S)
                async with self._replica.disk:
                    await self._settle_lingering()
            else:
                changed.clear()
                await changed.wait()

    async def _settle_lingering(self) -> None:
        """Once nobody has a replaced file open any more: drop it, or keep it beside when it was written to."""
        replica, batch = self._replica, Batch()
        for stage, (path, look) in list(replica.lingering.items()):
            try:
                now_s = asyncio.get_running_loop().time()
                done = await asyncio.to_thread(self._settle_one, stage, path, look, now_s)
            except OSError as error:
                self._report(error)
                continue
            if done:
                batch.lingering[stage] = None
                self._hint(path.rpartition("/")[0])
        if batch.lingering:
            await replica.write(batch)

    def _may_still_be_written(self, stage: str, now_s: float) -> bool:
        """Where nobody can tell whether a program has a file open, it is given the time in which most have closed it."""
        if now_s - self._untold.setdefault(stage, now_s) < UNTOLD_S:
            return True
        del self._untold[stage]
        return False

    def _settle_one(self, stage: str, path: str, look: Print, now_s: float) -> bool:
        replica = self._replica
        is_open = replica.root.is_open_for_writing(stage)
        if is_open or (is_open is None and self._may_still_be_written(stage, now_s)):
            return False
        now = replica.root.look(stage)
        if now is not None and now.same_file(look):
            replica.root.remove_file(stage)
        elif now is not None:
            node = replica.trees.local.find(path)
            head, _, name = path.rpartition("/")
            name = name if node is None else node.name  # not the alias that it may have on this disk
            place.keep_beside(replica.root, stage, head, name, replica.device_name, replica.today())
        return True


def _still_lacking(step: Step, left: Iterable[str], refused: Iterable[str]) -> tuple[str, ...]:
    """What the disk lacks after a step: what it refused now, and of what it lacked before that which stays as it was."""
    before = {} if step.before is None else dict(step.before.xattrs)
    after = {} if step.after is None else dict(step.after.xattrs)
    stays = (name for name in left if name in after and before.get(name) == after[name])
    return tuple(sorted({*stays, *refused}))


def _looks_alike(one: Node, other: Node) -> bool:
    return (one.kind, one.content, one.mode, one.mtime_ns, one.xattrs) == (
        other.kind,
        other.content,
        other.mode,
        other.mtime_ns,
        other.xattrs,
    )
