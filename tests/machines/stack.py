"""A whole service and the devices linked to it, driven as operators and people do: by their command lines alone."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy import bootstrap, processes, supervisor

PASSWORD: Final = "correct horse battery"
PATIENCE_S: Final = 60.0
"""How long anything may take on a busy machine before it counts as broken."""

HUTCH: Final = bootstrap.VENV / "bin" / "hutch"
_LOCAL: Final = bootstrap.CHECKOUT / "deploy" / "local"
_ADMIN: Final = bootstrap.VENV / "bin" / "hutch-admin"


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The one JSON object that it printed."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def line(self) -> str:
        """The one line that it said on stderr."""
        (line,) = self.err.splitlines()
        return line


@dataclass(frozen=True)
class Machine:
    """Where programs run: this computer, or a network namespace that stands for another one."""

    namespace: str | None = None

    def command(self, *arguments: object) -> list[str]:
        """A program's command line on this machine. The process that it starts becomes the program."""
        prefix = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        return [*prefix, *map(str, arguments)]

    def run(self, *arguments: object, typed: str = "", settings: Mapping[str, str] | None = None) -> Ended:
        """Run a program to its end."""
        done = subprocess.run(
            self.command(*arguments),
            input=typed, capture_output=True, text=True, timeout=4 * PATIENCE_S, env=_environment(settings or {}),
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)


HERE: Final = Machine()


class Service:
    """One stack of `deploy/local`, with its data in a folder of its own. `told` is what `up` printed."""

    def __init__(self, data: Path, machine: Machine = HERE) -> None:
        self.data = Path(os.path.realpath(data))
        self.machine = machine
        self.told: dict[str, Any] = {}

    def up(self, *options: object) -> None:
        """Start all, and wait until it is healthy."""
        done = self.machine.run(_LOCAL, "up", "--json", "--data", self.data, *options)
        assert done.code == 0, done.err
        self.told = done.data

    def kill(self) -> None:
        """End all of it at once: its data are thrown away next, so nothing has to be put in order first."""
        keeper = supervisor.supervisor_of(self.data)
        processes.end([] if keeper is None else [keeper], signal.SIGKILL)
        left = [*processes.find_inside(self.data / "postgres" / "data"), *processes.find_strays(self.data)]
        processes.end(left, signal.SIGKILL)
        assert processes.find_strays(self.data) == []

    def pids(self) -> dict[str, int]:
        """Who runs now."""
        pids = self.machine.run(_LOCAL, "status", "--json", "--data", self.data).data["pids"]
        assert isinstance(pids, dict)
        return pids

    def admin(self, *arguments: object, typed: str = "") -> Ended:
        """Run the operator's tool."""
        return self.machine.run(_ADMIN, *arguments, typed=typed, settings={"HUTCH_DATA": str(self.data)})

    def add_person(self) -> str:
        """Make an account with `PASSWORD`, and return its address."""
        email = f"person-{secrets.token_hex(4)}@example.com"
        done = self.admin("user", "add", email, "--password-stdin", typed=PASSWORD + "\n")
        assert done.code == 0, done.err
        return email


@dataclass
class Device:
    """A HUTCH_HOME, a folder beside it, and the program that people run. `others` are further settings of its own."""

    root: Path
    machine: Machine = HERE
    hutch: Path = HUTCH
    others: dict[str, str] = field(default_factory=dict)
    _agent: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def folder(self) -> Path:
        return self.root / "folder"

    @property
    def log(self) -> Path:
        return self.root / "agent.log"

    @property
    def settings(self) -> dict[str, str]:
        return {"HUTCH_HOME": str(self.home), "HOME": str(self.root / "person"), **self.others}

    def __call__(self, *arguments: object, typed: str = "") -> Ended:
        (self.root / "person").mkdir(parents=True, exist_ok=True)
        return self.machine.run(self.hutch, *arguments, typed=typed, settings=self.settings)

    def do(self, *arguments: object, typed: str = "") -> Ended:
        """Run a command that must succeed."""
        done = self(*arguments, typed=typed)
        assert done.code == 0, f"hutch {arguments[0]} ended with {done.code}: {done.err}{self.told()}"
        return done

    def try_link(self, url: str, email: str, *options: object, password: str = PASSWORD) -> Ended:
        """Link, or be refused."""
        asked = ("link", url, "--email", email, "--password-stdin", "--device-name", self.name)
        return self(*asked, *options, typed=password + "\n")

    def join(self, service: Service, email: str, *options: object, workspace: str = "shared") -> None:
        """Link to a service, and sync `folder` with a workspace."""
        linked = self.try_link(service.told["metadata_url"], email, *options)
        assert linked.code == 0, linked.err
        self.do("add", self.folder, "--workspace", workspace)

    def credential(self) -> dict[str, Any]:
        """What a thief of this device would read."""
        value = json.loads((self.home / "config.json").read_text())
        assert isinstance(value, dict)
        return value

    def start(self) -> None:
        """Start the agent."""
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(
                self.machine.command(self.hutch, "run"), env=_environment(self.settings),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> int | None:
        """End the agent, if it runs. Returns its exit code."""
        agent, self._agent = self._agent, None
        if agent is None:
            return None
        agent.send_signal(signal.SIGTERM)
        try:
            return agent.wait(PATIENCE_S / 2)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()
            raise

    def wait_ended(self) -> int:
        """Wait until the agent ends by itself. Returns its exit code."""
        assert self._agent is not None
        return self._agent.wait(PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """What `hutch status --json` says."""
        return self.do("status", "--json").data

    def errors(self) -> dict[str, str]:
        """Path to code, of all that the device says that it cannot sync."""
        return {
            error["path"]: error["code"]
            for workspace in self.status()["workspaces"]
            for error in workspace["errors"]
        }

    def told(self) -> str:
        """The end of the agent's log."""
        return processes.tail(self.log, 30)


def wait_for(condition: Callable[[], bool], what: str, device: Device | None = None) -> None:
    """Wait until something is so, and fail with what was waited for when it takes too long."""
    came = processes.wait_until(condition, PATIENCE_S)
    assert came, f"in vain: {what}\n{device.told() if device is not None else ''}"


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUTCH_", "PYTHONPATH"))}
    return {**kept, **settings}
