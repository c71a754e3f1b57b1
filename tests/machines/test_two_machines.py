"""Devices on other machines: over TLS alone, and with none but the service that the person meant."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy import bootstrap
from deploy.certificates import ensure_certificate
from tests.machines import impostor as impostor_program
from tests.machines.network import Network
from tests.machines.stack import PASSWORD, Device, Machine, Service, wait_for

Devices = Callable[[str], Device]


def fingerprint(service: Service) -> str:
    """What the operator tells the person."""
    told = service.told["ca_fingerprint"]
    assert isinstance(told, str)
    return told


def test_two_machines_keep_a_folder_the_same_over_tls(
    three_machines: Network, service: Service, email: str, devices: Devices
):
    one, two = devices("one"), devices("two")
    shown = one.try_link(service.told["metadata_url"], email)
    assert shown.code == 0
    assert shown.err.replace(":", "").count(fingerprint(service)) == 1, "shown once"
    one.do("add", one.folder, "--workspace", "shared")
    assert one.do("devices").err == "", "and never again"
    two.join(service, email, "--fingerprint", fingerprint(service))
    credential = two.credential()
    assert urlsplit(credential["gateway_url"])[:1] == ("https",)
    assert urlsplit(credential["amqp_url"])[:1] == ("amqps",)
    for device in (one, two):
        assert {urlsplit(device.credential()[key]).hostname for key in ("gateway_url", "amqp_url")} == {
            three_machines.address
        }
        device.start()
    photo = os.urandom(6_000_000)
    (one.folder / "letter.txt").write_text("From one.\n")
    (two.folder / "photo.raw").write_bytes(photo)
    wait_for(lambda: (two.folder / "letter.txt").exists(), "the letter arrives", two)
    wait_for(lambda: (one.folder / "photo.raw").exists(), "the photo arrives", one)
    assert (one.folder / "photo.raw").read_bytes() == photo
    assert (two.folder / "letter.txt").read_text() == "From one.\n"
    (two.folder / "letter.txt").rename(two.folder / "read.txt")
    wait_for(lambda: (one.folder / "read.txt").exists(), "the move arrives", one)
    assert (one.stop(), two.stop()) == (0, 0)


def test_another_machine_reaches_the_three_public_doors_alone(three_machines: Network, service: Service):
    ports = json.loads((service.data / "ports.json").read_text())
    public = {"metadata", "gateway", "amqp-public"}
    open_doors = {name for name, port in ports.items() if is_open(three_machines, port)}
    assert open_doors == public


def is_open(network: Network, port: int) -> bool:
    knock = f"import socket; socket.create_connection(('{network.address}', {port}), timeout=5)"
    return network.devices[1].run(bootstrap.VENV_PYTHON, "-c", knock).code == 0


def test_another_fingerprint_than_the_operators_is_refused(
    three_machines: Network, service: Service, email: str, devices: Devices
):
    two = devices("two")
    refused = two.try_link(service.told["metadata_url"], email, "--fingerprint", "ab" * 32)
    assert refused.code == 28
    assert fingerprint(service) in refused.line, "the one that was shown, to compare"
    assert not (two.home / "config.json").exists()
    assert not (two.home / "ca.pem").exists()
    assert two("status").code == 21


def test_plain_http_to_another_machine_is_refused(
    three_machines: Network, service: Service, email: str, devices: Devices, tmp_path: Path
):
    two = devices("two")
    url = service.told["metadata_url"].replace("https:", "http:")
    with impostor(three_machines, two.machine, service, tmp_path, None) as heard:
        refused = two.try_link(url, email)
        assert refused.code == 29
        assert heard() == b"", "nothing was sent"
    other = Service(tmp_path / "other", three_machines.server)
    listen = ("--listen", three_machines.address, "--public-url", f"http://{three_machines.address}")
    local = bootstrap.CHECKOUT / "deploy" / "local"
    started = other.machine.run(local, "up", "--json", "--data", other.data, *listen)
    assert started.code == 1
    assert "--allow-plaintext" in started.err


# --- somebody in between


@contextmanager
def impostor(
    network: Network, machine: Machine, service: Service, folder: Path, authority: Path | None
) -> Iterator[Callable[[], bytes]]:
    """Somebody answers a device in the service's place, with a certificate for its address by another authority.

    Args:
        network: Where.
        machine: The device's.
        service: Whose address and ports are taken.
        folder: For the certificates, and for what was heard.
        authority: What `GET /v1/ca` answers; None: all in the clear, without a certificate.

    Yields:
        What it could read so far.
    """
    own = folder / "impostor"
    own.mkdir(exist_ok=True)
    ensure_certificate(own, [network.address], datetime.datetime.now(datetime.UTC))  # noqa: TID251  # valid from now
    heard = folder / "heard"
    heard.write_bytes(b"")
    certificate = (
        ("-", "-", own / "ca.pem")
        if authority is None
        else (own / "server.pem", own / "server.key", authority)
    )
    network.take_over(machine)
    running = subprocess.Popen(
        machine.command(
            bootstrap.VENV_PYTHON, impostor_program.__file__, network.address, public_ports(service), *certificate, heard
        ),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"listening\n"
        yield heard.read_bytes
    finally:
        running.kill()
        running.communicate()
        network.give_back(machine)


def public_ports(service: Service) -> str:
    ports = json.loads((service.data / "ports.json").read_text())
    return ",".join(str(ports[name]) for name in ("metadata", "gateway", "amqp-public"))


@pytest.mark.parametrize("shows", ["its own authority", "the service's authority"])
def test_a_first_link_is_not_made_with_an_impostor(
    three_machines: Network, service: Service, email: str, devices: Devices, tmp_path: Path, shows: str
):
    two = devices("two")
    own, real = tmp_path / "impostor" / "ca.pem", service.data / "tls" / "ca.pem"
    authority = own if shows == "its own authority" else real
    with impostor(three_machines, two.machine, service, tmp_path, authority) as heard:
        refused = two.try_link(service.told["metadata_url"], email, "--fingerprint", fingerprint(service))
        assert refused.code == 28
        assert refused.line.startswith("hutch: ")
        assert b"GET /v1/ca" in heard()
        assert PASSWORD.encode() not in heard()
        assert email.encode() not in heard()
    assert not (two.home / "config.json").exists()
    two.join(service, email, "--fingerprint", fingerprint(service))


def test_a_linked_device_tells_an_impostor_nothing(
    three_machines: Network, service: Service, email: str, devices: Devices, tmp_path: Path
):
    one, two = devices("one"), devices("two")
    for device in (one, two):
        device.join(service, email, "--fingerprint", fingerprint(service))
        device.start()
        device.do("wait", "--timeout", "60")
    with impostor(three_machines, two.machine, service, tmp_path, service.data / "tls" / "ca.pem") as heard:
        (one.folder / "while you were away.txt").write_text("Hello?\n")
        (two.folder / "secret.txt").write_text("Not for everybody.\n")
        wait_for(lambda: two.status()["state"] == "offline", "the agent is cut off", two)
        wait_for(lambda: "untrusted" in two.errors().values(), "the agent says why", two)
        assert two("devices").code == 28
        assert two.stop() == 0
        refused = two("sync", "--timeout", "30")
        assert (refused.code, refused.line.startswith("hutch: ")) == (28, True)
        assert not (two.folder / "while you were away.txt").exists()
        assert heard() == b"", "not one byte"
        two.start()
        wait_for(lambda: "untrusted" in two.errors().values(), "it begins without the service, too", two)
    # The service is back: nothing was lost, and nobody had to do anything.
    wait_for(lambda: (two.folder / "while you were away.txt").exists(), "all goes on by itself", two)
    wait_for(lambda: (one.folder / "secret.txt").exists(), "in both directions", two)
    two.do("wait", "--timeout", "60")
    assert two.errors() == {}
    assert (one.stop(), two.stop()) == (0, 0)
