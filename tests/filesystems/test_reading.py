"""Files that change while they are read, never settle, vanish, lose permission, or stay open for hours."""

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent import hashing
from agent.chunk import cut_file
from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts, as_nobody
from tests.filesystems.people import errors, until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]
FILE_SYSTEMS = [Mounts.tmpfs, Mounts.ext4]


def while_read(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], times: int = 1) -> list[int]:
    """Do something after a file was read and before that is believed. The list grows each time it was done."""
    done: list[int] = []

    def cut_then_act(fd: int, **options):
        result = cut_file(fd, **options)
        if len(done) < times:
            done.append(1)
            act()
        return result

    monkeypatch.setattr(hashing, "cut_file", cut_then_act)
    return done


@pytest.mark.parametrize("mount", FILE_SYSTEMS)
async def test_a_file_that_changes_while_it_is_read_is_read_again(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount
) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, laptop.path)
    await laptop.start()
    await desktop.start()
    done = while_read(monkeypatch, lambda: laptop.write("report", "whole and new"))
    laptop.write("report", "old and shrt!")
    await until(world, lambda: done)
    await world.settle()
    assert desktop.read("report") == b"whole and new"
    assert world.head.seq == 1, "a state that never stood was told of"


async def test_a_file_that_never_settles_holds_up_nobody_and_goes_when_it_does(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, laptop, desktop = await pair()
    mounts.tmpfs(laptop.path)
    await laptop.start()
    await desktop.start()
    restless = laptop.path / "restless"

    def grow() -> None:
        with restless.open("ab") as file:
            file.write(b"more\n")

    done = while_read(monkeypatch, grow, times=1_000_000)
    grow()
    await until(world, lambda: done)
    laptop.write("quiet", "quiet")
    (laptop.path / "a directory").mkdir()
    await until(world, lambda: (desktop.path / "a directory").is_dir())
    assert not (desktop.path / "restless").exists()
    monkeypatch.undo()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert sorted(desktop.tree()) == ["a directory", "quiet", "restless"]


@pytest.mark.parametrize("mount", FILE_SYSTEMS)
async def test_a_file_that_vanishes_while_it_is_read_is_gone(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount
) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, laptop.path)
    await laptop.start()
    await desktop.start()
    done = while_read(monkeypatch, (laptop.path / "brief").unlink)
    laptop.write("brief", "brief")
    await until(world, lambda: done)
    laptop.write("lasting", "lasting")
    await world.settle()
    assert sorted(desktop.tree()) == ["lasting"]
    assert errors(laptop) == {}


async def test_what_loses_permission_is_said_stays_elsewhere_and_goes_on_when_it_has_it_again(
    pair: Make, mounts: Mounts
) -> None:
    """With the rights of nobody, in a folder of nobody's: what root forbids is forbidden."""
    world, laptop, desktop = await pair()
    mounts.tmpfs(laptop.path)
    for path in (laptop.path, laptop.home, desktop.path, desktop.home):
        os.chown(path, 65534, 65534)
    with as_nobody():
        await laptop.start()
        await desktop.start()
        laptop.write("closed", "readable at first")
        laptop.write("room/inside", "readable at first")
        laptop.write("open", "readable")
        await world.settle()
        laptop.write("closed", "and edited")
        (laptop.path / "closed").chmod(0)
        (laptop.path / "room").chmod(0)
        laptop.write("open", "edited")
        laptop.folder.looker.hint("", deep=True)
        await until(world, lambda: set(errors(laptop)) == {"closed", "room"})
        await until(world, lambda: desktop.read("open") == b"edited")
        kept = {node.name for node in desktop.folder.replica.trees.remote.nodes.values()}
        assert kept == {"closed", "room", "inside", "open"}
        assert desktop.read("closed") == b"readable at first"
        (laptop.path / "room").chmod(0o755)
        (laptop.path / "closed").chmod(0o644)
        laptop.folder.looker.hint("", deep=True)
        await until(world, lambda: desktop.read("closed") == b"and edited")
        await world.settle()
        assert laptop.tree() == desktop.tree()
        assert desktop.read("closed") == b"and edited"
        assert errors(laptop) == {}
        await laptop.stop()
        await desktop.stop()


@pytest.mark.parametrize("mount", FILE_SYSTEMS)
async def test_a_file_that_is_open_for_writing_for_hours_is_kept_up_with_and_keeps_every_line(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount
) -> None:
    """A log on the desktop that its program never closes, replaced by the laptop: what it writes then is not lost."""
    monkeypatch.setattr("agent.fetch.LINGER_LOOK_S", 0.05)
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    with (desktop.path / "log").open("ab", buffering=0) as log:
        log.write(b"first line\n")
        await until(world, lambda: (laptop.path / "log").exists())
        log.write(b"second line\n")
        await until(world, lambda: laptop.read("log") == b"first line\nsecond line\n")
        await world.settle()
        laptop.write("log", "cut short")
        await until(world, lambda: desktop.read("log") == b"cut short")
        assert desktop.folder.replica.lingering
        log.write(b"third line\n")
    await until(world, lambda: not desktop.folder.replica.lingering)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    contents = sorted(path.read_bytes() for path in laptop.path.iterdir() if path.is_file())
    assert contents == [b"cut short", b"first line\nsecond line\nthird line\n"]


async def test_writers_of_whole_files_and_parts_of_them_lose_nothing_that_they_wrote_last(
    pair: Make, mounts: Mounts
) -> None:
    """A program that saves again and again, in place and by renaming, while all is read, sent and placed."""
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    await laptop.start()
    await desktop.start()
    stop = threading.Event()
    thread = threading.Thread(target=save_again_and_again, args=(laptop.path, stop))
    thread.start()
    try:
        await until(world, lambda: world.head.seq >= 3)
    finally:
        stop.set()
        thread.join()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert len(set(laptop.contents())) >= 1
    for device in (laptop, desktop):
        for path in device.path.glob("*.txt"):
            assert path.read_bytes() == path.read_bytes()[:6] * 5_000, f"{path} is not whole"


def save_again_and_again(folder: Path, stop: threading.Event) -> None:
    """Each file is one word, many times over."""
    number = 0
    while not stop.wait(0.1):
        number += 1
        content = b"%05d\n" % number * 5_000
        (folder / "in place.txt").write_bytes(content)
        (folder / ".saving").write_bytes(content)
        os.replace(folder / ".saving", folder / "by renaming.txt")
