"""What other synchronisers have lost to names that a disk takes for one: whole agents on such disks.

Those that need no disk of their own are in `tests/agents/test_scenarios.py`; `docs/scenarios.md` has them all.
"""

import unicodedata
from collections.abc import Awaitable, Callable

import pytest

from tests.agents.people import remove
from tests.agents.world import Device, World
from tests.filesystems.mounts import Mounts
from tests.filesystems.people import aliases, errors

Make = Callable[[], Awaitable[tuple[World, Device, Device]]]

NFC, NFD = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"

ONE_SPELLING = {
    "as macOS was": ["--normalise"],
    "as macOS is": ["--normalise", "--keep-spelling"],
    "without an exchange": ["--normalise", "--plain-rename"],
}


def spelled(*paths: str) -> list[str]:
    """Paths in one spelling of their letters."""
    return sorted(unicodedata.normalize("NFC", path) for path in paths)


@pytest.mark.parametrize("is_away", [False, True], ids=["each told at once", "told together"])
@pytest.mark.parametrize("options", [["--fold-case"], ["--fold-case", "--plain-rename"]])
async def test_a_name_whose_case_changes_twice_keeps_its_file(
    pair: Make, mounts: Mounts, options: list[str], is_away: bool
) -> None:
    """Maestral 1.6.4: of two quick changes of case the second deleted the file. Before Syncthing 1.9, and in Seafile, the first."""
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write("readme", "text")
    laptop.write("docs/file", "text below")
    await world.settle()
    if is_away:
        await desktop.stop()
    for old, new in (("readme", "Readme"), ("docs", "Docs"), ("Readme", "README"), ("Docs", "DOCS")):
        (laptop.path / old).rename(laptop.path / new)
        await world.settle(laptop)
    if is_away:
        await desktop.start()
    await world.settle()
    assert sorted(desktop.tree()) == sorted(laptop.tree()) == ["DOCS", "DOCS/file", "README"]
    assert (desktop.read("README"), desktop.read("DOCS/file")) == (b"text", b"text below")
    assert (aliases(desktop), errors(desktop), desktop.stage()) == ({}, {}, [])


@pytest.mark.parametrize("names", [(NFC, NFD), (NFD, NFC)], ids=["composed first", "decomposed first"])
@pytest.mark.parametrize("options", ONE_SPELLING.values(), ids=ONE_SPELLING)
async def test_another_spelling_of_a_name_comes_to_rest_and_keeps_its_file(
    pair: Make, mounts: Mounts, options: list[str], names: tuple[str, str]
) -> None:
    """Maestral 1.8.0: two machines that spelled a name's accent otherwise deleted and made the file without end."""
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    laptop.write(names[0], "text")
    laptop.write(f"in {names[0]}/{names[0]}", "text below")
    await world.settle()
    (laptop.path / names[0]).rename(laptop.path / names[1])
    (laptop.path / f"in {names[0]}").rename(laptop.path / f"in {names[1]}")
    await world.settle()
    head, chunks = world.head, dict(world.chunks)
    for device in (laptop, desktop):
        await device.stop()
        await device.start()
        device.folder.looker.hint("", deep=True)
        await world.settle()
    assert (world.head, world.chunks) == (head, chunks), "there was more to say"
    assert sorted(laptop.tree()) == sorted([names[1], f"in {names[1]}", f"in {names[1]}/{names[0]}"])
    assert desktop.contents() == laptop.contents()
    laptop.write(names[1], "text, edited under its new name")
    (laptop.path / f"in {names[1]}" / names[0]).rename(laptop.path / f"in {names[1]}" / names[1])
    laptop.write(f"in {names[1]}/{names[1]}", "renamed and edited at once")
    await world.settle()
    desktop.folder.looker.hint("", deep=True)
    await world.settle()
    assert sorted(laptop.tree()) == sorted([names[1], f"in {names[1]}", f"in {names[1]}/{names[1]}"])
    assert spelled(*desktop.tree()) == spelled(*laptop.tree())
    assert desktop.contents() == laptop.contents()
    assert (aliases(desktop), errors(desktop), desktop.stage()) == ({}, {}, [])


@pytest.mark.parametrize("options", ONE_SPELLING.values(), ids=ONE_SPELLING)
async def test_decomposed_names_outlive_a_rename_on_either_side(
    pair: Make, mounts: Mounts, options: list[str]
) -> None:
    """Maestral 1.6.3: items with a decomposed name were deleted when they, or a directory above, were renamed."""
    world, laptop, desktop = await pair()
    mounts.odd(desktop.path, *options)
    await laptop.start()
    await desktop.start()
    for number in range(3):
        laptop.write(f"{NFD}/{NFD} {number}", f"content {number}")
    await world.settle()
    (desktop.path / NFC).rename(desktop.path / f"new {NFC}")
    await world.settle()
    (laptop.path / f"new {NFC}").rename(laptop.path / f"other {NFD}")
    (laptop.path / f"other {NFD}" / f"{NFD} 0").rename(laptop.path / f"{NFD} moved out")
    await world.settle()
    assert spelled(*laptop.tree()) == spelled(*desktop.tree())
    assert len(laptop.tree()) == 4
    assert len(desktop.contents()) == 3
    assert len(world.chunks) == 3, "a rename has sent content"
    remove(desktop.path / f"other {NFC}")
    await world.settle()
    assert spelled(*laptop.tree()) == spelled(*desktop.tree()) == [f"{NFC} moved out"]
