"""The control socket: one command a connection, errors told with their codes, nobody else listened to."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agent import sockets
from agent.control import ControlServer, Handler, call
from agent.errors import AlreadyRunning, NotRunning
from agent.steering import handlers_for
from broker.errors import Forbidden, HutchError, Misconfigured, Retryable

DEADLINE_S = 20


class Agent:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def status(self) -> dict[str, Any]:
        return {"state": "idle", "workspaces": []}

    async def wait_synced(self, timeout_s: float | None) -> bool:
        self.asked.append(timeout_s)
        return timeout_s is None

    async def pause(self) -> None:
        self.asked.append("pause")

    async def resume(self) -> None:
        self.asked.append("resume")

    async def add_folder(self, folder: Path, workspace_id: UUID, name: str) -> None:
        self.asked.append((folder, workspace_id, name))

    async def remove_folder(self, folder: Path) -> None:
        self.asked.append(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


@asynccontextmanager
async def listening(path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    async with asyncio.timeout(DEADLINE_S), ControlServer(path, handlers):
        yield


async def test_each_command_reaches_the_agent(path: Path):
    agent, stop = Agent(), asyncio.Event()
    workspace_id = UUID(int=9)
    async with listening(path, handlers_for(agent, stop)):
        assert await call(path, "status") == {"state": "idle", "workspaces": []}
        assert await call(path, "wait", timeout_s=3) == {"synced": False}
        assert await call(path, "wait", timeout_s=None) == {"synced": True}
        await call(path, "pause")
        await call(path, "resume")
        await call(path, "add", folder="/f", workspace_id=str(workspace_id), name="docs")
        await call(path, "remove", folder="/f")
        await call(path, "stop")
    assert agent.asked == [3, None, "pause", "resume", (Path("/f"), workspace_id, "docs"), Path("/f")]
    assert stop.is_set()


async def test_an_error_keeps_its_code_and_exit_code(path: Path):
    async def refuse(arguments: dict[str, Any]) -> dict[str, Any]:
        raise Forbidden("not yours", "revoked")

    async with listening(path, {"refuse": refuse}):
        with pytest.raises(HutchError, match="not yours") as told:
            await call(path, "refuse")
    assert (told.value.code, told.value.exit_code) == ("revoked", Forbidden.exit_code)


async def test_a_defect_in_a_command_is_told_and_the_next_is_served(path: Path):
    async def fail(arguments: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("a defect")

    async def live(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"lives": True}

    async with listening(path, {"fail": fail, "live": live}):
        with pytest.raises(HutchError, match="ZeroDivisionError: a defect"):
            await call(path, "fail")
        assert await call(path, "live") == {"lives": True}


async def test_an_unknown_command_says_so(path: Path):
    async with listening(path, {}):
        with pytest.raises(HutchError, match="does not know") as told:
            await call(path, "dance")
    assert told.value.code == "unknown_command"


@pytest.mark.parametrize("line", [b"not json\n", b'{"v": 2, "command": "x"}\n', b"[]\n", b"\xff\n"])
async def test_what_is_no_command_is_answered_as_corrupt(path: Path, line: bytes):
    async with listening(path, {}):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(line)
        assert b'"corrupt"' in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_nobody_listening_is_not_running(path: Path):
    with pytest.raises(NotRunning, match="hutch run"):
        await call(path, "status")


async def test_hanging_up_cancels_what_was_asked_for(path: Path):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work(arguments: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {}

    async with listening(path, {"work": work}):
        asking = asyncio.create_task(call(path, "work"))
        await begun.wait()
        asking.cancel()
        await cancelled.wait()


async def test_an_agent_that_ends_first_is_told_of(path: Path):
    begun = asyncio.Event()

    async def work(arguments: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    async with listening(path, {"work": work}):
        asking = asyncio.create_task(call(path, "work"))
        await begun.wait()
    with pytest.raises(NotRunning, match="ended before it answered"):
        await asking
    assert not path.exists()


async def test_an_answer_that_does_not_come_is_not_waited_for(path: Path):
    async def work(arguments: dict[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async with listening(path, {"work": work}):
        with pytest.raises(Retryable, match="did not answer"):
            await call(path, "work", answer_timeout_s=0.01)


async def test_a_socket_left_by_a_killed_agent_is_replaced(path: Path):
    path.parent.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with listening(path, handlers_for(Agent(), asyncio.Event())):
        assert (await call(path, "status"))["state"] == "idle"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_socket_that_answers_is_left_alone(path: Path):
    async with listening(path, handlers_for(Agent(), asyncio.Event())):
        with pytest.raises(AlreadyRunning):
            async with ControlServer(path, {}):
                pass
        assert (await call(path, "status"))["state"] == "idle"


async def test_a_directory_that_others_may_change_holds_no_socket(path: Path):
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(Misconfigured, match="can be changed by others"):
        async with ControlServer(path, {}):
            pass


async def test_another_person_is_not_listened_to(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "peer_user_id", lambda connection: 4711)
    async with listening(path, handlers_for(Agent(), asyncio.Event())):
        with pytest.raises(HutchError, match="own person") as told:
            await call(path, "status")
    assert told.value.code == "forbidden"


async def test_too_many_at_once_are_told_to_come_back(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.control.MAX_CONNECTIONS", 0)
    async with listening(path, handlers_for(Agent(), asyncio.Event())):
        with pytest.raises(HutchError, match="too many") as told:
            await call(path, "status")
    assert told.value.exit_code == Retryable.exit_code
