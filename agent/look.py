"""Keep the local tree with the disk: the watcher says where to look, the scanner what is there.

Watchers lose events, so that an event is only a hint: every new directory is looked at again a little later, and the
whole tree at the start and every few minutes.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from agent import watch
from agent.hashing import SETTLE_NS, rest_s
from agent.ignore import RULES_NAME, Rules
from agent.index import Batch
from agent.patience import jittered
from agent.replica import Replica
from agent.rules import RulesFile
from agent.scan import UNREADABLE, Marks, Problem, RootGone, Sieve, Sight, Unsteady, is_in_place, scan
from broker.errors import Retryable
from broker.model import RESERVED_NAME, ROOT, Kind

log = structlog.get_logger()

SECOND_LOOK_S: Final = 1.0
FULL_LOOK_S: Final = 300.0
GONE_LOOK_S: Final = 2.0
UNSTEADY_LOOK_S: Final = 0.2
_WATCH_STEP_MS: Final = 10
_WATCH_QUIET_MS: Final = 40


_RULES: Final = "\0rules"
"""The key of the problem of rules that cannot be understood: no path, so that no look drops it."""


class HalfPlaced(Retryable):
    """Some of a commit is in its place, some in the stage (no room is left, say): what is missing was not deleted."""

    code = "half_placed"


class Looker:
    """Watches and scans one folder."""

    def __init__(self, replica: Replica, new_id: Callable[[], UUID]) -> None:
        self._replica = replica
        self._new_id = new_id
        self._where: dict[str, bool] = {"": True}
        self._hinted = asyncio.Event()
        self._hinted.set()
        self._full_begun = 0
        self._full_done = 0
        self._in_place = True
        self._at_it = False
        self._at_root = False
        self._vanished = -math.inf
        self._rules = RulesFile(replica.root)
        self._unsettled: set[str] = set()
        self.watching = False

    @property
    def in_place(self) -> bool:
        """Whether the folder was where it should be at the last look."""
        return self._in_place

    def quiet_s(self) -> float:
        """How long ago something was last seen to have gone from the folder, in seconds; infinity when never."""
        return asyncio.get_running_loop().time() - self._vanished

    @property
    def is_looking(self) -> bool:
        """Whether there is something that has not been looked at yet, or is being looked at."""
        return bool(self._where) or self._at_it or self._rules.is_waiting or bool(self._unsettled)

    def hint(self, path: str, deep: bool = False) -> None:
        """Something may have changed in a directory (and, with `deep`, below it)."""
        self._where[path] = self._where.get(path, False) or deep
        self._hinted.set()

    async def look_at_all(self) -> None:
        """Look at the whole tree afresh; return when that is done (or the folder was found missing)."""
        self._replica.pace.end_rests()
        ticket = self._full_begun + 1  # one that is under way may have passed by already
        self.hint("", deep=True)
        event = self._replica.listen()
        try:
            while self._full_done < ticket and self._in_place:
                await event.wait()
                event.clear()
        finally:
            self._replica.unlisten(event)

    async def check_in_place(self) -> bool:
        """Whether the folder, with its mark, is where it should be at this moment. If not, all stops until it is."""
        if await asyncio.to_thread(is_in_place, self._replica.root):
            return True
        self.hint("", deep=True)
        return False

    # --- scanning

    async def run(self) -> None:
        """Scan wherever a hint says. Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="watch")
            group.create_task(self._look_at_times(), name="look at times")
            while True:
                await self._hinted.wait()
                self._hinted.clear()
                await self.look_now()

    async def _look_at_times(self) -> None:
        while True:
            await asyncio.sleep(jittered(FULL_LOOK_S))
            self.hint("", deep=True)

    async def look_now(self) -> None:
        """Scan what was hinted at so far."""
        where, self._where = self._where, {}
        if not where:
            return
        if where.get(""):
            self._full_begun += 1
        self._at_it, self._at_root = True, "" in where
        try:
            await self._look(where)
        finally:
            self._at_it = self._at_root = False
        self._replica.notify()

    async def _look(self, where: dict[str, bool]) -> None:
        try:
            async with self._replica.disk:
                if self._replica.intent is not None:
                    raise HalfPlaced("a placing has begun, and waits for the disk")
                await self._read_rules(where)
                sieve = self._sieve(is_new=self._rules.is_new and bool(where.get("")))
                sight = await asyncio.to_thread(
                    scan,
                    self._replica.root,
                    self._replica.trees.local,
                    self._replica.prints,
                    where,
                    self._new_id,
                    sieve,
                    self._marks(),
                )
                await self._take(sight, where, self._rules.rules.digest if sieve.is_new else None)
                if sieve.is_new:
                    self._rules.is_new = False
        except RootGone as error:
            self._miss(str(error), where)
            return
        except (Unsteady, HalfPlaced) as error:
            log.info("look.delayed", workspace_id=str(self._replica.workspace_id))
            for path, deep in where.items():
                self._where[path] = self._where.get(path, False) or deep
            wait_s = UNSTEADY_LOOK_S if isinstance(error, Unsteady) else GONE_LOOK_S
            asyncio.get_running_loop().call_later(wait_s, self._hinted.set)
            return
        if not self._in_place:
            self._in_place = True
            self._replica.problems.pop("", None)
        if where.get(""):
            self._full_done = self._full_begun
            self._replica.looked = True

    def _miss(self, message: str, where: dict[str, bool]) -> None:
        if self._in_place:
            log.error("folder.gone", workspace_id=str(self._replica.workspace_id))
        self._in_place = False
        self._replica.problems[""] = Problem("", RootGone.code, message)
        self._where = {"": True, **where}
        asyncio.get_running_loop().call_later(GONE_LOOK_S, self._hinted.set)

    # --- what is not to be looked at

    @property
    def rules(self) -> Rules:
        """The rules of what to ignore, as they hold now."""
        return self._rules.rules

    @property
    def rules_pending(self) -> bool:
        """Whether other rules of what to ignore are about to hold: what they ignore shall not be told of before."""
        if self._rules.is_waiting or self._rules.is_new or self._at_root or "" in self._where:
            return True
        replica = self._replica
        told = replica.trees.remote.child(ROOT, RULES_NAME)
        if told is None or told.node_id in replica.trees.local or told.node_id in replica.broken:
            return False
        return any(change.node_id == told.node_id for change in replica.plan().place)

    async def _read_rules(self, where: dict[str, bool]) -> None:
        """See whether the rules are others than at the last look; everything is looked at then."""
        wait_s = await asyncio.to_thread(self._rules.read, asyncio.get_running_loop().time())
        if self._rules.is_new and self._rules.rules.digest == self._replica.rules:
            self._rules.is_new = False  # everything was looked at by them before this start
        if wait_s is not None:
            asyncio.get_running_loop().call_later(wait_s, self.hint, "")
        elif self._rules.is_new:
            if not where.get(""):
                self._full_begun += 1
            where[""] = True
        self._replica.problems.pop(_RULES, None)
        if self._rules.rules.problems:
            text = "what of it cannot be understood is left out: " + "; ".join(self._rules.rules.problems)
            self._replica.problems[_RULES] = Problem(RULES_NAME, "bad_rule", text)

    def _sieve(self, *, is_new: bool) -> Sieve:
        trees, in_flight = self._replica.trees, self._replica.in_flight
        sent = {} if in_flight is None else in_flight.sent

        def is_told(node_id: UUID) -> bool:
            return node_id in trees.remote or node_id in trees.synced or node_id in sent

        def is_wanted(parent_id: UUID, name: str) -> bool:
            return trees.remote.child(parent_id, name) is not None

        resting = self._replica.pace.resting(asyncio.get_running_loop().time())
        return Sieve(self._rules.rules, is_new, trees.ignored, is_told, is_wanted, resting)

    def _marks(self) -> Marks:
        replica = self._replica
        return Marks(replica.trees.lacking, replica.fresh, rest_s)

    async def _take(self, sight: Sight, where: dict[str, bool], rules: bytes | None) -> None:
        """Take over what was seen; by `rules` when the whole folder was looked at by new ones."""
        replica = self._replica
        batch = Batch()
        if rules is not None:
            batch.columns["rules"] = replica.rules = rules
        batch.local, batch.prints = dict(sight.local), dict(sight.prints)
        batch.aliases = dict(sight.aliases)
        self._take_ignored(sight, batch)
        self._take_xattrs(sight, batch, is_full=bool(where.get("")))
        fresh = [
            node.node_id
            for node in sight.local.values()
            if node is not None and node.kind is Kind.DIRECTORY and node.node_id not in replica.trees.local
        ]
        self._try_removals_again(batch)
        if any(node is None for node in sight.local.values()):
            self._vanished = asyncio.get_running_loop().time()
        seen_anew = batch.local or batch.prints or batch.aliases or batch.ignored
        if seen_anew or batch.oversized or batch.lacking or batch.columns:
            await replica.write(batch)
        self._note_problems(sight)
        paths = [path for node_id in fresh if (path := replica.trees.local.path(node_id)) is not None]
        if paths and not where.get(""):
            asyncio.get_running_loop().call_later(SECOND_LOOK_S, self._look_again, paths)

    def _take_xattrs(self, sight: Sight, batch: Batch, *, is_full: bool) -> None:
        """Note whose extended attributes are to be read again, and look again where that is."""
        replica = self._replica
        for node_id, is_fresh in sight.fresh.items():
            (replica.fresh.add if is_fresh else replica.fresh.discard)(node_id)
        for node_id, is_oversized in sight.oversized.items():
            if is_oversized is not (node_id in replica.trees.oversized):
                batch.oversized[node_id] = is_oversized
        for node_id, names in sight.regained.items():
            batch.lacking[node_id] = replica.without_regained(node_id, names)
        if sight.unsettled:
            if not self._unsettled:
                wait_s = max(sight.unsettled.values()) + SETTLE_NS / 1e9
                asyncio.get_running_loop().call_later(wait_s, self._look_at_unsettled)
            self._unsettled |= sight.unsettled.keys()
        if is_full and not replica.xattrs_read:
            replica.xattrs_read = True
            batch.columns["xattrs_read"] = 1

    def _look_at_unsettled(self) -> None:
        paths, self._unsettled = self._unsettled, set()
        for path in paths:
            self.hint(path)

    def _take_ignored(self, sight: Sight, batch: Batch) -> None:
        """What the rules ignore from now on, or no more. Where one side lacks the latter, it is got anew from the other.

        Else a change of the rules would delete what somebody has deleted while nobody was looking.
        """
        batch.ignored = dict(sight.ignored)
        trees = self._replica.trees
        for node_id in sight.freed:
            is_here = batch.local.get(node_id, trees.local.get(node_id)) is not None
            if not (is_here and node_id in trees.remote):
                batch.synced[node_id] = None

    def _try_removals_again(self, batch: Batch) -> None:
        """A directory that could not be removed, since something unsynced was in it, has changed: it may be empty now."""
        trees = self._replica.trees
        for node_id in trees.unannounced & batch.prints.keys():
            node = batch.local.get(node_id, trees.local.get(node_id))
            batch.unannounced[node_id] = False
            batch.synced[node_id] = node

    def _look_again(self, paths: list[str]) -> None:
        for path in paths:
            self.hint(path, deep=True)

    def _note_problems(self, sight: Sight) -> None:
        """Drop what was wrong with paths that were looked at again, or whose directory has gone."""
        known, local = self._replica.problems, self._replica.trees.local
        for path in [path for path in known if path and not path.startswith("\0")]:
            parent = path.rpartition("/")[0]
            told = parent in sight.looked or (parent and local.find(parent) is None)
            if told and not self._is_still_unread(path, sight):
                del known[path]
        known.update(sight.problems)

    def _is_still_unread(self, path: str, sight: Sight) -> bool:
        """Whether a look at its parent says nothing of it: a directory or file whose inside could not be read."""
        node = self._replica.trees.local.find(path)
        if node is None or self._replica.problems[path].code != UNREADABLE:
            return False
        return path not in sight.looked if node.kind is Kind.DIRECTORY else node.is_unhashed

    # --- watching

    async def _watch(self) -> None:
        """Turn events into hints. When events cannot be had, say so: the timed looks go on."""
        folder = str(self._replica.root.folder)
        polling = False
        while True:
            try:
                self.watching = True
                async for paths in watch.awatch(
                    folder,
                    step=_WATCH_STEP_MS,
                    debounce=_WATCH_QUIET_MS * 4,
                    rust_timeout=1_000,
                    force_polling=polling,
                ):
                    self._hint_of_events(folder, paths)
            except watch.WatchEnded:
                # It begins anew, and all is looked at: at once for what was missed, and again when it watches.
                log.info("watcher.renewed", workspace_id=str(self._replica.workspace_id))
                self.hint("", deep=True)
                asyncio.get_running_loop().call_later(GONE_LOOK_S + SECOND_LOOK_S, self.hint, "", True)
            except OSError as error:
                self.watching = False
                if not polling and "limit" in str(error):
                    polling = True
                    log.warning(
                        "watcher.limited", workspace_id=str(self._replica.workspace_id), error=str(error)
                    )
                    self._replica.problems["\0watch"] = Problem(
                        "", "watch_limit", "the system's limit of watched folders is reached: raise "
                        "fs.inotify.max_user_watches; until then changes are found by looking, which is slower"
                    )  # fmt: skip
            await asyncio.sleep(GONE_LOOK_S)
            self.hint("", deep=True)

    def _hint_of_events(self, folder: str, paths: set[str]) -> None:
        own = f"{folder}/{RESERVED_NAME}"
        for path in paths:
            if path == own or path.startswith(own + "/"):
                continue
            if path == folder:
                self.hint("")
                continue
            relative = path[len(folder) + 1 :]
            self.hint(relative.rpartition("/")[0])
