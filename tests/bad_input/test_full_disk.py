"""No room left: said in one line, nothing lost, and all goes on by itself when there is room again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.machines.stack import Device, Service, wait_for

Devices = Callable[[str], Device]
Mount = Callable[[Path, str], None]


def fill(folder: Path, leave_bytes: int) -> Path:
    """Leave only some room on a folder's file system. Returns the file that takes up the rest."""
    ballast = folder / ".ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - leave_bytes)
    return ballast


def pair(service: Service, email: str, devices: Devices, small_disk: Mount) -> tuple[Device, Device]:
    """Two devices; the second one's folder and home have a file system of 8 MB each."""
    one, two = devices("one"), devices("two")
    small_disk(two.folder, "8m")
    small_disk(two.home, "8m")
    two.home.chmod(0o700)
    for device in (one, two):
        device.join(service, email)
    return one, two


def test_a_folder_without_room(service: Service, email: str, devices: Devices, small_disk: Mount):
    one, two = pair(service, email, devices, small_disk)
    (one.folder / "small.txt").write_text("This fits.\n")
    for device in (one, two):
        device.do("sync", "--timeout", "60")
    large = os.urandom(9_000_000)
    (one.folder / "large.bin").write_bytes(large)
    one.do("sync", "--timeout", "60")

    ended = two("sync", "--timeout", "60")
    assert (ended.code, "the disk is full" in ended.line) == (27, True)
    assert sorted(os.listdir(two.folder)) == [".hutch", "small.txt"]
    assert os.listdir(two.folder / ".hutch" / "stage") == []

    two.start()
    wait_for(lambda: two.errors() == {"": "disk_full"}, "the agent says so", two)
    assert two("wait", "--timeout", "1").code == 1
    # What this device has written goes up all the same.
    (two.folder / "mine.txt").write_text("From a full disk.\n")
    one.start()
    wait_for(lambda: (one.folder / "mine.txt").exists(), "small things still go up", two)
    # It does not fit whatever is removed here: so it is made smaller there.
    (one.folder / "large.bin").write_bytes(large[:4_000_000])
    wait_for(lambda: (two.folder / "large.bin").exists(), "it arrives once it fits", two)
    assert (two.folder / "large.bin").read_bytes() == large[:4_000_000]
    two.do("wait", "--timeout", "60")
    assert two.errors() == {}
    assert (one.stop(), two.stop()) == (0, 0)


def test_room_that_comes_back(service: Service, email: str, devices: Devices, small_disk: Mount):
    one, two = pair(service, email, devices, small_disk)
    (one.folder / "letter.txt").write_text("Dear you,\n")
    for device in (one, two):
        device.do("sync", "--timeout", "60")
    ballast = fill(two.folder / ".hutch", 0)
    (one.folder / "letter.txt").write_text("Dear you,\nI am well.\n")
    one.do("sync", "--timeout", "60")
    ended = two("sync", "--timeout", "60")
    assert (ended.code, "the disk is full" in ended.line) == (27, True)
    assert (two.folder / "letter.txt").read_text() == "Dear you,\n"
    two.start()
    wait_for(lambda: "disk_full" in two.errors().values(), "the agent says so", two)
    ballast.unlink()
    two.do("wait", "--timeout", "60")
    assert (two.folder / "letter.txt").read_text() == "Dear you,\nI am well.\n"
    assert two.errors() == {}

    # The same while it runs.
    ballast = fill(two.folder / ".hutch", 64_000)
    (one.folder / "photo.raw").write_bytes(b"p" * 1_000_000)
    one.do("sync", "--timeout", "60")
    wait_for(lambda: two.errors() == {"": "disk_full"}, "the agent says so again", two)
    ballast.unlink()
    wait_for(lambda: (two.folder / "photo.raw").exists(), "it arrives when there is room", two)
    two.do("wait", "--timeout", "60")
    assert two.errors() == {}
    assert two.stop() == 0


def test_a_home_without_room(service: Service, email: str, devices: Devices, small_disk: Mount):
    one, two = pair(service, email, devices, small_disk)
    for device in (one, two):
        device.do("sync", "--timeout", "60")
    two.start()
    two.do("wait", "--timeout", "60")
    ballast = fill(two.home, 0)
    for number in range(300):
        (one.folder / f"{number}.txt").write_text(f"Letter {number}.\n")
    one.do("sync", "--timeout", "60")
    assert two.wait_ended() == 27
    assert "hutch: the disk is full" in two.told()
    ended = two("sync", "--timeout", "60")
    assert (ended.code, "the disk is full" in ended.line) == (27, True)
    ballast.unlink()
    two.do("sync", "--timeout", "60")
    assert len(list(two.folder.glob("*.txt"))) == 300


def test_a_link_that_finds_no_room(service: Service, email: str, devices: Devices, small_disk: Mount):
    one, two = devices("one"), devices("two")
    small_disk(two.home, "1m")
    two.home.chmod(0o700)
    ballast = fill(two.home, 0)
    ended = two.try_link(service.told["metadata_url"], email)
    assert (ended.code, "the disk is full" in ended.line) == (27, True)
    one.join(service, email)
    assert [device["name"] for device in one.do("devices", "--json").data["devices"]] == ["one"]
    ballast.unlink()
    assert two.try_link(service.told["metadata_url"], email).code == 0


def test_a_block_store_without_room(service: Service, email: str, devices: Devices, small_disk: Mount):
    one, two = devices("one"), devices("two")
    for device in (one, two):
        device.join(service, email)
        device.start()
    one.do("wait", "--timeout", "60")
    small_disk(one.root / "probe", "1m")  # skips where the store has no file system of its own
    ballast = fill(service.data / "blocks", 100_000)
    try:
        photo = os.urandom(2_000_000)
        (one.folder / "photo.raw").write_bytes(photo)
        wait_for(lambda: one.errors() == {"": "store_full"}, "the agent says so", one)
        assert one("wait", "--timeout", "1").code == 1
        # What needs no room there goes on.
        (one.folder / "a folder").mkdir()
        wait_for(lambda: (two.folder / "a folder").is_dir(), "directories still travel", one)
    finally:
        ballast.unlink()
    wait_for(lambda: (two.folder / "photo.raw").exists(), "it arrives when there is room", one)
    assert (two.folder / "photo.raw").read_bytes() == photo
    for device in (one, two):
        device.do("wait", "--timeout", "60")
        assert device.errors() == {}
        assert device.stop() == 0
