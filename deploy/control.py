"""Start, ask and stop a stack from outside its supervisor."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy import bootstrap, processes, supervisor
from deploy.stack import Options, check_folder, open_folder
from deploy.supervisor import Lock
from deploy.talk import DeployError, say

_UP_TIMEOUT_S = 300.0
_DOWN_TIMEOUT_S = 120.0


def up(
    folder: Path, options: Options, talk: Callable[[str], None] = say, *, new_ports: bool = False
) -> dict[str, Any]:
    """Start the stack in the background, or find it running, and return what scripts are told once it is healthy.

    Args:
        folder: The stack's data folder.
        options: How it shall be.
        talk: Told what happens meanwhile, line by line.
        new_ports: Whether ports that devices know may be given up, where other programs have taken them.

    Raises:
        DeployError: It does not start, or it runs with other options.
    """
    check_folder(folder)
    if Lock(folder).is_held():
        return find_running(folder, options, talk)
    options.check(folder)
    open_folder(folder)
    options.keep(folder)
    log = folder / "logs" / "supervisor.log"
    processes.rotate_log(log)
    talk("Starting PostgreSQL, RabbitMQ and Hutch; this takes some 20 s …")
    with log.open("ab") as output:
        started = subprocess.Popen(
            [
                sys.executable, bootstrap.CHECKOUT / "deploy" / "local", "up", "--foreground", "--data", folder,
                *(["--new-ports"] if new_ports else []),
            ],
            cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    return wait_healthy(folder, started, talk)


def find_running(folder: Path, options: Options, talk: Callable[[str], None] = say) -> dict[str, Any]:
    """Wait for the stack that another supervisor runs, and return what scripts are told.

    Raises:
        DeployError: It runs with other options: it takes them when it starts. Or it does not become healthy.
    """
    wanted, kept = dataclasses.asdict(options), dataclasses.asdict(Options.kept(folder))
    if others := [name for name, value in wanted.items() if value != kept[name]]:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise DeployError(
            f"Hutch runs already in {folder}, and was started with another {shown}, which a running stack does not"
            " change. Run `deploy/local down` first; the data stay."
        )
    talk(f"Hutch runs already in {folder}.")
    return wait_healthy(folder, None, talk)


def down(folder: Path) -> bool:
    """Stop the stack; its data stay. Returns whether anything ran. No process of it is left then.

    Raises:
        DeployError: The supervisor does not end.
    """
    lock = Lock(folder)
    if not (folder / "run").is_dir():
        return False
    ran = lock.is_held()
    if ran and (running := supervisor.supervisor_of(folder)) is not None:
        processes.send(running, signal.SIGTERM)
        if not processes.wait_until(lambda: not lock.is_held(), _DOWN_TIMEOUT_S):
            processes.send(running, signal.SIGKILL)
    if not processes.wait_until(lock.take, _DOWN_TIMEOUT_S):
        raise DeployError(
            f"The supervisor of {folder} does not end. See {folder / 'logs' / 'supervisor.log'}."
        )
    try:
        ran = ran or bool(supervisor.pids(supervisor.read_state(folder)))
        supervisor.reclaim(folder)
        supervisor.forget(folder)
    finally:
        lock.release()
    return ran


def status(folder: Path) -> dict[str, Any]:
    """What scripts are told of the stack now: its addresses, `running`, and the pids of what lives."""
    state = supervisor.read_state(folder)
    running = bool(state) and Lock(folder).is_held()
    return {
        "data_dir": str(folder),
        **state.get("answer", {}),
        "running": running and bool(state.get("ready")),
        "pids": supervisor.pids(state),
    }


def wait_healthy(
    folder: Path, started: subprocess.Popen[bytes] | None, talk: Callable[[str], None]
) -> dict[str, Any]:
    """Wait until the stack is healthy, and return what scripts are told.

    Args:
        folder: The stack's data folder.
        started: Its supervisor, when we started it: should it end, there is nothing more to wait for.
        talk: Told what is ready, as long as something is not.

    Raises:
        DeployError: It did not start.
    """
    told: set[str] = set()

    def is_decided() -> bool:
        if started is not None and started.poll() is not None:
            return True
        # A state that a killed supervisor left behind says nothing of this one.
        if supervisor.supervisor_of(folder) is None:
            return False
        state = supervisor.read_state(folder)
        if state.get("ready"):
            return True
        for name in supervisor.ready_names(state):
            if name not in told:
                talk(f"  {name} is ready")
                told.add(name)
        return False

    decided = processes.wait_until(is_decided, _UP_TIMEOUT_S)
    state = supervisor.read_state(folder)
    if decided and state.get("ready"):
        return {**state["answer"], "pids": supervisor.pids(state)}
    if problem := state.get("problem"):
        raise DeployError(problem)
    log = folder / "logs" / "supervisor.log"
    raise DeployError(f"Hutch did not start. {log} ends so:\n{processes.tail(log)}")
