"""A device that would delete or rewrite most of a folder: it is held, and what a person then says is done."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from agent.hold import HELD
from metadata.state import NewHold
from tests.agents.world import Device, World

FILES = 120


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent's own caution waits for has tests of its own."""
    for name in ("FEW_QUIET_S", "MANY_QUIET_S", "MOST_QUIET_S"):
        monkeypatch.setattr(f"agent.caution.{name}", 0.1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A laptop and a desktop, with 120 old files in ten directories."""
    made = await World.make(tmp_path)
    laptop = await made.device("laptop")
    await made.device("desktop")
    for device in made.devices.values():
        await device.start()
    for number in range(FILES):
        laptop.write(path(number), f"text {number}")
    await made.settle()
    await made.store.pass_time(timedelta(hours=2))
    yield made
    for device in made.devices.values():
        await device.stop()


def path(number: int) -> str:
    return f"{number % 10}/file {number}"


def two(world: World) -> tuple[Device, Device]:
    return world.devices["laptop"], world.devices["desktop"]


def message(device: Device) -> str:
    problem = device.folder.replica.problems.get(HELD)
    return "" if problem is None else problem.message


async def wait_held(world: World, device: Device) -> NewHold:
    """Wait until the device is held, and shows what of."""
    await world._until(lambda: "deletions and" in message(device), [device])
    return (await world.store.list_holds(world.workspace_id))[device.device_id]


async def accept(world: World, hold: NewHold) -> None:
    await world.store.accept_hold(world.workspace_id, hold.hold_id)


async def undo(world: World, hold: NewHold) -> None:
    await world.store.undo_hold(world.workspace_id, hold.hold_id)


async def is_held(world: World) -> bool:
    return bool(await world.store.list_holds(world.workspace_id))


def empty(device: Device, keep: int = 0) -> None:
    """Delete all files but the first few."""
    for number in range(keep, FILES):
        (device.path / path(number)).unlink()


async def test_the_others_keep_their_files_until_it_is_accepted(world: World) -> None:
    laptop, desktop = two(world)
    before = desktop.tree()
    empty(laptop)
    hold = await wait_held(world, laptop)
    assert (hold.deleted, hold.rewritten) == (FILES, 0)
    assert laptop.folder.status()["errors"] == [
        {"path": "", "code": "held", "message": f"{FILES} deletions and 0 changes wait for `hutch review`"}
    ]
    # What others do arrives meanwhile, and is all that changes there.
    desktop.write("new", "from the desktop")
    await world.settle(desktop)
    await world._until(lambda: (laptop.path / "new").exists(), [laptop])
    assert {key: value for key, value in desktop.tree().items() if key != "new"} == before
    assert laptop.folder.is_held_up
    await accept(world, hold)
    laptop.folder.hold.ask()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert desktop.contents() == laptop.contents()
    assert len(desktop.contents()) == 1
    assert not await is_held(world)
    assert laptop.folder.status()["errors"] == []


async def test_undone_the_files_come_back_and_what_was_new_stays(world: World) -> None:
    laptop, desktop = two(world)
    before = desktop.tree()
    shutil.rmtree(laptop.path / "3")
    empty_but(laptop, "3")
    laptop.write("mine", "written while it was held")
    hold = await wait_held(world, laptop)
    await undo(world, hold)
    laptop.folder.hold.ask()
    await world._until(lambda: not laptop.folder.hold.is_held, [laptop])
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert {key: value for key, value in laptop.tree().items() if key != "mine"} == before
    assert desktop.read("mine") == b"written while it was held"
    assert not await is_held(world)


def empty_but(device: Device, directory: str) -> None:
    """Delete all files, but for those of a directory that is gone already."""
    for number in range(FILES):
        if not path(number).startswith(f"{directory}/"):
            (device.path / path(number)).unlink()


async def test_undone_rewrites_are_kept_beside_the_files(world: World) -> None:
    laptop, desktop = two(world)
    before = desktop.tree()
    for number in range(FILES):
        laptop.write(path(number), f"scrambled {number}")
    hold = await wait_held(world, laptop)
    assert hold.deleted == 0
    # Not all of it needs to be in the first commit: the service was told of what would follow, or measured it.
    held = hold.rewritten + hold.to_follow + hold.recent
    assert held > FILES // 2
    accepted = {key for key, value in desktop.tree().items() if before[key] != value}
    assert len(accepted) <= FILES // 2
    await undo(world, hold)
    laptop.folder.hold.ask()
    await world._until(lambda: not laptop.folder.hold.is_held, [laptop])
    await world.settle(timeout_s=120)
    assert laptop.tree() == desktop.tree()
    contents = {laptop.read(key) for key, value in laptop.tree().items() if value[0] == "file"}
    assert {f"scrambled {number}".encode() for number in range(FILES)} <= contents
    kept = {key: value for key, value in laptop.tree().items() if key in before and key not in accepted}
    for key, value in kept.items():
        assert value[0] == "directory" or value == before[key], key
    copies = [key for key in laptop.tree() if "conflicted copy of laptop" in key]
    assert len(copies) == FILES - len([key for key in accepted if before[key][0] == "file"])


async def test_a_restart_in_between_changes_nothing(world: World) -> None:
    laptop, desktop = two(world)
    before = desktop.tree()
    empty(laptop)
    hold = await wait_held(world, laptop)
    await laptop.stop()
    await laptop.start()
    assert (await wait_held(world, laptop)).deleted == FILES
    await laptop.stop()
    await undo(world, await hold_of(world, laptop))
    await laptop.start()
    await world._until(lambda: laptop.tree() == before, [laptop])
    await world.settle()
    assert laptop.tree() == desktop.tree() == before
    assert not await is_held(world)
    assert hold.deleted == FILES


async def hold_of(world: World, device: Device) -> NewHold:
    return (await world.store.list_holds(world.workspace_id))[device.device_id]


async def test_cut_off_between_undoing_and_saying_so_it_is_not_undone_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop, desktop = two(world)
    before = desktop.tree()
    empty(laptop)
    hold = await wait_held(world, laptop)
    released: list[UUID] = []

    async def lost(hold_id: UUID, device_id: UUID) -> None:
        released.append(hold_id)

    monkeypatch.setattr(world.store, "release_hold", lost)
    await undo(world, hold)
    laptop.folder.hold.ask()
    await world._until(lambda: bool(released) and laptop.tree() == before, [laptop])
    await laptop.stop()
    monkeypatch.undo()
    laptop.write(path(7), "an edit of the next day")
    await laptop.start()
    await world.settle()
    assert desktop.read(path(7)) == b"an edit of the next day"
    assert not [key for key in desktop.tree() if "conflicted copy" in key]
    assert not await is_held(world)


async def test_it_asks_by_itself_what_was_decided(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.hold.ASK_AGAIN_S", 0.1)
    laptop, desktop = two(world)
    empty(laptop)
    await accept(world, await wait_held(world, laptop))
    await world.settle()
    assert desktop.contents() == set()


async def test_what_is_done_meanwhile_is_held_in_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.hold.ASK_AGAIN_S", 0.1)
    laptop, desktop = two(world)
    empty(laptop, keep=10)
    first = await wait_held(world, laptop)
    for number in range(10):
        (laptop.path / path(number)).unlink()
    await laptop.folder.looker.look_at_all()
    key = (world.workspace_id, laptop.device_id)
    await world._until(lambda: world.store.holds[key].new.hold_id != first.hold_id, [laptop])
    found = await hold_of(world, laptop)
    assert (first.deleted, found.deleted) == (FILES - 10, FILES)
    assert len(desktop.contents()) == FILES


async def test_it_does_not_ask_the_journal_without_end(world: World) -> None:
    laptop, _ = two(world)
    empty(laptop)
    await wait_held(world, laptop)
    number = laptop.folder.replica.number
    for turn in range(5):
        laptop.write(f"new {turn}", "meanwhile")
        await laptop.folder.looker.look_at_all()
        laptop.folder.replica.notify()
        await world._until(lambda: laptop.folder.hasher.is_done, [laptop])
    assert laptop.folder.replica.number == number
    assert laptop.folder.replica.in_flight is None


async def test_moving_everything_is_never_held(world: World) -> None:
    laptop, desktop = two(world)
    (laptop.path / "elsewhere").mkdir()
    for directory in range(10):
        (laptop.path / str(directory)).rename(laptop.path / "elsewhere" / f"d{directory}")
    for number in range(FILES):
        file = laptop.path / "elsewhere" / f"d{number % 10}" / f"file {number}"
        file.rename(file.with_name(f"renamed {number}"))
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert not await is_held(world)


async def test_emptying_a_small_folder_is_not_held(tmp_path: Path) -> None:
    world = await World.make(tmp_path)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    for number in range(40):
        laptop.write(path(number), "text")
    await world.settle()
    await world.store.pass_time(timedelta(hours=2))
    for directory in range(10):
        shutil.rmtree(laptop.path / str(directory))
    await world.settle()
    assert desktop.tree() == {}
    await laptop.stop()
    await desktop.stop()


async def test_a_deletion_too_large_for_one_commit_is_held_and_accepted_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.commit._USUAL_LIMIT", 25)
    laptop, desktop = two(world)
    await laptop.stop()
    await laptop.start()  # by now it knows all of them to be old
    await world.settle()
    empty(laptop)
    hold = await wait_held(world, laptop)
    assert (hold.deleted, hold.to_follow, hold.recent) == (25, FILES - 25, 0)
    assert (
        message(laptop)
        == f"25 deletions and 0 changes ({FILES - 25} more would follow) wait for `hutch review`"
    )
    assert len(desktop.contents()) == FILES
    await accept(world, hold)
    laptop.folder.hold.ask()
    await world.settle()
    assert desktop.contents() == set()
    assert not await is_held(world)


async def test_an_edit_elsewhere_wins_over_a_deletion_that_is_held(world: World) -> None:
    laptop, desktop = two(world)
    empty(laptop)
    hold = await wait_held(world, laptop)
    desktop.write(path(5), "still needed")
    await world.settle(desktop)
    await world._until(lambda: (laptop.path / path(5)).exists(), [laptop])
    await accept(world, hold)
    laptop.folder.hold.ask()
    await world.settle()
    assert [key for key, value in desktop.tree().items() if value[0] == "file"] == [path(5)]
    assert laptop.tree() == desktop.tree()
