"""No room, no right to write, no quota left: it is said, nothing is lost, and all goes on by itself afterwards."""

import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import errors, until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]


@pytest.mark.parametrize("mount", [Mounts.tmpfs, Mounts.ext4])
async def test_a_full_disk_keeps_the_old_and_takes_the_new_when_there_is_room(
    pair: Make, mounts: Mounts, mount
) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("letter", "Dear you,")
    await world.settle()
    ballast = fill(desktop.path / ".hutch" / "ballast")
    laptop.write("letter", "Dear you, " * 100_000)
    await until(world, lambda: "disk_full" in errors(desktop).values())
    assert desktop.read("letter") == b"Dear you,"
    ballast.unlink()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (errors(desktop), desktop.stage()) == ({}, [])


def fill(ballast: Path) -> Path:
    """Take up all the room of a file system."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1_000_000, 4_096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


@pytest.mark.parametrize("mount", [Mounts.tmpfs, Mounts.ext4])
async def test_a_disk_that_becomes_read_only_is_waited_for(pair: Make, mounts: Mounts, mount) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("kept", "1")
    laptop.write("goes", "1")
    await world.settle()
    mounts.remount(desktop.path, "ro")
    laptop.write("kept", "2 and more")
    laptop.write("new/one", "1")
    (laptop.path / "goes").unlink()
    await until(world, lambda: errors(desktop).get("") == "not_writable")
    await until(world, lambda: desktop.folder.stuck is not None)
    assert (desktop.read("kept"), desktop.read("goes")) == (b"1", b"1")
    mounts.remount(desktop.path, "rw")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert sorted(desktop.tree()) == ["kept", "new", "new/one"]
    assert (errors(desktop), desktop.stage()) == ({}, [])


async def test_a_disk_that_becomes_read_only_while_it_is_placed_on_is_no_reason_to_wait_for_ever(
    pair: Make, mounts: Mounts
) -> None:
    """Nothing has to be staged for a deletion: it has begun by then, and nothing is looked at until it is done."""
    world, laptop, desktop = await pair()
    mounts.tmpfs(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("goes", "1")
    await world.settle()
    mounts.remount(desktop.path, "ro")
    (laptop.path / "goes").unlink()
    await until(world, lambda: desktop.folder.stuck is not None)
    assert errors(desktop) == {"": "not_writable"}
    mounts.remount(desktop.path, "rw")
    await world.settle()
    assert (desktop.tree(), errors(desktop), desktop.stage()) == ({}, {}, [])


async def test_a_quota_that_is_used_up_is_a_full_disk(pair: Make, mounts: Mounts) -> None:
    world, laptop, desktop = await pair()
    server = mounts.odd(desktop.path, "--quota-bytes", "100000")
    await laptop.start()
    await desktop.start()
    laptop.write("small", "fits")
    await world.settle()
    laptop.write("large", b"x" * 200_000)
    await until(world, lambda: "disk_full" in errors(desktop).values())
    assert sorted(desktop.tree()) == ["small"]
    server.send_signal(signal.SIGUSR1)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (errors(desktop), desktop.stage()) == ({}, [])
