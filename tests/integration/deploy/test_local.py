"""`deploy/local` starts all, restarts what dies, and leaves nothing behind. On real servers, with stand-in programs."""

from __future__ import annotations

import base64
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker import topology
from deploy import processes
from tests.integration.deploy.conftest import Local, make_checkout

NAMES = ["gateway", "metadata", "postgres", "rabbitmq", "worker-1", "worker-2"]


def kill_everything(local: Local) -> None:
    """`kill -9` of the servers, the programs and the supervisor, in no kind order."""
    supervisor = json.loads((local.data / "run" / "state.json").read_text())["supervisor"]
    os.kill(supervisor["pid"], signal.SIGKILL)
    processes.end(local.strays(), signal.SIGKILL)
    assert local.strays() == []


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_up_tells_what_runs(local: Local) -> None:
    told = local.up()
    assert sorted(told["pids"]) == NAMES
    assert told["data_dir"] == str(local.data)
    assert {"metadata_url", "gateway_url", "amqp_url", "management_url", "postgres_dsn"} <= told.keys()
    # The servers themselves, not a wrapper.
    assert name_of(told["pids"]["rabbitmq"]) == "beam.smp"
    assert name_of(told["pids"]["postgres"]) == "postgres"
    assert await ask(told["postgres_dsn"], "SELECT current_database()") == "hutch"


def test_a_second_up_tells_the_same(local: Local) -> None:
    first = local.up()
    second = local.run("up", "--json")
    assert json.loads(second.stdout) == first
    assert "runs already" in second.stderr


def test_options_that_a_running_stack_does_not_take_are_refused(local: Local) -> None:
    local.up()
    for mode in ((), ("--foreground",)):
        refused = local.run("up", "--workers", "3", *mode, ok=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "--workers" in refused.stderr
        assert "deploy/local down" in refused.stderr
    local.run("up", "--workers", "2")
    assert sorted(local.status()["pids"]) == NAMES


def test_workers_and_metadata_server_are_other_users_of_the_broker_than_its_administrator(
    local: Local,
) -> None:
    told = local.up()
    settings = {name: settings_of(told["pids"][name]) for name in ("metadata", "worker-1")}
    users = {name: urllib.parse.urlsplit(each["HUTCH_AMQP_URL"]).username for name, each in settings.items()}
    assert len({*users.values(), urllib.parse.urlsplit(told["amqp_url"]).username}) == 3
    assert settings["worker-1"]["HUTCH_WORKERS_RELAY_USER"] == users["metadata"]
    assert "HUTCH_MANAGEMENT_URL" not in settings["worker-1"]
    assert permissions(told["management_url"])[users["worker-1"]] == topology.WORKER_PERMISSIONS
    # The node has lost all it had; its users are there again before it counts as ready.
    shutil.rmtree(local.data / "rabbitmq" / "mnesia")
    os.kill(told["pids"]["rabbitmq"], signal.SIGKILL)
    assert processes.wait_until(lambda: has_restarted(local, told, users["worker-1"]), 60)


def has_restarted(local: Local, before: dict[str, Any], user: str | None) -> bool:
    pid = local.status()["pids"].get("rabbitmq")
    return pid not in (None, before["pids"]["rabbitmq"]) and user in permissions(before["management_url"])


def permissions(management_url: str) -> dict[str | None, dict[str, str]]:
    """By user; empty while nobody answers."""
    parts = urllib.parse.urlsplit(management_url)
    credentials = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request = urllib.request.Request(f"http://127.0.0.1:{parts.port}/api/permissions")
    request.add_header("Authorization", f"Basic {credentials}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            rows = json.load(answer)
    except (OSError, http.client.HTTPException):
        return {}
    return {row["user"]: {key: row[key] for key in ("configure", "write", "read")} for row in rows}


def test_secrets_are_private_and_in_no_argument(local: Local) -> None:
    local.up()
    secrets = json.loads((local.data / "secrets.json").read_text()).values()
    for path in ("secrets.json", "admin.json", "run/state.json", "rabbitmq/rabbitmq.conf"):
        assert stat.S_IMODE((local.data / path).stat().st_mode) == 0o600
    for process in local.strays():
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not any(secret.encode() in arguments for secret in secrets)


def test_nothing_listens_beyond_loopback(local: Local) -> None:
    local.up()
    ours = set()
    for process in local.strays():
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                ours.add(target[8:-1])
    found = 0
    for table, loopback in (
        ("tcp", ("0100007F",)),
        ("tcp6", ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")),
    ):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in ours:
                found += 1
                assert fields[1].partition(":")[0] in loopback, line
    assert found >= 9


@pytest.mark.parametrize("name", NAMES)
def test_what_dies_is_started_again(local: Local, name: str) -> None:
    before = local.up()["pids"]
    os.kill(before[name], signal.SIGKILL)
    assert processes.wait_until(lambda: local.status()["pids"].get(name, before[name]) != before[name], 60)
    after = local.status()["pids"]
    assert {other: pid for other, pid in after.items() if other != name} == {
        other: pid for other, pid in before.items() if other != name
    }


async def test_all_comes_back_after_everything_was_killed(local: Local) -> None:
    told = local.up()
    await ask(told["postgres_dsn"], "CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS one")
    kill_everything(local)
    status = local.status()
    assert status["running"] is False
    assert status["pids"] == {}
    again = local.up()
    assert sorted(again["pids"]) == NAMES
    assert again["metadata_url"] == told["metadata_url"]  # the ports are kept
    assert await ask(again["postgres_dsn"], "SELECT one FROM kept") == 1


def test_down_without_the_supervisor_leaves_nothing(local: Local) -> None:
    local.up()
    os.kill(json.loads((local.data / "run" / "state.json").read_text())["supervisor"]["pid"], signal.SIGKILL)
    assert local.strays() != []
    local.run("down")
    assert local.strays() == []


def test_up_tells_a_person_what_it_waits_for_and_what_comes_next(local: Local) -> None:
    local.run("down")
    told = local.run("up")
    assert told.stderr.startswith("Starting PostgreSQL, RabbitMQ and Hutch")
    assert {"  postgres is ready", "  rabbitmq is ready"} <= set(told.stderr.splitlines())
    url = local.status()["metadata_url"]
    assert f"HUTCH_DATA='{local.data}' '{local.checkout}/.venv/bin/hutch-admin' user add" in told.stdout
    assert f"'{local.checkout}/.venv/bin/hutch' link {url} --email" in told.stdout


def test_up_after_the_supervisor_was_killed_takes_over(local: Local) -> None:
    before = local.up()["pids"]
    os.kill(json.loads((local.data / "run" / "state.json").read_text())["supervisor"]["pid"], signal.SIGKILL)
    after = local.up()["pids"]
    assert sorted(after) == NAMES
    assert not set(before.values()) & set(after.values())


def test_down_leaves_the_data_and_no_process(local: Local) -> None:
    local.up()
    local.run("down")
    assert local.strays() == []
    assert local.status()["pids"] == {}
    assert local.run("status", ok=False).returncode == 3
    assert (local.data / "postgres" / "data" / "PG_VERSION").exists()
    assert "did not run" in local.run("down").stderr


def test_a_taken_port_is_given_up(local: Local) -> None:
    local.run("down")
    kept = json.loads((local.data / "ports.json").read_text())
    taken = ("postgres", "management", "epmd", "worker-1")  # no device knows these
    sockets = [socket.create_server(("127.0.0.1", kept[name])) for name in taken]
    try:
        assert sorted(local.up()["pids"]) == NAMES
        now = json.loads((local.data / "ports.json").read_text())
        assert {name for name in kept if now[name] != kept[name]} == set(taken)
    finally:
        for one in sockets:
            one.close()


def test_a_taken_port_that_devices_know_is_given_up_when_a_person_says_so(local: Local) -> None:
    local.run("down")
    kept = json.loads((local.data / "ports.json").read_text())
    with socket.create_server(("127.0.0.1", kept["metadata"])):
        for mode in ((), ("--foreground",)):
            refused = local.run("up", *mode, ok=False)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr.splitlines()[-1] == (
                f"deploy/local: port {kept['metadata']}, which devices are linked to, is taken by another program: end"
                " it, or give new ports with --new-ports"
            )
        assert local.status()["running"] is False
        moved = local.run("up", "--new-ports")
        now = json.loads((local.data / "ports.json").read_text())
        assert {name for name in kept if now[name] != kept[name]} == {"metadata"}
        assert f"hutch link http://127.0.0.1:{now['metadata']}" in moved.stderr


def test_a_folder_of_somebody_else_is_not_taken(local: Local, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    other = Local(local.checkout, tmp_path)
    for arguments in (("up",), ("up", "--foreground"), ("demo", "--once")):
        refused = other.run(*arguments, ok=False)
        assert refused.returncode == 1
        assert "nothing of Hutch's" in refused.stderr.splitlines()[-1]
    other.run("down")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_program_that_does_not_start_is_named_with_its_log(local: Local) -> None:
    local.run("down")
    program = local.checkout / "block_gateway" / "__main__.py"
    working = program.read_text()
    program.write_text("raise SystemExit('the disk is on fire')")
    try:
        failed = local.run("up", ok=False)
        assert failed.returncode == 1
        assert "gateway does not start" in failed.stderr
        assert "the disk is on fire" in failed.stderr
        assert local.strays() == []
    finally:
        program.write_text(working)


def test_foreground_ends_with_a_signal(local: Local) -> None:
    local.run("down")
    arguments = [
        str(local.checkout / "deploy" / "local"),
        "up",
        "--foreground",
        "--json",
        "--data",
        str(local.data),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert sorted(json.loads(process.stdout.readline())["pids"]) == NAMES
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert local.strays() == []


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (["--workers", "0"], "At least one worker"),
        (["--store", "s3"], "start with --store local"),
        (["--listen", "0.0.0.0"], "belong together"),
        (["--listen", "0.0.0.0", "--public-url", "http://box.example"], "--allow-plaintext"),
        (["--tls-cert", "only.pem"], "belong together"),
    ],
)
def test_what_cannot_work_is_said(local: Local, said: list[str], answer: str) -> None:
    local.run("down")
    refused = local.run("up", *said, ok=False)
    assert refused.returncode == 1
    assert answer in refused.stderr


def test_s3_store_is_handed_to_the_gateway(local: Local, tmp_path: Path) -> None:
    other = Local(local.checkout, Path(os.path.realpath(tmp_path / "s3, with a comma")))
    try:
        told = other.up("--store", "s3", "--workers", "1")
        assert sorted(told["pids"]) == ["gateway", "metadata", "postgres", "rabbitmq", "s3", "worker-1"]
        settings = settings_of(told["pids"]["gateway"])
        assert settings["HUTCH_GATEWAY_STORE"].startswith("s3:")
        assert settings["HUTCH_GATEWAY_S3_ENDPOINT"].startswith("http://127.0.0.1:")
    finally:
        other.run("down")
    assert other.strays() == []
    # It makes its sockets in there, whatever it is told.
    port = json.loads((other.data / "ports.json").read_text())["s3-master.port.grpc"]
    assert list(Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock")) == []


def test_devices_elsewhere_are_served_over_tls(local: Local) -> None:
    local.run("down")
    told = local.up("--listen", "127.0.0.2", "--public-url", "https://localhost")
    try:
        context = ssl.create_default_context(cafile=told["ca_file"])
        for url in (told["metadata_url"], told["gateway_url"], told["public_amqp_url"]):
            parts = urllib.parse.urlsplit(url)
            assert parts.scheme in ("https", "amqps")
            assert parts.port is not None
            # The address it listens on; and it shows a certificate for the public name and for that address.
            for name in ("localhost", "127.0.0.2"):
                with socket.create_connection(("127.0.0.2", parts.port), timeout=10) as plain:
                    context.wrap_socket(plain, server_hostname=name).close()
        settings = settings_of(told["pids"]["metadata"])
        assert settings["HUTCH_METADATA_CA"] == told["ca_file"]
        assert settings["HUTCH_METADATA_PUBLIC_AMQP_URL"] == told["public_amqp_url"]
        assert settings["HUTCH_METADATA_PUBLIC_GATEWAY_URL"] == told["gateway_url"]
        assert "@" not in told["public_amqp_url"]
    finally:
        local.run("down")
        (local.data / "options.json").unlink()


def settings_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry.startswith("HUTCH_"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_runs_for_a_user_who_is_not_root(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="of a person ") as place:
        checkout = make_checkout(Path(place) / "hutch")
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)

        def run(*arguments: str) -> str:
            done = subprocess.run(
                ["/usr/bin/python3", str(checkout / "deploy" / "local"), *arguments],
                capture_output=True, text=True, timeout=120, cwd=place,
                user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
                env={"PATH": os.environ["PATH"], "HOME": place},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        told = json.loads(run("up", "--json", "--workers", "1"))
        strays = processes.find_strays(Path(told["data_dir"]))
        try:
            assert {Path(f"/proc/{process.pid}").stat().st_uid for process in strays} == {nobody.pw_uid}
        finally:
            run("down")
        assert processes.find_strays(Path(told["data_dir"])) == []
