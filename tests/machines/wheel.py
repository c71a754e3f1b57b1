"""A device's own installation: the wheel, in an environment with what the wheel asks for and nothing of this checkout."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.integration.packaging.test_wheel import ROOT, Built, build_wheel, closure, copy_sources, project

_PIN = re.compile(r"(?m)^(?=[A-Za-z0-9])")


@dataclass(frozen=True)
class Installed:
    """Where it stands, and which projects may be in it."""

    folder: Path
    allowed: frozenset[str]

    @property
    def hutch(self) -> Path:
        return self.folder / "bin" / "hutch"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def projects(self) -> set[str]:
        """What is installed in it."""
        shown = _pip("--python", self.python, "list", "--format", "json")
        return {project(one["name"]) for one in json.loads(shown)}


def install(folder: Path) -> Installed:
    """Build the wheel, and install it with exactly the versions and hashes of the project's lock."""
    wheel = build_wheel(copy_sources(folder / "sources"), folder / "wheels")
    environment = folder / "a device's environment"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(environment)
    python = environment / "bin" / "python"
    allowed = closure(Built(wheel, python).requirements())
    lock = folder / "device.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"{_pins(allowed)}\n{wheel} --hash=sha256:{digest}\n")
    # Not --no-deps: what the wheel asks for, and the lock does not pin, must fail here.
    _pip("--python", python, "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r", lock)
    return Installed(environment, frozenset(allowed | {"hutch"}))


def _pins(projects: set[str]) -> str:
    """The lock's own lines for these projects, hashes and all."""
    pins = _PIN.split((ROOT / "requirements.lock").read_text())
    return "".join(pin for pin in pins if pin and pin[0].isalnum() and project(pin) in projects)


def _pip(*arguments: object) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
