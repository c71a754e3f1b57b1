"""The agent as a service of the person's login: a systemd user unit, its text and its installation."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.durable import write_file
from agent.errors import (
    AlreadyLinked,
    AlreadyRunning,
    NoServiceManager,
    NotLinked,
    SystemRefused,
    Untrusted,
)
from broker.errors import Forbidden, Misconfigured

UNIT: Final = "hutch.service"
_SYSTEMCTL_TIMEOUT_S: Final = 60

# Starting again mends none of these.
_HOPELESS: Final = sorted(
    error.exit_code
    for error in (Forbidden, NotLinked, AlreadyLinked, AlreadyRunning, Untrusted, Misconfigured)
)

# systemd takes no program whose path has one of these, however it is quoted; as an argument it may.
_ODD: Final = frozenset("'\"\\")

_UNIT_TEXT: Final = """\
[Unit]
Description=Hutch keeps folders the same on all your devices
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command} run
Environment={home}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus={hopeless}
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=true

[Install]
WantedBy=default.target
"""


def unit_text(program: Sequence[str], home: Path) -> str:
    """The unit's text.

    Args:
        program: What starts `hutch`, as a list; the first is an absolute path.
        home: HUTCH_HOME, absolute.

    Raises:
        Misconfigured: When a path cannot stand in a unit (a line break in it).
    """
    if not _ODD.isdisjoint(program[0]):
        program = ["/bin/sh", "-c", 'exec "$0" "$@"', *program]
    command = " ".join(quote(word).replace("$", "$$") for word in program)
    hopeless = " ".join(map(str, _HOPELESS))
    return _UNIT_TEXT.format(command=command, home=quote(f"HUTCH_HOME={home}"), hopeless=hopeless)


def quote(word: str) -> str:
    """A word as systemd reads it back: quoted, specifiers doubled. Source: systemd.syntax(7), systemd.unit(5)."""
    if not word.isprintable():
        raise Misconfigured(f"{word!r} cannot stand in a unit file")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def find_program() -> list[str]:
    """What starts this very `hutch`: its script beside the interpreter, else the interpreter itself."""
    script = Path(sys.executable).with_name("hutch")
    if os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-P", "-m", "agent.cli"]


def unit_path(environ: Mapping[str, str], person: Path) -> Path:
    """Where a person's own units are kept."""
    config = environ.get("XDG_CONFIG_HOME", "")
    root = Path(config) if config.startswith("/") else person / ".config"
    return root / "systemd" / "user" / UNIT


def check_systemd() -> None:
    """Raise `NoServiceManager` where no systemd answers this person. Blocks."""
    hint = "`hutch service install --print` shows the unit; `hutch run` needs none"
    if sys.platform != "linux":
        raise NoServiceManager(
            "this system has no systemd: have `hutch run` started at login by what it has instead"
            " (macOS: a launchd agent)"
        )
    if shutil.which("systemctl") is None:
        raise NoServiceManager(f"there is no systemd here ({hint})")
    try:
        systemctl("show-environment")
    except SystemRefused as error:
        raise NoServiceManager(f"no systemd answers you: {error} ({hint})") from error


def install(path: Path, text: str) -> None:
    """Write the unit, start the agent now, and with each login. Blocks.

    Raises:
        SystemRefused: When systemd says no.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
    systemctl("daemon-reload")
    systemctl("enable", UNIT)
    systemctl("restart", UNIT)


def uninstall(path: Path) -> None:
    """Stop the agent, and take the unit away. Blocks. Raises `SystemRefused`."""
    systemctl("disable", "--now", UNIT)
    path.unlink()
    systemctl("daemon-reload")


def systemctl(*arguments: str) -> None:
    """Tell the person's systemd. Raises `SystemRefused` with what it said."""
    command = ["systemctl", "--user", *arguments]
    try:
        outcome = subprocess.run(
            command, capture_output=True, text=True, timeout=_SYSTEMCTL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SystemRefused("systemctl does not answer") from error
    if outcome.returncode != 0:
        said = outcome.stderr.strip().splitlines() or [f"it ended with {outcome.returncode}"]
        raise SystemRefused(f"systemctl {' '.join(arguments)}: {said[0]}")
