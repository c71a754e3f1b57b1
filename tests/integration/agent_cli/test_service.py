"""Installing the agent for the person's login, against a systemd that writes down what it is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.fake_service import FakeService


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `systemctl` that appends its arguments to the returned file, and fails when there is a file `broken` beside."""
    programs = tmp_path / "programs"
    programs.mkdir()
    said = programs / "said"
    script = programs / "systemctl"
    script.write_text(
        f'#!/bin/sh\nif [ -e "{programs}/broken" ]; then echo "Failed to connect to bus" >&2; exit 1; fi\n'
        f'echo "$@" >> "{said}"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.platform", "linux")
    return said


def unit_of(hutch: Shell) -> Path:
    return Path(hutch.environ["HOME"]) / ".config" / "systemd" / "user" / "hutch.service"


def test_the_unit_can_be_read_before_anything_is_done(hutch: Shell, systemd: Path):
    outcome = hutch("service", "install", "--print")
    assert outcome.code == 0
    assert f'Environment="HUTCH_HOME={hutch.environ["HUTCH_HOME"]}"' in outcome.out
    assert not unit_of(hutch).exists()
    assert not systemd.exists()


def test_installing_and_uninstalling(hutch: Shell, service: FakeService, systemd: Path):
    hutch.link(service.url)
    assert hutch("service", "install").code == 0
    assert unit_of(hutch).read_text() == hutch("service", "install", "--print").out
    assert hutch("service", "uninstall").code == 0
    assert not unit_of(hutch).exists()
    told = [line.removeprefix("--user ") for line in systemd.read_text().splitlines()]
    assert told == [
        "show-environment",
        "daemon-reload",
        "enable hutch.service",
        "restart hutch.service",
        "show-environment",
        "disable --now hutch.service",
        "daemon-reload",
    ]


def test_a_device_that_is_not_linked_is_not_started(hutch: Shell, systemd: Path):
    assert hutch("service", "install").code == 21
    assert not systemd.exists()


def test_a_systemd_that_does_not_answer_is_told(hutch: Shell, service: FakeService, systemd: Path):
    hutch.link(service.url)
    (systemd.parent / "broken").touch()
    outcome = hutch("service", "install")
    assert outcome.code == 30
    assert "Failed to connect to bus" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not unit_of(hutch).exists()


def test_elsewhere_there_is_no_systemd(
    hutch: Shell, service: FakeService, systemd: Path, monkeypatch: pytest.MonkeyPatch
):
    hutch.link(service.url)
    monkeypatch.setattr("sys.platform", "darwin")
    outcome = hutch("service", "install")
    assert outcome.code == 30
    assert "launchd" in outcome.err


def test_what_is_not_installed_is_not_uninstalled(hutch: Shell, systemd: Path):
    assert hutch("service", "uninstall").code == 13


def test_a_reader_that_goes_away_is_no_defect(hutch: Shell):
    program = [sys.executable, "-m", "agent.cli", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    outcome = subprocess.run(program, env=hutch.environ, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (outcome.returncode, outcome.stderr) == (130, b"")
