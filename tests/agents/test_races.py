"""What comes in the very moment in which an agent is at something else."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import commit as commit_room
from agent import place
from agent.filesystem import Root
from agent.place import Intent
from tests.agents.world import Device, World


async def two(base: Path) -> tuple[World, Device, Device]:
    world = await World.make(base)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    return world, laptop, desktop


async def until(world: World, condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        await world._until(lambda: bool(condition()), world.devices.values())


async def test_a_second_edit_that_arrives_while_the_first_is_placed_is_no_conflict(
    tmp_path: Path, monkeypatch
) -> None:
    """What the journal says by then is not what was placed: the merge base must not mix the two."""
    world, laptop, desktop = await two(tmp_path)
    laptop.write("plan.txt", "first")
    await world.settle()
    checking, go_on, check = threading.Event(), threading.Event(), place.check

    def slow_check(root: Root, intent: Intent) -> set[str]:
        wrong = check(root, intent)
        checking.set()
        assert go_on.wait(20)
        return wrong

    monkeypatch.setattr(place, "check", slow_check)
    laptop.write("plan.txt", "second edition")
    await until(world, checking.is_set)
    monkeypatch.setattr(place, "check", check)
    laptop.write("plan.txt", "third edition, revised")
    await world.settle(laptop)
    await until(world, lambda: desktop.folder.replica.cursor == world.head)
    go_on.set()
    await world.settle()
    assert sorted(desktop.tree()) == ["plan.txt"]
    assert laptop.tree() == desktop.tree()
    assert desktop.read("plan.txt") == b"third edition, revised"
    await laptop.stop()
    await desktop.stop()


async def test_one_change_too_large_for_a_message_is_staged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(commit_room, "MESSAGE_SIZE_BYTES", 200)
    world, laptop, desktop = await two(tmp_path)
    laptop.write("large", "x")
    await world.settle()
    assert desktop.read("large") == b"x"
    await laptop.stop()
    await desktop.stop()


async def test_a_request_number_that_was_used_already_is_left_behind(tmp_path: Path) -> None:
    """The database is from just before the last commit: its next number has an answer already, of other content."""
    world, laptop, desktop = await two(tmp_path)
    laptop.write("a", "1")
    await world.settle()
    await laptop.stop()
    kept = {file.name: file.read_bytes() for file in laptop.home.iterdir()}
    await laptop.start()
    laptop.write("a", "12")
    await world.settle()
    await laptop.stop()
    for file in laptop.home.iterdir():
        file.unlink()
    for name, data in kept.items():
        (laptop.home / name).write_bytes(data)
    await laptop.start()
    laptop.write("b", "new")
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["a", "b"]
    await laptop.stop()
    await desktop.stop()


@pytest.mark.parametrize("error", [PermissionError, OSError])
async def test_a_lingering_file_that_cannot_be_dropped_now_ends_nobody(
    tmp_path: Path, monkeypatch, error: type[OSError]
) -> None:
    world, laptop, desktop = await two(tmp_path)
    monkeypatch.setattr("agent.fetch.LINGER_LOOK_S", 0.05)
    laptop.write("log", "1")
    await world.settle()
    remove = Root.remove_file
    failed: list[str] = []

    def refuse(root: Root, path: str) -> None:
        if path.endswith(".open") and len(failed) < 2:
            failed.append(path)
            raise error(5, "not now")
        remove(root, path)

    monkeypatch.setattr(Root, "remove_file", refuse)
    with (desktop.path / "log").open("ab"):
        laptop.write("log", "1 and 2")
        await until(world, lambda: desktop.folder.replica.lingering)
    await until(world, lambda: not desktop.folder.replica.lingering)
    await world.settle()
    assert (desktop.stage(), len(failed)) == ([], 2)
    await laptop.stop()
    await desktop.stop()


async def test_what_waits_in_the_stage_for_room_was_not_deleted(tmp_path: Path) -> None:
    """A full disk stops a placing half way, with files parked in the stage: a look must not miss them."""
    world = await World.make(tmp_path)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    laptop.write("one", "first")
    laptop.write("other", "second")
    await world.settle()
    root = desktop.folder.replica.root
    make_directory = root.make_directory

    def no_room(path: str, mode: int = 0o700) -> None:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make_directory(path, mode)

    room: list[bool] = []
    root.make_directory = no_room  # type: ignore[method-assign]
    laptop.online.clear()
    (laptop.path / "new").mkdir()
    for name in ("one", "other"):
        (laptop.path / name).rename(laptop.path / "new" / name)
    await laptop.folder.looker.look_at_all()
    laptop.online.set()
    await world.settle(laptop)

    def is_parked() -> bool:
        return any(name.endswith(".move") for name in desktop.stage())

    await world._until(lambda: desktop.folder.replica.intent is not None and is_parked(), (desktop,))
    desktop.folder.looker.hint("", deep=True)
    await desktop.folder.looker.look_now()
    assert len(desktop.folder.replica.trees.local) == 2
    room.append(True)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (desktop.read("new/one"), desktop.read("new/other")) == (b"first", b"second")
    await laptop.stop()
    await desktop.stop()
