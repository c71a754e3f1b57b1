"""A service with certificates of its operator's own: devices that trust their authority are asked nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.certificates import ensure_certificate
from tests.machines.network import Network
from tests.machines.stack import Device, Service


@pytest.fixture
def certificates(network: Network, tmp_path: Path) -> Path:
    """What an operator has from an authority: `server.pem`, `server.key`; and that authority's `ca.pem`."""
    folder = tmp_path / "from an authority"
    ensure_certificate(folder, [network.address], datetime.datetime.now(datetime.UTC))  # noqa: TID251  # valid from now
    return folder


def test_a_service_with_given_certificates(
    network: Network, certificates: Path, devices: Callable[[str], Device], tmp_path: Path
):
    service = Service(tmp_path / "service", network.server)
    try:
        service.up(
            "--listen", network.address, "--public-url", f"https://{network.address}",
            "--tls-cert", certificates / "server.pem", "--tls-key", certificates / "server.key",
        )  # fmt: skip
        assert "ca_fingerprint" not in service.told
        email = service.add_person()
        one, two = devices("one"), devices("two")
        refused = two.try_link(service.told["metadata_url"], email)
        assert (refused.code, refused.line.startswith("hutch: ")) == (28, True)
        for device in (one, two):
            device.others["SSL_CERT_FILE"] = str(certificates / "ca.pem")
            device.join(service, email)
            assert not (device.home / "ca.pem").exists()
        (one.folder / "letter.txt").write_text("Sealed.\n")
        for device in (one, two):
            device.do("sync", "--timeout", "60")
        assert (two.folder / "letter.txt").read_text() == "Sealed.\n"
        del two.others["SSL_CERT_FILE"]
        assert two("sync", "--timeout", "60").code == 28, "the broker's certificate is looked at, too"
    finally:
        service.kill()
