"""A worker's settings: what is missing or senseless is named."""

import pytest

from broker.errors import Misconfigured
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
    ],
)
def test_a_senseless_setting_is_named(key, value):
    with pytest.raises(Misconfigured, match=key):
        read_settings(GOOD | {key: value})
