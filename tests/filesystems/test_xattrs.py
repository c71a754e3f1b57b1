"""Extended attributes on real file systems: they come over, are merged one by one, and outlive disks that have none."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import structs

from agent.index import Batch, Index
from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import errors

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]


def tags(path: Path) -> dict[str, bytes]:
    """What stands on the disk."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}


def without(mounts: Mounts, at: Path) -> None:
    """A disk that says at once that it has none."""
    mounts.odd(at)


WITH = {"tmpfs": Mounts.tmpfs, "ext4": Mounts.ext4}
WITHOUT = {"lists none": Mounts.ramfs, "says so": without}


def mounted(mounts: Mounts, mount: Callable[[Mounts, Path], object], place: Path) -> None:
    """Mount one that has extended attributes: tmpfs does from Linux 6.6 on."""
    mount(mounts, place)
    try:
        os.setxattr(place, "user.try", b"")
    except OSError as error:
        pytest.skip(f"this kernel's file system has none: {error}")


@pytest.mark.parametrize("mount", WITH.values(), ids=WITH)
async def test_they_come_with_files_and_directories_change_and_go(pair: Make, mounts: Mounts, mount) -> None:
    world, laptop, desktop = await pair()
    mounted(mounts, mount, laptop.path)
    mounted(mounts, mount, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("trip/photo", "sea")
    os.setxattr(laptop.path / "trip/photo", "user.rating", b"5")
    os.setxattr(laptop.path / "trip/photo", "user.raw", bytes(range(256)))
    os.setxattr(laptop.path / "trip", "user.colour", b"blue")
    await world.settle()
    assert tags(desktop.path / "trip/photo") == {"user.rating": b"5", "user.raw": bytes(range(256))}
    assert tags(desktop.path / "trip") == {"user.colour": b"blue"}

    sent = world.head.seq
    os.setxattr(desktop.path / "trip/photo", "user.rating", b"4")
    os.removexattr(desktop.path / "trip/photo", "user.raw")
    os.removexattr(desktop.path / "trip", "user.colour")
    await world.settle()
    assert tags(laptop.path / "trip/photo") == {"user.rating": b"4"}
    assert tags(laptop.path / "trip") == {}
    assert (laptop.read("trip/photo"), laptop.tree()) == (b"sea", desktop.tree())

    (laptop.path / "trip").rename(laptop.path / "voyage")
    laptop.write("voyage/photo", "seaside")
    await world.settle()
    assert tags(desktop.path / "voyage/photo") == {"user.rating": b"4"}, "with other bytes under another path"
    assert world.head.seq > sent
    assert errors(laptop) == errors(desktop) == {}


async def test_what_two_people_change_of_one_file_at_once_is_merged_one_by_one(
    pair: Make, mounts: Mounts
) -> None:
    """Of two values of one attribute the first commit's stays; there is no conflict copy."""
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "content")
    for name in ("both", "goes", "stays"):
        os.setxattr(laptop.path / "file", f"user.{name}", b"old")
    await world.settle()
    await desktop.stop()
    os.setxattr(desktop.path / "file", "user.both", b"desktop")
    os.setxattr(desktop.path / "file", "user.mine", b"desktop")
    os.removexattr(desktop.path / "file", "user.goes")
    os.setxattr(laptop.path / "file", "user.both", b"laptop")
    os.setxattr(laptop.path / "file", "user.its", b"laptop")
    laptop.write("file", "edited")
    await world.settle(laptop)
    await desktop.start()
    await world.settle()
    merged = {"user.both": b"laptop", "user.its": b"laptop", "user.mine": b"desktop", "user.stays": b"old"}
    for device in (laptop, desktop):
        assert tags(device.path / "file") == merged
        assert {path: device.read(path) for path in device.tree()} == {"file": b"edited"}


@pytest.mark.parametrize("mount", WITHOUT.values(), ids=WITHOUT)
async def test_a_disk_that_has_none_takes_none_away_elsewhere(pair: Make, mounts: Mounts, mount) -> None:
    """Whatever is done there to the file: edited, saved anew, given another mode, renamed, looked at afresh by a new agent."""
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("d/file", "one")
    for path in ("d", "d/file"):
        os.setxattr(laptop.path / path, "user.tag", b"kept")
    await world.settle()
    assert desktop.read("d/file") == b"one"
    assert errors(desktop) == {"": "xattrs_not_kept"}
    assert errors(laptop) == {}

    desktop.write("d/file", "edited there")
    await world.settle()
    desktop.write("d/.file.new", "saved anew")
    (desktop.path / "d/.file.new").rename(desktop.path / "d/file")
    (desktop.path / "d/file").chmod(0o600)
    (desktop.path / "d").chmod(0o700)
    await world.settle()
    await desktop.stop()
    (desktop.path / "d").rename(desktop.path / "e")
    await desktop.start()
    await world.settle()
    desktop.folder.looker.hint("", deep=True)
    await world.settle()
    assert laptop.read("e/file") == b"saved anew"
    assert tags(laptop.path / "e/file") == tags(laptop.path / "e") == {"user.tag": b"kept"}

    os.setxattr(laptop.path / "e/file", "user.tag", b"changed")
    os.removexattr(laptop.path / "e", "user.tag")
    await world.settle()
    assert tags(laptop.path / "e/file") == {"user.tag": b"changed"}
    assert tags(laptop.path / "e") == {}
    assert laptop.tree() == desktop.tree()


async def test_one_that_is_too_large_for_the_disk_is_kept_by_the_others(pair: Make, mounts: Mounts) -> None:
    """ext4 has a block for all that a file has, tmpfs has more."""
    world, laptop, desktop = await pair()
    mounted(mounts, Mounts.tmpfs, laptop.path)
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "one")
    os.setxattr(laptop.path / "file", "user.large", bytes(20_000))
    os.setxattr(laptop.path / "file", "user.small", b"1")
    await world.settle()
    assert tags(desktop.path / "file") == {"user.small": b"1"}
    assert errors(desktop) == {"": "xattrs_not_kept"}
    os.setxattr(desktop.path / "file", "user.small", b"2")
    await world.settle()
    assert tags(laptop.path / "file") == {"user.large": bytes(20_000), "user.small": b"2"}
    (laptop.path / "d").mkdir()
    os.setxattr(laptop.path / "d", "user.large", bytes(20_000))
    await world.settle()
    for path in ("file", "d"):  # a person there sets another, and takes it away: that is told
        os.setxattr(desktop.path / path, "user.large", b"small")
        await world.settle()
        assert tags(laptop.path / path)["user.large"] == b"small"
        os.removexattr(desktop.path / path, "user.large")
        await world.settle()
        assert "user.large" not in tags(laptop.path / path)
    os.setxattr(laptop.path / "file", "user.large", bytes(20_000))
    await world.settle()
    os.removexattr(laptop.path / "file", "user.large")
    await world.settle()
    assert tags(desktop.path / "file") == {"user.small": b"2"}
    assert errors(desktop) == {}


async def test_more_than_are_synced_stay_where_they_are_and_are_said_so(pair: Make, mounts: Mounts) -> None:
    world, laptop, desktop = await pair()
    mounted(mounts, Mounts.tmpfs, laptop.path)
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("file", "one")
    (laptop.path / "d").mkdir()
    for path in ("file", "d"):
        os.setxattr(laptop.path / path, "user.first", b"1")
    await world.settle()
    for path in ("file", "d"):
        for number in range(64):
            os.setxattr(laptop.path / path, f"user.{number}", b"")
    await world.settle()
    assert errors(laptop) == {"file": "xattrs_too_large", "d": "xattrs_too_large"}
    await laptop.stop()
    await laptop.start()
    laptop.folder.looker.hint("", deep=True)
    await world.settle()
    assert errors(laptop) == {"file": "xattrs_too_large", "d": "xattrs_too_large"}
    for path in ("file", "d"):
        assert tags(desktop.path / path) == {"user.first": b"1"}
        os.setxattr(desktop.path / path, "user.first", b"2")
    await world.settle()
    for path in ("file", "d"):
        assert len(tags(laptop.path / path)) == 65, "they are not ours to touch"
        for number in range(64):
            os.removexattr(laptop.path / path, f"user.{number}")
    await world.settle()
    assert errors(laptop) == {}
    assert laptop.tree() == desktop.tree()


async def test_what_was_set_before_they_were_synced_is_told_of_once(pair: Make, mounts: Mounts) -> None:
    """A database of an earlier Hutch knows the files, and nothing of their extended attributes."""
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("d/file", "one")
    await world.settle()
    await laptop.stop()
    index = Index(laptop.home / "index.sqlite")
    state, trees = await index.load(world.workspace_id)
    batch = Batch()
    for path in ("d/file", "d"):
        os.setxattr(laptop.path / path, "user.tag", b"old")
        node = trees.local.find(path)
        assert node is not None
        status = (laptop.path / path).stat()
        look = state.prints[node.node_id]
        batch.prints[node.node_id] = structs.replace(
            look, ctime_ns=status.st_ctime_ns
        )  # it has not changed since
    batch.columns["xattrs_read"] = 0
    await index.write(state.key, batch)
    await index.close()
    await laptop.start()
    await world.settle()
    assert tags(desktop.path / "d/file") == tags(desktop.path / "d") == {"user.tag": b"old"}
