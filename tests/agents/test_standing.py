"""What an agent says of its folder is said without it too, and what cannot be done is not waited for."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent.engine import offline_status
from agent.filesystem import Root
from agent.home import FolderRecord, Home
from broker.model import ConflictCode
from tests.agents.test_convergence import two
from tests.agents.test_refusals import refusing
from tests.agents.world import Device, World
from tests.filesystems.people import errors, until


def offline(device: Device) -> dict[str, Any]:
    """What `hutch status --json` says of the device's folder while its agent does not run."""
    home = Home(root=device.home, runtime=device.home)
    home.save_credential(device._credential())
    home.add_folder(
        FolderRecord(folder=str(device.path), workspace_id=device.world.workspace_id, name="home")
    )
    (workspace,) = offline_status(home)["workspaces"]
    assert isinstance(workspace, dict)
    return workspace


async def has_read(world: World, device: Device) -> None:
    """Wait until a device knows what its files hold."""
    folder = device.folder
    await folder.looker.look_at_all()
    await until(world, lambda: folder.hasher.is_done and not folder.looker.is_looking)


async def test_what_was_wrong_at_the_last_look_is_told_without_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, laptop, _ = await two(tmp_path)
    refusing(world, monkeypatch, lambda request: ConflictCode.OVER_QUOTA)
    laptop.write("large", "no room for it")
    os.mkfifo(laptop.path / "pipe")
    await until(world, lambda: errors(laptop) == {"large": "over_quota", "pipe": "special"})
    await world.settle(laptop)
    running = laptop.folder.status()
    assert (running["pending_up"], running["left_out"]) == (0, 2)
    await laptop.folder.keep_problems()
    await laptop.stop()
    assert offline(laptop) == running


async def test_what_was_mended_is_told_no_more(tmp_path: Path) -> None:
    world, laptop, _ = await two(tmp_path)
    os.mkfifo(laptop.path / "pipe")
    await until(world, lambda: errors(laptop) == {"pipe": "special"})
    (laptop.path / "pipe").unlink()
    await until(world, lambda: errors(laptop) == {})
    await world.settle(laptop)
    await laptop.folder.keep_problems()
    await laptop.stop()
    assert offline(laptop)["errors"] == []


async def test_an_agent_that_has_not_looked_yet_leaves_what_the_last_one_knew(tmp_path: Path) -> None:
    world, laptop, _ = await two(tmp_path)
    os.mkfifo(laptop.path / "pipe")
    await until(world, lambda: errors(laptop) == {"pipe": "special"})
    await world.settle(laptop)
    await laptop.folder.keep_problems()
    folder = laptop.folder
    folder.replica.looked = False
    folder.replica.problems.clear()
    await folder.keep_problems()
    await laptop.stop()
    assert [error["path"] for error in offline(laptop)["errors"]] == ["pipe"]


async def test_a_folder_that_goes_while_no_agent_runs_is_told_as_gone(tmp_path: Path) -> None:
    _, laptop, _ = await two(tmp_path)
    await laptop.stop()
    laptop.path.rename(tmp_path / "elsewhere")
    assert [error["code"] for error in offline(laptop)["errors"]] == ["folder_gone"]


async def test_a_file_that_cannot_be_read_is_left_out_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, laptop, _ = await two(tmp_path)
    opened = Root.open

    def refuse(root: Root, path: str) -> object:
        if path == "secret":
            raise PermissionError(13, "Permission denied")
        return opened(root, path)

    monkeypatch.setattr(Root, "open", refuse)
    laptop.write("secret", "not for you")
    laptop.write("open", "for all")
    await until(world, lambda: errors(laptop) == {"secret": "unreadable"})
    await world.settle(laptop)
    status = laptop.folder.status()
    assert (status["pending_up"], status["left_out"]) == (0, 1)


async def test_a_directory_that_takes_nothing_is_told_and_goes_on_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("theirs/one", "1")
    await world.settle()
    rename = Root.rename

    def refuse(root: Root, source: str, target: str) -> None:
        if root is desktop.folder.replica.root and target.startswith("theirs/"):
            raise PermissionError(13, "Permission denied")
        rename(root, source, target)

    monkeypatch.setattr(Root, "rename", refuse)
    laptop.write("theirs/two", "2")
    laptop.write("three", "3")
    await until(world, lambda: errors(desktop) == {"theirs": "not_writable"})
    await until(world, lambda: (desktop.path / "three").exists() and desktop.folder.stuck is not None)
    monkeypatch.undo()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (errors(desktop), desktop.folder.stuck) == ({}, None)


async def test_conflict_copies_are_named(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("notes.txt", "both know")
    await world.settle()
    for device in (laptop, desktop):
        device.online.clear()
        device.write("notes.txt", f"of {device.name}")
        await has_read(world, device)
    for device in (laptop, desktop):
        device.online.set()
    await world.settle()
    status = laptop.folder.status()
    (path,) = status["conflict_paths"]
    assert status["conflicts"] == 1
    assert path.startswith("notes (conflicted copy of ")
    assert (laptop.path / path).exists()
