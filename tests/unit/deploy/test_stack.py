"""Options that cannot work are refused with what to say instead; ports, passwords and processes are kept apart."""

from __future__ import annotations

import datetime
import os
import socket
import stat
from pathlib import Path

import pytest

from deploy import processes
from deploy.certificates import ensure_certificate
from deploy.keep import Ports, Secrets
from deploy.stack import Options, Stack
from deploy.talk import DeployError


def test_ports_are_kept(tmp_path: Path) -> None:
    assert Ports(tmp_path).get("amqp") == Ports(tmp_path).get("amqp")
    assert Ports(tmp_path).get("amqp") != Ports(tmp_path).get("postgres")


def test_a_port_that_another_program_took_is_given_up(tmp_path: Path) -> None:
    port = Ports(tmp_path).get("amqp")
    with socket.create_server(("127.0.0.1", port)):
        another = Ports(tmp_path).get("amqp")
    assert another != port
    assert Ports(tmp_path).get("amqp") == another


def test_passwords_are_private_and_kept(tmp_path: Path) -> None:
    first = Secrets(tmp_path).get("postgres")
    assert Secrets(tmp_path).get("postgres") == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_damaged_file_of_ours_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    assert Ports(tmp_path).get("amqp") > 0


def test_a_pid_of_another_time_is_another_process() -> None:
    myself = processes.identify(os.getpid())
    assert myself is not None
    assert processes.is_alive(myself)
    assert not processes.is_alive(processes.Identity(pid=myself.pid, began="long ago"))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("plain text across the network", Options(listen="10.0.0.1", public_url="http://box")),
        ("no address", Options(public_url="https://box")),
        ("no URL", Options(listen="10.0.0.1")),
        ("not a URL", Options(listen="10.0.0.1", public_url="box:80")),
        ("a key without its certificate", Options(tls_key="/k")),
        (
            "a certificate for plain text",
            Options(listen="127.0.0.1", public_url="http://a", tls_cert="/c", tls_key="/k"),
        ),
        ("no worker", Options(workers=0)),
    ],
)
def test_options_that_cannot_work(case: str, options: Options, tmp_path: Path) -> None:
    with pytest.raises(DeployError):
        options.check(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(listen="10.0.0.1", public_url="https://box"),
        Options(listen="10.0.0.1", public_url="http://box", allow_plaintext=True),
        Options(listen="127.0.0.1", public_url="http://localhost"),
    ],
)
def test_options_that_work(options: Options, tmp_path: Path) -> None:
    options.check(tmp_path)
    options.keep(tmp_path)
    assert Options.kept(tmp_path) == options


def test_the_store_stays_where_the_blocks_are(tmp_path: Path) -> None:
    Options(store="s3").keep(tmp_path)
    with pytest.raises(DeployError, match="--store s3"):
        Options(store="local").check(tmp_path)


def test_public_addresses(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Options(listen="127.0.0.1", public_url="https://hutch.example:8443"))
    ensure_certificate(
        tmp_path / "tls", ["hutch.example"], datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    )
    told = stack.answer()
    assert len(told["ca_fingerprint"]) == 64
    assert told["metadata_url"] == "https://hutch.example:8443"
    assert told["gateway_url"].startswith("https://hutch.example:")
    assert told["public_amqp_url"].startswith("amqps://hutch.example:")
    assert told["management_url"].split("@")[1].startswith("127.0.0.1:")
