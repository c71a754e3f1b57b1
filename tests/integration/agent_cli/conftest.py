"""A command line in a home of its own, and a service to link it to."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.cli.context import Context
from agent.cli.main import invoke
from agent.home import Home
from tests.integration.agent_cli.fake_service import EMAIL, PASSWORD, FakeService, serving


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Shell:
    """Runs `hutch` as a person would, without a terminal."""

    environ: dict[str, str]
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: object, stdin: str = "") -> Outcome:
        self.monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self.capture.readouterr()
        code = invoke([str(argument) for argument in arguments], Context(environ=self.environ))
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    @property
    def home(self) -> Home:
        return Home.open(self.environ)

    def link(self, url: str, *options: object, password: str = PASSWORD) -> Outcome:
        return self(
            "link",
            url,
            "--email",
            EMAIL,
            "--password-stdin",
            "--device-name",
            "laptop",
            *options,
            stdin=f"{password}\n",
        )


@pytest.fixture
def hutch(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    person = tmp_path / "anna"
    person.mkdir()
    return Shell({"HUTCH_HOME": str(tmp_path / "hutch"), "HOME": str(person)}, capsys, monkeypatch)


@pytest.fixture
def service() -> Iterator[FakeService]:
    with serving() as running:
        yield running
