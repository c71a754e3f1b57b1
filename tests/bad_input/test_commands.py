"""What people get wrong, told by a real service: one clear line on stderr, and an exit code for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machines.stack import Device, Service

Devices = Callable[[str], Device]


def told(device: Device, *arguments: object, typed: str = "") -> tuple[int, str]:
    """The exit code and the one line of a command that fails."""
    ended = device(*arguments, typed=typed)
    assert ended.out == ""
    assert ended.line.startswith("hutch: ")
    return ended.code, ended.line


@pytest.mark.parametrize("wrong", ["password", "account"])
def test_a_wrong_password_and_an_unknown_account_look_the_same(
    service: Service, email: str, devices: Devices, wrong: str
):
    who, password = (email, "not this one") if wrong == "password" else ("nobody@example.com", "not this one")
    ended = devices("one").try_link(service.told["metadata_url"], who, password=password)
    assert (ended.code, ended.line) == (20, "hutch: wrong e-mail address or password")


@pytest.mark.parametrize("url", ["https://no-such-host.invalid", "http://127.0.0.1:1"])
def test_an_unknown_host(devices: Devices, email: str, url: str):
    ended = devices("one").try_link(url, email)
    assert ended.code == 10
    assert url in ended.line


def test_a_folder_that_cannot_be_synced(service: Service, email: str, devices: Devices):
    one = devices("one")
    assert told(one, "add", one.folder)[0] == 21, "it is not linked yet"
    one.join(service, email)
    (one.root / "a file").write_text("No folder.\n")
    wrong: tuple[Path, ...] = (
        one.root / "a file",
        one.home,
        one.home / "inside",
        one.root,
        Path("/"),
        Path("/proc/nowhere"),
    )
    assert {told(one, "add", path)[0] for path in wrong} == {23}


def test_a_folder_that_is_synced_already(service: Service, email: str, devices: Devices):
    one, two = devices("one"), devices("two")
    one.join(service, email)
    assert one.try_link(service.told["metadata_url"], email).code == 22
    assert told(one, "add", one.folder)[0] == 24
    assert told(one, "add", one.root / "another", "--workspace", "shared")[0] == 24, (
        "a workspace has one folder"
    )
    two.join(service, email)
    assert told(two, "add", one.folder, "--workspace", "third")[0] == 24, "another device's folder"


def test_no_agent_and_two_agents(service: Service, email: str, devices: Devices):
    one = devices("one")
    one.join(service, email)
    assert told(one, "pause")[0] == 25
    one.start()
    one.do("wait", "--timeout", "60")
    assert told(one, "run")[0] == 26
    assert one.stop() == 0
