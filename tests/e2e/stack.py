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
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from deploy import bootstrap, probe, processes, supervisor
from tests.e2e.device import BIN, Device, Pair, run, wait_until
from tests.e2e.trees import differences, leftovers, tree_of

PASSWORD = "correct horse battery staple"
WORKSPACE = "things"
READY_TIMEOUT_S = 90.0

_LOCAL = bootstrap.CHECKOUT / "deploy" / "local"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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
        admin = [str(BIN / "hutch-admin"), "user", "add", email, "--password-stdin"]
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

    def wait_ready(self) -> None:
        """Wait until the metadata server and the gateway can serve: with all that they need behind them."""

        def is_ready(url: str) -> bool:
            place = urllib.parse.urlsplit(url)
            return probe.http_status(str(place.hostname), place.port or 80, "/health/ready") == 200

        for name in ("metadata_url", "gateway_url"):
            url = self.told[name]
            wait_until(lambda url=url: is_ready(url), READY_TIMEOUT_S, lambda: f"not ready: {self._pids()}")  # type: ignore[misc]

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
        shutil.rmtree(folder, ignore_errors=True)


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
