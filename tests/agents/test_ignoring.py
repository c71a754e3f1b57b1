"""Rules of what to ignore: what they name is nobody else's, and no change of them deletes anything anywhere."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from agent.filesystem import Root
from agent.ignore import Rules
from tests.agents.test_convergence import two
from tests.agents.world import Device, World
from tests.filesystems.people import errors, until


def names(device: Device) -> list[str]:
    return sorted(device.tree())


async def end(*devices: Device) -> None:
    for device in devices:
        await device.stop()


async def rules(world: World, author: Device, text: str) -> None:
    """Somebody writes the rules, and everybody has them."""
    author.write(".hutchignore", text)
    await world.settle()
    for device in world.devices.values():
        assert device.read(".hutchignore") == text.encode()


async def test_what_they_name_stays_where_it_is(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    await rules(world, laptop, "*.log\nbuild/\n!keep.log\n")
    for path in ("a.log", "keep.log", "build/x", "src/build/y", "src/main.c", "src/b.log", "build.txt"):
        laptop.write(path, path)
    (laptop.path / "link.log").symlink_to("a.log")
    await world.settle()
    assert names(desktop) == [".hutchignore", "build.txt", "keep.log", "src", "src/main.c"]
    assert errors(laptop) == {}
    await end(laptop, desktop)


async def test_systems_and_programs_own_files_are_ignored_unless_one_says_otherwise(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in (".DS_Store", "Thumbs.db", "~$report.docx", ".~lock.a.odt#", ".notes.txt.swp", "report.docx"):
        laptop.write(path, path)
    await world.settle()
    assert names(desktop) == ["report.docx"]
    await rules(world, desktop, "!Thumbs.db\n")
    assert names(desktop) == [".hutchignore", "Thumbs.db", "report.docx"]
    await end(laptop, desktop)


async def test_of_what_is_synced_already_each_device_keeps_what_it_has(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("build/x", "build/y", "build/z", "kept"):
        laptop.write(path, path)
    await world.settle()
    await rules(world, laptop, "build/\n")
    head = world.head
    laptop.write("build/x", "changed here")
    laptop.write("build/new", "new here")
    desktop.write("build/x", "changed there")
    (desktop.path / "build/y").unlink()
    await world.settle()
    await end(laptop, desktop)
    shutil.rmtree(desktop.path / "build")
    await laptop.start()
    await desktop.start()
    await world.settle()
    assert world.head == head, "something was told of what is ignored"
    assert names(laptop) == [".hutchignore", "build", "build/new", "build/x", "build/y", "build/z", "kept"]
    assert names(desktop) == [".hutchignore", "kept"]
    assert laptop.read("build/x") == b"changed here"
    await end(laptop, desktop)


async def test_rules_that_go_bring_back_what_one_has_deleted_and_keep_both_edits(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("build/both", "build/one", "build/deleted here", "build/deleted there", "build/same"):
        laptop.write(path, path)
    await world.settle()
    await rules(world, laptop, "build/\n")
    laptop.write("build/both", "edited on the laptop")
    desktop.write("build/both", "edited on the desktop")
    desktop.write("build/one", "edited on the desktop alone")
    (laptop.path / "build/deleted here").unlink()
    (desktop.path / "build/deleted there").unlink()
    for device in (laptop, desktop):
        device.write("build/new on both", "the same")
    await world.settle()
    await rules(world, desktop, "")
    assert names(laptop) == names(desktop)
    assert laptop.tree() == desktop.tree()
    contents = sorted(desktop.read(path) for path in names(desktop) if path.startswith("build/"))
    assert contents == [
        b"build/deleted here", b"build/deleted there", b"build/same", b"edited on the desktop",
        b"edited on the desktop alone", b"edited on the laptop", b"the same",
    ]  # fmt: skip
    await end(laptop, desktop)


async def test_rules_that_change_while_the_agent_does_not_run(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("build/x", "build/y"):
        laptop.write(path, path)
    await world.settle()
    await rules(world, laptop, "build/\n")
    (laptop.path / "build/x").unlink()
    await world.settle()
    await laptop.stop()
    (laptop.path / ".hutchignore").unlink()
    (laptop.path / "build/y").unlink()
    await laptop.start()
    await world.settle()
    assert names(laptop) == names(desktop) == ["build", "build/x", "build/y"]
    await end(laptop, desktop)


async def test_an_editor_that_moves_the_rules_aside_to_save_them_lets_nothing_through(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    await rules(world, laptop, "secret\n")
    laptop.write("secret", "not for others")
    await world.settle()
    (laptop.path / ".hutchignore").rename(laptop.path / ".hutchignore~")
    laptop.write("seen", "while there are none")
    await until(world, lambda: laptop.folder.replica.trees.local.find("seen"))
    (laptop.path / ".hutchignore~").unlink()
    laptop.write(".hutchignore", "secret\nother\n")
    await world.settle()
    assert names(desktop) == [".hutchignore", "seen"]
    assert desktop.read(".hutchignore") == b"secret\nother\n"
    assert len(world.chunks) == 3, "what is ignored was sent"
    await end(laptop, desktop)


async def test_a_device_that_joins_asks_for_the_rules_first(tmp_path: Path) -> None:
    world = await World.make(tmp_path)
    laptop = await world.device("laptop")
    await laptop.start()
    await rules(world, laptop, "build/\n*.tmp\n")
    desktop = await world.device("desktop")
    for path in ("build/x", "a.tmp", "text"):
        desktop.write(path, path)
    await desktop.start()
    await world.settle()
    assert names(laptop) == [".hutchignore", "text"]
    assert names(desktop) == [".hutchignore", "a.tmp", "build", "build/x", "text"]
    await end(laptop, desktop)


async def test_a_directory_that_another_deletes_stays_with_what_is_ignored_in_it(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("project/src", "project/out/told", "other"):
        laptop.write(path, path)
    await world.settle()
    await rules(world, laptop, "out/\n")
    desktop.write("project/out/never told", "mine")
    await world.settle()
    shutil.rmtree(laptop.path / "project")
    await world.settle()
    assert names(laptop) == [".hutchignore", "other"]
    assert names(desktop) == [
        ".hutchignore", "other", "project", "project/out", "project/out/never told", "project/out/told",
    ]  # fmt: skip
    await rules(world, laptop, "")
    assert names(desktop) == names(laptop)
    assert desktop.read("project/out/never told") == laptop.read("project/out/never told") == b"mine"
    await end(laptop, desktop)


async def test_a_line_that_makes_no_sense_is_said_and_the_others_hold(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    await rules(world, laptop, "*.log\n!\n*.tmp\n")
    for path in ("a.log", "a.tmp", "a.txt"):
        laptop.write(path, path)
    await world.settle()
    assert names(desktop) == [".hutchignore", "a.txt"]
    assert errors(laptop) == errors(desktop) == {".hutchignore": "bad_rule"}
    await rules(world, laptop, "*.log\n*.tmp\n")
    assert errors(laptop) == errors(desktop) == {}
    await end(laptop, desktop)


async def test_rules_that_are_no_file_ignore_nothing_and_hold_nothing_up(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write(".hutchignore/file", "text")
    laptop.write("a.txt", "text")
    await world.settle()
    assert names(laptop) == names(desktop) == [".hutchignore", ".hutchignore/file", "a.txt"]
    assert errors(laptop) == {".hutchignore": "bad_rule"}
    shutil.rmtree(laptop.path / ".hutchignore")
    laptop.write("b.txt", "text")
    await world.settle()
    assert names(desktop) == ["a.txt", "b.txt"]
    assert errors(laptop) == {}
    await end(laptop, desktop)


async def test_a_start_with_nothing_changed_asks_no_rule_and_reads_no_file(
    tmp_path: Path, monkeypatch
) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("a.txt", "b/c.txt", "b/d/e.txt"):
        laptop.write(path, path)
    await world.settle()
    await laptop.stop()
    asked: list[str] = []
    ignores, opened = Rules.ignores, Root.open

    def ask(self: Rules, path: str, *, is_directory: bool) -> bool:
        asked.append(path)
        return ignores(self, path, is_directory=is_directory)

    def read(self: Root, path: str) -> AbstractContextManager[int]:
        if self.folder == laptop.path:  # the other one may yet make sure of what it has just placed
            asked.append(path)
        return opened(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Rules, "ignores", ask)
        patch.setattr(Root, "open", read)
        await laptop.start()
        await world.settle()
        assert asked == []
        laptop.write("b/new.txt", "new")
        await world.settle(laptop)
        assert set(asked) == {"b/new.txt"}
    await laptop.stop()
    laptop.write(".hutchignore", "*.tmp\n")
    with monkeypatch.context() as patch:
        patch.setattr(Rules, "ignores", ask)
        await laptop.start()
        await world.settle()
        assert set(asked) >= {"a.txt", "b", "b/c.txt", "b/d/e.txt"}, "other rules may name what is known"
    await end(laptop, desktop)
