"""Waiting and syncing once, by a real agent on a service that knows accounts alone: what only a person can mend ends it."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from agent.cli.wait import wait_listening
from agent.engine import Agent
from agent.home import Home
from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.fake_service import FakeService, looping

DEADLINE_S = 20


@contextmanager
def agent_of(home: Home) -> Iterator[None]:
    """`hutch run`, on a loop of its own."""
    with looping() as loop:
        stop = asyncio.Event()
        running = asyncio.run_coroutine_threadsafe(Agent(home).run(stop), loop)
        try:
            asyncio.run(wait_listening(home, DEADLINE_S))
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            running.result(DEADLINE_S)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """The agent's log is not what a command prints, and both are in this process."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture
def folder(hutch: Shell, service: FakeService, tmp_path: Path) -> Path:
    """A synced folder of a linked device."""
    assert hutch.link(service.url).code == 0
    assert hutch("add", tmp_path / "docs").code == 0
    return tmp_path / "docs"


def test_a_folder_that_is_gone_is_not_waited_for(hutch: Shell, folder: Path):
    folder.rename(folder.with_name("elsewhere"))
    alone = hutch("sync", "--json")
    assert (alone.code, alone.data["error"]["code"]) == (31, "folder_gone")
    assert alone.err.startswith(f"hutch: the folder of docs is gone: {folder} cannot be opened")
    assert alone.err.count("\n") == 1
    with agent_of(hutch.home):
        for command in ("wait", "sync"):
            outcome = hutch(command)
            assert (outcome.code, outcome.err) == (31, alone.err)
        assert "docs: the folder is gone\n" in hutch("status").out


def test_a_folder_that_goes_while_the_agent_runs_is_not_waited_for(hutch: Shell, folder: Path):
    with agent_of(hutch.home):
        assert hutch("wait", "--timeout", 0).code == 1  # there is no journal to be equal with
        (folder / ".hutch" / "marker.json").rename(folder / ".hutch" / "aside")
        outcome = hutch("wait")
        assert (outcome.code, outcome.err.startswith("hutch: the folder of docs is gone: ")) == (31, True)


def test_a_folder_that_may_not_be_written_is_not_waited_for(
    hutch: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(folder: Path, marker: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr("agent.folder.write_marker", refuse)
    outcome = hutch("sync")
    assert (outcome.code, outcome.err.count("\n")) == (31, 1)
    assert outcome.err.startswith("hutch: docs: the folder cannot be written (Read-only file system)")
    with agent_of(hutch.home):
        assert hutch("wait").code == 31
        (workspace,) = hutch("status", "--json").data["workspaces"]
        assert [error["code"] for error in workspace["errors"]] == ["not_writable"]


def test_an_agent_without_a_broker_says_that_it_is_offline(hutch: Shell, folder: Path):
    with agent_of(hutch.home):
        assert hutch("wait", "--timeout", 0).code == 1
        assert hutch("status").out.startswith("offline (the service cannot be reached), ")
