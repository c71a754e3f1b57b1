"""What a file system can hold comes over as it is: long paths, trees a hundred levels deep, modes, times, links, empty directories."""

import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import errors

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]
FILE_SYSTEMS = {
    "tmpfs": Mounts.tmpfs,
    "ext4": Mounts.ext4,
    "one without an exchange": lambda mounts, at: mounts.odd(at, "--plain-rename"),
}


def go_down(folder: Path, names: list[str]) -> int:
    """Make directories within each other; a descriptor of the last one. No path is that long for the kernel."""
    fd = os.open(folder, os.O_RDONLY)
    for name in names:
        if name not in os.listdir(fd):
            os.mkdir(name, dir_fd=fd)
        child = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    return fd


def save(fd: int, name: str, content: bytes) -> None:
    """Write a file by its directory's descriptor, which is closed."""
    file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644, dir_fd=fd)
    os.write(file, content)
    os.close(file)
    os.close(fd)


def load(fd: int, name: str) -> bytes:
    """Read a file by its directory's descriptor, which is closed."""
    file = os.open(name, os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    with os.fdopen(file, "rb") as opened:
        return opened.read()


LONG = ["n" * 255] * 17
PATHS = {"a path of more than 4,096 bytes": LONG, "a hundred levels": ["deeper"] * 100}


@pytest.mark.parametrize("names", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mount", FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
async def test_however_deep_and_long_a_path_is_it_arrives_changes_and_goes(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount, names: list[str]
) -> None:
    monkeypatch.setattr("agent.caution.MOST_QUIET_S", 0.2)
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("stays", "so that not all is gone at the end")
    save(go_down(laptop.path, names), "bottom", b"here")
    laptop.folder.looker.hint("", deep=True)
    await world.settle()
    assert load(go_down(desktop.path, names), "bottom") == b"here"
    save(go_down(desktop.path, names), "bottom", b"and back")
    desktop.folder.looker.hint("", deep=True)
    await world.settle()
    assert load(go_down(laptop.path, names), "bottom") == b"and back"
    subprocess.run(["rm", "-rf", laptop.path / names[0]], check=True, timeout=60)
    laptop.folder.looker.hint("", deep=True)
    await world.settle()
    assert sorted(os.listdir(desktop.path)) == [".hutch", "stays"]
    assert (errors(laptop), errors(desktop)) == ({}, {})


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_tree_of_a_thousand_levels_arrives_and_goes(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.caution.MOST_QUIET_S", 0.2)
    world, laptop, desktop = await pair()
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("stays", "so that not all is gone at the end")
    await world.settle()
    names = ["deeper"] * 1_000
    save(go_down(laptop.path, names), "bottom", b"here")
    laptop.folder.looker.hint("", deep=True)
    await world.settle(timeout_s=400)
    assert load(go_down(desktop.path, names), "bottom") == b"here"
    subprocess.run(["rm", "-rf", laptop.path / names[0]], check=True, timeout=60)
    laptop.folder.looker.hint("", deep=True)
    await world.settle(timeout_s=400)
    assert sorted(os.listdir(desktop.path)) == [".hutch", "stays"]
    assert (errors(laptop), errors(desktop)) == ({}, {})


@pytest.mark.parametrize("mount", FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
async def test_modes_times_links_and_empty_directories_are_kept(
    pair: Make, mounts: Mounts, base: Path, mount
) -> None:
    world, laptop, desktop = await pair()
    for device in (laptop, desktop):
        mount(mounts, device.path)
    (base / "outside").write_text("not ours")
    for mode in (0o600, 0o644, 0o755, 0o400, 0o777):
        laptop.write(f"{mode:o}", "x")
        os.utime(laptop.path / f"{mode:o}", ns=(1_234_567_890_987_654_321 + mode,) * 2)
        (laptop.path / f"{mode:o}").chmod(mode)
        (laptop.path / f"{mode:o}.d" / "empty").mkdir(parents=True)
        (laptop.path / f"{mode:o}.d").chmod(mode | 0o100)
    for name, target in {
        "inside": "644", "dangling": "nowhere", "out": "../outside", "absolute": str(base / "outside"),
        "root": "/", "loop": "loop", "of bytes": "\N{SNOWMAN} and \n a line", "up": "..",
    }.items():  # fmt: skip
        (laptop.path / name).symlink_to(target)
    await laptop.start()
    await desktop.start()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert len(desktop.tree()) == 5 * 3 + 8
    (desktop.path / "644").chmod(0o640)
    (desktop.path / "644.d" / "empty").rmdir()
    (desktop.path / "out").unlink()
    (desktop.path / "out").symlink_to("644")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (base / "outside").read_text() == "not ours"
    assert (errors(laptop), errors(desktop)) == ({}, {})


@pytest.mark.parametrize("target", ["../outside", "absolute"])
async def test_a_link_in_a_directorys_place_is_never_written_through(
    pair: Make, mounts: Mounts, base: Path, target: str
) -> None:
    """The desktop's person has put a link to elsewhere where the journal knows a directory."""
    world, laptop, desktop = await pair()
    mounts.ext4(desktop.path)
    (base / "outside").mkdir()
    (base / "outside" / "1").write_text("not ours")
    await laptop.start()
    await desktop.start()
    laptop.write("d/1", "one")
    laptop.write("d/2", "two")
    await world.settle()
    await desktop.stop()
    laptop.write("d/1", "one and more")
    laptop.write("d/3", "three")
    (laptop.path / "d" / "2").unlink()
    await world.settle(laptop)
    for name in ("1", "2"):
        (desktop.path / "d" / name).unlink()
    (desktop.path / "d").rmdir()
    (desktop.path / "d").symlink_to(base / "outside" if target == "absolute" else target)
    await desktop.start()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert [(path.name, path.read_text()) for path in (base / "outside").iterdir()] == [("1", "not ours")]
