"""Files with holes: as long as they are, and taking no more room than what is in them."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

SIZE_BYTES = 256 * 1024 * 1024
DISK_BYTES = 64_000_000


def make_sparse(path: Path) -> None:
    """A quarter of a gigabyte with some words in the middle and at its end."""
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
        file.seek(SIZE_BYTES // 2 + 12_345)
        file.write(b"in the middle")
        file.seek(-7, os.SEEK_END)
        file.write(b"the end")


def is_equal(one: Path, other: Path) -> bool:
    """Whether two files hold the same, read piece by piece."""
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            pieces = left.read(1 << 22), right.read(1 << 22)
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True


@pytest.mark.parametrize("mount", ["tmpfs", "ext4"])
async def test_a_file_of_holes_fits_where_its_length_does_not(pair: Make, mounts: Mounts, mount: str) -> None:
    """Neither disk has a quarter of what the file is long. An edit of it takes no more room either."""
    world, laptop, desktop = await pair()
    for device in (laptop, desktop):
        if mount == "tmpfs":
            mounts.tmpfs(device.path, "64m")
        else:
            mounts.ext4(device.path, size_bytes=DISK_BYTES)
    await laptop.start()
    await desktop.start()
    make_sparse(laptop.path / "image")
    await world.settle()
    here, there = laptop.path / "image", desktop.path / "image"
    assert is_equal(here, there)
    assert there.stat().st_size == SIZE_BYTES
    assert there.stat().st_blocks * 512 < DISK_BYTES // 4
    with there.open("r+b") as file:
        file.seek(SIZE_BYTES // 4)
        file.write(b"an edit")
    await world.settle()
    assert is_equal(here, there)
    assert here.stat().st_blocks * 512 < DISK_BYTES // 4
    assert laptop.stage() == desktop.stage() == []
