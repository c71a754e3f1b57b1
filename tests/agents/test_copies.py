"""A node that loses on a device again and again: one conflict copy there, with everything that was lost as its versions."""

import hashlib
from pathlib import Path

import pytest

from broker.messages import decode_content
from tests.agents.world import Device, World

MARK = "conflicted copy of desktop"


async def lose(world: World, winner: Device, loser: Device, number: int) -> None:
    """Both save the same file, cut off from each other; the winner's is the first in the journal."""
    for device in (winner, loser):
        device.online.clear()
        device.write("plan.txt", f"{device.name} {number}")
        await device.folder.looker.look_at_all()
    for device in (winner, loser):
        device.online.set()
        await world.settle(device)
    await world.settle()


async def two_with_a_plan(base: Path) -> tuple[World, Device, Device]:
    world = await World.make(base)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    laptop.write("plan.txt", "first")
    await world.settle()
    return world, laptop, desktop


def versions_below(world: World, mark: str) -> set[bytes]:
    """All contents that the nodes of such names have had."""
    nodes = world.store.nodes[world.workspace_id]
    return {
        b"".join(world.chunks[chunk.hash] for chunk in decode_content(version.manifest).chunks)
        for version in world.store.versions.values()
        if mark in nodes[version.node_id].name
    }


def copies(device: Device) -> list[str]:
    return [path for path in device.tree() if MARK in path]


async def test_later_losses_become_versions_of_the_first_copy(tmp_path: Path) -> None:
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    for number in range(3):
        await lose(world, laptop, desktop, number)
    assert laptop.tree() == desktop.tree()
    assert laptop.read("plan.txt") == b"laptop 2"
    assert [laptop.read(path) for path in copies(laptop)] == [b"desktop 2"]
    assert versions_below(world, MARK) == {b"desktop 0", b"desktop 1", b"desktop 2"}
    assert desktop.stage() == []
    await laptop.stop()
    await desktop.stop()


async def test_a_copy_that_a_person_has_renamed_is_theirs(tmp_path: Path) -> None:
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    await lose(world, laptop, desktop, 0)
    (desktop.path / copies(desktop)[0]).rename(desktop.path / "mine.txt")
    await world.settle()
    await lose(world, laptop, desktop, 1)
    assert laptop.read("mine.txt") == b"desktop 0"
    assert [laptop.read(path) for path in copies(laptop)] == [b"desktop 1"]
    await laptop.stop()
    await desktop.stop()


async def test_a_copy_that_was_deleted_stays_deleted(tmp_path: Path) -> None:
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    await lose(world, laptop, desktop, 0)
    (laptop.path / copies(laptop)[0]).unlink()
    await world.settle()
    await lose(world, laptop, desktop, 1)
    assert [desktop.read(path) for path in copies(desktop)] == [b"desktop 1"]
    assert laptop.tree() == desktop.tree()
    await laptop.stop()
    await desktop.stop()


async def test_the_copy_is_remembered_over_a_restart(tmp_path: Path) -> None:
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    await lose(world, laptop, desktop, 0)
    await desktop.stop()
    await desktop.start()
    await lose(world, laptop, desktop, 1)
    assert [laptop.read(path) for path in copies(laptop)] == [b"desktop 1"]
    await laptop.stop()
    await desktop.stop()


@pytest.mark.parametrize("broken_at", [0, 1])
async def test_a_disk_that_fails_between_the_steps_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    await lose(world, laptop, desktop, 0)
    root = desktop.folder.replica.root
    rename, calls = root.rename, []

    def failing(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == broken_at + 1:
            raise OSError(5, "input/output error")
        rename(source, target)

    monkeypatch.setattr(root, "rename", failing)
    await lose(world, laptop, desktop, 1)
    assert len(calls) > broken_at
    assert laptop.tree() == desktop.tree()
    kept = versions_below(world, "") | {
        desktop.read(path) for path, entry in desktop.tree().items() if entry[0] == "file"
    }
    assert {b"laptop 1", b"desktop 0", b"desktop 1"} <= kept
    assert hashlib.sha256(b"desktop 1").hexdigest() in laptop.contents()
    await laptop.stop()
    await desktop.stop()


async def test_content_that_turns_back_to_what_it_was_is_no_deletion(tmp_path: Path) -> None:
    """What lost was kept aside, so that the disk has nothing of the node: that is not what a person has deleted."""
    world, laptop, desktop = await two_with_a_plan(tmp_path)
    desktop.online.clear()
    desktop.write("plan.txt", "desktop's own")
    await desktop.folder.looker.look_at_all()
    laptop.write("plan.txt", "another")
    await world.settle(laptop)
    laptop.write("plan.txt", "first")
    await world.settle(laptop)
    desktop.online.set()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert laptop.read("plan.txt") == b"first"
    assert [laptop.read(path) for path in copies(laptop)] == [b"desktop's own"]
    await laptop.stop()
    await desktop.stop()
