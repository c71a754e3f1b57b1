"""Three machines of our own making: network namespaces, joined by cables."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.machines.stack import HERE, Machine

SERVER_ADDRESS = "10.231.8.1"
_CABLES = (("10.231.8.1", "10.231.8.2"), ("10.231.9.1", "10.231.9.2"))
_NETWORK = "10.231.8.0/24"


class NotPossibleError(Exception):
    """Why this process can make no networks."""


@dataclass(frozen=True)
class Network:
    """The service's machine and two devices'. `address` is what all of them call the service's."""

    server: Machine
    devices: tuple[Machine, Machine]
    address: str
    why_not: str | None = None

    def take_over(self, device: Machine) -> None:
        """From now on somebody else answers this device under the service's address."""
        assert device.namespace is not None
        _ip("-n", device.namespace, "address", "add", f"{self.address}/32", "dev", "lo")

    def give_back(self, device: Machine) -> None:
        """The service itself answers again."""
        assert device.namespace is not None
        _ip("-n", device.namespace, "address", "delete", f"{self.address}/32", "dev", "lo")


@contextmanager
def made_network() -> Iterator[Network]:
    """Make the machines; where that is not possible, this computer poses as all of them, and `why_not` says why."""
    word = secrets.token_hex(3)
    names = [f"hutch-{role}-{word}" for role in ("service", "one", "two")]
    try:
        try:
            _make(names, word)
        except NotPossibleError as error:
            yield Network(HERE, (HERE, HERE), "127.0.0.1", str(error))
        else:
            service, one, two = map(Machine, names)
            yield Network(service, (one, two), SERVER_ADDRESS)
    finally:
        for name in names:
            if shutil.which("ip") is not None:
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _make(names: list[str], word: str) -> None:
    if shutil.which("ip") is None:
        raise NotPossibleError("network namespaces need the program `ip` (the package iproute2)")
    if os.geteuid() != 0:
        raise NotPossibleError("only root can make network namespaces")
    service = names[0]
    for name in names:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    for number, (name, (near, far)) in enumerate(zip(names[1:], _CABLES, strict=True)):
        ends = (f"s{number}{word}", f"d{number}{word}")
        _ip("link", "add", ends[0], "netns", service, "type", "veth", "peer", ends[1], "netns", name)
        for where, end, address in ((service, ends[0], near), (name, ends[1], far)):
            _ip("-n", where, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", where, "link", "set", end, "up")
    _ip("-n", names[2], "route", "add", _NETWORK, "via", _CABLES[1][0])


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise NotPossibleError(f"`ip {' '.join(arguments)}` was refused: {done.stderr.strip()}")
