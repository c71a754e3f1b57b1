"""What a stack keeps in its data folder from one run to the next: ports, passwords, options."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.talk import DeployError

# Below the range from which systems take the ports of outgoing connections, so that none of those takes a kept one.
_FIRST_PORT, _LAST_PORT = 15_000, 32_000


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of ours says; nothing when it is not there, or is not whole (a full disk)."""
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a private file of ours, whole or not at all."""
    write_private(path, json.dumps(value, indent=2) + "\n")


class Ports:
    """Ports by name: free ones at first, then the same ones each time.

    A kept port that another program has taken meanwhile is given up for a new one, unless devices know it. Call only
    while no server of the stack runs, or it would take our own server for the other program.

    Args:
        folder: The stack's data folder.
        may_move: Whether a port that devices know may be given up as well.
    """

    def __init__(self, folder: Path, *, may_move: bool = False) -> None:
        self._path = folder / "ports.json"
        self._may_move = may_move
        self._kept: dict[str, int] = {name: int(port) for name, port in read_json(self._path).items()}
        self._checked: set[str] = set()

    def get(self, name: str, address: str = "127.0.0.1", *, is_told: bool = False) -> int:
        """The port of that name.

        Args:
            name: Whose it is.
            address: Where the server is to listen.
            is_told: Whether devices are told it when they are linked: on another port they would not find the service.

        Raises:
            DeployError: Devices know the kept port, and another program has it.
        """
        if name not in self._checked:
            port = self._kept.get(name)
            if port is None or not is_free(port, address):
                if port is not None and is_told and not self._may_move:
                    raise DeployError(
                        f"port {port}, which devices are linked to, is taken by another program: end it, or give new"
                        " ports with --new-ports"
                    )
                self._kept[name] = self._new(address)
                write_json(self._path, self._kept)
            self._checked.add(name)
        return self._kept[name]

    def _new(self, address: str) -> int:
        taken = set(self._kept.values())
        while True:
            port = random.randint(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - no secret, only apart from other stacks
            if port not in taken and is_free(port, address):
                return port


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on that port now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do; else a closed connection blocks it
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


class Secrets:
    """Passwords by name, random, made when first asked for, in a file that only its owner may read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "secrets.json"
        self._kept: dict[str, str] = {name: str(secret) for name, secret in read_json(self._path).items()}

    def get(self, name: str) -> str:
        """The password of that name. Letters and digits only, so that it fits any URL and any config file."""
        if name not in self._kept:
            self._kept[name] = secrets.token_hex(24)
            write_json(self._path, self._kept)
        return self._kept[name]
