"""The folder goes, or another one comes in its place, while the agent runs: nothing of that is a deletion."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import errors, until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]


@pytest.fixture
async def placed(pair: Make, mounts: Mounts, base: Path) -> tuple[World, Device, Device]:
    """Both devices run and are equal. The desktop's folder is a bind mount of `base/disk`, as a stick would be."""
    world, laptop, desktop = await pair()
    (base / "disk").mkdir()
    mounts.bind(base / "disk", desktop.path)
    await laptop.start()
    await desktop.start()
    for number in range(20):
        laptop.write(f"photos/{number}", f"photo {number}")
    await world.settle()
    return world, laptop, desktop


async def test_a_folder_that_is_unmounted_while_it_runs_halts_and_goes_on_when_it_is_back(
    placed: tuple[World, Device, Device], mounts: Mounts, base: Path
) -> None:
    world, laptop, desktop = placed
    head = world.head
    mounts.unmount(desktop.path)
    assert list(desktop.path.iterdir()) == []
    desktop.folder.looker.hint("", deep=True)
    await until(world, lambda: errors(desktop).get("") == "folder_gone")
    laptop.write("photos/new", "made meanwhile")
    await world.settle(laptop)
    assert world.head.seq == head.seq + 1, "the desktop has told of something"
    assert list(desktop.path.iterdir()) == [], "something was written into the empty mount point"
    mounts.bind(base / "disk", desktop.path)
    await until(world, lambda: desktop.folder.looker.in_place)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert len(desktop.tree()) == 22
    assert errors(desktop) == {}


async def test_a_folder_that_another_file_system_is_mounted_over_halts(
    placed: tuple[World, Device, Device], mounts: Mounts
) -> None:
    world, laptop, desktop = placed
    head = world.head
    mounts.tmpfs(desktop.path)
    desktop.write("photos/0", "of somebody else")
    desktop.folder.looker.hint("", deep=True)
    await until(world, lambda: errors(desktop).get("") == "folder_gone")
    laptop.write("photos/new", "made meanwhile")
    await world.settle(laptop)
    assert world.head.seq == head.seq + 1
    assert [path.name for path in desktop.path.rglob("*")] == ["photos", "0"]
    mounts.unmount(desktop.path)
    await until(world, lambda: desktop.folder.looker.in_place)
    await world.settle()
    assert laptop.tree() == desktop.tree()


async def test_a_folder_that_was_replaced_while_it_runs_halts(
    placed: tuple[World, Device, Device], mounts: Mounts, base: Path
) -> None:
    """Another folder with another's mark: even one that is synced is not this one."""
    world, laptop, desktop = placed
    head = world.head
    (base / "other" / ".hutch").mkdir(parents=True)
    marker = (base / "disk" / ".hutch" / "marker.json").read_bytes()
    (base / "other" / ".hutch" / "marker.json").write_bytes(marker)
    mounts.bind(base / "other", desktop.path)
    desktop.folder.looker.hint("", deep=True)
    await until(world, lambda: errors(desktop).get("") == "folder_gone")
    laptop.write("photos/new", "made meanwhile")
    await world.settle(laptop)
    assert world.head.seq == head.seq + 1
    assert [path.name for path in desktop.path.iterdir()] == [".hutch"]
    mounts.unmount(desktop.path)
    await until(world, lambda: desktop.folder.looker.in_place)
    await world.settle()
    assert laptop.tree() == desktop.tree()
