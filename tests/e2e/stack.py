"""A private service on free ports, and devices on it: real `deploy/local`, real `hutch` processes, one temporary folder.

    with running_stack(folder) as stack:
        email = stack.add_user()
        laptop = stack.add_device("laptop", email)
        laptop.start()

Blocking, as a test that waits for processes may be; only `Stack.fetch` is asynchronous.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from deploy import bootstrap, processes, supervisor
from tests.e2e.trees import differences, leftovers, tree_of

PASSWORD = "correct horse battery staple"
WORKSPACE = "things"
READY_TIMEOUT_S = 90.0

_LOCAL = bootstrap.CHECKOUT / "deploy" / "local"
_BIN = bootstrap.VENV / "bin"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FailedError(AssertionError):
    """Something did not come true in time; says what stood instead."""


@dataclass
class Device:
    """A linked device with one synced folder, and its agent while it runs."""

    name: str
    home: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def hutch(self, *arguments: str, stdin: str | None = None, ok: bool = True) -> str:
        """Run a command of the device's to its end, and return what it printed.

        Raises:
            FailedError: It ended with another code than 0, unless `ok` is false.
        """
        return run([str(_BIN / "hutch"), *arguments], {"HUTCH_HOME": str(self.home)}, stdin, ok=ok)

    @property
    def log(self) -> Path:
        """What the agent has said, through all of its lives."""
        return self.home.with_name(f"{self.name}.log")

    def start(self) -> None:
        """Start the agent."""
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [_BIN / "hutch", "run"],
                env=processes.environment(self.home, {"HUTCH_HOME": str(self.home)}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the agent, and return its exit code once it is gone."""
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    def kill(self) -> None:
        """`kill -9`: at whatever it is."""
        self.end(signal.SIGKILL)

    def check(self) -> None:
        """Raise `FailedError` when the agent has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            code, self.process = self.process.returncode, None
            raise FailedError(f"the agent of {self.name} ended with {code}:\n{processes.tail(self.log)}")

    def status(self) -> dict[str, Any]:
        """`hutch status --json`."""
        told: dict[str, Any] = json.loads(self.hutch("status", "--json"))
        return told

    def wait(self, timeout_s: float) -> bool:
        """`hutch wait`: whether all was synced in time. False, too, when the agent has ended meanwhile."""
        told = self.hutch("wait", "--timeout", f"{timeout_s:.0f}", "--json", ok=False)
        return bool(json.loads(told or "{}").get("synced"))

    def write(self, path: str, content: bytes) -> Path:
        """Save a file, with the directories that it needs."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target


class Pair(NamedTuple):
    """An account with two devices."""

    email: str
    laptop: Device
    desktop: Device


@dataclass
class Stack:
    """A running service."""

    folder: Path
    told: dict[str, Any]
    devices: list[Device] = field(default_factory=list)
    _users: int = 0

    @property
    def data(self) -> Path:
        """The service's data folder."""
        return Path(self.told["data_dir"])

    # --- people and devices

    def add_user(self) -> str:
        """Make an account, and return its address."""
        self._users += 1
        email = f"person{self._users}@example.org"
        admin = [str(_BIN / "hutch-admin"), "user", "add", email, "--password-stdin"]
        run(admin, {"HUTCH_DATA": str(self.data)}, PASSWORD)
        return email

    def add_device(self, name: str, email: str) -> Device:
        """Link a device, with an empty folder in the account's one workspace. Its agent does not run yet."""
        place = self.folder / email.partition("@")[0]
        device = Device(name, place / f"{name} home", place / name)
        device.home.parent.mkdir(exist_ok=True)
        said = ["--email", email, "--password-stdin", "--device-name", name]
        device.hutch("link", self.told["metadata_url"], *said, stdin=PASSWORD)
        device.hutch("add", str(device.folder), "--workspace", WORKSPACE)
        self.devices.append(device)
        return device

    def add_pair(self) -> "Pair":
        """A new account with two devices, both running."""
        email = self.add_user()
        pair = Pair(email, self.add_device("laptop", email), self.add_device("desktop", email))
        pair.laptop.start()
        pair.desktop.start()
        return pair

    # --- servers

    def pid(self, name: str) -> int:
        """Who is that server now?"""
        return self._pids()[name]

    def _pids(self) -> dict[str, int]:
        return supervisor.pids(supervisor.read_state(self.data))

    def signal(self, name: str, what: signal.Signals) -> int:
        """Send a server a signal, and return the pid that it had."""
        pid = self.pid(name)
        os.kill(pid, what)
        return pid

    def wait_restarted(self, name: str, before: int) -> None:
        """Wait until the supervisor runs a new one of a killed server."""

        def is_new() -> bool:
            return self._pids().get(name, before) != before

        wait_until(is_new, READY_TIMEOUT_S, lambda: f"{name} was not started again: {self._pids()}")

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """A server that stands still: it takes connections (the kernel does), and never answers."""
        pid = self.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def counted(self, call: str) -> float:
        """How many requests of a kind the metadata server has answered since it began: `changes`, `snapshot`."""
        with _NO_PROXY.open(self.told["metadata_url"] + "/metrics", timeout=30) as answer:
            text = answer.read().decode()
        pattern = r"^hutch_metadata_requests_total\{(.*)\} (\S+)$"
        rows = re.findall(pattern, text, re.MULTILINE)
        assert rows, "the metadata server counts its requests under another name"
        return sum(float(number) for labels, number in rows if call in labels)

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask PostgreSQL."""
        connection = await asyncpg.connect(self.told["postgres_dsn"], timeout=30)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments, timeout=60)
            return rows
        finally:
            await connection.close()

    def leftovers(self) -> list[str]:
        """Temporary files in the block store."""
        temporary = self.data / "blocks" / "temporary"
        return [str(path) for path in temporary.rglob("*") if not path.is_dir()]

    def close(self) -> None:
        """End everything, at once: the data are thrown away next."""
        for device in self.devices:
            if device.process is not None:
                device.kill()
        run([sys.executable, str(_LOCAL), "down", "--data", str(self.data)], {})


@contextlib.contextmanager
def running_stack(workers: int = 2) -> Iterator[Stack]:
    """A fresh service in a temporary folder, which is gone at the end, with all its processes."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="hutch e2e ")))
    data = folder / "data"
    up = [sys.executable, str(_LOCAL), "up", "--json", "--data", str(data), "--workers", str(workers)]
    stack = Stack(folder, {"data_dir": str(data)})
    try:
        stack.told = json.loads(run(up, {}))
        yield stack
    finally:
        stack.close()
        if "HUTCH_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


def run(
    arguments: Sequence[str], settings: dict[str, str], stdin: str | None = None, *, ok: bool = True
) -> str:
    """Run a program to its end, with settings in its environment, and return what it printed.

    Raises:
        FailedError: It ended with another code than 0, unless `ok` is false.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUTCH_")}
    done = subprocess.run(
        arguments, env=kept | settings, input=stdin, capture_output=True, text=True, timeout=400
    )
    if ok and done.returncode != 0:
        raise FailedError(f"{arguments[:3]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_until(condition: Callable[[], bool], timeout_s: float, otherwise: Callable[[], str]) -> None:
    """Wait for a condition.

    Raises:
        FailedError: It did not come true; with what `otherwise` says.
    """
    if not processes.wait_until(condition, timeout_s):
        raise FailedError(otherwise())


def settle(*devices: Device, timeout_s: float) -> None:
    """Wait until every device says that all is synced, and all hold the same tree; nothing temporary is left then.

    Raises:
        FailedError: They did not come to that in time; with what differs, and what the devices say.
    """

    def is_settled() -> bool:
        for device in devices:
            device.check()
        return all(device.wait(timeout_s) for device in devices) and not _unlike(devices)

    wait_until(is_settled, timeout_s, lambda: _report(devices))
    left = {device.name: leftovers(device.folder) for device in devices}
    assert not any(left.values()), left


def _unlike(devices: Sequence[Device]) -> list[str]:
    first, *others = [tree_of(device.folder) for device in devices]
    return [line for other in others for line in differences(first, other)]


def _report(devices: Sequence[Device]) -> str:
    told = [json.dumps(device.status()) for device in devices]
    logs = [f"{device.name}:\n{processes.tail(device.log)}" for device in devices]
    return "\n".join(["not the same:", *_unlike(devices), *told, *logs])
