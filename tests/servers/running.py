"""One server of a test session: started, waited for, and killed with all that it started."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from deploy import processes
from deploy.servers import Server

START_TIMEOUT_S = 90.0


def start_server(server: Server, folder: Path) -> None:
    """Start a server of this folder's stack, and return once it answers.

    Raises:
        RuntimeError: It ended, or did not answer in time. The message shows the end of its log.
    """
    server.prepare()
    command = server.command()
    process = processes.start(command, folder)
    if not processes.wait_until(lambda: process.poll() is not None or server.is_ready(), START_TIMEOUT_S):
        raise RuntimeError(f"{server.name} does not answer:\n{processes.tail(command.log)}")
    if process.poll() is not None:
        raise RuntimeError(f"{server.name} ended with {process.returncode}:\n{processes.tail(command.log)}")
    # Its owner is the session, which ends by killing what `find_strays` finds; nobody waits for this object.
    _started.append(process)


def kill_all(folder: Path) -> None:
    """Kill every process of this folder's stack. Nothing is stopped gracefully: the data are thrown away next."""
    left = [*processes.find_inside(folder / "postgres" / "data"), *processes.find_strays(folder)]
    processes.end(left, signal.SIGKILL)
    for process in _started:
        process.poll()


_started: list[subprocess.Popen[bytes]] = []
