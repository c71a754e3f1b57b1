"""The watcher fails: its limit is reached, or the kernel drops events. Changes are found by looking then."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent import watch
from tests.agents.world import Device, World
from tests.filesystems.mounts import HERE, Mounts
from tests.filesystems.people import until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

LIMITED = """
import asyncio, ctypes, os, sys
from pathlib import Path
CLONE_NEWUSER = 0x10000000
assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) == 0, os.strerror(ctypes.get_errno())
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text("0 0 1")
Path("/proc/self/gid_map").write_text("0 0 1")
Path("/proc/sys/user/max_inotify_watches").write_text("20")
from agent import look, watch
from tests.agents.world import World
from tests.filesystems.people import errors, until
look.GONE_LOOK_S = watch.POLL_S = 0.1

async def main():
    world = await World.make(Path(sys.argv[1]))
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    for number in range(40):
        laptop.write(f"d{number}/file", "first")
    await world.settle()
    await until(world, lambda: "watch_limit" in {**errors(laptop), **errors(desktop)}.values())
    laptop.write("d39/file", "found without any event")
    await until(world, lambda: desktop.read("d39/file") == b"found without any event")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    print("all was found")
    await laptop.stop()
    await desktop.stop()

asyncio.run(main())
"""


def test_where_the_limit_of_watches_is_reached_it_is_said_and_changes_are_found(
    mounts: Mounts, base: Path
) -> None:
    """In a user namespace of its own, with a limit of 20 watches: this machine's stays as it is."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(base)],
        cwd=HERE, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "max_inotify_watches" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no user namespace with a limit of its own: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all was found\n")


async def test_events_that_the_kernel_dropped_are_made_up_for_by_a_look_at_all(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own word for it, in place of the events: nothing else tells of what was saved."""
    world, laptop, desktop = await pair()
    mounts.tmpfs(laptop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("d/0", "0")
    await world.settle()
    take, dropped = watch._Inotify.take, list[int]()

    def overflow(inotify: watch._Inotify) -> set[str]:
        if inotify._root.folder != laptop.path or dropped:
            return take(inotify)
        dropped.append(len(take(inotify)))
        inotify._take_event(-1, watch._OVERFLOW, "", set(), set())
        raise AssertionError

    monkeypatch.setattr(watch._Inotify, "take", overflow)
    for number in range(1, 40):
        laptop.write(f"d/{number}", "lost event")
    await until(world, lambda: (desktop.path / "d" / "39").exists())
    assert dropped
    await world.settle()
    assert laptop.tree() == desktop.tree()


async def test_a_link_to_all_of_the_machine_is_not_followed_by_the_watcher(
    pair: Make, mounts: Mounts, base: Path
) -> None:
    world, laptop, desktop = await pair()
    mounts.tmpfs(laptop.path)
    (base / "outside" / "deep").mkdir(parents=True)
    laptop.write("d/file", "first")
    (laptop.path / "out").symlink_to(base / "outside")
    (laptop.path / "root").symlink_to("/")
    inotify = watch._Inotify(laptop.path)
    try:
        inotify.cover("")
        assert sorted(inotify._paths.values()) == ["", "d"]
    finally:
        inotify.close()
    await laptop.start()
    await desktop.start()
    await world.settle()
    laptop.write("d/file", "second, told of by an event")
    await until(world, lambda: desktop.read("d/file") == b"second, told of by an event")


async def test_moved_directories_are_watched_under_their_new_names(pair: Make, mounts: Mounts) -> None:
    world, laptop, desktop = await pair()
    mounts.ext4(laptop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("a/b/file", "first")
    await world.settle()
    (laptop.path / "a").rename(laptop.path / "z")
    await until(world, lambda: (desktop.path / "z" / "b" / "file").exists())
    laptop.write("z/b/file", "told of by an event")
    await until(world, lambda: desktop.read("z/b/file") == b"told of by an event")
    os.mkdir(os.fsencode(laptop.path) + b"/no \xff name")
    os.rename(os.fsencode(laptop.path) + b"/no \xff name", laptop.path / "now it has one")
    laptop.write("now it has one/file", "x")
    await until(world, lambda: (desktop.path / "now it has one" / "file").exists())
