"""A person's device: a HUTCH_HOME, a synced folder, and a real `hutch run` that can be started, ended and killed."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deploy import bootstrap, processes

BIN = bootstrap.VENV / "bin"


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
        return run([str(BIN / "hutch"), *arguments], {"HUTCH_HOME": str(self.home)}, stdin, ok=ok)

    @property
    def log(self) -> Path:
        """What the agent has said, through all of its lives."""
        return self.home.with_name(f"{self.name}.log")

    def start(self) -> None:
        """Start the agent."""
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "hutch", "run"],
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
