"""The stack's own certificate authority, and the certificate that its servers show to devices elsewhere.

Runs in the project's environment, since the standard library can make no certificates:

    python -m deploy.certificates FOLDER HOST...

Leaves `ca.pem`, `server.pem` and `server.key` (and `ca.key`) in FOLDER. The authority is made once: devices pin it.
The certificate is made anew when the hosts change or when it is about to expire.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.keep import write_private

AUTHORITY_VALID = datetime.timedelta(days=3650)
CERTIFICATE_VALID = datetime.timedelta(days=397)  # what devices' TLS libraries accept at most
RENEW_BEFORE = datetime.timedelta(days=60)


def ensure_certificate(folder: Path, hosts: list[str], now: datetime.datetime) -> None:
    """See that the folder holds an authority and a valid certificate for exactly these hosts.

    Args:
        folder: Where the files are kept.
        hosts: Names and addresses that devices use; the first names the certificate.
        now: The time, with its zone.
    """
    if not (folder / "ca.pem").exists():
        _make_authority(folder, now)
    if not _is_valid(folder, hosts, now):
        _make_certificate(folder, hosts, now)


def _make_authority(folder: Path, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hutch local authority")])
    certificate = (
        _builder(name, name, key, now, AUTHORITY_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _pem(key))
    write_private(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM).decode())


def _make_certificate(folder: Path, hosts: list[str], now: datetime.datetime) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey), "we made it"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hutch server")])
    certificate = (
        _builder(name, authority.subject, key, now, CERTIFICATE_VALID)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    # The chain, so that a device that pins the authority's fingerprint sees it in the handshake.
    chain = certificate.public_bytes(serialization.Encoding.PEM) + authority.public_bytes(
        serialization.Encoding.PEM
    )
    write_private(folder / "server.key", _pem(key))
    write_private(folder / "server.pem", chain.decode())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    valid: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a device's clock may be a little behind
        .not_valid_after(now + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: list[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _is_valid(folder: Path, hosts: list[str], now: datetime.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), password=None)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    return (
        list(shown) == _names(hosts)
        and certificate.not_valid_after_utc - now > RENEW_BEFORE
        and certificate.public_key() == key.public_key()
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


if __name__ == "__main__":
    started = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - a program begins here
    ensure_certificate(Path(sys.argv[1]), sys.argv[2:], started)
