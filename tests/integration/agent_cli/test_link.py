"""Linking and unlinking: whom the password goes to, what is kept, and one clear line for each way to fail."""

import asyncio
import datetime
import errno
import hashlib
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.control import ControlServer
from agent.home import Home
from deploy.certificates import ensure_certificate
from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.fake_service import EMAIL, PASSWORD, FakeService, looping, serving

DEADLINE_S = 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority (`ca.pem`), and a server's certificate for 127.0.0.1 that it signed."""
    folder = tmp_path_factory.mktemp("certificates")
    ensure_certificate(folder, ["127.0.0.1"], datetime.datetime.now(datetime.UTC))  # noqa: TID251  # a test begins here
    return folder


@pytest.fixture
def secure(certificates: Path) -> Iterator[FakeService]:
    with serving(certificates / "server.pem", certificates / "server.key") as running:
        running.ca = (certificates / "ca.pem").read_bytes()
        yield running


def fingerprint(service: FakeService) -> str:
    assert service.ca is not None
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(service.ca.decode())).hexdigest()


def test_linking_keeps_the_device_for_its_person_alone(hutch: Shell, service: FakeService):
    outcome = hutch.link(service.url, "--json")
    assert outcome.code == 0
    assert outcome.data["device_name"] == "laptop"
    credential = hutch.home.linked()
    assert str(credential.device_id) == outcome.data["device_id"]
    assert (credential.email, credential.metadata_url, credential.cafile) == (EMAIL, service.url, None)
    assert stat.S_IMODE(hutch.home.config_path.stat().st_mode) == 0o600
    assert "s3cret" not in outcome.out + outcome.err
    assert PASSWORD not in outcome.out + outcome.err


def test_a_wrong_password_is_one_line_and_keeps_nothing(hutch: Shell, service: FakeService):
    outcome = hutch.link(service.url, "--json", password="wrong")
    assert (outcome.code, outcome.data["error"]["code"]) == (20, "wrong_password")
    assert outcome.err == "hutch: wrong e-mail address or password\n"
    assert hutch.home.credential is None


def test_a_linked_device_is_not_linked_again(hutch: Shell, service: FakeService):
    hutch.link(service.url)
    outcome = hutch.link(service.url)
    assert outcome.code == 22
    assert "hutch unlink" in outcome.err
    assert outcome.err.count("\n") == 1
    assert len(service.devices) == 1


def test_a_service_that_is_not_there_is_told(hutch: Shell, service: FakeService):
    outcome = hutch.link("http://127.0.0.1:1")
    assert outcome.code == 10
    assert outcome.err == (
        "hutch: http://127.0.0.1:1 cannot be reached: 127.0.0.1 takes no connection on port 1 (Connection refused)."
        " Check the address, and that the service runs there\n"
    )
    assert service.passwords == []


def test_an_address_that_nobody_has_is_told(hutch: Shell):
    outcome = hutch.link("https://nowhere.invalid")
    assert outcome.code == 10
    assert outcome.err.startswith(
        "hutch: https://nowhere.invalid cannot be reached: no host nowhere.invalid is known"
    )
    assert outcome.err.count("\n") == 1


def test_https_to_a_server_of_plain_http_is_told(hutch: Shell, service: FakeService):
    outcome = hutch.link(service.url.replace("http:", "https:"))
    assert outcome.code == 10
    assert "does not speak TLS" in outcome.err
    assert outcome.err.count("\n") == 1
    assert service.passwords == []


def test_a_full_disk_while_linking_leaves_no_device_behind(
    hutch: Shell, service: FakeService, monkeypatch: pytest.MonkeyPatch
):
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.durable.os.fsync", no_room)
    outcome = hutch.link(service.url)
    assert outcome.code == 27
    assert outcome.err.startswith("hutch: the disk is full")
    assert outcome.err.count("\n") == 1
    assert service.devices == {}


@pytest.mark.parametrize("options", [(), ("--password-stdin",)])
def test_no_password_is_asked_of_nobody(hutch: Shell, service: FakeService, options: tuple[str, ...]):
    outcome = hutch("link", service.url, "--email", EMAIL, *options)
    assert outcome.code == 2
    assert service.passwords == []


def test_an_unknown_authority_is_shown_once_and_pinned(hutch: Shell, secure: FakeService):
    outcome = hutch.link(secure.url)
    assert outcome.code == 0
    assert fingerprint(secure) in outcome.err.replace(":", "")
    assert "Trusted at first sight" in outcome.err
    assert hutch.home.cafile is not None
    assert hutch.home.cafile.read_bytes() == secure.ca
    later = hutch("devices", "--json")
    assert [device["name"] for device in later.data["devices"]] == ["laptop"]
    assert later.err == ""


def test_the_expected_fingerprint_is_compared(hutch: Shell, secure: FakeService):
    digits = fingerprint(secure).upper()
    written = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    outcome = hutch.link(secure.url, "--fingerprint", written)
    assert outcome.code == 0
    assert "Trusted at first sight" not in outcome.err


def test_another_fingerprint_gets_no_password(hutch: Shell, secure: FakeService):
    outcome = hutch.link(secure.url, "--fingerprint", "0" * 64)
    assert outcome.code == 28
    assert secure.passwords == []
    assert not hutch.home.ca_path.exists()


def test_an_authority_that_did_not_sign_the_certificate_gets_no_password(
    hutch: Shell, secure: FakeService, tmp_path: Path
):
    other = tmp_path / "other"
    other.mkdir()
    ensure_certificate(other, ["127.0.0.1"], datetime.datetime.now(datetime.UTC))  # noqa: TID251  # as above
    secure.ca = (other / "ca.pem").read_bytes()
    outcome = hutch.link(secure.url)
    assert outcome.code == 28
    assert secure.passwords == []
    assert not hutch.home.ca_path.exists()


def test_an_authority_that_is_none_is_damaged(hutch: Shell, secure: FakeService):
    secure.ca = b"not a certificate"
    outcome = hutch.link(secure.url)
    assert (outcome.code, secure.passwords) == (15, [])


def test_a_stranger_at_the_pinned_address_gets_no_credential(
    hutch: Shell, secure: FakeService, tmp_path: Path
):
    hutch.link(secure.url)
    ensure_certificate(tmp_path, ["127.0.0.1"], datetime.datetime.now(datetime.UTC))  # noqa: TID251  # as above
    with serving(tmp_path / "server.pem", tmp_path / "server.key") as stranger:
        home = hutch.home
        home.save_credential(_at(home.linked(), stranger.url))
        outcome = hutch("devices")
    assert outcome.code == 28
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("told", "taken"),
    [(None, "laptop"), ("laptop 2", "laptop 2"), ("../x", "laptop"), ("a\nb", "laptop"), ("", "laptop")],
)
def test_a_device_is_called_as_the_service_says_where_that_can_be_a_name(
    hutch: Shell, service: FakeService, told: str | None, taken: str
):
    service.device_name = told
    outcome = hutch.link(service.url)
    assert outcome.out == f"linked: this is {taken!r} of {EMAIL}\n"
    assert hutch.home.linked().device_name == taken


def test_devices_are_shown_with_their_ids(hutch: Shell, service: FakeService):
    hutch.link(service.url)
    shown = hutch("devices").out
    assert (
        shown
        == f"laptop (this one)\t{hutch.home.linked().device_id}\tlinked 2024-05-06 07:08 UTC\tseen never\n"
    )


PAGES = {
    "a page that is not there": b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<h1>Nope</h1>",
    "a call that is not allowed": b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
    "one that is not known": b"HTTP/1.1 501 Unsupported method ('POST')\r\nContent-Length: 0\r\n\r\n",
    "a login page": b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
    "somebody's own refusal": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<h1>Hello!</h1>",
    "a broker": b"AMQP\x00\x00\x09\x01",
    "a shell": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nobody": b"",
}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_no_service_of_ours_is_told_from_one(hutch: Shell, page: str):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PAGES[page])
        await writer.drain()
        writer.close()

    with looping() as loop:
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(answer, "127.0.0.1", 0), loop).result(
            DEADLINE_S
        )
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        outcome = hutch.link(url)
        loop.call_soon_threadsafe(server.close)
    assert outcome.code == 10
    assert outcome.err.startswith(f"hutch: no Hutch service answers at {url} (")
    assert outcome.err.count("\n") == 1
    assert hutch.home.credential is None


def test_a_person_at_a_terminal_may_say_no(
    hutch: Shell, secure: FakeService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.cli.context.Context.interactive", True)
    outcome = hutch("link", secure.url, "--email", EMAIL, stdin="n\n")
    assert outcome.code == 28
    assert secure.passwords == []


def test_a_person_at_a_terminal_is_asked_for_the_password_last(
    hutch: Shell, secure: FakeService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.cli.context.Context.interactive", True)
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda prompt: PASSWORD)
    outcome = hutch("link", secure.url, "--email", EMAIL, stdin="y\n")
    assert outcome.code == 0
    assert secure.passwords == [PASSWORD]


def test_unlinking_revokes_forgets_and_leaves_the_files(hutch: Shell, service: FakeService, tmp_path: Path):
    hutch.link(service.url)
    folder = tmp_path / "docs"
    assert hutch("add", folder).code == 0
    (folder / "words").write_text("kept")
    hutch.home.index_path.touch()
    assert hutch("unlink").code == 0
    assert service.devices == {}
    assert hutch.home.credential is None
    assert hutch.home.folders() == []
    assert not hutch.home.index_path.exists()
    assert [path.name for path in folder.iterdir()] == ["words"]
    assert hutch.link(service.url).code == 0


def test_unlinking_without_the_service_must_be_forced(hutch: Shell, service: FakeService):
    hutch.link(service.url)
    home = hutch.home
    home.save_credential(_at(home.linked(), "http://127.0.0.1:1"))
    outcome = hutch("unlink")
    assert outcome.code == 10
    assert "--force" in outcome.err
    assert home.credential is not None
    device_id = home.linked().device_id
    forced = hutch("unlink", "--force")
    assert forced.code == 0
    assert f"`hutch-admin device revoke {device_id}`" in forced.err
    assert home.credential is None


@pytest.mark.parametrize("damage", ["", "{", '{"device_id": 7}', "\xff"])
def test_a_damaged_credential_is_no_dead_end(hutch: Shell, service: FakeService, tmp_path: Path, damage: str):
    hutch.link(service.url)
    folder = tmp_path / "docs"
    hutch("add", folder)
    hutch.home.config_path.write_bytes(damage.encode("latin-1"))
    for command in (["status"], ["link", service.url, "--email", EMAIL, "--password-stdin"], ["unlink"]):
        outcome = hutch(*command)
        assert (outcome.code, outcome.err.count("\n")) == (15, 1)
        assert "`hutch unlink --force`" in outcome.err
    outcome = hutch("unlink", "--force", "--json")
    assert (outcome.code, outcome.data) == (0, {"device_id": None})
    assert "hutch-admin device revoke" in outcome.err
    assert list(folder.iterdir()) == []
    assert hutch.link(service.url).code == 0
    assert hutch("add", folder).code == 0


def test_a_damaged_list_of_folders_is_no_dead_end(hutch: Shell, service: FakeService, tmp_path: Path):
    hutch.link(service.url)
    hutch("add", tmp_path / "docs")
    hutch.home.folders_path.write_text("[")
    assert hutch("unlink").code == 15
    service.devices.clear()
    assert hutch("unlink", "--force").code == 0
    assert not hutch.home.folders_path.exists()


def test_what_a_lost_device_has_left_is_cleared_away_and_its_folder_can_be_taken_over(
    hutch: Shell, service: FakeService, tmp_path: Path
):
    hutch.link(service.url)
    folder = tmp_path / "docs"
    hutch("add", folder)
    hutch.home.index_path.touch()
    hutch.home.config_path.unlink()
    assert hutch.link(service.url, password="wrong").code == 20
    assert hutch.home.folders() != []
    outcome = hutch.link(service.url)
    assert outcome.code == 0
    assert f"`hutch add --adopt {folder}`" in outcome.err
    assert hutch.home.folders() == []
    assert not hutch.home.index_path.exists()
    assert hutch("add", folder, "--adopt").code == 0


def test_a_device_that_was_revoked_elsewhere_is_told_so_and_can_still_be_unlinked(
    hutch: Shell, service: FakeService
):
    hutch.link(service.url)
    service.devices.clear()
    assert hutch("devices").code == 12
    assert hutch("unlink").code == 0
    assert hutch.home.credential is None


def test_unlinking_stops_the_running_agent(hutch: Shell, service: FakeService):
    hutch.link(service.url)
    program = (
        "import sys; sys.path.insert(0, '.'); from tests.integration.agent_cli.test_link import pose; pose()"
    )
    agent = subprocess.Popen([sys.executable, "-c", program], env=hutch.environ, stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"listening\n"
        assert hutch("unlink").code == 0
        assert agent.wait(DEADLINE_S) == 0
    finally:
        agent.kill()
        agent.communicate()
    assert hutch.home.credential is None


def pose() -> None:
    """In a process of its own: hold the home as an agent does, until told to stop."""
    home = Home.open(os.environ)

    async def run() -> None:
        stop = asyncio.Event()

        async def end(arguments: dict[str, object]) -> dict[str, object]:
            stop.set()
            return {}

        async with ControlServer(home.socket_path, {"stop": end}):
            print("listening", flush=True)
            await stop.wait()

    with home.lock():
        asyncio.run(run())


def _at(credential, url):
    return msgspec.structs.replace(credential, metadata_url=url)
