"""Adding and removing folders, with and without a running agent, and every folder that cannot be one."""

import asyncio
import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agent.control import ControlServer
from agent.errors import FolderLinked
from agent.home import Home
from agent.index import Index
from agent.marker import Marker, read_marker, write_marker
from agent.steering import handlers_for
from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.fake_service import FakeService, looping

DEADLINE_S = 20


class PosingAgent:
    """Answers on the socket as the agent does, and remembers what it was asked for."""

    def __init__(
        self, *, synced: bool = True, refuses: bool = False, state: str = "syncing", left_out: int = 0
    ) -> None:
        self.asked: list[object] = []
        self._synced = synced
        self._refuses = refuses
        self._state = state
        self._left_out = left_out

    def status(self) -> dict[str, Any]:
        docs = {
            "name": "docs",
            "folder": "/f/d\u202eocs",
            "cursor": 4,
            "head": 6,
            "pending_up": 2,
            "pending_down": 0,
            "conflicts": 1,
            "left_out": self._left_out,
            "errors": [{"path": "a\nb", "code": "bad_name", "message": "no"}],
        }
        return {"state": self._state, "workspaces": [docs], "bytes_up": 1_500_000, "bytes_down": 12}

    async def wait_synced(self, timeout_s: float | None) -> bool:
        self.asked.append("wait")
        return self._synced

    async def pause(self) -> None:
        self.asked.append("pause")

    async def resume(self) -> None:
        self.asked.append("resume")

    async def add_folder(self, folder: Path, workspace_id: UUID, name: str) -> None:
        if self._refuses:
            raise FolderLinked("the agent knows better")
        self.asked.append(("add", folder, name))

    async def remove_folder(self, folder: Path) -> None:
        self.asked.append(("remove", folder))


@contextmanager
def posing(home: Home, agent: PosingAgent) -> Iterator[PosingAgent]:
    """The agent's side of the socket, on a thread."""
    with looping() as loop:
        server = ControlServer(home.socket_path, handlers_for(agent, asyncio.Event()))
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(DEADLINE_S)
        try:
            yield agent
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(DEADLINE_S)


@pytest.fixture
def linked(hutch: Shell, service: FakeService) -> Shell:
    assert hutch.link(service.url).code == 0
    return hutch


def test_a_folder_is_made_marked_and_listed(linked: Shell, service: FakeService, tmp_path: Path):
    folder = tmp_path / "new" / "docs"
    outcome = linked("add", folder, "--json")
    workspace_id = service.workspaces["docs"]
    assert outcome.data == {"folder": str(folder), "workspace_id": str(workspace_id), "name": "docs"}
    marker = read_marker(folder)
    assert marker is not None
    assert (marker.workspace_id, marker.device_id) == (workspace_id, linked.home.linked().device_id)
    assert linked("list", "--json").data == {"folders": [outcome.data]}
    assert str(folder) in linked("list").out


def test_a_workspace_may_have_another_name(linked: Shell, service: FakeService, tmp_path: Path):
    assert linked("add", tmp_path / "docs", "--workspace", "papers").code == 0
    assert list(service.workspaces) == ["papers"]


def test_a_folder_that_is_synced_already_is_refused(linked: Shell, tmp_path: Path):
    linked("add", tmp_path / "docs")
    outcome = linked("add", tmp_path / "docs", "--json")
    assert (outcome.code, outcome.data["error"]["code"]) == (24, "folder_linked")
    assert outcome.err.count("\n") == 1
    assert "hutch remove" not in outcome.err


def test_a_folder_that_was_made_again_has_to_be_removed_first(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    linked("add", folder)
    shutil.rmtree(folder)
    for _ in ("gone", "made again"):
        outcome = linked("add", folder)
        assert outcome.code == 24
        assert "`hutch remove`" in outcome.err
        folder.mkdir(exist_ok=True)
    assert linked("remove", folder).code == 0
    assert linked("add", folder).code == 0


def test_a_workspace_has_one_folder_on_a_device(linked: Shell, tmp_path: Path):
    linked("add", tmp_path / "docs")
    outcome = linked("add", tmp_path / "other", "--workspace", "docs")
    assert outcome.code == 24
    assert str(tmp_path / "docs") in outcome.err


def test_a_folder_of_another_device_is_refused_unless_that_one_is_gone(linked: Shell, tmp_path: Path):
    write_marker(tmp_path, Marker(workspace_id=UUID(int=5), device_id=UUID(int=6)))
    folder = tmp_path / "docs"
    folder.mkdir()
    write_marker(folder, Marker(workspace_id=UUID(int=5), device_id=UUID(int=6)))
    assert linked("add", tmp_path / "docs").code == 23  # its parent is synced
    (tmp_path / ".hutch" / "marker.json").unlink()
    outcome = linked("add", folder)
    assert outcome.code == 24
    assert "--adopt" in outcome.err
    assert linked("add", folder, "--adopt").code == 0


def test_an_adopted_folder_is_known_to_have_been_synced(linked: Shell, tmp_path: Path):
    """Its generation stays, so that old copies of what others have deleted are known for what they are."""
    folder = tmp_path / "docs"
    linked("add", folder)
    marker = read_marker(folder)
    assert marker is not None
    for other, generation in ((marker.workspace_id, 4), (UUID(int=5), 0)):
        linked("remove", folder)
        write_marker(folder, Marker(workspace_id=other, device_id=UUID(int=6), generation=4))
        assert linked("add", folder, "--adopt").code == 0
        adopted = read_marker(folder)
        assert adopted is not None
        assert adopted.generation == generation
        assert adopted.workspace_id == marker.workspace_id


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/", "the whole file system"),
        ("anna", "home directory"),
        (".", "home directory"),
        ("hutch", "HUTCH_HOME"),
        ("hutch/inside", "HUTCH_HOME"),
        ("file", "not a folder"),
        ("file/below", ""),
        ("docs/inside", "must not hold one another"),
        ("around", "must not hold one another"),
        ("free/.hutch/inside", "Hutch's own"),
    ],
)
def test_a_folder_that_cannot_be_one(
    linked: Shell, service: FakeService, tmp_path: Path, folder: str, why: str
):
    (tmp_path / "file").touch()
    linked("add", tmp_path / "docs")
    linked("add", tmp_path / "around" / "inner")
    outcome = linked("add", tmp_path / folder, "--workspace", "wrong")
    assert outcome.code == 23
    assert why in outcome.err
    assert outcome.err.count("\n") == 1
    assert "wrong" not in service.workspaces


def test_a_service_that_is_away_adds_nothing(linked: Shell, tmp_path: Path, service: FakeService):
    service.devices.clear()
    outcome = linked("add", tmp_path / "docs")
    assert outcome.code == 12
    assert linked.home.folders() == []
    assert read_marker(tmp_path / "docs") is None


def test_a_full_disk_adds_nothing(linked: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_room(home: Home, record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.home.Home.add_folder", no_room)
    outcome = linked("add", tmp_path / "docs")
    assert (outcome.code, outcome.err.count("\n")) == (27, 1)
    assert linked.home.folders() == []
    assert read_marker(tmp_path / "docs") is None


def test_removing_leaves_the_files_and_forgets_the_rest(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    linked("add", folder)
    Index(linked.home.index_path).close_now()
    (folder / "words").write_text("kept")
    assert linked("remove", folder, "--json").data == {"folder": str(folder)}
    assert [path.name for path in folder.iterdir()] == ["words"]
    assert linked.home.folders() == []
    assert linked("remove", folder).code == 13
    assert linked("add", folder).code == 0


def test_a_folder_that_is_gone_can_be_removed(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    linked("add", folder)
    (folder / ".hutch" / "marker.json").unlink()
    (folder / ".hutch").rmdir()
    folder.rmdir()
    assert linked("remove", folder).code == 0


def test_the_running_agent_is_told(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    with posing(linked.home, PosingAgent()) as agent:
        assert linked("add", folder).code == 0
        assert linked("pause").code == 0
        assert linked("resume").code == 0
        assert linked("remove", folder).code == 0
    assert agent.asked == [("add", folder, "docs"), "pause", "resume", ("remove", folder)]


def test_what_the_running_agent_refuses_is_undone(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    with posing(linked.home, PosingAgent(refuses=True)):
        outcome = linked("add", folder)
    assert outcome.code == 24
    assert "knows better" in outcome.err
    assert linked.home.folders() == []
    assert read_marker(folder) is None


def test_waiting_says_how_it_ended(linked: Shell):
    with posing(linked.home, PosingAgent()):
        assert linked("wait", "--timeout", 5, "--json").data == {"synced": True}
        assert linked("sync", "--timeout", 5).code == 0
    with posing(linked.home, PosingAgent(synced=False)):
        outcome = linked("wait", "--timeout", 5, "--json")
        assert (outcome.code, outcome.data) == (1, {"synced": False})


@pytest.mark.parametrize("command", ["wait", "sync"])
def test_waiting_says_that_something_was_left_out(linked: Shell, command: str):
    for left_out, said in (
        (0, ""),
        (1, "1 entry was left out: `hutch status` names it\n"),
        (2, "2 entries were left out: `hutch status` names them\n"),
    ):
        with posing(linked.home, PosingAgent(left_out=left_out)):
            outcome = linked(command)
        assert (outcome.code, outcome.out, outcome.err) == (0, "all is synced\n", said)


def test_waiting_for_an_agent_that_rests_says_so_once(linked: Shell):
    with posing(linked.home, PosingAgent(state="paused", synced=False)):
        outcome = linked("wait", "--timeout", 1)
    assert (outcome.code, outcome.err) == (1, "paused: `hutch resume`\n")


def test_an_agent_without_a_service_is_told_from_no_agent(linked: Shell):
    with posing(linked.home, PosingAgent(state="offline")):
        assert linked("status").out.startswith("offline (the service cannot be reached), ")
    assert linked("status").out.startswith("offline (the agent is not running: hutch run), ")


def test_progress_is_talk(linked: Shell):
    with posing(linked.home, PosingAgent()):
        outcome = linked("wait", "--progress", "--json")
    assert outcome.data == {"synced": True}


def test_waiting_for_an_agent_that_does_not_run_ends(linked: Shell):
    outcome = linked("wait", "--timeout", "0.2", "--json")
    assert (outcome.code, outcome.data["error"]["code"]) == (25, "not_running")


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_needs_an_agent_says_so(linked: Shell, command: str):
    outcome = linked(command)
    assert outcome.code == 25
    assert "hutch run" in outcome.err


def test_status_shows_people_what_is_up_and_steers_no_terminal(linked: Shell):
    with posing(linked.home, PosingAgent()):
        shown = linked("status").out
        told = linked("status", "--json").data
    assert "docs: 2 to send, 1 in conflict, 2 commits behind" in shown
    assert "a\\nb: bad_name: no" in shown
    assert "\u202e" not in shown
    assert told["workspaces"][0]["head"] == 6


def test_status_without_an_agent_is_offline(linked: Shell, tmp_path: Path):
    linked("add", tmp_path / "docs")
    outcome = linked("status", "--json")
    assert outcome.code == 0
    assert outcome.data["state"] == "offline"
    assert set(outcome.data) == {"state", "workspaces", "bytes_up", "bytes_down"}


def test_a_folder_is_listed_before_the_agent_has_begun(linked: Shell, tmp_path: Path):
    folder = tmp_path / "docs"
    assert linked("add", folder).err == "the agent is not running: hutch run\n"
    for _ in ("no database", "one that does not know it"):
        assert f"docs: not started yet\n  {folder}\n" in linked("status").out
        (workspace,) = linked("status", "--json").data["workspaces"]
        assert (workspace["started"], workspace["errors"]) == (False, [])
        Index(linked.home.index_path).close_now()
    shutil.rmtree(folder)
    assert "docs: the folder is gone\n" in linked("status").out


def test_with_an_agent_nobody_is_sent_to_start_one(linked: Shell, tmp_path: Path):
    with posing(linked.home, PosingAgent()):
        assert linked("add", tmp_path / "docs").err == ""


@pytest.mark.parametrize("arguments", [["add", ""], ["remove", ""], ["add", "docs", "--workspace", ""]])
def test_what_is_empty_names_nothing(
    linked: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outcome = linked(*arguments)
    assert outcome.code == 2
    assert "it must name a" in outcome.err
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("kept", [None, "new", "new/docs"])
def test_a_refused_folder_that_was_made_for_it_is_taken_away_again(
    linked: Shell, service: FakeService, tmp_path: Path, kept: str | None
):
    if kept is not None:
        (tmp_path / kept).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    service.devices.clear()
    assert linked("add", tmp_path / "new" / "docs").code == 12
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_made_whole_is_not_left_half_made(linked: Shell, tmp_path: Path):
    outcome = linked("add", tmp_path / "new" / ("x" * 300))
    assert outcome.code == 23
    assert not (tmp_path / "new").exists()


def test_a_second_agent_is_refused(linked: Shell):
    with linked.home.lock():
        assert linked("run").code == 26
        assert linked("sync", "--timeout", 0).code == 26
