"""A device that has lost its database was away while others deleted: what it still has of that does not come back."""

from pathlib import Path

from tests.agents.test_convergence import two
from tests.agents.world import Device


def lose_database(device: Device) -> None:
    for suffix in ("", "-wal", "-shm"):
        (device.home / f"index.sqlite{suffix}").unlink(missing_ok=True)


async def test_what_others_deleted_goes_and_what_was_edited_stays(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "edited.txt", "kept.txt", "docs/a.txt", "docs/b.txt", "moved.txt"):
        laptop.write(path, path)
    (laptop.path / "link").symlink_to("kept.txt")
    await world.settle()
    await desktop.stop()
    for path in ("gone.txt", "edited.txt", "docs/a.txt", "docs/b.txt", "link"):
        (laptop.path / path).unlink()
    (laptop.path / "docs").rmdir()
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("edited.txt", "edited while away")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["edited.txt", "kept.txt", "moved.txt"]
    assert laptop.read("edited.txt") == b"edited while away"
    await laptop.stop()
    await desktop.stop()


async def test_a_new_file_in_a_deleted_directory_revives_it(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("docs/a.txt", "a")
    await world.settle()
    await desktop.stop()
    (laptop.path / "docs/a.txt").unlink()
    (laptop.path / "docs").rmdir()
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("docs/new.txt", "new")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["docs", "docs/new.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_a_folder_that_is_added_for_the_first_time_is_merged_whole(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("gone.txt", "text")
    await world.settle()
    (laptop.path / "gone.txt").unlink()
    await world.settle()
    phone = await world.device("phone")
    phone.write("gone.txt", "text")
    await phone.start()
    await world.settle()
    assert phone.tree() == laptop.tree() == desktop.tree()
    assert list(phone.tree()) == ["gone.txt"]
    for device in (laptop, desktop, phone):
        await device.stop()
