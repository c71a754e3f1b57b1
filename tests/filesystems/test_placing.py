"""What a person does between the check and the rename, and links that are swapped in while files are placed."""

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from agent import place
from agent.filesystem import Root
from agent.place import Intent
from agent.plan import Change
from agent.trees import Node, replace
from broker.model import Kind
from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.unit.agent.disk import Disk

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

FILE_SYSTEMS = {
    "tmpfs, which exchanges": Mounts.tmpfs,
    "ext4, which exchanges": Mounts.ext4,
    "one that neither exchanges nor refuses to overwrite": lambda mounts, at: mounts.odd(
        at, "--plain-rename"
    ),
}


def once_after_check(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Do something right after the disk was compared with the plan. The list is filled when it was done."""
    check, done = place.check, list[int]()

    def then_act(root: Root, intent: Intent) -> set[str]:
        wrong = check(root, intent)
        if not done and not wrong:
            done.append(1)
            act()
        return wrong

    monkeypatch.setattr(place, "check", then_act)
    return done


def in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"LATE")


def by_rename(path: Path) -> None:
    new = path.with_name(".new")
    new.write_bytes(b"LATE")
    os.replace(new, path)


@pytest.mark.parametrize("save", [in_place, by_rename])
@pytest.mark.parametrize("mount", FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
async def test_no_edit_between_check_and_rename_is_lost(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount, save
) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    laptop.write("plan.txt", "first")
    await world.settle()
    done = once_after_check(monkeypatch, lambda: save(desktop.path / "plan.txt"))
    laptop.write("plan.txt", "second edition")
    await world.settle()
    assert done
    assert laptop.tree() == desktop.tree()
    held = {path.read_bytes()[:4] for path in desktop.path.iterdir() if path.is_file()}
    assert held == {b"seco", b"LATE"}
    assert desktop.stage() == []


@pytest.mark.parametrize("mount", FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
async def test_no_file_that_appears_at_the_name_is_overwritten(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, mount
) -> None:
    world, laptop, desktop = await pair()
    mount(mounts, desktop.path)
    await laptop.start()
    await desktop.start()
    await world.settle()
    done = once_after_check(monkeypatch, lambda: desktop.write("new.txt", "mine"))
    laptop.write("new.txt", "theirs")
    await world.settle()
    assert done
    assert laptop.tree() == desktop.tree()
    assert sorted(path.read_text() for path in desktop.path.iterdir() if path.is_file()) == ["mine", "theirs"]


def test_a_directory_swapped_for_a_link_while_thousands_of_files_are_placed_leads_nobody_out(
    mounts: Mounts, base: Path
) -> None:
    (base / "disk").mkdir()
    mounts.tmpfs(base / "disk")
    disk, outside = Disk(base / "disk"), base / "disk" / "outside"
    outside.mkdir()
    for number in range(FILES):
        disk.write(f"d/{number}", "old")
        (outside / str(number)).write_text("not ours")
    disk.look()
    stop, swaps = threading.Event(), list[int]()
    thread = threading.Thread(
        target=swap_for_a_link, args=(disk.path / "d", base / "disk" / "aside", outside, stop, swaps)
    )
    intent = replace_delete_and_make(disk)
    thread.start()
    try:
        outcome = disk.carry_out(intent)
    finally:
        stop.set()
        thread.join()
    assert len(swaps) > 10
    assert len(outcome.placed) < len(intent.steps), "no link was ever in the way"
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        str(number): "not ours" for number in range(FILES)
    }
    disk.root.close()


FILES = 3_000


def replace_delete_and_make(disk: Disk) -> Intent:
    """A third of the files gets other content, a third goes, and as many new ones come."""
    changes, contents = [], {}
    parent_id = disk.id_at("d")
    for number in range(FILES):
        old = disk.node(f"d/{number}")
        if number % 3 == 0:
            changes.append(Change(old, replace(old, digest=b"new", size=3)))
            contents[old.node_id] = "new"
        elif number % 3 == 1:
            changes.append(Change(old, None))
        else:
            fresh = Node(
                node_id=UUID(int=1_000_000 + number), parent_id=parent_id, name=f"new {number}", kind=Kind.FILE,
                mode=0o644, mtime_ns=1, size=3, digest=b"new",
            )  # fmt: skip
            changes.append(Change(None, fresh))
            contents[fresh.node_id] = "new"
    return disk.intend(changes, contents)


def swap_for_a_link(
    directory: Path, aside: Path, outside: Path, stop: threading.Event, swaps: list[int]
) -> None:
    """Put a link to `outside` in a directory's place, and the directory back, again and again."""
    while not stop.is_set():
        os.rename(directory, aside)
        try:
            directory.symlink_to(outside)
            os.listdir(aside)  # a moment, in which others run
            directory.unlink()
        finally:
            if directory.is_symlink():
                directory.unlink()
            os.rename(aside, directory)
        swaps.append(1)
