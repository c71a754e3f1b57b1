"""Whole agents (all rooms, real files, real SQLite) on a service in memory: they come to the same tree, and lose nothing."""

import hashlib
import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from agent.trees import Tree
from broker.messages import decode_content
from tests.agents.people import Person
from tests.agents.world import Device, World
from tests.filesystems.people import until


def kept_versions(world: World) -> set[str]:
    """The SHA-256 of every content that history holds."""
    return {
        hashlib.sha256(b"".join(world.chunks[c.hash] for c in decode_content(v.manifest).chunks)).hexdigest()
        for v in world.store.versions.values()
    }


async def two(base: Path) -> tuple[World, Device, Device]:
    world = await World.make(base)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    return world, laptop, desktop


async def test_a_saved_file_reaches_the_other_device(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("notes/today.txt", "hello")
    (laptop.path / "empty").mkdir(mode=0o700)
    (laptop.path / "link").symlink_to("notes/today.txt")
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert desktop.read("notes/today.txt") == b"hello"
    await laptop.stop()
    await desktop.stop()


async def test_what_is_saved_together_is_one_commit(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    await world.settle()
    await laptop.stop()
    laptop.write("a/one", "1")
    laptop.write("a/two", "2")
    await laptop.start()
    await world.settle()
    assert world.head.seq == 1
    await laptop.stop()
    await desktop.stop()


async def test_edits_of_both_sides_are_both_kept(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("plan.txt", "first")
    await world.settle()
    for device in (laptop, desktop):
        device.online.clear()
        device.write("plan.txt", f"by {device.name}")
    for device in (laptop, desktop):
        await device.folder.looker.look_at_all()
        device.online.set()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert {laptop.read(path) for path in laptop.tree()} == {b"by laptop", b"by desktop"}
    await laptop.stop()
    await desktop.stop()


async def test_an_edit_wins_over_a_delete(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("a/b/plan.txt", "first")
    await world.settle()
    for device in (laptop, desktop):
        device.online.clear()
    laptop.write("a/b/plan.txt", "edited")
    (desktop.path / "a/b/plan.txt").unlink()
    (desktop.path / "a/b").rmdir()
    (desktop.path / "a").rmdir()
    for device in (laptop, desktop):
        await device.folder.looker.look_at_all()
        device.online.set()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert desktop.read("a/b/plan.txt") == b"edited"
    await laptop.stop()
    await desktop.stop()


async def test_a_moved_directory_costs_one_operation_and_no_content(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for number in range(20):
        laptop.write(f"photos/{number}.raw", f"picture {number}")
    await world.settle()
    sent, seq = dict(world.chunks), world.head.seq
    (laptop.path / "photos").rename(laptop.path / "pictures")
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert (world.chunks, world.head.seq) == (sent, seq + 1)
    await laptop.stop()
    await desktop.stop()


async def test_a_lost_database_deletes_nothing_and_makes_no_conflicts(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("same.txt", "same")
    laptop.write("old.txt", "old")
    await world.settle()
    await desktop.stop()
    laptop.write("old.txt", "newer")
    laptop.write("fresh.txt", "fresh")
    await world.settle(laptop)
    (desktop.home / "index.sqlite").unlink()
    for suffix in ("-wal", "-shm"):
        (desktop.home / f"index.sqlite{suffix}").unlink(missing_ok=True)
    desktop.write("mine.txt", "only here")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["fresh.txt", "mine.txt", "old.txt", "same.txt"]
    assert desktop.read("old.txt") == b"newer"
    await laptop.stop()
    await desktop.stop()


async def test_a_restored_service_deletes_nothing(tmp_path: Path) -> None:
    """The service comes back from a backup, under a new epoch: what it has forgotten is told to it again.

    Nobody can say any more which of two contents is the later one: both are kept.
    """
    world, laptop, desktop = await two(tmp_path)
    laptop.write("old.txt", "old")
    await world.settle()
    backup = world.backup()
    laptop.write("new.txt", "new")
    laptop.write("old.txt", "newer")
    await world.settle()
    world.restore(backup)
    for device in (laptop, desktop):
        device.folder.compare_head(world.head)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert {laptop.read(path) for path in laptop.tree()} == {b"old", b"new", b"newer"}
    await laptop.stop()
    await desktop.stop()


async def test_removing_the_folder_itself_deletes_nothing_elsewhere(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for number in range(300):
        laptop.write(f"{number % 10}/{number}.txt", f"content {number}")
    await world.settle()
    before, seq = desktop.tree(), world.head.seq
    shutil.rmtree(laptop.path)
    await laptop.folder.looker.look_at_all()
    await world.settle(desktop)
    assert not laptop.folder.looker.in_place
    assert (desktop.tree(), world.head.seq) == (before, seq)
    await laptop.stop()
    await desktop.stop()


async def test_however_slowly_a_folder_is_removed_nothing_is_deleted_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network share, or to another disk's trash, one file goes after the other."""
    monkeypatch.setattr(
        "agent.caution.FEW_QUIET_S", 5.0
    )  # a slow machine is to look at each before the time is up
    monkeypatch.setattr("agent.caution.MANY_QUIET_S", 7.0)
    world, laptop, desktop = await two(tmp_path)
    for number in range(60):
        laptop.write(f"{number}.txt", f"content {number}")
    await world.settle()
    before, seq = desktop.tree(), world.head.seq
    local = laptop.folder.replica.trees.local
    for number in range(60):
        (laptop.path / f"{number}.txt").unlink()
        await until(world, partial(_is_gone, local, f"{number}.txt"))
    shutil.rmtree(laptop.path)
    await laptop.folder.looker.look_at_all()
    await world.settle(desktop)
    assert (desktop.tree(), world.head.seq) == (before, seq)
    await laptop.stop()
    await desktop.stop()


def _is_gone(tree: Tree, path: str) -> bool:
    return tree.find(path) is None


async def test_a_service_that_was_set_back_within_its_epoch_is_noticed(tmp_path: Path) -> None:
    """A standby that lagged was promoted: nobody has raised the epoch."""
    world, laptop, desktop = await two(tmp_path)
    laptop.write("first.txt", "first")
    await world.settle()
    backup = world.backup()
    for number in range(3):
        laptop.write(f"lost {number}.txt", f"lost {number}")
        await world.settle()
    await desktop.stop()
    world.restore(backup, new_epoch=False)
    await desktop.start()
    desktop.write("new.txt", "new")
    await until(world, lambda: world.head.seq >= 2)
    laptop.folder.compare_head(world.head)  # as it does when it connects, and every quarter of an hour
    await until(world, lambda: (laptop.path / "new.txt").exists())
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert sorted(laptop.tree()) == ["first.txt", *(f"lost {number}.txt" for number in range(3)), "new.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_emptying_a_folder_empties_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.caution.MOST_QUIET_S", 0.2)
    world, laptop, desktop = await two(tmp_path)
    for number in range(60):
        laptop.write(f"{number % 4}/{number}.txt", f"content {number}")
    await world.settle()
    for path in range(4):
        shutil.rmtree(laptop.path / str(path))
    await world.settle()
    assert desktop.tree() == {}
    await laptop.stop()
    await desktop.stop()


async def test_what_is_over_quota_holds_up_nothing_else(tmp_path: Path) -> None:
    world = await World.make(tmp_path, quota_bytes=10_000)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    for number in range(6):
        laptop.write(f"small {number}.txt", f"small {number}")
    laptop.write("large.bin", b"x" * 20_000)
    await world.settle()
    assert sorted(desktop.tree()) == [f"small {number}.txt" for number in range(6)]
    errors = laptop.folder.status()["errors"]
    assert [(error["path"], error["code"]) for error in errors] == [("large.bin", "over_quota")]
    laptop.write("large.bin", b"x" * 2_000)
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert laptop.folder.status()["errors"] == []
    await laptop.stop()
    await desktop.stop()


async def test_a_vanished_folder_is_no_deletion(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("precious.txt", "precious")
    await world.settle()
    desktop.path.rename(tmp_path / "elsewhere")
    desktop.path.mkdir()
    await desktop.folder.looker.look_at_all()
    assert not desktop.folder.looker.in_place
    assert [problem.code for problem in desktop.folder.replica.problems.values()] == ["folder_gone"]
    assert world.head.seq == 1
    desktop.path.rmdir()
    (tmp_path / "elsewhere").rename(desktop.path)
    await world.settle()
    assert desktop.tree() == laptop.tree()
    await laptop.stop()
    await desktop.stop()


@pytest.mark.parametrize("seed", range(12))
async def test_random_people_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Two or three people at work, cut off together, each agent perhaps restarted: then all trees are equal."""
    chance = random.Random(seed)
    world = await World.make(tmp_path)
    devices = [await world.device(name) for name in ("laptop", "desktop", "tower")[: 2 + seed % 2]]
    for device in devices:
        await device.start()
    people = [Person(device, chance) for device in devices]
    log: list[str] = []
    for _ in range(3):
        for device in devices:
            device.online.clear()
        for _ in range(15):
            log.append(chance.choice(people).act())
        restarted = chance.choice(devices)
        await restarted.stop()
        await restarted.start()
        written = {content for device in devices for content in device.contents()}
        for device in devices:
            device.online.set()
        await world.settle()
        trees = [device.tree() for device in devices]
        assert all(tree == trees[0] for tree in trees), log
        assert written <= devices[0].contents() | kept_versions(world), log
        assert [device.stage() for device in devices] == [[] for _ in devices], log
    for device in devices:
        await device.stop()
