"""Names that are one to a file system, or that it refuses: kept where they can be, said where they cannot."""

import shutil
import unicodedata
from collections.abc import Awaitable, Callable

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import aliases, errors, until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

NFC, NFD = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
FOLDING = {
    "case": (["--fold-case"], "Readme", "README"),
    "case, without an exchange": (["--fold-case", "--plain-rename"], "Readme", "README"),
    "spelling": (["--normalise"], NFC, NFD),
    "both": (["--fold-case", "--normalise"], NFC, NFD.upper()),
}
each_folding = pytest.mark.parametrize(("options", "one", "other"), FOLDING.values(), ids=FOLDING)


def listed(device: Device) -> list[str]:
    """All paths; a file system may spell them otherwise than they were written."""
    return spelled(*device.tree())


def spelled(*paths: str) -> list[str]:
    return sorted(unicodedata.normalize("NFD", path) for path in paths)


@each_folding
async def test_of_two_names_that_are_one_here_the_second_gets_an_alias_that_nobody_is_told_of(
    pair: Make, mounts: Mounts, options: list[str], one: str, other: str
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write(one, "the first")
    await world.settle()
    laptop.write(other, "the second")
    laptop.write("with it/file", "arrives")
    await world.settle()
    alias = f"{other} (other spelling)"
    assert aliases(desktop) == {alias: other}
    assert (desktop.read(one), desktop.read(alias)) == (b"the first", b"the second")
    assert desktop.read("with it/file") == b"arrives"
    assert errors(desktop) == {}
    # Each of the two is edited for itself, on both sides.
    laptop.write(other, "the second, edited")
    desktop.write(one, "the first, edited")
    await world.settle()
    assert desktop.read(alias) == b"the second, edited"
    assert laptop.read(one) == b"the first, edited"
    desktop.write(alias, "the second, edited under its alias")
    await world.settle()
    assert laptop.read(other) == b"the second, edited under its alias"
    # A restart, and a look at everything, see nothing new.
    head = world.head
    await desktop.stop()
    await desktop.start()
    await world.settle()
    assert world.head == head
    # The clash ends: the second gets its own name.
    (laptop.path / one).unlink()
    await until(world, lambda: aliases(desktop) == {})
    await world.settle()
    assert listed(desktop) == listed(laptop) == spelled(other, "with it", "with it/file")
    assert world.head.seq == head.seq + 1
    assert (desktop.stage(), errors(desktop)) == ([], {})


@each_folding
async def test_what_a_person_does_to_an_alias_is_done_to_the_file(
    pair: Make, mounts: Mounts, options: list[str], one: str, other: str
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    laptop.write(f"dir/{one}", "the first")
    laptop.write(f"dir/{other}", "the second")
    laptop.write("elsewhere/file", "file")
    await laptop.start()
    await desktop.start()
    await world.settle()
    (alias,) = aliases(desktop)
    # Moved elsewhere it has its own name, here and there.
    (desktop.path / alias).rename(desktop.path / "elsewhere" / alias.rpartition("/")[2])
    await world.settle()
    await until(world, lambda: aliases(desktop) == {})
    await world.settle()
    moved = next(
        path for path in laptop.tree() if path.startswith("elsewhere/") and not path.endswith("file")
    )
    assert moved.rpartition("/")[2] in (one, other)
    assert listed(laptop) == listed(desktop)
    # Moved back it is an alias again, and a new name is one for everybody.
    (laptop.path / moved).rename(laptop.path / "dir" / moved.rpartition("/")[2])
    await world.settle()
    (alias,) = aliases(desktop)
    (desktop.path / alias).rename(desktop.path / "dir" / "named by a person")
    await world.settle()
    assert listed(laptop) == listed(desktop)
    assert "dir/named by a person" in laptop.tree()
    assert aliases(desktop) == {}
    assert len(world.chunks) == 3, "a rename has sent content"


@each_folding
async def test_deleting_an_alias_deletes_the_file_and_nothing_else(
    pair: Make, mounts: Mounts, options: list[str], one: str, other: str
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    laptop.write(one, "the first")
    await laptop.start()
    await desktop.start()
    await world.settle()
    laptop.write(other, "the second")
    await world.settle()
    (alias,) = aliases(desktop)
    (desktop.path / alias).unlink()
    await world.settle()
    assert listed(laptop) == listed(desktop) == spelled(one)


@each_folding
async def test_two_directories_whose_names_are_one_here_are_both_here(
    pair: Make, mounts: Mounts, options: list[str], one: str, other: str
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write(f"{one}/{one}", "the first")
    await world.settle()
    laptop.write(f"{other}/{one}", "the second")
    laptop.write(f"{other}/{other}", "the third")
    await world.settle()
    alias = f"{other} (other spelling)"
    assert aliases(desktop)[alias] == other
    assert len(desktop.tree()) == len(laptop.tree()) == 5
    desktop.write(f"{alias}/new", "made below an alias")
    await world.settle()
    assert laptop.read(f"{other}/new") == b"made below an alias"
    # They change names with each other, below which nothing changes.
    (laptop.path / one).rename(laptop.path / "x")
    (laptop.path / other).rename(laptop.path / one)
    (laptop.path / "x").rename(laptop.path / other)
    await world.settle()
    contents = sorted(desktop.read(path) for path, (kind, *_) in desktop.tree().items() if kind == "file")
    assert contents == [b"made below an alias", b"the first", b"the second", b"the third"]
    # One of them goes with all that it holds: the other gets its own name.
    shutil.rmtree(laptop.path / other)
    await world.settle()
    await until(world, lambda: len(aliases(desktop)) == 1)  # of the two files in it
    assert spelled(*(path for path in desktop.tree() if "/" not in path)) == spelled(one)
    (desktop.path / one / "new").unlink()
    await world.settle()
    assert len(desktop.tree()) == len(laptop.tree()) == 3
    assert (desktop.stage(), errors(desktop)) == ([], {})


async def test_a_name_arrives_in_the_moment_in_which_another_spelling_of_it_goes(
    pair: Make, mounts: Mounts
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, "--fold-case")
    await laptop.start()
    await desktop.start()
    laptop.write("Readme", "the first")
    await world.settle()
    await desktop.stop()
    (laptop.path / "Readme").unlink()
    laptop.write("README", "the second")
    await world.settle(laptop)
    await desktop.start()
    await world.settle()
    await until(world, lambda: sorted(desktop.tree()) == ["README"])
    assert desktop.read("README") == b"the second"


async def test_an_alias_stays_untold_when_another_of_the_same_name_comes_to_its_directory(
    pair: Make, mounts: Mounts
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, "--fold-case")
    await laptop.start()
    await desktop.start()
    for path in ("Readme", "dir/Readme"):
        laptop.write(path, f"the first {path}")
    await world.settle()
    for path in ("README", "dir/README"):
        laptop.write(path, f"the second {path}")
    await world.settle()
    assert set(aliases(desktop)) == {"README (other spelling)", "dir/README (other spelling)"}
    await desktop.stop()
    (laptop.path / "dir" / "Readme").unlink()
    (laptop.path / "README").rename(laptop.path / "dir" / "readme")
    await world.settle(laptop)
    before, head = laptop.tree(), world.head
    await desktop.start()
    await world.settle()
    desktop.folder.looker.hint("", deep=True)
    await world.settle()
    assert (laptop.tree(), world.head) == (before, head)
    assert len(aliases(desktop)) == 1
    assert desktop.contents() == laptop.contents()


@pytest.mark.parametrize("options", [["--fold-case"], ["--fold-case", "--plain-rename"]])
async def test_a_rename_of_case_alone_arrives_where_case_is_folded_and_comes_from_there(
    pair: Make, mounts: Mounts, options: list[str]
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write("dir/readme", "text")
    await world.settle()
    (laptop.path / "dir" / "readme").rename(laptop.path / "dir" / "README")
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["dir", "dir/README"]
    (laptop.path / "dir").rename(laptop.path / "DIR")
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["DIR", "DIR/README"]
    head = world.head
    # There a person needs two steps: to the kernel the two names are one.
    (desktop.path / "DIR" / "README").rename(desktop.path / "DIR" / "x")
    (desktop.path / "DIR" / "x").rename(desktop.path / "DIR" / "Readme")
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["DIR", "DIR/Readme"]
    assert world.head.seq == head.seq + 1
    assert len(world.chunks) == 1, "a rename has sent content"
    assert (desktop.stage(), errors(desktop)) == ([], {})


async def test_names_that_a_file_system_refuses_are_said_there_and_kept_elsewhere(
    pair: Make, mounts: Mounts
) -> None:
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, "--refuse", ':?"<>|*\\', "--name-bytes", "143")
    await laptop.start()
    await desktop.start()
    refused = ["a:b", "what?", "back\\slash", "n" * 200]
    for name in [*refused, "plain", "con", "trailing."]:
        laptop.write(name, f"in {name}")
    laptop.write("dir:ectory/inside", "below a name that it refuses")
    await world.settle()
    assert sorted(desktop.tree()) == ["con", "plain", "trailing."]
    assert errors(desktop) == dict.fromkeys([*refused, "dir:ectory"], "name_refused")
    assert errors(laptop) == {}
    # What is renamed to a name that it takes arrives; nothing was deleted elsewhere meanwhile.
    (laptop.path / "what?").rename(laptop.path / "what")
    (laptop.path / "dir:ectory").rename(laptop.path / "directory")
    await world.settle()
    assert {"what", "directory", "directory/inside"} <= set(desktop.tree())
    assert len(laptop.tree()) == 9
    await desktop.stop()
    await desktop.start()
    await world.settle()
    assert errors(desktop) == dict.fromkeys(["a:b", "back\\slash", "n" * 200], "name_refused")
    assert len(laptop.tree()) == 9


async def test_all_such_names_are_kept_where_they_can_be(pair: Make, mounts: Mounts) -> None:
    world, laptop, desktop = await pair()
    mounts.ext4(desktop.path)
    await laptop.start()
    await desktop.start()
    names = [
        "README",
        "readme",
        NFC,
        NFD,
        "a:b",
        "what?",
        "con",
        "aux.txt",
        "trailing.",
        "trailing ",
        "back\\slash",
        "n" * 255,
    ]
    for name in names:
        laptop.write(name, f"in {name}")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert len(desktop.tree()) == len(names)
    assert (errors(laptop), errors(desktop)) == ({}, {})
