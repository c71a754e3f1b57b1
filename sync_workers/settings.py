"""What a worker is told by its environment, read once when it starts."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from broker.errors import Misconfigured
from broker.link import BrokerAddress
from metadata.state import MAX_GUARD_WINDOW, Guard

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
        guard: HUTCH_WORKERS_GUARD_MIN_NODES, HUTCH_WORKERS_GUARD_SHARE_PERCENT and HUTCH_WORKERS_GUARD_WINDOW_S: how
            much a device may delete or rewrite before a person is asked. The same for all workers, or it depends on which
            of them takes a commit.
    """

    postgres_dsn: str = field(repr=False)
    broker: BrokerAddress
    listen_host: str
    listen_port: int
    prefetch: int = DEFAULT_PREFETCH
    name: str
    relay_user: str
    guard: Guard = field(default_factory=Guard)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Build the settings. Raises `Misconfigured`, naming the key, when one is missing or makes no sense."""
    broker = _read_broker(environment)
    host, port = _read_listen(environment)
    return Settings(
        postgres_dsn=_require(environment, "HUTCH_POSTGRES_DSN"),
        broker=broker,
        listen_host=host,
        listen_port=port,
        prefetch=_read_number(environment, "HUTCH_WORKERS_PREFETCH", DEFAULT_PREFETCH, 1, MAX_PREFETCH),
        name=environment.get("HUTCH_WORKERS_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        relay_user=environment.get("HUTCH_WORKERS_RELAY_USER") or broker.user or "guest",
        guard=_read_guard(environment),
    )


def _read_guard(environment: Mapping[str, str]) -> Guard:
    usual = Guard()
    window_s = round(usual.window.total_seconds())
    longest_s = round(MAX_GUARD_WINDOW.total_seconds())
    return Guard(
        min_nodes=_read_number(
            environment, "HUTCH_WORKERS_GUARD_MIN_NODES", usual.min_nodes, 0, 1_000_000_000
        ),
        share_percent=_read_number(
            environment, "HUTCH_WORKERS_GUARD_SHARE_PERCENT", usual.share_percent, 1, 100
        ),
        window=timedelta(
            seconds=_read_number(environment, "HUTCH_WORKERS_GUARD_WINDOW_S", window_s, 1, longest_s)
        ),
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


def _read_number(environment: Mapping[str, str], key: str, usual: int, least: int, most: int) -> int:
    value = environment.get(key) or str(usual)
    if not value.isdecimal() or not least <= int(value) <= most:
        raise Misconfigured(f"{key} must be a number from {least} to {most}")
    return int(value)
