"""The authority stays; the certificate follows the hosts and the time."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

from cryptography import x509

from deploy.certificates import CERTIFICATE_VALID, ensure_certificate

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def shown(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())


def test_it_is_made_once(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["box.example", "10.0.0.1"], NOW)
    first = (tmp_path / "server.pem").read_bytes()
    ensure_certificate(tmp_path, ["box.example", "10.0.0.1"], NOW)
    assert (tmp_path / "server.pem").read_bytes() == first
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    shown(tmp_path).verify_directly_issued_by(authority)
    names = shown(tmp_path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["box.example", "10.0.0.1"]


def test_other_hosts_make_another_of_the_same_authority(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["box.example"], NOW)
    authority, first = (tmp_path / "ca.pem").read_bytes(), shown(tmp_path)
    ensure_certificate(tmp_path, ["other.example"], NOW)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert shown(tmp_path).serial_number != first.serial_number


def test_it_is_renewed_before_it_expires(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["box.example"], NOW)
    later = NOW + CERTIFICATE_VALID - datetime.timedelta(days=30)
    ensure_certificate(tmp_path, ["box.example"], later)
    assert shown(tmp_path).not_valid_after_utc > later + datetime.timedelta(days=300)


def test_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, ["box.example"], NOW)
    (tmp_path / "server.key").write_text("")
    ensure_certificate(tmp_path, ["box.example"], NOW)
    assert "PRIVATE KEY" in (tmp_path / "server.key").read_text()
