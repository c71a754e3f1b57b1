"""Keep one stack running: start in order, restart what dies, stop in reverse order, leave nothing behind.

The supervisor writes who runs to `run/state.json` at every change. Should it be killed itself, its children go on;
the next `up` or `down` finds them there (or by the mark in their environment) and ends them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy import processes
from deploy.keep import read_json, write_json
from deploy.processes import Identity
from deploy.servers import Server
from deploy.stack import Stack
from deploy.talk import DeployError, say

READY_TIMEOUT_S = 90.0
_LOOK_EVERY_S = 0.05
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_STEADY_S = 10.0
# At the first start a program that keeps ending is a fault to report, not to wait out.
_ATTEMPTS = 4
_NOT_SHOWN = {"epmd"}  # a part of RabbitMQ


@dataclass
class _Kept:
    """One program under supervision."""

    server: Server
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: Identity | None = None


class Lock:
    """Held by the one supervisor of a folder, as long as it lives: the system lets go of it whatever ends it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "run" / "lock"
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take it, or return False when another holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether somebody holds it now."""
        if not self._path.exists() or not self.take():
            return self._path.exists()
        self.release()
        return False


class Supervisor:
    """Runs one stack until it is told to stop. The caller holds the folder's lock."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._kept = [_Kept(server) for server in (*stack.servers, *stack.programs)]
        self._is_ready = False

    async def run(self, until: asyncio.Event, when_ready: Callable[[dict[str, Any]], None]) -> None:
        """Start all, keep all running until the event is set, then stop all.

        Args:
            until: Set it to stop.
            when_ready: Called once, with what scripts are told, when all is healthy.

        Raises:
            DeployError: Something does not start. All is stopped again by then.
        """
        problem: DeployError | None = None
        self._write_state()
        try:
            work = asyncio.create_task(self._run(when_ready), name="supervise")
            stop = asyncio.create_task(until.wait(), name="wait for the end")
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            for task in (work, stop):
                task.cancel()
            outcome, _ = await asyncio.gather(work, stop, return_exceptions=True)
            if isinstance(outcome, Exception):
                problem = _first_problem(outcome)
        finally:
            await asyncio.to_thread(self._stop)
            self._is_ready = False
            self._write_state(stopped=True, problem=None if problem is None else str(problem))
        if problem is not None:
            raise problem

    async def _run(self, when_ready: Callable[[dict[str, Any]], None]) -> None:
        servers = {server.name for server in self._stack.servers}
        async with asyncio.TaskGroup() as group:
            for kept in self._kept:
                if kept.server.name in servers:
                    group.create_task(self._keep(kept, self._needs(kept)), name=f"keep {kept.server.name}")
            await asyncio.gather(*(kept.ready.wait() for kept in self._kept if kept.server.name in servers))
            await asyncio.to_thread(self._stack.migrate)
            for kept in self._kept:
                if kept.server.name not in servers:
                    group.create_task(self._keep(kept, None), name=f"keep {kept.server.name}")
            await asyncio.gather(*(kept.ready.wait() for kept in self._kept))
            self._is_ready = True
            self._write_state()
            when_ready({**self._stack.answer(), "pids": pids(read_state(self._stack.folder))})

    def _needs(self, kept: _Kept) -> asyncio.Event | None:
        """What must be ready before the first start. Later, each comes back by itself, whatever else is down."""
        if kept.server is self._stack.rabbitmq:
            return next(other.ready for other in self._kept if other.server is self._stack.epmd)
        return None

    async def _keep(self, kept: _Kept, first: asyncio.Event | None) -> None:
        if first is not None:
            await first.wait()
        loop = asyncio.get_running_loop()
        pause_s = _SHORTEST_PAUSE_S
        failures = 0
        while True:
            began = loop.time()
            ended = await self._live(kept)
            if not self._is_ready:
                failures += 1
                if failures >= _ATTEMPTS:
                    log = kept.server.command().log
                    raise DeployError(
                        f"{kept.server.name} does not start ({ended}). Its log ends so:\n{processes.tail(log)}"
                    )
            say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {kept.server.name} {ended}; starting it again")
            pause_s = (
                _SHORTEST_PAUSE_S if loop.time() - began > _STEADY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
            )
            await asyncio.sleep(pause_s)

    async def _live(self, kept: _Kept) -> str:
        """One life of a program, from its start to its end. Returns how it ended."""
        server = kept.server
        await asyncio.to_thread(server.prepare)
        # Not in a thread: were we stopped between the start and the record, nobody would know of it.
        process = processes.start(server.command(), self._stack.folder)
        kept.process = processes.identify(process.pid)
        self._write_state()
        try:
            if not await _wait_ready(server, process):
                if process.poll() is None and kept.process is not None:
                    await asyncio.to_thread(processes.end, [kept.process], signal.SIGKILL)
                    process.wait()
                    return f"gave no answer within {READY_TIMEOUT_S:.0f} seconds"
            else:
                kept.ready.set()
                self._write_state()
                # Waiting in a thread would keep the thread until the program's end; there are fewer than programs.
                while process.poll() is None:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_EVERY_S)
            return f"ended with {process.returncode}"
        finally:
            if process.poll() is not None:
                kept.process = None
                self._write_state()

    def _stop(self) -> None:
        """Stop what runs, the last started first; the workers together, and so the programs."""
        programs = [kept for kept in self._kept if kept.server in self._stack.programs]
        processes.end([kept.process for kept in reversed(programs) if kept.process is not None])
        for kept in reversed(self._kept):
            if kept.process is not None:
                processes.end([kept.process], kept.server.stop_signal, kept.server.stop_patience_s)
        sweep(self._stack.folder)
        self._stack.clear()

    def _write_state(self, *, stopped: bool = False, problem: str | None = None) -> None:
        running = {kept.server.name: asdict(kept.process) for kept in self._kept if kept.process is not None}
        supervisor = processes.identify(os.getpid())
        write_json(
            _state_file(self._stack.folder),
            {
                "supervisor": None if supervisor is None or stopped else asdict(supervisor),
                "ready": self._is_ready,
                "problem": problem,
                "ready_names": [kept.server.name for kept in self._kept if kept.ready.is_set()],
                "running": {} if stopped else running,
                "answer": self._stack.answer(),
            },
        )


async def _wait_ready(server: Server, process: subprocess.Popen[bytes]) -> bool:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while process.poll() is None:
                if await asyncio.to_thread(server.is_ready):
                    return True
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        pass
    return False


def _first_problem(error: BaseException) -> DeployError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, DeployError):
        return error
    problem = DeployError(f"{type(error).__name__}: {error}")
    problem.__cause__ = error
    return problem


def supervisor_of(folder: Path) -> Identity | None:
    """The supervisor that wrote the state, if it lives."""
    recorded_one = read_state(folder).get("supervisor")
    if recorded_one is None or not processes.is_alive(identity := Identity(**recorded_one)):
        return None
    return identity


def read_state(folder: Path) -> dict[str, Any]:
    """What the supervisor wrote last; empty when there never was one."""
    return read_json(_state_file(folder))


def pids(state: dict[str, Any]) -> dict[str, int]:
    """The pids of the servers that live now, by name."""
    return {
        name: process.pid
        for name, process in recorded(state).items()
        if name not in _NOT_SHOWN and processes.is_alive(process)
    }


def ready_names(state: dict[str, Any]) -> list[str]:
    """The servers that have been ready since this supervisor began, in the order of their start."""
    return [name for name in state.get("ready_names", []) if name not in _NOT_SHOWN]


def recorded(state: dict[str, Any]) -> dict[str, Identity]:
    """The processes that the state names, in the order of their start."""
    return {name: Identity(**identity) for name, identity in state.get("running", {}).items()}


def reclaim(folder: Path) -> None:
    """End what a killed supervisor left running, the last started first. Call with the folder's lock held."""
    left = recorded(read_state(folder))
    programs = [
        process for name, process in left.items() if name not in ("postgres", "rabbitmq", "epmd", "s3")
    ]
    processes.end(programs)
    for name in ("s3", "rabbitmq", "epmd", "postgres"):
        if name in left:
            processes.end(
                [left[name]], signal.SIGINT if name == "postgres" else signal.SIGTERM, patience_s=30.0
            )
    sweep(folder)


def sweep(folder: Path) -> None:
    """End whatever else of this stack still runs, recorded or not."""
    left = [*processes.find_inside(folder / "postgres" / "data"), *processes.find_strays(folder)]
    processes.end(left, patience_s=5.0)


def fail(folder: Path, problem: str) -> None:
    """Say in the state that nothing runs, and why. Call after `reclaim`."""
    write_json(
        _state_file(folder),
        {**read_state(folder), "supervisor": None, "ready": False, "running": {}, "problem": problem},
    )


def forget(folder: Path) -> None:
    """Say in the state that nothing runs. Call after `reclaim`."""
    state = read_state(folder)
    if state:
        write_json(_state_file(folder), {**state, "supervisor": None, "ready": False, "running": {}})


def _state_file(folder: Path) -> Path:
    return folder / "run" / "state.json"
