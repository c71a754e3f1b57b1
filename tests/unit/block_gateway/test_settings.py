"""The gateway's settings: what is missing or malformed is named, and secrets do not print."""

from pathlib import Path

import pytest

from block_gateway.__main__ import read_settings
from block_gateway.stores.s3 import Bucket
from broker.errors import Misconfigured

LOCAL = {
    "HUTCH_POSTGRES_DSN": "postgresql://hutch:secret@127.0.0.1/hutch",
    "HUTCH_GATEWAY_LISTEN": "127.0.0.1:8081",
    "HUTCH_GATEWAY_STORE": "local:/srv/my packs",
}
S3 = {
    **LOCAL,
    "HUTCH_GATEWAY_STORE": "s3:packs",
    "HUTCH_GATEWAY_S3_ENDPOINT": "http://127.0.0.1:8333",
    "HUTCH_GATEWAY_S3_ACCESS_KEY": "key",
    "HUTCH_GATEWAY_S3_SECRET_KEY": "secret",
}


def test_local_store() -> None:
    settings = read_settings(LOCAL)
    assert (settings.host, settings.port, settings.store, settings.tls) == (
        "127.0.0.1",
        8081,
        Path("/srv/my packs"),
        None,
    )


def test_s3_store_and_tls() -> None:
    settings = read_settings({**S3, "HUTCH_GATEWAY_TLS_CERT": "/c", "HUTCH_GATEWAY_TLS_KEY": "/k"})
    assert settings.store == Bucket(
        name="packs", endpoint="http://127.0.0.1:8333", access_key="key", secret_key="secret"
    )
    assert settings.tls == (Path("/c"), Path("/k"))


def test_address_of_ipv6() -> None:
    assert read_settings({**LOCAL, "HUTCH_GATEWAY_LISTEN": "[::1]:0"}).host == "::1"


def test_secrets_do_not_print() -> None:
    assert "secret" not in repr(read_settings(S3))


@pytest.mark.parametrize("key", LOCAL)
def test_missing_setting_is_named(key: str) -> None:
    with pytest.raises(Misconfigured, match=key):
        read_settings({name: value for name, value in LOCAL.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HUTCH_GATEWAY_LISTEN", "8081"),
        ("HUTCH_GATEWAY_LISTEN", "localhost:many"),
        ("HUTCH_GATEWAY_LISTEN", "localhost:70000"),
        ("HUTCH_GATEWAY_STORE", "local:relative/path"),
        ("HUTCH_GATEWAY_STORE", "ftp:somewhere"),
        ("HUTCH_GATEWAY_STORE", "s3:"),
        ("HUTCH_GATEWAY_S3_SECRET_KEY", ""),
        ("HUTCH_GATEWAY_TLS_CERT", "/only/this"),
    ],
)
def test_malformed_setting_is_named(key: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=key):
        read_settings({**S3, key: value})
