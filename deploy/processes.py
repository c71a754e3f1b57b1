"""Processes: who they are, whether they live, and how they end.

A pid alone names nobody: once its process is gone, the number is given to another. So we remember when the process
began, too, and never send a signal to a pid whose process began at another time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_MARK = "HUTCH_STACK"
_POLL_S = 0.02
# What would make a server of ours behave otherwise than we configured it.
_NOT_INHERITED = (
    "HUTCH_",
    "PG",
    "AWS_",
    "RABBITMQ_",
    "ERL_",
    "WEED_",
    "S3_",
    "NOTIFY_SOCKET",
    "PYTHONPATH",
    "PYTHONHOME",
)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process, for ever: its pid and when it began (an opaque word of this machine)."""

    pid: int
    began: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """How to start one program. Nothing secret may stand in `arguments`: every user of the machine can read them."""

    arguments: tuple[str, ...]
    folder: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)


def identify(pid: int) -> Identity | None:
    """Who has this pid now, or None when nobody does. A dead process that its parent has not yet reaped is nobody."""
    began = _began(pid)
    return None if began is None else Identity(pid=pid, began=began)


def is_alive(process: Identity) -> bool:
    """Whether this very process still runs."""
    return _began(process.pid) == process.began


def start(command: Command, stack: Path) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to its log.

    Args:
        command: What to start.
        stack: The data folder it belongs to. The process is marked with it, so that `find_strays` finds it (and all
            that it starts) even when our own records of it are lost.
    """
    rotate_log(command.log)
    with command.log.open("ab") as log:
        return subprocess.Popen(
            command.arguments,
            cwd=command.folder,
            env=environment(stack, command.settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def environment(stack: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program of ours: the caller's, without what configures servers, and with our settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
    return {**kept, "PYTHONUNBUFFERED": "1", _MARK: str(stack), **settings}


def end(
    processes: Iterable[Identity], how: signal.Signals = signal.SIGTERM, patience_s: float = 20.0
) -> None:
    """End processes and all that they started: ask, wait, then kill. Returns when none of them is left."""
    asked = [process for process in processes if is_alive(process)]
    family = [*asked, *_descendants(asked)]
    for process in asked:
        send(process, how)
    if not wait_until(lambda: not any(map(is_alive, asked)), patience_s):
        for process in asked:
            send(process, signal.SIGKILL)
    # Children end by themselves soon after their parent; one that does not is not ours to leave behind.
    if not wait_until(lambda: not any(map(is_alive, family)), 5.0):
        for process in family:
            send(process, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, family)), 5.0)


def send(process: Identity, what: signal.Signals) -> None:
    """Send a signal to this very process, if it still runs."""
    if is_alive(process):
        try:
            os.kill(process.pid, what)
        except ProcessLookupError:
            pass  # it ended in between


def find_strays(stack: Path) -> list[Identity]:
    """The processes of a stack, recorded or not, by our mark in their environment.

    Knows how to look only where there is `/proc`; elsewhere returns nothing. Never returns this process.
    """
    mark = os.fsencode(f"{_MARK}={stack}")
    return _find(lambda entry: mark in (entry / "environ").read_bytes().split(b"\0"))


def find_inside(folder: Path) -> list[Identity]:
    """The processes whose working folder it is. PostgreSQL's sessions overwrite their environment, and our mark in it."""
    inside = os.path.realpath(folder)
    return _find(lambda entry: os.readlink(entry / "cwd") == inside)


def _find(is_wanted: Callable[[Path], bool]) -> list[Identity]:
    found = []
    for entry in _PROC.glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if pid != os.getpid() and is_wanted(entry) and (process := identify(pid)) is not None:
                found.append(process)
        except OSError:
            continue  # gone meanwhile, or another user's
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition. Returns whether it came true within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)  # noqa: TID251 - here is the one place that waits; all others name their condition
    return True


def rotate_log(log: Path, limit_bytes: int = 10_000_000) -> None:
    """Put a grown log aside (one old one is kept), so that a stack that runs for months fills no disk."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        if log.stat().st_size > limit_bytes:
            log.replace(log.with_suffix(".1.log"))
    except FileNotFoundError:
        pass


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, or an empty text when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _began(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            after_name = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if after_name[0] in "ZX" else after_name[19]
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    state, _, began = shown.strip().partition(" ")
    return None if not state or state.startswith("Z") else began.strip()


def _descendants(ancestors: Iterable[Identity]) -> list[Identity]:
    shown = (
        subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
        if not _PROC.exists()
        else ""
    )
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in shown.splitlines())}
    for entry in _PROC.glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    family = {ancestor.pid for ancestor in ancestors}
    found: list[Identity] = []
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in family and pid not in family:
                family.add(pid)
                grown = True
                if (process := identify(pid)) is not None:
                    found.append(process)
    return found
