"""Two folders that follow each other, before your eyes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy import bootstrap, control, follow, processes
from deploy.keep import Secrets, read_json, write_json
from deploy.processes import Command
from deploy.stack import Options
from deploy.supervisor import Lock
from deploy.talk import DeployError

_EMAIL = "demo@example.com"
_WORKSPACE = "demo"
_ARRIVE_TIMEOUT_S = 60.0
_LINK_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class _Device:
    name: str
    home: Path
    folder: Path


def run(folder: Path, options: Options, *, once: bool, new_ports: bool = False) -> int:
    """Show it. Returns the exit code.

    Args:
        folder: The stack's data folder. A second run goes on with the account and the devices of the first.
        options: How to start the stack, if it does not run.
        new_ports: As `control.up` takes it.
        once: Make some changes of our own and end, rather than watch until Ctrl-C.

    Raises:
        DeployError: It does not start, or a change does not arrive.
    """
    ran_before = Lock(folder).is_held()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal ends it as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    print("Starting RabbitMQ, PostgreSQL and Hutch …", flush=True)
    agents: dict[str, subprocess.Popen[bytes]] = {}
    try:
        metadata_url = control.up(folder, options, talk=lambda _: None, new_ports=new_ports)["metadata_url"]
        devices = [
            _Device(name=name, home=folder / "demo" / name.lower(), folder=folder / "demo" / f"{name} folder")
            for name in ("Laptop", "Desktop")
        ]
        _link(folder, metadata_url, devices)
        _show(folder, devices, agents, once=once)
    except KeyboardInterrupt:
        print()
    finally:
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
        ):  # impatience must not leave half of it running
            signal.signal(number, signal.SIG_IGN)
        print("Taking all down …", flush=True)
        processes.end(
            [one for agent in agents.values() if (one := processes.identify(agent.pid)) is not None]
        )
        for agent in agents.values():
            agent.wait()
        if ran_before:
            print("Hutch itself ran before, and is left running.")
        else:
            control.down(folder)
    return 0


def _link(folder: Path, metadata_url: str, devices: list[_Device]) -> None:
    """Make the account, link both devices and add their folders; what an earlier run did is not done again."""
    note = folder / "demo" / "done.json"
    done = read_json(note)

    def step(name: str, act: Callable[[], None]) -> None:
        if not done.get(name):
            act()
            done[name] = True
            write_json(note, done)

    password = Secrets(folder).get("demo-account")
    step(
        "account",
        lambda: _call(folder, "hutch-admin", ["user", "add", _EMAIL, "--password-stdin"], {}, password),
    )
    for device in devices:
        device.home.mkdir(parents=True, exist_ok=True)
        device.folder.mkdir(parents=True, exist_ok=True)
        home = {"HUTCH_HOME": str(device.home)}
        link = ["link", metadata_url, "--email", _EMAIL, "--password-stdin", "--device-name", device.name]
        step(f"link {device.name}", lambda link=link, home=home: _call(folder, "hutch", link, home, password))  # type: ignore[misc]
        add = ["add", str(device.folder), "--workspace", _WORKSPACE]
        step(f"add {device.name}", lambda add=add, home=home: _call(folder, "hutch", add, home))  # type: ignore[misc]
        _follow_move(device, metadata_url)


def _follow_move(device: _Device, metadata_url: str) -> None:
    """Where another program had taken the metadata server's port, the device of an earlier run is told the new one."""
    config = device.home / "config.json"
    kept = read_json(config)
    if kept.get("metadata_url") not in (None, metadata_url):
        write_json(config, {**kept, "metadata_url": metadata_url})


def _call(
    folder: Path, program: str, arguments: list[str], settings: dict[str, str], typed: str = ""
) -> None:
    done = subprocess.run(
        [bootstrap.VENV / "bin" / program, *arguments],
        env=processes.environment(folder, {"HUTCH_DATA": str(folder), **settings}),
        input=typed + "\n", capture_output=True, text=True, timeout=_LINK_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise DeployError(f"`{program} {arguments[0]}` failed: {(done.stderr or done.stdout).strip()}")


def _show(
    folder: Path, devices: list[_Device], agents: dict[str, subprocess.Popen[bytes]], *, once: bool
) -> None:
    follower = follow.Follower(sides=(devices[0].name, devices[1].name))

    def look() -> dict[str, follow.Tree]:
        return {device.name: follow.look(device.folder) for device in devices}

    def tick() -> dict[str, follow.Tree]:
        for device in devices:
            _keep_running(folder, device, agents)
        trees = look()
        for arrival in follower.see(trees, time.monotonic()):
            other = devices[1].name if arrival.origin == devices[0].name else devices[0].name
            print(
                f"  {arrival.origin:>7} → {other:<7}  {arrival.took_s:5.2f} s  {arrival.change}", flush=True
            )
        return trees

    def are_equal() -> bool:
        trees = tick()
        return follow.is_equal(*trees.values())

    follower.begin(look())
    tick()
    for device in devices:
        _call(folder, "hutch", ["wait", "--timeout", "60"], {"HUTCH_HOME": str(device.home)})
    if not processes.wait_until(are_equal, _ARRIVE_TIMEOUT_S):
        raise DeployError("The two folders do not become equal. " + _where_logs(folder))
    print("\nTwo devices are linked, and these two folders follow each other:\n")
    for device in devices:
        print(f"  {device.name:<8} {device.folder}")
    if not once:
        print("\nSave, move or delete something in either. Ctrl-C ends it.\n", flush=True)
        processes.wait_until(lambda: tick() is None, float("inf"))
    print("\nWatch:\n", flush=True)
    for what, act in _changes(devices[0].folder, devices[1].folder):
        act()
        if not processes.wait_until(are_equal, _ARRIVE_TIMEOUT_S):
            raise DeployError(
                f"This did not arrive within {_ARRIVE_TIMEOUT_S:.0f} seconds: {what}. " + _where_logs(folder)
            )
    print("\nAll arrived: both folders are the same.", flush=True)


def _changes(laptop: Path, desktop: Path) -> list[tuple[str, Callable[[], object]]]:
    """What `--once` does, from both sides. It begins by removing what an earlier run left."""
    return [
        ("a clean start", lambda: shutil.rmtree(desktop / "Trip", ignore_errors=True)),
        ("a new file", lambda: (laptop / "notes.txt").write_text("Buy carrots.\n")),
        (
            "an edit of it, on the other side",
            lambda: (desktop / "notes.txt").write_text("Buy carrots and hay.\n"),
        ),
        ("a new folder", lambda: (laptop / "Trip").mkdir()),
        ("a file of 5 MB in it", lambda: (desktop / "Trip" / "photo.raw").write_bytes(os.urandom(5_000_000))),
        ("a move", lambda: (laptop / "notes.txt").rename(laptop / "Trip" / "list.txt")),
        ("a delete", lambda: (desktop / "Trip" / "photo.raw").unlink()),
    ]


def _keep_running(folder: Path, device: _Device, agents: dict[str, subprocess.Popen[bytes]]) -> None:
    agent = agents.get(device.name)
    if agent is None or agent.poll() is not None:
        command = Command(
            arguments=(str(bootstrap.VENV / "bin" / "hutch"), "run"),
            folder=device.home,
            log=_log(folder, device.name),
            settings={"HUTCH_HOME": str(device.home)},
        )
        agents[device.name] = processes.start(command, folder)


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"agent-{name.lower()}.log"


def _where_logs(folder: Path) -> str:
    return f"The logs are in {folder / 'logs'}."
