"""One run: a seed becomes devices, people, a network and a schedule of mishaps; then everything comes to rest and is checked."""

import asyncio
import contextlib
import contextvars
import gc
import random
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock
from uuid import UUID

import structlog
from msgspec import UNSET, Struct, UnsetType

from agent.commit import MESSAGE_SIZE_BYTES
from agent.names import CONFLICT_MARK
from agent.plan import Plan, plan
from agent.trees import Node, Tree, Trees
from broker.messages import decode_content, decode_entry
from broker.model import ROOT, Delete, Kind, Xattrs
from metadata.state import Guard
from metadata.state import Verdict as Said
from tests.simulation.cloud import Cloud, Weather
from tests.simulation.device import SimulatedDevice
from tests.simulation.disk import Ambush
from tests.simulation.kernel import Disks, installed
from tests.simulation.loop import LIFE, SimulatedLoop, Site, StuckError
from tests.simulation.person import ALIAS_MARK, CASES, MANY_NAMES, NAMES, Person, Record
from tests.simulation.rows import classify
from tests.simulation.world import Watcher, patched

POWER_LOSS: Final = 0.3
"""How often a crash takes the machine's memory with it."""

LOOK_S: Final = 60.0

LEAST_OPERATIONS: Final = 40

CALM: Final = 0.15
"""How often people wait until all is quiet before they do anything: there must be no conflict copy at all then."""

FORGETFUL: Final = 0.08
"""How often databases get lost: what was edited since the last commit may then well be kept beside."""

FOLDING: Final = 0.15
"""How often some of the disks take names for one that differ in case alone."""

WITHOUT_XATTRS: Final = 0.15
"""How often a disk has no extended attributes."""

GUARDED: Final = 0.25
"""In how many runs a guard holds what is no more than usual, so that people have to decide all the time."""

GUARD: Final = Guard(min_nodes=0, share_percent=10, window=timedelta(milliseconds=4))
"""The store's clock moves by a millisecond a batch: what is older than some batches is old."""

REST_S: Final = 3600.0
"""How long, by the simulated clock, everything may take to come to rest."""

ENGINE: Final = str(Path(__file__).parents[2] / "agent")


class Options(Struct, frozen=True):
    """What a run is made of; all else comes from the seed.

    Attributes:
        seed: Of everything.
        steps: How many things happen, people's and mishaps together.
        sites: Where in the engine agents are cut off, besides what the seed does: whoever comes there first.
        skip: Numbers of steps that are left out: a failing run is made small so.
        trace: Whether what the engine logs, and what it does to the disk, goes into the verdict's log.
    """

    seed: int
    steps: int = 60
    sites: tuple[Site, ...] = ()
    skip: frozenset[int] = frozenset()
    trace: bool = False


class Verdict(Struct):
    """What came of a run. Good when all the lists of what is wrong are empty.

    Attributes:
        rows: How often a node was planned for that was in a row of the planner's table (`rows.list_rows`).
    """

    seed: int
    operations: int = 0
    crashes: int = 0
    disconnects: int = 0
    doubled: int = 0
    crashed_at: list[Site] = []
    rows: dict[str, int] = {}
    lost: list[str] = []
    diverged: list[str] = []
    conflicts_unexplained: list[str] = []
    torn: list[str] = []
    broken: list[str] = []
    log: list[str] = []

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.diverged or self.conflicts_unexplained or self.torn or self.broken)


def simulate(options: Options) -> Verdict:
    """Carry out one run. The same options give the same verdict."""
    with (
        tempfile.TemporaryDirectory(prefix="hutch-simulation-", dir=_fast_directory()) as home,
        mock.patch.object(sys, "unraisablehook"),  # what was cut off ends where it stood
    ):
        verdict = _Run(options, Path(home)).carry_out()
        gc.collect()
        return verdict


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # databases of a run: gone with it


class _Run:
    """The carrying out of one set of options."""

    def __init__(self, options: Options, home: Path) -> None:
        self.options = options
        self.home = home
        self.chance = random.Random(options.seed)  # a run is to be the same each time
        self.verdict = Verdict(seed=options.seed)
        self.loop = SimulatedLoop(self.chance, ENGINE)
        self.watcher = Watcher(self.loop, self.chance)
        self.weather = Weather()
        self.cloud = Cloud(self.chance, self.weather)
        self.record = Record()
        self.forgetful = self.chance.random() < FORGETFUL
        self.calm = not self.forgetful and self.chance.random() < CALM
        # Of its own, so that the runs without a guard stay what they were.
        self.guard_chance = random.Random(f"guard of {options.seed}")
        self.guarded = not self.calm and self.guard_chance.random() < GUARDED
        self.undone: set[str] = set()
        if self.guarded:
            self.cloud.store.guard = GUARD
        self.folding = self.chance.random() < FOLDING
        self.names = CASES if self.folding else self.chance.choice([NAMES, MANY_NAMES])
        self.disks = Disks(self.chance, self.loop.wall_ns, self.watcher.tell)
        self.devices: list[SimulatedDevice] = []
        self.people: dict[str, Person] = {}
        self._over = False
        self._backup: bytes | None = None
        self.message_size_bytes = self.chance.choice([MESSAGE_SIZE_BYTES, MESSAGE_SIZE_BYTES, 500])

    def carry_out(self) -> Verdict:
        """Everything, with what the engine asks of the outside replaced meanwhile."""
        with self._replaced():
            gc.disable()  # what is forgotten in the middle of a run ends at its end
            try:
                self.loop.run_until_complete(self._whole())
            except StuckError as stuck:
                self.verdict.diverged.append(str(stuck))
            except BaseExceptionGroup as group:
                self.verdict.broken.extend(_tell(error) for error in _leaves(group))
            except Exception as error:  # whatever ended an agent, a worker or the run is what is looked for
                self.verdict.broken.append(_tell(error))
            finally:
                self._end()
                gc.enable()
        return self.verdict

    @contextlib.contextmanager
    def _replaced(self) -> Iterator[None]:
        quiet = structlog.get_config()
        structlog.configure(processors=[self._note], wrapper_class=structlog.make_filtering_bound_logger(0))
        asyncio.set_event_loop(self.loop)
        try:
            with (
                patched(self.loop, self.chance, self.watcher),
                installed(self.disks),
                mock.patch("agent.commit.MESSAGE_SIZE_BYTES", self.message_size_bytes),
                mock.patch("agent.replica.plan", self._plan),
            ):
                yield
        finally:
            structlog.configure(**quiet)
            asyncio.set_event_loop(None)

    def _plan(self, trees: Trees, **options: Any) -> Plan:
        """The planner, but for the counting of what it was asked."""
        rows = self.verdict.rows
        for node_id in trees.dirty:
            row = classify(trees.remote.get(node_id), trees.local.get(node_id), trees.synced.get(node_id))
            rows[row] = rows.get(row, 0) + 1
        return plan(trees, **options)

    def _end(self) -> None:
        self._over = True
        for device in self.devices:
            device.crash()
        self.verdict.crashes = sum(device.crashes for device in self.devices) - len(self.devices)
        self.loop.end()

    # --- what happens

    async def _whole(self) -> None:
        await self.cloud.open(workers=2)
        for name in ("ada", "bob", "cyd")[: self.chance.choice([2, 2, 3])]:
            await self._add_device(name)
        self._set_weather()
        await self._live()
        await self._come_to_rest()
        self._check()

    async def _add_device(self, name: str) -> None:
        home = self.home / name
        home.mkdir()
        disk = self.disks.add(
            name,
            has_exchange=self.chance.random() < 0.8,
            folds_case=self.folding and self.chance.random() < 0.5,
            has_xattrs=self.chance.random() >= WITHOUT_XATTRS,
            xattr_size_bytes=self.chance.choice([65_536, 65_536, 100]),
        )
        disk.shown = partial(self._shown, name)
        if self.options.trace:
            disk.changed = partial(self._changed, name)
        device = SimulatedDevice(self.cloud, name, disk.folder, home)
        self.devices.append(device)
        await self.cloud.add_device(device.device_id, device.queue)
        self.people[name] = Person(name, disk.hands, self.record, self.names)
        device.on_end = partial(self._ended, device)
        device.start()

    def _set_weather(self) -> None:
        bad = self.chance.choice([0.0, 0.02, 0.1])
        self.weather.lost = self.weather.swapped = self.weather.failed = bad
        self.weather.doubled = max(bad, 0.05)
        self.watcher.forgets = self.chance.choice([0.0, 0.05, 0.3])

    async def _live(self) -> None:
        """People work, and things go wrong, step by step."""
        self.loop.traps = {site: self.chance.choice([0, 0, 1, 5]) for site in self.options.sites}
        for number in range(self.options.steps):
            await asyncio.sleep(self._pause_s())
            step = self._choose()
            if number not in self.options.skip:
                await step()
            if self.guarded and self.guard_chance.random() < 0.2:
                await self._review()
        if not self.options.skip:
            await self._make_up()

    async def _make_up(self) -> None:
        """Each run has at least so many operations, a crash, a disconnect and a message that comes twice."""
        while self.verdict.operations < LEAST_OPERATIONS:
            await self._act(self.chance.choice(self.devices), self.chance.getrandbits(32))
        device = self.devices[0]
        if sum(device.crashes for device in self.devices) == 0:
            await self._crash(device, 0)
        if self.verdict.disconnects == 0:
            await self._cut(device, 0)
        self.weather.doubled = 1.0
        while self.cloud.counts["doubled"] == 0:
            await self._act(device, self.chance.getrandbits(32))
            await self._wait_quiet()

    def _pause_s(self) -> float:
        """People save many things at once, then think."""
        return self.chance.choice([0.0, 0.001, 0.02, 0.1, 0.5, 3.0]) * self.chance.random()

    def _choose(self) -> "Callable[[], Awaitable[None]]":
        """What happens at a step: drawn in the same way whether or not the step is then left out."""
        device = self.chance.choice(self.devices)
        seed = self.chance.getrandbits(32)
        steps = (
            (self._act, 60),
            (self._burst, 6),
            (self._ambush, 8),
            (self._crash, 4),
            (self._crash_in_call, 3),
            (self._cut, 5),
            (self._join, 6),
            (self._crash_worker, 2),
            (self._fill, 1),
            (self._spoil, 1),
            (self._move_clock, 1),
            (self._stop, 2),
            (self._pause, 2),
            (self._ask, 2),
            (self._lose_database, 2 if self.forgetful else 0),
            (self._keep_backup, 2 if self.forgetful else 0),
            (self._restore, 1 if self.forgetful else 0),
        )
        kind = self.chance.choices([step for step, _ in steps], [weight for _, weight in steps])[0]
        return partial(kind, device, seed)

    async def _act(self, device: SimulatedDevice, seed: int) -> None:
        if self.calm:
            await self._wait_quiet()
        self.verdict.operations += 1
        person = self.people[device.name]
        self._say(person.act(random.Random(seed)))
        if self.calm:
            person.end_all_saving()

    async def _burst(self, device: SimulatedDevice, seed: int) -> None:
        """Several things in one moment, and somebody else at the same time."""
        chance = random.Random(seed)
        for _ in range(4):
            await self._act(chance.choice(self.devices), chance.getrandbits(32))

    async def _ambush(self, device: SimulatedDevice, seed: int) -> None:
        """Somebody does something right before one of the engine's next system calls: while it looks, reads or places."""
        if self.calm:
            return
        chance = random.Random(seed)

        def act() -> None:
            self.verdict.operations += 1
            self._say(f"in between: {self.people[device.name].act(chance)}")

        self.disks.of(device.name).ambushes.append(Ambush(chance.randrange(80), act))

    async def _crash_in_call(self, device: SimulatedDevice, seed: int) -> None:
        """The agent is killed right before one of its next system calls."""
        chance = random.Random(seed)

        def act() -> None:
            if device.is_running:
                self._say(f"{device.name} crashes in a system call")
                device.crash()

        self.disks.of(device.name).ambushes.append(Ambush(chance.randrange(80), act))

    async def _fill(self, device: SimulatedDevice, seed: int) -> None:
        """No room on a disk, for a while."""
        self._say(f"{device.name}'s disk is full")
        faults = self.disks.of(device.name).faults
        faults.full = True
        self.loop.call_later(random.Random(seed).choice([1.0, 60.0]), setattr, faults, "full", False)

    async def _spoil(self, device: SimulatedDevice, seed: int) -> None:
        """Reads fail at times, for a while."""
        self._say(f"{device.name}'s disk fails at times")
        faults = self.disks.of(device.name).faults
        faults.unreadable = 0.2
        self.loop.call_later(random.Random(seed).choice([1.0, 60.0]), setattr, faults, "unreadable", 0.0)

    async def _move_clock(self, device: SimulatedDevice, seed: int) -> None:
        """Somebody sets the wall clock."""
        self.loop.clock_ahead_s = random.Random(seed).choice([-86_400.0, -2.0, 0.0, 3.0, 86_400.0])
        self._say(f"the clock is {self.loop.clock_ahead_s} s ahead")

    async def _stop(self, device: SimulatedDevice, seed: int) -> None:
        """The agent is asked to stop, and is started again a while later."""
        self._say(f"{device.name} is stopped")
        device.stop()

    async def _pause(self, device: SimulatedDevice, seed: int) -> None:
        """`hutch pause`, and `hutch resume` a while later."""
        self._say(f"{device.name} pauses")
        device.may_run.clear()
        self.loop.call_later(random.Random(seed).choice([0.1, 5.0, 300.0]), device.resume)

    async def _ask(self, device: SimulatedDevice, seed: int) -> None:
        """`hutch wait`: it looks at everything afresh."""
        device.asked.set()

    async def _keep_backup(self, device: SimulatedDevice, seed: int) -> None:
        """The service's operator makes a backup."""
        self._backup = self.cloud.backup()

    async def _restore(self, device: SimulatedDevice, seed: int) -> None:
        """The service is restored from its backup, under a new epoch."""
        if self._backup is not None:
            self._say("the service is restored from a backup")
            self.cloud.restore(self._backup)

    async def _lose_database(self, device: SimulatedDevice, seed: int) -> None:
        """The agent's database is gone."""
        self._say(f"{device.name} loses its database")
        device.crash()
        for path in sorted(device.home.iterdir()):
            path.unlink()

    async def _crash(self, device: SimulatedDevice, seed: int) -> None:
        """The agent is killed, or the whole machine loses power; it comes back a while later."""
        chance = random.Random(seed)
        if not device.is_running:
            return
        self._say(f"{device.name} crashes")
        device.crash()
        if chance.random() < POWER_LOSS:
            self._lose_power(device)

    def _ended(self, device: SimulatedDevice) -> None:
        """An agent was cut off, for whatever reason: it is started again, unless the run is over."""
        if not self._over:
            assert device.life is not None
            self.verdict.crashed_at += sorted(self.loop.sites_of(device.life))
            # In a context of its own: in that of the dead, nothing runs any more.
            delay_s = self.chance.choice([0.0, 0.5, 20.0])
            self.loop.call_later(delay_s, self._start_again, device, context=contextvars.Context())

    def _start_again(self, device: SimulatedDevice) -> None:
        if not (device.is_running or self._over):
            device.start()

    def _lose_power(self, device: SimulatedDevice) -> None:
        """What was not made durable may be gone: what people wrote there and had not made durable is not owed any more."""
        self._say(f"{device.name} loses power")
        disk = self.disks.of(device.name)
        before = {*disk.hands.contents(), *disk.hands.staged()}
        disk.crash()
        self.people[device.name].lose_all_programs()
        gone = before - {*disk.hands.contents(), *disk.hands.staged()}
        self.record.living -= {data for data in gone if data in self.people[device.name].unsynced}
        self.record.ever.update(disk.hands.contents(), disk.hands.staged())

    async def _cut(self, device: SimulatedDevice, seed: int) -> None:
        """The device has no network for a while."""
        self.verdict.disconnects += 1
        self._say(f"{device.name} is offline")
        device.go_offline()
        self.loop.call_later(random.Random(seed).choice([1.0, 30.0, 2_000.0]), device.go_online)

    async def _join(self, device: SimulatedDevice, seed: int) -> None:
        device.go_online()

    async def _crash_worker(self, device: SimulatedDevice, seed: int) -> None:
        self._say("a worker crashes")
        self.cloud.crash_worker()

    def _say(self, what: str) -> None:
        self.verdict.log.append(f"{self.loop.time():.3f} {what}")

    def _note(self, logger: object, level: str, event: MutableMapping[str, Any]) -> str:
        """What the engine logs."""
        if self.options.trace:
            life = LIFE.get()
            more = " ".join(
                f"{key}={value}" for key, value in event.items() if key not in ("event", "workspace_id")
            )
            self._say(f"    {life.name if life else '-'}: {event['event']} {more}")
        raise structlog.DropEvent

    def _changed(self, name: str, what: str) -> None:
        self._say(f"    {name}: {what}")

    def _shown(self, name: str, path: str, data: bytes) -> None:
        """The engine has put a file where people see it: it must be one that somebody has written."""
        if data not in self.record.ever:
            self.verdict.torn.append(f"{path!r} on {name}")

    # --- coming to rest

    async def _come_to_rest(self) -> None:
        """Everybody is back and on line, nothing fails any more: wait until nothing is left to do."""
        self.loop.clock_ahead_s = 0.0
        self.weather.lost = self.weather.swapped = self.weather.failed = self.weather.doubled = 0.0
        self.watcher.forgets = 0.0
        for device in self.devices:
            device.go_online()
            disk = self.disks.of(device.name)
            disk.ambushes.clear()
            disk.faults.full, disk.faults.unreadable = False, 0.0
            self.people[device.name].end_all_saving()
            disk.hands.open_up()
        await self._wait_quiet()

    async def _wait_quiet(self) -> None:
        """Wait until nobody has anything left to do."""
        for device in self.devices:
            device.go_online()
            device.resume()
        deadline = self.loop.time() + REST_S
        quiet = 0
        while quiet < 3:
            if self.loop.time() > deadline:
                self.verdict.diverged.append("it never came to rest")
                return
            await asyncio.sleep(5.0)
            await self._review()
            quiet = quiet + 1 if all(device.is_settled() for device in self.devices) else 0
            if quiet == 1:
                await self._look_afresh()

    async def _review(self) -> None:
        """Somebody decides on what the guard holds, and the device is told of it, or finds out by itself."""
        store, workspace_id = self.cloud.store, self.cloud.workspace_id
        for device in self.devices:
            held = store.holds.get((workspace_id, device.device_id))
            if held is None or held.verdict is not Said.HELD:
                continue
            if self.guard_chance.random() < 0.5:
                self._say(
                    f"what {device.name} would do is accepted: {held.new.deleted} and {held.new.rewritten}"
                )
                await store.accept_hold(workspace_id, held.new.hold_id)
            else:
                self._say(
                    f"what {device.name} would do is undone: {held.new.deleted} and {held.new.rewritten}"
                )
                self.undone.add(device.name)
                await store.undo_hold(workspace_id, held.new.hold_id)
            if device.folder is not None and self.guard_chance.random() < 0.7:
                device.folder.hold.ask()

    async def _look_afresh(self) -> None:
        for device in self.devices:
            folder = device.folder
            with contextlib.suppress(TimeoutError):  # it may be cut off meanwhile
                async with asyncio.timeout(LOOK_S):
                    if folder is not None:
                        await folder.looker.look_at_all()

    # --- what must be so

    def _check(self) -> None:
        verdict, record = self.verdict, self.record
        verdict.doubled = self.cloud.counts["doubled"]
        trees = {device.name: self._describe(device) for device in self.devices}
        first = self.devices[0].name
        for name, tree in trees.items():
            for path in sorted(tree.keys() | trees[first].keys()):
                if tree.get(path) != trees[first].get(path):
                    verdict.diverged.append(
                        f"{path!r}: {_short(trees[first].get(path))} on {first}, {_short(tree.get(path))} on {name}"
                    )
        shown = set(self.disks.of(first).hands.contents())
        kept = self._history_of_copies()
        for data in sorted(record.living - shown - kept):
            verdict.lost.append(repr(data[:60]))
        self._check_names(trees[first])
        self._check_aliases()
        self._check_xattrs()
        self._check_leftovers()

    def _describe(self, device: SimulatedDevice) -> dict[str, tuple[object, ...]]:
        """What a device has, by the names that the others know: its disk may have called some of it otherwise."""
        seen = self.disks.of(device.name).hands.describe()
        if device.folder is None:
            return seen
        local = device.folder.replica.trees.local
        lacking = device.folder.replica.trees.lacking
        for path, found in seen.items():
            node = local.find(path)
            if node is not None and node.node_id in lacking:
                seen[path] = _with_lacking(node, lacking[node.node_id], found)
        return {own_path(local, path): found for path, found in seen.items()}

    def _check_aliases(self) -> None:
        """Nobody is ever told of an alias."""
        if self.forgetful:
            return  # with the database the aliases are lost
        for entry, _ in self.cloud.store.journal[self.cloud.workspace_id]:
            for operation in decode_entry(entry).operations:
                name = getattr(operation, "name", "")
                meant = name in self.record.replaced or CONFLICT_MARK in name
                if ALIAS_MARK in name and not meant:
                    self.verdict.broken.append(f"others were told of an alias: {operation}")

    def _check_xattrs(self) -> None:
        """A device whose disk has no extended attributes takes none away; nor does one that is too large for its disk."""
        room = {d.device_id: self.disks.of(d.name).xattr_size_bytes for d in self.devices}
        without = {d.device_id for d in self.devices if not self.disks.of(d.name).has_xattrs}
        had: dict[UUID, Xattrs] = {}
        parents: dict[UUID, UUID] = {}
        for data, _ in self.cloud.store.journal[self.cloud.workspace_id]:
            entry = decode_entry(data)
            for operation in entry.operations:
                node_id = operation.node_id
                if isinstance(operation, Delete):
                    _forget_below(node_id, had, parents)
                    continue
                parents[node_id] = getattr(operation, "parent_id", parents.get(node_id, ROOT))
                told = getattr(operation, "xattrs", UNSET)
                if isinstance(told, UnsetType):
                    continue
                size_bytes = -1 if entry.device_id in without else room[entry.device_id]
                taken = [
                    name
                    for name, value in had.get(node_id, ())
                    if name not in dict(told) and len(value) > size_bytes
                ]
                is_copy = CONFLICT_MARK in getattr(operation, "name", "")  # it may be another's content now
                if taken and not is_copy:
                    self.verdict.broken.append(f"{taken} was taken away by a disk that has not taken it")
                had[node_id] = told

    def _history_of_copies(self) -> set[bytes]:
        """Contents that are versions of what was a conflict copy once: later losses go there."""
        store = self.cloud.store
        copies = {
            operation.node_id
            for entry, _ in store.journal[self.cloud.workspace_id]
            for operation in decode_entry(entry).operations
            if CONFLICT_MARK in getattr(operation, "name", "")
        }
        found = set()
        for version in store.versions.values():
            if version.node_id in copies:
                content = decode_content(version.manifest)
                found.add(b"".join(self.cloud.chunks[chunk.hash] for chunk in content.chunks))
        return found

    def _check_names(self, tree: dict[str, tuple[object, ...]]) -> None:
        """Each conflict copy must be explained."""
        if self.forgetful:
            return
        for path in tree:
            name = path.rpartition("/")[2]
            stem, mark, rest = name.partition(CONFLICT_MARK)
            if not mark or (name in self.record.touched and not self.calm):
                continue
            files = {other: found[-1] for other, found in tree.items() if found[0] == "file"}
            below = [
                data
                for other, data in files.items()
                if other.startswith(f"{path}/") and isinstance(data, bytes)
            ]
            content = files.get(path)
            assert content is None or isinstance(content, bytes)
            original = stem + rest.rpartition(")")[2]
            if content is not None and content not in self.record.writes:
                continue  # a power cut has torn it
            if rest.split(" ")[0] in self.undone:
                continue  # what was undone is kept beside the others' version
            if self.calm or not self.record.is_explained(rest.split(" ")[0], original, content, below):
                self.verdict.conflicts_unexplained.append(path)

    def _check_leftovers(self) -> None:
        for device in self.devices:
            for path in self.disks.of(device.name).hands.stage():
                self.verdict.broken.append(f"{device.name} has {path} left over")
        store, workspace_id = self.cloud.store, self.cloud.workspace_id
        if len(store.journal[workspace_id]) != self.cloud.head.seq:
            self.verdict.broken.append("the journal has a gap")
        nodes = store.nodes[workspace_id]
        for node in nodes.values():
            parent = nodes.get(node.parent_id)
            if (
                not node.deleted
                and node.parent_id != ROOT
                and (parent is None or parent.deleted or parent.kind is not Kind.DIRECTORY)
            ):
                self.verdict.broken.append(f"{node.name!r} is an orphan")


def _forget_below(node_id: UUID, had: dict[UUID, Xattrs], parents: dict[UUID, UUID]) -> None:
    had.pop(node_id, None)
    parents.pop(node_id, None)
    for child in [child for child, parent_id in parents.items() if parent_id == node_id]:
        _forget_below(child, had, parents)


def own_path(local: Tree, path: str) -> str:
    """A path on disk, by the names that its nodes have elsewhere."""
    names: list[str] = []
    at = ""
    for name in path.split("/"):
        at = f"{at}/{name}" if at else name
        node = local.find(at)
        names.append(name if node is None else node.name)
    return "/".join(names)


def _with_lacking(node: Node, names: Collection[str], found: tuple[object, ...]) -> tuple[object, ...]:
    """What a disk holds, with the extended attributes that it has not taken and counts as being there."""
    lacking = {name: value for name, value in node.xattrs if name in names}
    return tuple({**lacking, **value} if isinstance(value, dict) else value for value in found)


def _short(entry: object) -> str:
    return "nothing" if entry is None else str(entry)[:80]


def _tell(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[:-6:-1]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__}: {error} ({where})"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
