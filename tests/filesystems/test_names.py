"""Names that are one to a file system, or that it refuses: kept where they can be, said where they cannot."""

from collections.abc import Awaitable, Callable

import pytest

from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import errors, until

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

NFC, NFD = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
FOLDING = {
    "case": (["--fold-case"], "Readme", "README"),
    "case, without an exchange": (["--fold-case", "--plain-rename"], "Readme", "README"),
    "spelling": (["--normalise"], NFC, NFD),
    "both": (["--fold-case", "--normalise"], NFC, NFD.upper()),
}
each_folding = pytest.mark.parametrize(("options", "one", "other"), FOLDING.values(), ids=FOLDING)


@each_folding
async def test_of_two_names_that_are_one_here_the_first_is_here_and_the_second_is_said(
    pair: Make, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, options: list[str], one: str, other: str
) -> None:
    monkeypatch.setattr("agent.fetch._RETRY_BROKEN_S", 0.5)
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write(one, "the first")
    await world.settle()
    laptop.write(other, "the second")
    laptop.write("with it/file", "arrives")
    await world.settle()
    assert errors(desktop) == {other: "name_clash"}
    assert desktop.read(one) == b"the first"
    assert desktop.read("with it/file") == b"arrives"
    assert len(desktop.tree()) == 3
    # Each of the two is edited for itself, and nothing here is told of as if it were the other.
    laptop.write(other, "the second, edited")
    desktop.write(one, "the first, edited")
    await world.settle()
    assert (laptop.read(one), laptop.read(other)) == (b"the first, edited", b"the second, edited")
    # The clash ends: what was left out arrives.
    (laptop.path / one).unlink()
    await world.settle()
    await until_equal(world, laptop, desktop, other, b"the second, edited")
    assert errors(desktop) == {}


async def until_equal(world: World, laptop: Device, desktop: Device, name: str, content: bytes) -> None:
    """Wait until a file is on the desktop too."""
    await until(world, lambda: (desktop.path / name).exists() and desktop.read(name) == content)
    await world.settle()


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
