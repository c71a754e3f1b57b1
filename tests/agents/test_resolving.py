"""What a person decides of a conflict copy is done on all devices, and nothing is lost by it."""

import contextlib
from pathlib import Path

import pytest

from agent import place
from agent.filesystem import Root
from agent.place import Staged
from agent.plan import Change
from agent.resolve import Choice
from broker.errors import NotFound, Refused
from tests.agents.test_copies import copies, lose, two_with_a_plan, versions_below
from tests.agents.world import Device, World


async def in_conflict(base: Path) -> tuple[World, Device, Device, str]:
    """A plan.txt of the laptop, and the desktop's copy beside it, on both."""
    world, laptop, desktop = await two_with_a_plan(base)
    await lose(world, laptop, desktop, 0)
    return world, laptop, desktop, copies(desktop)[0]


async def stop(*devices: Device) -> None:
    for device in devices:
        await device.stop()


async def test_a_copy_is_described(tmp_path: Path) -> None:
    _, laptop, desktop, path = await in_conflict(tmp_path)
    for device in (laptop, desktop):
        [copy] = device.folder.resolver.copies()
        assert (copy.path, copy.original, copy.device, copy.kind) == (path, "plan.txt", "desktop", "file")
        assert (copy.synced, copy.size_bytes) == (True, len("desktop 0"))
    await stop(laptop, desktop)


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ("mine", {"plan.txt": b"desktop 0"}),
        ("theirs", {"plan.txt": b"laptop 0"}),
        ("both", {"plan.txt": b"laptop 0", "plan 2.txt": b"desktop 0"}),
    ],
)
@pytest.mark.parametrize("who", ["laptop", "desktop"])
async def test_a_choice_is_carried_out_everywhere(
    tmp_path: Path, choice: Choice, left: dict[str, bytes], who: str
) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    told = await world.devices[who].folder.resolver.resolve(path, choice)
    assert told == {"path": "plan 2.txt" if choice == "both" else "plan.txt", "copy": path}
    await world.settle()
    for device in (laptop, desktop):
        assert {name: device.read(name) for name in device.tree()} == left
        assert device.folder.resolver.copies() == []
        assert device.stage() == []
    assert {b"laptop 0", b"desktop 0"} <= versions_below(world, "")
    await stop(laptop, desktop)


async def test_a_merge_of_both_takes_the_originals_place_and_mode(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    (desktop.path / "plan.txt").chmod(0o640)
    await world.settle()
    [copy] = desktop.folder.resolver.copies()
    assert copy.original_digest is not None
    await desktop.folder.resolver.resolve(
        path, "merged", expected=(copy.digest, copy.original_digest), content=b"both"
    )
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert laptop.contents() == desktop.contents()
    assert {name: laptop.read(name) for name in laptop.tree()} == {"plan.txt": b"both"}
    assert (laptop.path / "plan.txt").stat().st_mode & 0o777 == 0o640
    assert {b"laptop 0", b"desktop 0", b"both"} <= versions_below(world, "")
    await stop(laptop, desktop)


async def test_what_both_came_from_is_remembered_over_a_restart(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    for _ in ("running", "again"):
        copy = await desktop.folder.resolver.copy(path)
        assert copy.base is not None
        assert b"".join(world.chunks[bytes.fromhex(hash_)] for hash_, _ in copy.base) == b"first"
        await desktop.stop()
        await desktop.start()
        await world.settle()
    assert (await laptop.folder.resolver.copy(path)).base is None  # it was made on the desktop
    await desktop.folder.resolver.resolve(path, "theirs")
    await world.settle()
    assert desktop.folder.replica.bases == {}
    await stop(laptop, desktop)


async def test_a_later_loss_has_a_later_base(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    await lose(world, laptop, desktop, 1)
    copy = await desktop.folder.resolver.copy(path)
    assert copy.base is not None
    assert b"".join(world.chunks[bytes.fromhex(hash_)] for hash_, _ in copy.base) == b"laptop 0"
    await stop(laptop, desktop)


@pytest.mark.parametrize("choice", ["mine", "theirs"])
@pytest.mark.parametrize("which", ["copy", "original"])
async def test_what_is_not_in_the_journal_yet_is_not_replaced(
    tmp_path: Path, choice: Choice, which: str
) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    desktop.online.clear()
    desktop.write(path if which == "copy" else "plan.txt", "newer")
    await desktop.folder.looker.look_at_all()
    before = desktop.contents()
    with pytest.raises(Refused, match="hutch wait") as refused:
        await desktop.folder.resolver.resolve(path, choice)
    assert refused.value.code == "not_synced"
    assert desktop.contents() == before
    desktop.online.set()
    await world.settle()
    assert b"newer" in {laptop.read(name) for name in laptop.tree()}
    await stop(laptop, desktop)


@pytest.mark.parametrize("choice", ["mine", "theirs"])
@pytest.mark.parametrize("which", ["copy", "original"])
async def test_an_edit_that_no_look_has_seen_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice, which: str
) -> None:
    """The disk is compared with what was seen before anything is done; a late edit is nobody's version yet."""
    world, laptop, desktop, path = await in_conflict(tmp_path)
    place_decided = desktop.folder.fetcher.place_decided

    async def place_late(change: Change, staged: Staged | None) -> bool:
        desktop.write(path if which == "copy" else "plan.txt", "late edit")
        return await place_decided(change, staged)

    with monkeypatch.context() as patch, contextlib.suppress(Refused):
        patch.setattr(desktop.folder.fetcher, "place_decided", place_late)
        await desktop.folder.resolver.resolve(path, choice)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    contents = {desktop.read(name) for name in desktop.tree()}
    assert b"late edit" in contents
    assert {b"laptop 0", b"desktop 0"} <= contents | versions_below(world, "")
    await stop(laptop, desktop)


@pytest.mark.parametrize("choice", ["mine", "theirs"])
@pytest.mark.parametrize("which", ["copy", "original"])
async def test_what_a_program_has_open_is_left_alone(tmp_path: Path, choice: Choice, which: str) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    before = desktop.contents()
    file = desktop.path / (path if which == "copy" else "plan.txt")
    with file.open("r+b"), pytest.raises(Refused, match="open") as refused:
        await desktop.folder.resolver.resolve(path, choice)
    assert refused.value.code == "open"
    await world.settle()
    assert desktop.contents() == before
    await stop(laptop, desktop)


async def test_a_copy_without_its_original_gets_the_name_back(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    (laptop.path / "plan.txt").unlink()
    await world.settle()
    with pytest.raises(NotFound, match="keep mine"):
        await desktop.folder.resolver.resolve(path, "theirs")
    await desktop.folder.resolver.resolve(path, "mine")
    await world.settle()
    assert {name: laptop.read(name) for name in laptop.tree()} == {"plan.txt": b"desktop 0"}
    assert laptop.tree() == desktop.tree()
    await stop(laptop, desktop)


async def test_an_original_that_was_renamed_is_still_the_original(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    (laptop.path / "plan.txt").rename(laptop.path / "final.txt")
    await world.settle()
    await desktop.folder.resolver.resolve(path, "mine")
    await world.settle()
    assert {name: laptop.read(name) for name in laptop.tree()} == {"final.txt": b"desktop 0"}
    await stop(laptop, desktop)


async def test_an_ordinary_name_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    world, laptop, desktop, path = await in_conflict(tmp_path)
    desktop.write("plan 2.txt", "another")
    await world.settle()
    told = await desktop.folder.resolver.resolve(path, "both")
    assert told["path"] == "plan 3.txt"
    await world.settle()
    assert laptop.read("plan 2.txt") == b"another"
    assert laptop.read("plan 3.txt") == b"desktop 0"
    await stop(laptop, desktop)


async def test_other_content_than_was_shown_is_not_replaced(tmp_path: Path) -> None:
    _, laptop, desktop, path = await in_conflict(tmp_path)
    with pytest.raises(Refused, match="look again"):
        await desktop.folder.resolver.resolve(path, "merged", expected=("00", "00"), content=b"both")
    with pytest.raises(NotFound, match="hutch conflicts"):
        await desktop.folder.resolver.resolve("plan.txt", "theirs")
    await stop(laptop, desktop)


async def test_a_disk_that_is_full_keeps_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, laptop, desktop, path = await in_conflict(tmp_path)
    before = desktop.contents()

    def full(fd: int, *_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agent.stage.os.pwrite", full)
        with pytest.raises(OSError, match="No space"):
            await desktop.folder.resolver.resolve(path, "mine")
    assert desktop.contents() == before
    assert desktop.stage() == []
    await stop(laptop, desktop)


@pytest.mark.parametrize("choice", ["mine", "merged", "theirs"])
@pytest.mark.parametrize("steps_done", [False, True])
async def test_a_crash_in_the_middle_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Choice, steps_done: bool
) -> None:
    """The intent is written by then: the next start does the rest, and what was not begun is left as it was."""
    world, laptop, desktop, path = await in_conflict(tmp_path)
    carry_out = place.carry_out

    def crash(root: Root, intent: place.Intent) -> place.Outcome:
        if steps_done:
            carry_out(root, intent)
        raise ZeroDivisionError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(place, "carry_out", crash)
        with pytest.raises(ZeroDivisionError):
            await desktop.folder.resolver.resolve(path, choice, content=b"both")
        await desktop.stop()
    await desktop.start()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    kept = {"mine": b"desktop 0", "merged": b"both", "theirs": b"laptop 0"}[choice]
    assert laptop.read("plan.txt") == kept
    assert copies(laptop) == ([] if choice == "theirs" else [path])
    assert {b"laptop 0", b"desktop 0", kept} <= versions_below(world, "")
    assert desktop.stage() == []
    await stop(laptop, desktop)
