"""Options that cannot work are refused with what to say instead; ports, passwords and processes are kept apart."""

from __future__ import annotations

import datetime
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from deploy import bootstrap, processes
from deploy.certificates import ensure_certificate
from deploy.commands import main
from deploy.keep import Ports, Secrets
from deploy.stack import Options, Stack, open_folder
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


def test_a_port_that_devices_know_is_given_up_for_a_person_alone(tmp_path: Path) -> None:
    port = Ports(tmp_path).get("gateway", is_told=True)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(DeployError, match=f"^port {port}, which devices are linked to, .* --new-ports$"):
            Ports(tmp_path).get("gateway", is_told=True)
        another = Ports(tmp_path, may_move=True).get("gateway", is_told=True)
    assert another != port
    assert Ports(tmp_path).get("gateway", is_told=True) == another


@pytest.mark.parametrize(
    ("case", "options", "told"),
    [
        ("devices of this machine alone", Options(), {"metadata", "gateway", "amqp"}),
        (
            "devices elsewhere",
            Options(listen="127.0.0.1", public_url="https://localhost"),
            {"metadata", "gateway", "amqp-public"},
        ),
    ],
)
def test_which_ports_devices_know(case: str, options: Options, told: set[str], tmp_path: Path) -> None:
    Stack(tmp_path, options)
    kept = json.loads((tmp_path / "ports.json").read_text())
    refused = set()
    for name, port in kept.items():
        with socket.create_server(("127.0.0.1", port)):
            try:
                Stack(tmp_path, options)
            except DeployError:
                refused.add(name)
    assert refused == told


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").touch()
    with pytest.raises(DeployError, match="nothing of Hutch's"):
        open_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_of_ours_is_opened_again_whatever_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_folder(tmp_path)
    open_folder(tmp_path)  # an earlier try ended here
    Options().keep(tmp_path)
    (tmp_path / "letter.txt").touch()
    open_folder(tmp_path)


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_no_folder_is_a_wrong_argument(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--data", ""])
    assert ended.value.code == 2
    assert "must name a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["up", "--data", "{}/file"], "/file: Not a directory"),
        (["up", "--data", "{}/file/below"], "/file/below: Not a directory"),
        (["up", "--data", "{}/ours"], "/ours/run/lock: Is a directory"),
        (["down", "--data", "{}/ours"], "/ours/run/lock: Is a directory"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    arguments: list[str],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "install_python", lambda: None)
    monkeypatch.setattr(bootstrap, "install_rabbitmq", lambda: None)
    (tmp_path / "file").touch()
    (tmp_path / "ours" / "run" / "lock").mkdir(parents=True)
    assert main([argument.format(tmp_path) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"deploy/local: {tmp_path}{why}\n")


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
