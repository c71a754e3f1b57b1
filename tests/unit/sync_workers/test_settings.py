"""A worker's settings: what is missing or senseless is named."""

from datetime import timedelta

import pytest

from broker.errors import Misconfigured
from metadata.state import Guard
from sync_workers.settings import read_settings

GOOD = {
    "HUTCH_POSTGRES_DSN": "postgresql://u:dsn-secret@127.0.0.1/hutch",
    "HUTCH_AMQP_URL": "amqp://service:amqp-secret@127.0.0.1:5672/hutch",
    "HUTCH_WORKERS_METRICS_LISTEN": "127.0.0.1:9102",
}


def test_defaults():
    settings = read_settings(GOOD)
    assert (settings.prefetch, settings.relay_user) == (64, "service")
    assert (settings.listen_host, settings.listen_port) == ("127.0.0.1", 9102)
    assert settings.name


def test_secrets_are_not_shown():
    assert "secret" not in repr(read_settings(GOOD))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "") for key in GOOD),
        ("HUTCH_AMQP_URL", "http://127.0.0.1"),
        ("HUTCH_WORKERS_METRICS_LISTEN", "9102"),
        ("HUTCH_WORKERS_METRICS_LISTEN", "127.0.0.1:99999"),
        ("HUTCH_WORKERS_PREFETCH", "0"),
        ("HUTCH_WORKERS_PREFETCH", "many"),
        ("HUTCH_WORKERS_GUARD_MIN_NODES", "-1"),
        ("HUTCH_WORKERS_GUARD_SHARE_PERCENT", "0"),
        ("HUTCH_WORKERS_GUARD_SHARE_PERCENT", "101"),
        ("HUTCH_WORKERS_GUARD_WINDOW_S", "0"),
        ("HUTCH_WORKERS_GUARD_WINDOW_S", "86401"),
    ],
)
def test_a_senseless_setting_is_named(key, value):
    with pytest.raises(Misconfigured, match=key):
        read_settings(GOOD | {key: value})


def test_the_guard():
    assert read_settings(GOOD).guard == Guard(min_nodes=50, share_percent=50, window=timedelta(hours=1))
    given = {
        "HUTCH_WORKERS_GUARD_MIN_NODES": "0",
        "HUTCH_WORKERS_GUARD_SHARE_PERCENT": "100",
        "HUTCH_WORKERS_GUARD_WINDOW_S": "86400",
    }
    assert read_settings(GOOD | given).guard == Guard(
        min_nodes=0, share_percent=100, window=timedelta(days=1)
    )
