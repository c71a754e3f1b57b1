"""Devices on another machine: two network namespaces joined by a cable, TLS in between."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import bootstrap, processes

SERVER_ADDRESS, DEVICE_ADDRESS = "10.231.7.1", "10.231.7.2"


@dataclass(frozen=True)
class Machines:
    """Two machines' networks, by the names of their namespaces."""

    server: str
    device: str

    def run(
        self, machine: str, *arguments: str | Path, typed: str = "", home: Path | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on one of them."""
        environment = {**os.environ, **({} if home is None else {"HUTCH_HOME": str(home)})}
        done = subprocess.run(
            ["ip", "netns", "exec", machine, *map(str, arguments)],
            input=typed, capture_output=True, text=True, timeout=240, env=environment,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[Machines]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make network namespaces, with the package iproute2")
    word = secrets.token_hex(3)
    two = Machines(server=f"hutch-s-{word}", device=f"hutch-d-{word}")
    try:
        for name in (two.server, two.device):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            f"s{word}",
            "netns",
            two.server,
            "type",
            "veth",
            "peer",
            f"d{word}",
            "netns",
            two.device,
        )
        for name, device, address in ((two.server, "s", SERVER_ADDRESS), (two.device, "d", DEVICE_ADDRESS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device + word)
            ip("-n", name, "link", "set", device + word, "up")
        yield two
    finally:
        for name in (two.server, two.device):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_a_device_elsewhere_links_and_syncs_over_tls(machines: Machines, tmp_path: Path) -> None:
    data = Path(os.path.realpath(tmp_path)) / "service"
    local, hutch = bootstrap.CHECKOUT / "deploy" / "local", bootstrap.VENV / "bin" / "hutch"
    listen = ("--listen", SERVER_ADDRESS, "--public-url", f"https://{SERVER_ADDRESS}")
    try:
        told = json.loads(
            machines.run(machines.server, local, "up", "--json", "--data", data, *listen).stdout
        )
        machines.run(
            machines.server, "env", f"HUTCH_DATA={data}", bootstrap.VENV / "bin" / "hutch-admin",
            "user", "add", "one@example.com", "--password-stdin", typed="correct horse battery\n",
        )  # fmt: skip
        for machine, name in ((machines.server, "near"), (machines.device, "far")):
            home, folder = tmp_path / name / "home", tmp_path / name / "folder"
            folder.mkdir(parents=True)
            link = (hutch, "link", told["metadata_url"], "--email", "one@example.com", "--password-stdin")
            wrong = ("--device-name", name, "--fingerprint", "0" * 64)
            refused = machines.run(
                machine, *link, *wrong, typed="correct horse battery\n", home=home, ok=False
            )
            assert refused.returncode != 0
            right = ("--device-name", name, "--fingerprint", told["ca_fingerprint"])
            machines.run(machine, *link, *right, typed="correct horse battery\n", home=home)
            machines.run(machine, hutch, "add", folder, "--workspace", "shared", home=home)
        (tmp_path / "near" / "folder" / "letter.txt").write_text("From here.\n")
        (tmp_path / "far" / "folder" / "photo.raw").write_bytes(b"\x07" * 3_000_000)
        for machine, name in ((machines.server, "near"), (machines.device, "far"), (machines.server, "near")):
            machines.run(machine, hutch, "sync", "--timeout", "60", home=tmp_path / name / "home")
        assert (tmp_path / "far" / "folder" / "letter.txt").read_text() == "From here.\n"
        assert (tmp_path / "near" / "folder" / "photo.raw").read_bytes() == b"\x07" * 3_000_000
        # Nothing of the service but its three public doors is open to the other machine.
        ports = json.loads((data / "ports.json").read_text())
        assert is_open(machines, ports["amqp-public"])
        assert not any(is_open(machines, ports[name]) for name in ("postgres", "amqp", "management", "epmd"))
    finally:
        machines.run(machines.server, local, "down", "--data", data)
    assert processes.find_strays(data) == []


def is_open(machines: Machines, port: int) -> bool:
    knock = f"import socket; socket.create_connection(('{SERVER_ADDRESS}', {port}), timeout=5)"
    return machines.run(machines.device, bootstrap.VENV_PYTHON, "-c", knock, ok=False).returncode == 0
