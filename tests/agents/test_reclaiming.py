"""A device that has lost its database was away while others deleted: what it still has of that does not come back."""

from pathlib import Path

from broker.errors import NotFound
from tests.agents.test_convergence import two
from tests.agents.world import Device, Line


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
    (laptop.path / "moved.txt").rename(laptop.path / "elsewhere.txt")
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("edited.txt", "edited while away")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["edited.txt", "elsewhere.txt", "kept.txt", "moved.txt"]
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


async def test_a_server_that_cannot_tell_of_deleted_nodes_holds_nothing_up(
    tmp_path: Path, monkeypatch
) -> None:
    def unknown(self: Line, workspace_id: object) -> None:
        raise NotFound("no such call")

    monkeypatch.setattr(Line, "deleted", unknown)
    world, laptop, desktop = await two(tmp_path)
    laptop.write("gone.txt", "gone")
    await world.settle()
    await desktop.stop()
    (laptop.path / "gone.txt").unlink()
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("new.txt", "new")
    await desktop.start()
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["gone.txt", "new.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_a_database_of_before_is_settled_as_a_lost_one(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "edited.txt", "kept.txt"):
        laptop.write(path, path)
    await world.settle()
    await desktop.stop()
    before = {path.name: path.read_bytes() for path in desktop.home.iterdir()}
    await desktop.start()
    await world.settle()
    await desktop.stop()
    (laptop.path / "gone.txt").unlink()
    laptop.write("edited.txt", "edited by another")
    await world.settle(laptop)
    lose_database(desktop)
    for name, data in before.items():
        (desktop.home / name).write_bytes(data)
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["edited.txt", "kept.txt"]
    assert desktop.read("edited.txt") == b"edited by another"
    await laptop.stop()
    await desktop.stop()
