"""Times that lie: a wall clock that jumps, times that go back, file systems that keep whole seconds only."""

import os
import time
from collections.abc import Awaitable, Callable

import pytest

from agent import hashing
from agent.chunk import cut_file
from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]
DAY_NS = 86_400 * 1_000_000_000


def now_ns() -> int:
    """The wall clock, which stamps the files too."""
    return time.time_ns()  # noqa: TID251  # a test of it


class Shifted:
    """The `time` module with another wall clock."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def time_ns(self) -> int:
        return now_ns() + self.ahead_ns

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.mark.parametrize("jump_ns", [DAY_NS, -DAY_NS], ids=["forward", "back"])
async def test_a_wall_clock_that_jumps_by_a_day_while_all_is_synced_changes_nothing(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, jump_ns: int
) -> None:
    """Files of before the jump are of the future after it, or of long ago."""
    clock = Shifted()
    monkeypatch.setattr(hashing, "time", clock)
    monkeypatch.setattr("agent.folder.time", clock)
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    await laptop.start()
    await desktop.start()
    for number in range(30):
        laptop.write(f"{number}", "before")
        os.utime(laptop.path / str(number), ns=(now_ns() + number * DAY_NS // 10,) * 2)
        if number == 15:
            clock.ahead_ns = jump_ns
    await world.settle()
    head = world.head
    laptop.folder.looker.hint("", deep=True)
    await world.settle()
    assert world.head == head, "the jump made changes of its own"
    laptop.write("3", "after!")
    os.utime(laptop.path / "3", ns=(now_ns() + jump_ns,) * 2)
    desktop.write("4", "there, after")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (desktop.read("3"), laptop.read("4")) == (b"after!", b"there, after")
    assert len(laptop.tree()) == 30, "a conflict where nobody disagreed"


@pytest.mark.parametrize("mount", [Mounts.tmpfs, Mounts.ext4])
async def test_a_time_that_goes_back_is_an_edit_as_any_other(pair: Make, mounts: Mounts, mount) -> None:
    """An older file put in place of a newer one, with its time: as unpacking an archive does."""
    world, laptop, desktop = await pair()
    mount(mounts, laptop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "newer")
    await world.settle()
    laptop.write("file", "older")
    os.utime(laptop.path / "file", ns=(1_000_000_000, 1_000_000_000))
    await world.settle()
    assert desktop.read("file") == b"older"
    assert (desktop.path / "file").stat().st_mtime_ns == 1_000_000_000
    assert laptop.tree() == desktop.tree()


async def test_same_size_and_same_time_but_other_bytes_is_seen(pair: Make, mounts: Mounts) -> None:
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "aaaa")
    await world.settle()
    then = (laptop.path / "file").stat().st_mtime_ns
    laptop.write("file", "bbbb")
    os.utime(laptop.path / "file", ns=(then, then))
    await world.settle()
    assert desktop.read("file") == b"bbbb"


COARSE = {
    "whole seconds": lambda mounts, at: mounts.ext4(at, coarse=True),
    "two seconds": lambda mounts, at: mounts.odd(at, "--grain-ns", "2000000000"),
    "ten milliseconds": lambda mounts, at: mounts.odd(at, "--grain-ns", "10000000"),
}


@pytest.mark.parametrize("mount", COARSE.values(), ids=COARSE)
async def test_a_second_save_within_one_tick_of_a_coarse_clock_is_seen(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount
) -> None:
    """Same size, same time, same inode: it shows only to who waited for the tick to end before reading."""
    world, laptop, desktop = await pair()
    mount(mounts, laptop.path)
    await laptop.start()
    await desktop.start()
    done: list[int] = []

    def cut_then_save(fd: int, **options):
        result = cut_file(fd, **options)
        done.append(1)
        if len(done) < 4:
            (laptop.path / "file").write_text(f"edit {len(done)}")
        return result

    monkeypatch.setattr(hashing, "cut_file", cut_then_save)
    laptop.write("file", "edit 0")
    await until(world, lambda: len(done) >= 4)
    await world.settle()
    assert desktop.read("file") == laptop.read("file") == b"edit 3"


async def test_a_file_system_of_coarse_times_makes_no_edit_of_a_placing(pair: Make, mounts: Mounts) -> None:
    """What is placed there is read back with another time: that is not told as a change."""
    world, laptop, desktop = await pair()
    mounts.ext4(desktop.path, coarse=True)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "one")
    os.utime(laptop.path / "file", ns=(1_234_567_890_123_456_789, 1_234_567_890_123_456_789))
    await world.settle()
    await desktop.stop()
    await desktop.start()
    desktop.folder.looker.hint("", deep=True)
    await world.settle()
    assert world.head.seq == 1
    desktop.write("file", "two")
    await world.settle()
    assert laptop.read("file") == b"two"
    laptop.write("file", "three")
    await world.settle()
    assert desktop.read("file") == b"three"
    assert (sorted(laptop.tree()), sorted(desktop.tree())) == (["file"], ["file"])
