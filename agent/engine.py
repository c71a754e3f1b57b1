"""The agent of one device: its folders, the device's queue, and what people ask of it. Carries values, decides nothing."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from agent.answers import Asked, Memory, answers_for
from agent.control import ControlServer
from agent.errors import DiskFull, FolderLinked, Held, NotWritable, Untrusted, is_disk_full, is_not_writable
from agent.folder import REOPEN_S, Folder, check_marker, placed_seq
from agent.home import Credential, FolderRecord, Home
from agent.index import Index
from agent.marker import Marker, read_marker, remove_marker, write_marker
from agent.patience import Patience, jittered
from agent.plan import plan
from agent.scan import Problem, RootGone
from agent.service import Service, Session
from agent.standing import conflict_paths, decode_problems, standing
from agent.steering import handlers_for
from agent.transfer import Transfer
from agent.trust import check_session
from broker.connection import BrokerAddress, Publisher
from broker.consumer import Consumer
from broker.delivery import Delivery
from broker.errors import Corrupt, Forbidden, HutchError, NotFound, Refused, Unproven
from broker.messages import (
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    HoldDecided,
    MembershipChanged,
    decode_inbox,
)
from broker.topology import device_user

log = structlog.get_logger()

PREFETCH: Final = 32
PUBLISHER_IDLE_S: Final = 60.0
SESSION_TIMEOUT_S: Final = 15.0
HEADS_EVERY_S: Final = 900.0
HOPELESS_LOOK_S: Final = 0.25
UNUSED_SHARE: Final = 0.2
"""Of the manifests kept, the share that may be of use to nobody: to look for them costs time at the start."""

STEADY_S: Final = 60.0
"""After so long in which all could be reached, what cannot is asked for without delay."""
BROKER_WAIT_S: Final = 15.0
"""How long the broker may take to be reached before what is missing is asked of the metadata server."""


class Agent:
    """Everything that one device does. One event loop, one agent a home (`Home.lock`).

    Attributes:
        left_out: How many entries were not synced, for what the status says of them, when `sync_once` was done.
    """

    def __init__(self, home: Home) -> None:
        """Take over a linked home.

        Raises:
            NotLinked: When no device was linked.
        """
        self._home = home
        self._credential = home.linked()
        self._index: Index | None = None
        self._folders: dict[UUID, Folder] = {}
        self._missing: dict[UUID, Problem] = {}
        self._memories: dict[UUID, Memory] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._consumer: Consumer | None = None
        self._transfer: Transfer | None = None
        self._service: Service | None = None
        self._publisher: Publisher | None = None
        self._changed = asyncio.Event()
        self._unreachable = asyncio.Event()
        self._comparing: asyncio.Task[None] | None = None
        self.left_out = 0

    # --- running

    async def run(self, stop: asyncio.Event) -> None:
        """Sync until `stop` is set, and answer commands meanwhile.

        Raises:
            AlreadyRunning: When another agent has this home.
            Forbidden: When the device was revoked.
        """
        with self._home.lock():
            async with contextlib.AsyncExitStack() as stack:
                await self._open(stack)
                await stack.enter_async_context(
                    ControlServer(self._home.socket_path, {**handlers_for(self, stop), **answers_for(self)})
                )
                await self._work_until(stop.wait())
                log.info("agent.stopped", device_id=str(self._credential.device_id))

    async def sync_once(self, timeout_s: float | None) -> bool:
        """Sync both ways until equal with the service's head. False: the time was up before that.

        Raises as `run` and `wait_synced` do, `DiskFull` or `Held` when that is all that is in the way, and `Untrusted`.
        """
        done = False

        async def work() -> None:
            nonlocal done
            done = await self._wait_synced(timeout_s, self._hopeless_alone)
            for folder in self._folders.values():
                await folder.keep_problems()
            self.left_out = sum(workspace["left_out"] for workspace in self.status()["workspaces"])

        with self._home.lock():
            async with contextlib.AsyncExitStack() as stack:
                await self._open(stack)
                await self._work_until(work())
        return done

    def _hopeless(self) -> HutchError | None:
        """What only a person can mend, so that nobody is kept waiting for it; None when there is no such thing."""
        names = {record.workspace_id: record.name for record in self._home.folders()}
        for workspace_id, problem in self._missing.items():
            if problem.code != DiskFull.code:
                return _error_of(names.get(workspace_id, ""), problem)
        for folder in self._folders.values():
            stuck = folder.stuck if folder.looker.in_place else folder.replica.problems.get("")
            if stuck is not None and stuck.code != DiskFull.code:
                return _error_of(folder.replica.name, stuck)
        return None

    def _hopeless_alone(self) -> HutchError | None:
        """The same, and what a running agent waits for: whoever syncs once does not."""
        if (unproven := self._unproven()) is not None:
            error = Untrusted(str(unproven))
            error.__cause__ = unproven
            return error
        stuck = [folder.stuck for folder in self._folders.values()]
        if any(
            problem is not None and problem.code == DiskFull.code
            for problem in (*stuck, *self._missing.values())
        ):
            return DiskFull("the disk is full: make room, and try again")
        if any(folder.is_held_up for folder in self._folders.values()):
            return Held("much would be deleted or rewritten elsewhere: look at it with `hutch review`")
        return self._hopeless()

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        credential = self._credential
        token = f"{credential.device_id}.{credential.device_secret}"
        cafile = self._home.cafile
        self._index = await asyncio.to_thread(Index, self._home.index_path)
        stack.push_async_callback(self._index.close)
        await self._index.drop_unused_manifests(share=UNUSED_SHARE)
        await self._index.drop_unused_commits()
        self._service = await stack.enter_async_context(Service(credential.metadata_url, token, cafile))
        transfer = Transfer(credential.gateway_url, token, cafile, on_unreachable=self._unreachable.set)
        self._transfer = await stack.enter_async_context(transfer)
        publisher = Publisher(
            self._address(),
            user_id=device_user(credential.device_id),
            idle_close_s=PUBLISHER_IDLE_S,
            on_unreachable=self._unreachable.set,
        )
        self._publisher = await stack.enter_async_context(publisher)

    def _address(self) -> BrokerAddress:
        credential = self._credential
        cafile = self._home.cafile
        return BrokerAddress(
            url=credential.amqp_url,
            user=device_user(credential.device_id),
            password=credential.amqp_password,
            cafile=None if cafile is None else str(cafile),
        )

    async def _work_until(self, end: Any) -> None:
        """Run all tasks until `end` (awaitable) is done, or one of them fails."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for record in self._home.folders():
                    self._start(record)
                tasks = [
                    group.create_task(self._listen(), name="listen"),
                    group.create_task(self._follow_moves(), name="follow moves"),
                    group.create_task(self._compare_at_times(), name="compare heads"),
                ]
                log.info("agent.started", device_id=str(self._credential.device_id), folders=len(self._tasks))
                await end
                for task in [*tasks, *self._tasks.values(), *([self._comparing] if self._comparing else [])]:
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            self._group = None

    # --- folders

    def _start(self, record: FolderRecord) -> None:
        assert self._group is not None
        task = self._group.create_task(self._keep(record), name=f"folder {record.name}")
        self._tasks[record.workspace_id] = task

    async def _keep(self, record: FolderRecord) -> None:
        """Run a folder; when it is not in its place, wait until it is. What has gone with it is no deletion."""
        assert self._index is not None
        assert self._transfer is not None
        assert self._service is not None
        assert self._publisher is not None
        while True:
            try:
                folder = await Folder.open(
                    record,
                    self._credential,
                    self._index,
                    transfer=self._transfer,
                    service=self._service,
                    publisher=self._publisher,
                    may_run=self._may_run,
                )
            except (RootGone, Corrupt, DiskFull, OSError) as error:
                problem = self._missing[record.workspace_id] = _problem_of(error)
                full = problem.code == DiskFull.code
                (log.warning if full else log.error)(
                    "folder.gone", workspace_id=str(record.workspace_id), code=problem.code
                )
                self._changed.set()
                await asyncio.sleep(REOPEN_S)
                continue
            self._missing.pop(record.workspace_id, None)
            self._folders[record.workspace_id] = folder
            if self._consumer is not None:
                folder.receiver.ask()  # what came out of the queue while it was not open went to nobody
            self._changed.set()
            try:
                await folder.run()
            finally:
                self._folders.pop(record.workspace_id, None)

    async def add_folder(self, folder: Path, workspace_id: UUID, name: str) -> None:
        """Mark a folder as this device's, and sync it from now on.

        Raises:
            FolderLinked: When this device syncs the workspace elsewhere, or the folder bears another's mark.
        """
        record = FolderRecord(folder=str(folder), workspace_id=workspace_id, name=name)
        mark_folder(self._home, self._credential, record)
        self._home.add_folder(record)
        self._start(record)
        log.info("folder.added", workspace_id=str(workspace_id))

    async def remove_folder(self, folder: Path) -> None:
        """Stop syncing a folder. Its files stay; the mark goes."""
        for record in self._home.folders():
            if record.folder != str(folder):
                continue
            task = self._tasks.pop(record.workspace_id, None)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            self._home.remove_folder(record.folder)
            await asyncio.to_thread(remove_marker, folder)
            assert self._index is not None
            await self._index.forget(record.workspace_id, record.folder)
            log.info("folder.removed", workspace_id=str(record.workspace_id))

    # --- the device's queue

    async def _listen(self) -> None:
        """Consume the device's queue for as long as the device is not revoked. Needs the metadata server only at times."""
        patience = Patience()
        await self._renew_session()
        await self._until_opened()  # a notice for a folder that is not open yet would go to nobody
        while True:
            self._consumer = Consumer(
                self._address(), self._credential.queue, prefetch=PREFETCH, exclusive=True
            )
            try:
                await self._consumer.run(
                    self._on_delivery,
                    on_connected=self._on_connected,
                    on_unreachable=self._unreachable.set,
                )
            except Forbidden:
                # The service has the last word on whether this device was revoked, or its broker user merely lost.
                log.warning("session.refused", device_id=str(self._credential.device_id))
            except (NotFound, Refused) as error:
                log.warning("session.lost", device_id=str(self._credential.device_id), error=str(error))
            await patience.wait()
            await self._renew_session()

    async def _until_opened(self) -> None:
        """Wait until each folder is open, or known not to be in its place."""
        while any(
            record.workspace_id not in self._folders and record.workspace_id not in self._missing
            for record in self._home.folders()
        ):
            self._changed.clear()
            await self._changed.wait()

    async def _renew_session(self) -> None:
        """Have the service repair this device's queue and bindings, and tell where everything is. It may be away."""
        assert self._service is not None
        await self._ask_session(self._service.session)

    async def _follow_moves(self) -> None:
        """Where broker or gateway stay out of reach they may have moved: the metadata server knows where to."""
        assert self._service is not None
        clock = asyncio.get_running_loop()
        patience, asked = Patience(), clock.time()
        while True:
            await self._unreachable.wait()
            self._unreachable.clear()
            if clock.time() - asked > STEADY_S:
                patience = Patience()
            with contextlib.suppress(Forbidden):  # who is not let in here hears of it where it is listened
                await self._ask_session(self._service.whereabouts)
            asked = clock.time()
            await patience.wait()

    async def _ask_session(self, ask: Callable[[], Awaitable[Session]]) -> None:
        try:
            async with asyncio.timeout(SESSION_TIMEOUT_S):
                session = await ask()
            check_session(self._credential.metadata_url, session.gateway_url, session.amqp_url)
        except Forbidden:
            raise
        except (HutchError, TimeoutError) as error:
            log.info("session.delayed", device_id=str(self._credential.device_id), error=str(error))
            return
        await self._take_session(session)

    async def _take_session(self, session: Session) -> None:
        fresh = msgspec.structs.replace(
            self._credential, gateway_url=session.gateway_url, amqp_url=session.amqp_url, queue=session.queue
        )
        if fresh != self._credential:
            self._credential = fresh
            await self._move()
            try:
                self._home.save_credential(fresh)
            except (OSError, DiskFull) as error:  # it is asked again at the next start
                log.warning("session.unsaved", device_id=str(fresh.device_id), error=type(error).__name__)
        for workspace in session.workspaces:
            folder = self._folders.get(workspace.workspace_id)
            if folder is not None:
                folder.compare_head(workspace.cursor, BROKER_WAIT_S)

    async def _move(self) -> None:
        """Have all that runs use the addresses that the service has told."""
        assert self._transfer is not None
        assert self._publisher is not None
        self._publisher.move(self._address())
        if self._consumer is not None:
            self._consumer.move(self._address(), self._credential.queue)
        await self._transfer.move(self._credential.gateway_url)
        log.info("session.moved", device_id=str(self._credential.device_id))

    async def _on_connected(self) -> None:
        self._changed.set()
        if self._group is not None and (self._comparing is None or self._comparing.done()):
            self._comparing = self._group.create_task(self._compare_until_told(), name="compare heads once")

    async def _compare_until_told(self) -> None:
        """The last notice may have been lost, with nothing after it: somebody has to tell how far the journal is."""
        patience = Patience()
        while not await self._compare_heads():
            await patience.wait()

    async def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = decode_inbox(delivery.body)
        except Corrupt as error:
            log.error("message.dropped", error=str(error))
            await delivery.ack()
            return
        match message:
            case ChangeNotice() | CommitRefused() | CommitAccepted():
                folder = self._folders.get(message.workspace_id)
                if folder is not None:
                    await folder.take(message)
            case MembershipChanged():
                await self._on_connected()
            case HoldDecided():
                folder = self._folders.get(message.workspace_id)
                if folder is not None:
                    folder.hold.ask()
        await delivery.ack()

    async def _compare_at_times(self) -> None:
        while True:
            await asyncio.sleep(jittered(HEADS_EVERY_S))
            await self._compare_heads()

    async def _compare_heads(self) -> bool:
        """Ask where all journals stand: the last notice may have been lost. False when nobody could say."""
        assert self._service is not None
        try:
            heads = await self._service.heads()
        except HutchError as error:
            log.info("heads.delayed", error=str(error))
            return False
        for head in heads:
            folder = self._folders.get(head.workspace_id)
            if folder is not None:
                folder.compare_head(head.cursor)
        return True

    # --- what people ask

    async def pause(self) -> None:
        """Send and place nothing until `resume`. Looking, and receiving notices, go on."""
        self._may_run.clear()
        log.info("agent.paused")

    async def resume(self) -> None:
        """Go on."""
        self._may_run.set()
        for folder in self._folders.values():
            folder.replica.notify()
        log.info("agent.resumed")

    async def wait_synced(self, timeout_s: float | None) -> bool:
        """Look at all folders afresh; return True once all is equal with the service's head, False when time is up.

        Raises:
            RootGone: A folder is not in its place.
            NotWritable: Nothing may be written in a folder, and that is all that is in the way.
        """
        return await self._wait_synced(timeout_s, self._hopeless)

    async def _wait_synced(self, timeout_s: float | None, hopeless: Callable[[], HutchError | None]) -> bool:
        async def watch() -> None:
            while True:
                if (error := hopeless()) is not None:
                    raise error
                await asyncio.sleep(HOPELESS_LOOK_S)

        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                watching = group.create_task(watch(), name="watch for the hopeless")
                await self._until_synced()
                watching.cancel()
        except TimeoutError:
            return False
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        return True

    async def _until_synced(self) -> None:
        patience = Patience()
        while len(self._folders) < len(self._home.folders()):
            self._changed.clear()
            if len(self._folders) < len(self._home.folders()):
                await self._changed.wait()
        for folder in list(self._folders.values()):
            await folder.looker.look_at_all()
        while True:
            for folder in list(self._folders.values()):
                await _until_settled(folder)
            if await self._compare_heads() and all(f.is_settled for f in self._folders.values()):
                return
            await patience.wait()

    def asked(self, folder: Path) -> Asked:
        """A folder that people ask of.

        Raises:
            NotFound: It is not synced.
            RootGone: It is not in its place, or not opened yet.
        """
        record = next((record for record in self._home.folders() if record.folder == str(folder)), None)
        if record is None:
            raise NotFound(f"{folder} is not synced: `hutch list` shows what is")
        found = self._folders.get(record.workspace_id)
        if found is None:
            problem = self._missing.get(record.workspace_id)
            raise RootGone(problem.message if problem else f"{folder} is being opened: ask again in a moment")
        return Asked(
            replica=found.replica,
            memory=self._memories.setdefault(record.workspace_id, Memory()),
            resolver=found.resolver,
            rules=lambda: found.looker.rules,
            is_paused=not self._may_run.is_set(),
        )

    def status(self) -> dict[str, Any]:
        """The object that `hutch status --json` prints."""
        workspaces = [folder.status() for folder in self._folders.values()]
        if (unproven := self._unproven()) is not None:
            for workspace in workspaces:
                workspace["errors"].append({"path": "", "code": unproven.code, "message": str(unproven)})
        workspaces += [
            _closed_status(record, self._missing.get(record.workspace_id))
            for record in self._home.folders()
            if record.workspace_id not in self._folders
        ]
        return {
            "state": self._state(),
            "workspaces": workspaces,
            "bytes_up": self._transfer.bytes_up if self._transfer else 0,
            "bytes_down": self._transfer.bytes_down if self._transfer else 0,
        }

    def _closed(self) -> bool:
        """Whether a folder is not open yet, or cannot be."""
        return any(record.workspace_id not in self._folders for record in self._home.folders())

    def _unproven(self) -> Unproven | None:
        """Somebody who is not the service answers in its place."""
        trouble = None if self._consumer is None else self._consumer.trouble
        return trouble if isinstance(trouble, Unproven) else None

    def _state(self) -> str:
        if not self._may_run.is_set():
            return "paused"
        if self._consumer is None or not self._consumer.connected:
            return "offline"
        settled = not self._closed() and all(folder.is_settled for folder in self._folders.values())
        return "idle" if settled else "syncing"


async def _until_settled(folder: Folder) -> None:
    changed = folder.replica.listen()
    try:
        while not folder.is_settled:
            # Looking has no event of its own for having caught up with the last hint: ask again soon.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await changed.wait()
            changed.clear()
    finally:
        folder.replica.unlisten(changed)


def mark_folder(home: Home, credential: Credential, record: FolderRecord) -> None:
    """Give a folder this device's mark. Blocks.

    Raises:
        FolderLinked: When this device syncs the workspace elsewhere, or the folder bears another's mark.
    """
    path = Path(record.folder)
    for other in home.folders():
        if other.workspace_id == record.workspace_id and other.folder != record.folder:
            raise FolderLinked(f"workspace {record.name} is synced with {other.folder} already")
    marker = read_marker(path)
    if marker is not None and (marker.workspace_id, marker.device_id) != (
        record.workspace_id,
        credential.device_id,
    ):
        raise FolderLinked(f"{path} is synced already, with another workspace or by another device")
    if marker is None:
        write_marker(path, Marker(workspace_id=record.workspace_id, device_id=credential.device_id))


def offline_status(home: Home) -> dict[str, Any]:
    """What can be said without a running agent: as of when it last ran. Blocks."""
    credential, records = home.linked(), home.folders()
    index = Index(home.index_path) if home.index_path.exists() else None
    try:
        workspaces = [_stored_status(index, record, credential) for record in records]
    finally:
        if index is not None:
            index.close_now()
    return {"state": "offline", "workspaces": workspaces, "bytes_up": 0, "bytes_down": 0}


def _stored_status(index: Index | None, record: FolderRecord, credential: Credential) -> dict[str, Any]:
    problems = []
    try:
        check_marker(Path(record.folder), record, credential)
    except (RootGone, Corrupt, OSError) as error:
        problems.append(_problem_of(error))
    if index is None:
        return _closed_status(record, *problems, started=False)
    state, trees = index.load_now(record.workspace_id)
    if state.generation == 0:
        return _closed_status(record, *problems, started=False)
    kept = decode_problems(state.problems)
    held = {*trees.all_ignored(), *(one.node_id for one in kept if one.node_id is not None)}
    planned = plan(trees, device="", date="", held=held) if state.cursor is not None else None
    seq = state.cursor.seq if state.cursor is not None else 0
    return standing(
        name=record.name,
        workspace_id=record.workspace_id,
        folder=record.folder,
        cursor=seq,
        head=seq,
        placed=placed_seq(state.cursor, trees, planned.place if planned else ()),
        pending_up=len(planned.commit) if planned else 0,
        pending_down=len(planned.place) if planned else 0,
        conflicts=conflict_paths(trees.local),
        # Whether the folder is in its place was just seen.
        problems=[*problems, *(one.problem for one in kept if one.problem.code != RootGone.code)],
    )


def _problem_of(error: Exception) -> Problem:
    """Why a folder cannot be opened now."""
    if isinstance(error, DiskFull) or is_disk_full(error):
        return Problem("", DiskFull.code, "the disk is full: nothing is synced here until there is room")
    if isinstance(error, OSError) and is_not_writable(error):
        text = f"the folder cannot be written ({error.strerror}): nothing is synced here until it can"
        return Problem("", NotWritable.code, text)
    return Problem("", RootGone.code, str(error))


def _error_of(name: str, problem: Problem) -> HutchError:
    """A folder's problem, as what a command ends with."""
    if problem.code == NotWritable.code:
        where = f"{problem.path}: " if problem.path else ""
        return NotWritable(f"{name}: {where}{problem.message}")
    return RootGone(f"the folder of {name} is gone: {problem.message}")


def _closed_status(record: FolderRecord, *problems: Problem | None, started: bool = True) -> dict[str, Any]:
    """Of a folder that is not open: it cannot be, for what the problems say, or is not yet."""
    return standing(
        name=record.name,
        workspace_id=record.workspace_id,
        folder=record.folder,
        started=started and any(problems),
        problems=[problem for problem in problems if problem is not None],
    )


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that a person should hear of."""
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            return _first(failure)
        return failure
    return failures
