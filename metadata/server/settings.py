"""What the metadata server is told, read once from the environment when it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from yarl import URL

from broker.errors import Misconfigured
from broker.topology import VHOST


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that the metadata server is told.

    Attributes:
        dsn: PostgreSQL. A secret.
        amqp_url: The broker, as a user that may publish to any queue. A secret.
        management_url: The broker's management API, as an administrator. A secret.
        vhost: The broker's virtual host: the path of `amqp_url`.
        tls: Certificate and key; None: plain HTTP, for loopback or behind a proxy.
        ca: PEM of the service's own certificate authority, that devices pin; None: it has none.
        public_gateway_url: Where devices reach the block gateway.
        public_amqp_url: Where devices reach the broker, without credentials.
    """

    dsn: str = field(repr=False)
    amqp_url: str = field(repr=False)
    management_url: str = field(repr=False)
    vhost: str
    host: str
    port: int
    tls: tuple[Path, Path] | None = None
    ca: bytes | None = field(default=None, repr=False)
    public_gateway_url: str
    public_amqp_url: str


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Build the settings. Raises `Misconfigured`, naming the key, for whatever is missing or malformed."""
    host, port = _listen(_required(environment, "HUTCH_METADATA_LISTEN"))
    amqp = _url(environment, "HUTCH_AMQP_URL", "amqp", "amqps")
    public_amqp = _url(environment, "HUTCH_METADATA_PUBLIC_AMQP_URL", "amqp", "amqps")
    return Settings(
        dsn=_required(environment, "HUTCH_POSTGRES_DSN"),
        amqp_url=str(amqp),
        management_url=str(_url(environment, "HUTCH_MANAGEMENT_URL", "http", "https")),
        vhost=vhost_of(amqp),
        host=host,
        port=port,
        tls=_tls(environment),
        ca=_ca(environment),
        public_gateway_url=str(_url(environment, "HUTCH_METADATA_PUBLIC_GATEWAY_URL", "http", "https")),
        public_amqp_url=str(public_amqp.with_user(None)),
    )


def vhost_of(amqp_url: URL) -> str:
    """The virtual host that an AMQP address names; without one, the project's own."""
    return unquote(amqp_url.raw_path.removeprefix("/")) or VHOST


def _required(environment: Mapping[str, str], key: str) -> str:
    value = environment.get(key, "")
    if not value:
        raise Misconfigured(f"{key} is not set")
    return value


def _url(environment: Mapping[str, str], key: str, *schemes: str) -> URL:
    value = _required(environment, key)
    try:
        url = URL(value)
    except ValueError as error:
        raise Misconfigured(f"{key} is not a URL") from error
    if url.scheme not in schemes or not url.host:
        raise Misconfigured(
            f"{key} must begin with {' or '.join(f'{each}://' for each in schemes)} and a host"
        )
    return url


def _listen(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured("HUTCH_METADATA_LISTEN must be ADDRESS:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _tls(environment: Mapping[str, str]) -> tuple[Path, Path] | None:
    certificate = environment.get("HUTCH_METADATA_TLS_CERT", "")
    key = environment.get("HUTCH_METADATA_TLS_KEY", "")
    if bool(certificate) != bool(key):
        raise Misconfigured(
            "HUTCH_METADATA_TLS_CERT and HUTCH_METADATA_TLS_KEY belong together: both or none"
        )
    return (Path(certificate), Path(key)) if certificate else None


def _ca(environment: Mapping[str, str]) -> bytes | None:
    file = environment.get("HUTCH_METADATA_CA", "")
    if not file:
        return None
    try:
        pem = Path(file).read_bytes()
    except OSError as error:
        raise Misconfigured(f"HUTCH_METADATA_CA cannot be read: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in pem or b"PRIVATE KEY" in pem:
        raise Misconfigured("HUTCH_METADATA_CA must be a PEM file of certificates, without any key")
    return pem
