"""Install what is missing: the checkout's Python environment, and RabbitMQ.

Runs on a bare machine, before anything is installed: the standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.talk import DeployError, say

CHECKOUT = Path(__file__).resolve().parent.parent
VENV = CHECKOUT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

_STAMP = VENV / ".hutch-installed"
_MANAGEMENT_PLUGIN = "rabbitmq_management-*"


def install_python() -> None:
    """Make or update the checkout's `.venv`. Does nothing when it is as the lock says.

    Two may run at once: the second waits for the first.

    Raises:
        DeployError: This Python cannot make environments, or a package could not be installed.
    """
    if _is_current():
        return
    with _locked(CHECKOUT):
        if _is_current():  # another has made it while we waited
            return
        say("Installing the Python packages into .venv (the first time takes a minute) …")
        _make_environment()
        # The lock holds the build tools too, so nothing is fetched that it does not name.
        _pip("install", "--require-hashes", "-r", str(CHECKOUT / "requirements.lock"))
        # `compat`: a path entry instead of a fixed list of packages, so that one added later is seen at once.
        _pip(
            "install", "--no-deps", "--no-build-isolation", "--no-index",
            "--config-settings", "editable_mode=compat", "-e", str(CHECKOUT),
        )  # fmt: skip
        _STAMP.write_text(_fingerprint())


def install_rabbitmq() -> None:
    """See that RabbitMQ is here, with its management plugin.

    Raises:
        DeployError: It is not, and we may not install it. The message says what to install.
    """
    if find_rabbitmq() is None:
        say("Installing RabbitMQ …")
        _install_packages(["rabbitmq-server"], "RabbitMQ 3.10 or later")
        if find_rabbitmq() is None:
            raise DeployError(
                "RabbitMQ was installed, but its `rabbitmq-server` script is not where we look for it."
            )


def find_rabbitmq() -> Path | None:
    """The folder of RabbitMQ's own scripts, or None when it is not installed.

    The `rabbitmq-server` on the PATH of a Debian machine is a wrapper that refuses plain users, and as root changes
    to the user `rabbitmq` without the environment that makes a node private. The script beneath it does neither.
    """
    candidates: list[Path] = []
    if home := os.environ.get("RABBITMQ_HOME"):
        candidates.append(Path(home) / "sbin")
    candidates += sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"), reverse=True)
    candidates += [Path("/usr/lib/rabbitmq/bin"), Path("/opt/homebrew/opt/rabbitmq/sbin")]
    if found := shutil.which("rabbitmq-server"):
        candidates.append(Path(found).resolve().parent)
    for folder in candidates:
        if (folder / "rabbitmq-server").is_file() and any(
            (folder.parent / "plugins").glob(_MANAGEMENT_PLUGIN)
        ):
            return folder
    return None


def _is_current() -> bool:
    try:
        return _STAMP.read_text() == _fingerprint() and os.access(VENV_PYTHON, os.X_OK)
    except OSError:
        return False


def _fingerprint() -> str:
    """What the environment was made from: another lock, another place or another Python make another one."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "requirements.lock"):
        digest.update((CHECKOUT / name).read_bytes())
    digest.update(os.fsencode(CHECKOUT))
    return digest.hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_environment() -> None:
    _STAMP.unlink(missing_ok=True)
    if not _pip_works():
        shutil.rmtree(VENV, ignore_errors=True)
        python = _base_python()
        if subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True).returncode != 0:
            _install_packages(["python3-venv"], "Python's `venv` module")
        made = subprocess.run([python, "-m", "venv", str(VENV)], capture_output=True, text=True)
        if made.returncode != 0:
            raise DeployError(
                f"{python} could not make an environment in {VENV}:\n{made.stdout}{made.stderr}"
            )


def _pip_works() -> bool:
    # After the checkout was moved, the scripts in the old environment still name the old place.
    try:
        config = (VENV / "pyvenv.cfg").read_text()
        recorded = re.search(r"^command = .* (\S.*)$", config, re.MULTILINE)
        if recorded is not None and not recorded[0].endswith(str(VENV)):
            return False
        return subprocess.run([VENV_PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def _base_python() -> str:
    """The Python to build on: this one, unless it stands in a folder that only root may enter.

    An environment refers to the Python it was made from; one in root's home would be of no use to another user of
    this checkout.
    """
    this = str(Path(sys.executable).resolve())
    system = "/usr/bin/python3"
    if os.geteuid() == 0 and not _anyone_may_run(Path(this)) and os.access(system, os.X_OK):
        version = subprocess.run(
            [system, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
        )
        if version.stdout.strip() == "True":
            return system
    return this


def _anyone_may_run(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def _pip(*arguments: str) -> None:
    command = [str(VENV_PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    if done.returncode != 0:
        raise DeployError(f"Installing the Python packages failed:\n{done.stdout}{done.stderr}")


def _install_packages(packages: Sequence[str], what: str) -> None:
    by_hand = f"{what} is missing. Please install it"
    if shutil.which("apt-get") is None:
        raise DeployError(f"{by_hand} (on Debian: the package {' '.join(packages)}), and start again.")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() == 0:
        prefix: list[str] = []
    elif shutil.which("sudo") is not None:
        prefix = ["sudo", "--"] if sys.stdin.isatty() else ["sudo", "-n", "--"]
    else:
        raise DeployError(f"{by_hand} as root: {' '.join(command)}")
    # A package's scripts would start a public server on the default port, and enable it at boot: ours is private.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    prefix += ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:  # a bare machine has no package lists yet
        subprocess.run([*prefix, "apt-get", "update"], capture_output=True, text=True, env=environment)
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise DeployError(f"{by_hand} as root: {' '.join(command)}\n{done.stderr.strip()}")
