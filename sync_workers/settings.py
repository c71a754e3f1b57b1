"""What a worker is told by its environment, read once when it starts."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.errors import Misconfigured
from broker.link import BrokerAddress

DEFAULT_PREFETCH: Final = 64
MAX_PREFETCH: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A worker's settings.

    Attributes:
        postgres_dsn: HUTCH_POSTGRES_DSN. A secret.
        broker: HUTCH_AMQP_URL, `amqp://user:password@host:port/hutch`. A secret.
        listen_host: Of HUTCH_WORKERS_METRICS_LISTEN (`host:port`), where metrics and health are served.
        listen_port: Likewise.
        prefetch: HUTCH_WORKERS_PREFETCH: how many requests may be in hand, and so in one transaction.
        name: HUTCH_WORKERS_NAME: who answered, in the database's `requests`. Host and process id by default.
        relay_user: HUTCH_WORKERS_RELAY_USER: the broker user whose `on_behalf_of` is believed, the metadata
            server's. The worker's own by default.
    """

    postgres_dsn: str = field(repr=False)
    broker: BrokerAddress
    listen_host: str
    listen_port: int
    prefetch: int = DEFAULT_PREFETCH
    name: str
    relay_user: str


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Build the settings. Raises `Misconfigured`, naming the key, when one is missing or makes no sense."""
    broker = _read_broker(environment)
    host, port = _read_listen(environment)
    return Settings(
        postgres_dsn=_require(environment, "HUTCH_POSTGRES_DSN"),
        broker=broker,
        listen_host=host,
        listen_port=port,
        prefetch=_read_prefetch(environment),
        name=environment.get("HUTCH_WORKERS_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        relay_user=environment.get("HUTCH_WORKERS_RELAY_USER") or broker.user or "guest",
    )


def _require(environment: Mapping[str, str], key: str) -> str:
    value = environment.get(key)
    if not value:
        raise Misconfigured(f"{key} is not set")
    return value


def _read_broker(environment: Mapping[str, str]) -> BrokerAddress:
    url = _require(environment, "HUTCH_AMQP_URL")
    try:
        return BrokerAddress.parse(url)
    except Misconfigured as error:
        raise Misconfigured(f"HUTCH_AMQP_URL: {error}") from error


def _read_listen(environment: Mapping[str, str]) -> tuple[str, int]:
    key = "HUTCH_WORKERS_METRICS_LISTEN"
    host, colon, port = _require(environment, key).rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise Misconfigured(f"{key} must be HOST:PORT, such as 127.0.0.1:9102")
    return host.strip("[]"), int(port)


def _read_prefetch(environment: Mapping[str, str]) -> int:
    key = "HUTCH_WORKERS_PREFETCH"
    value = environment.get(key) or str(DEFAULT_PREFETCH)
    if not value.isdecimal() or not 1 <= int(value) <= MAX_PREFETCH:
        raise Misconfigured(f"{key} must be a number from 1 to {MAX_PREFETCH}")
    return int(value)
