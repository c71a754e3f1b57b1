"""The wheel on a person's machine: complete, without anything of a server's, and started with their login."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.integration.packaging.test_wheel import SERVER_ONLY
from tests.machines.stack import Device, Service, wait_for
from tests.machines.wheel import Installed


def test_the_lock_alone_satisfies_it_and_nothing_of_a_server_is_pulled(wheel: Installed):
    assert wheel.projects() <= wheel.allowed
    assert {"hutch", "aiohttp", "aio-pika"} <= wheel.projects()
    assert not wheel.projects() & SERVER_ONLY


def test_a_newcomer_is_helped(wheel: Installed, devices: Callable[[str], Device]):
    shown = devices("one").do("--help").out
    for command in ("link", "add", "run", "status", "sync", "service"):
        assert f"\n  {command} " in shown
    assert shown.index("hutch link") < shown.index("hutch add") < shown.index("hutch run")


def test_it_links_and_syncs(service: Service, email: str, devices: Callable[[str], Device]):
    one, two = devices("one"), devices("two")
    for device in (one, two):
        device.join(service, email, "--fingerprint", service.told["ca_fingerprint"])
    (one.folder / "letter.txt").write_text("From a wheel.\n")
    for device in (one, two):
        device.do("sync", "--timeout", "60")
    assert (two.folder / "letter.txt").read_text() == "From a wheel.\n"


def test_the_unit_is_one_that_systemd_takes_and_that_starts_the_agent(
    wheel: Installed, service: Service, email: str, devices: Callable[[str], Device]
):
    one = devices("one")
    one.join(service, email, "--fingerprint", service.told["ca_fingerprint"])
    text = one.do("service", "install", "--print").out
    unit = one.root / "hutch.service"
    unit.write_text(text)
    told = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    (setting,) = shlex.split(told["Environment"])
    assert setting == f"HUTCH_HOME={one.home}"
    program = [word.replace("$$", "$") for word in shlex.split(told["ExecStart"])]
    assert program[-2:] == [str(wheel.hutch), "run"]
    agent = subprocess.Popen(
        one.machine.command("env", "-i", setting, f"HOME={one.root}", *program),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        (one.folder / "letter.txt").write_text("Sent by the unit's own command.\n")
        wait_for(lambda: one("wait", "--timeout", "5").code == 0, "the agent that the unit starts syncs")
        assert one.status()["state"] == "idle"
    finally:
        agent.terminate()
        assert agent.wait(30) == 0


def test_systemd_finds_no_fault_with_the_unit(
    service: Service, email: str, devices: Callable[[str], Device], monkeypatch: pytest.MonkeyPatch
):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    one = devices("one")
    one.join(service, email, "--fingerprint", service.told["ca_fingerprint"])
    unit = one.root / "hutch.service"
    unit.write_text(one.do("service", "install", "--print").out)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(one.root))  # it asks for one, as a login has
    done = subprocess.run([analyze, "--user", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
