"""How other synchronisers have lost or doubled their people's files, tried here: whole agents, real files, real SQLite.

Each test names in its docstring who lost what. `docs/scenarios.md` has them all, also those that are held elsewhere.
"""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agent import caution
from agent.scan import RootGone
from agent.service import Stream
from broker.errors import CursorUnknown, Unavailable
from broker.messages import SnapshotNode, decode_content
from broker.model import Chunk
from tests.agents.people import remove
from tests.agents.world import Device, Line, World

Pair = tuple[World, Device, Device]
NOBODYS_NAME = os.fsdecode(b"no \xff name")
"""What not every device can have, and so is not synced."""


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """A laptop and a desktop at work in the same, empty workspace."""
    world = await World.make(tmp_path)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    for device in (laptop, desktop):
        await device.start()
    yield world, laptop, desktop
    for device in world.devices.values():
        await device.stop()


@asynccontextmanager
async def cut_off(*devices: Device) -> AsyncIterator[None]:
    """Devices without a connection. What was done there is known to their agents when they have it again."""
    for device in devices:
        device.online.clear()
    yield
    for device in devices:
        await device.folder.looker.look_at_all()
    for device in devices:
        device.online.set()


async def until(world: World, condition: Callable[[], object]) -> None:
    """Wait for a condition; what ends an agent is raised."""

    def holds() -> bool:
        for device in world.devices.values():
            device.check()
        return bool(condition())

    async with asyncio.timeout(20):
        await world._until(holds, world.devices.values())


def lose_database(device: Device) -> None:
    """The device's agent must not run."""
    for file in device.home.glob("index.sqlite*"):
        file.unlink()


def texts(device: Device) -> list[bytes]:
    """What all its files hold."""
    return sorted(device.read(path) for path, entry in device.tree().items() if entry[0] == "file")


def history(world: World) -> set[bytes]:
    """Every content that the journal has ever had."""
    return {
        b"".join(world.chunks[chunk.hash] for chunk in decode_content(version.manifest).chunks)
        for version in world.store.versions.values()
    }


# --- what is gone for a moment, or cannot be had, was not deleted


async def test_an_agent_that_starts_before_its_disk_is_there_deletes_nothing(pair: Pair) -> None:
    """Syncthing (2014, 2017), onedrive: with the external disk absent, all was deleted elsewhere."""
    world, laptop, desktop = pair
    laptop.write("photos/1.raw", "photo")
    await world.settle()
    await desktop.stop()
    before, head, disk = laptop.tree(), world.head, desktop.path.with_name("disk")
    desktop.path.rename(disk)
    desktop.path.mkdir()
    with pytest.raises(RootGone):
        await desktop.start()
    assert list(desktop.path.iterdir()) == [], "something was written into the empty mount point"
    desktop.path.rmdir()
    disk.rename(desktop.path)
    await desktop.start()
    await world.settle()
    assert (laptop.tree(), desktop.tree(), world.head) == (before, before, head)


@pytest.mark.parametrize("database", ["kept", "lost"])
async def test_a_folder_that_was_copied_to_another_disk_is_the_same_folder(pair: Pair, database: str) -> None:
    """Nextcloud (2019): after the folder had moved to another drive and was linked anew, it was emptied everywhere."""
    world, laptop, desktop = pair
    for number in range(30):
        laptop.write(f"{number % 3}/{number}", f"content {number}")
    await world.settle()
    await desktop.stop()
    before, head, disk = laptop.tree(), world.head, desktop.path.with_name("disk")
    shutil.copytree(desktop.path, disk, symlinks=True)
    shutil.rmtree(desktop.path)
    disk.rename(desktop.path)
    if database == "lost":
        lose_database(desktop)
    await desktop.start()
    await world.settle()
    assert (laptop.tree(), desktop.tree(), world.head) == (before, before, head)


async def test_files_that_vanish_are_not_called_synced_and_stay_in_history(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nextcloud (2018): 500 GB went from the disk, nobody knows why, and the client showed that all was well."""
    monkeypatch.setattr(caution, "MOST_QUIET_S", 0.2)
    world, laptop, desktop = pair
    for number in range(40):
        laptop.write(f"{number}", f"content {number}")
    await world.settle()
    before = desktop.tree()
    async with cut_off(laptop):
        for number in range(30):
            (laptop.path / str(number)).unlink()
        await laptop.folder.looker.look_at_all()
        assert not laptop.folder.is_settled
        assert laptop.folder.status()["pending_up"] == 30
        assert desktop.tree() == before
    await world.settle()
    assert len(laptop.tree()) == len(desktop.tree()) == 10
    assert history(world) == {f"content {number}".encode() for number in range(40)}


async def test_a_download_that_fails_deletes_nothing_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Onedrive (2025): what could not be downloaded was missing on disk, and so deleted online."""
    world, laptop, desktop = pair
    laptop.write("old", "first")
    await world.settle()
    failed: list[int] = []

    async def download(self: Line, *_: object) -> set[bytes]:
        failed.append(1)
        raise Unavailable("it breaks off")

    with monkeypatch.context() as patch:
        patch.setattr(Line, "download", download)
        laptop.write("old", "second")
        laptop.write("new/file", "new")
        await until(world, lambda: failed)
        await world.settle(laptop)
        before, head = laptop.tree(), world.head
        await desktop.folder.looker.look_at_all()
        await desktop.stop()
        failed.clear()
        await desktop.start()
        await desktop.folder.looker.look_at_all()
        await until(world, lambda: failed)
        assert not desktop.folder.is_settled
        assert (world.head, laptop.tree(), desktop.read("old")) == (head, before, b"first")
    await world.settle()
    assert (world.head, laptop.tree(), desktop.tree()) == (head, before, before)


async def test_a_service_that_breaks_off_its_answer_deletes_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Onedrive: an HTTP 504 in the middle of a listing deleted the local files that it had not named."""
    world, laptop, desktop = pair
    for number in range(10):
        laptop.write(f"{number}", f"content {number}")
    await world.settle()
    await desktop.stop()
    lose_database(desktop)
    before, head, asked = laptop.tree(), world.head, list[int]()

    async def half(whole: Stream[SnapshotNode]) -> AsyncIterator[SnapshotNode]:
        for _ in range(5):
            yield await anext(aiter(whole))
        asked.append(1)
        raise Unavailable("504")

    snapshot = Line.snapshot

    @asynccontextmanager
    async def broken_off(self: Line, workspace_id: UUID) -> AsyncIterator[Stream[SnapshotNode]]:
        async with snapshot(self, workspace_id) as whole:
            yield Stream(whole.head, 10, half(whole))

    with monkeypatch.context() as patch:
        patch.setattr(Line, "snapshot", broken_off)
        await desktop.start()
        await desktop.folder.looker.look_at_all()
        await until(world, lambda: len(asked) > 1)
        assert (world.head, desktop.tree()) == (head, before)
    await world.settle()
    assert (world.head, laptop.tree(), desktop.tree()) == (head, before, before)


# --- what was deleted stays deleted, and what was made again is there


@pytest.mark.parametrize("is_seen", [False, True], ids=["at once", "when its deletion is told already"])
async def test_what_is_made_again_in_the_moment_of_its_deletion_is_there(pair: Pair, is_seen: bool) -> None:
    """Hughes et al. on Dropbox (2016): a file that was deleted and made again within a second was gone."""
    world, laptop, desktop = pair
    laptop.write("file", "first")
    laptop.write("directory/file", "first")
    await world.settle()
    for path in ("file", "directory"):
        remove(laptop.path / path)
    if is_seen:
        await laptop.folder.looker.look_at_all()
        await until(world, lambda: world.head.seq > 1)
    laptop.write("file", "second")
    laptop.write("directory/file", "second")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert sorted(desktop.tree()) == ["directory", "directory/file", "file"]
    assert texts(desktop) == [b"second", b"second"]


async def test_what_was_deleted_long_ago_stays_deleted_when_all_is_read_anew(pair: Pair) -> None:
    """Dropbox (2017): a job that repaired the records brought back files deleted years before."""
    world, laptop, desktop = pair
    for path in ("gone", "docs/gone", "docs/kept"):
        laptop.write(path, path)
    await world.settle()
    for path in ("gone", "docs/gone"):
        (laptop.path / path).unlink()
    await world.settle()
    for device in (laptop, desktop):
        await device.stop()
        lose_database(device)
    head = world.head
    for device in (laptop, desktop):
        await device.start()
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["docs", "docs/kept"]
    assert world.head == head


@pytest.mark.parametrize("journal", ["whole", "its beginning gone"])
async def test_a_device_that_was_away_for_weeks_brings_nothing_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    """Syncthing (2014, 2016): a device that had been off for weeks pushed the files that others had deleted."""
    world, laptop, desktop = pair
    for path in ("gone", "docs/gone", "docs/kept", "old/gone", "edited"):
        laptop.write(path, f"the first {path}")
    await world.settle()
    await desktop.stop()
    for path in ("gone", "docs/gone", "old"):
        remove(laptop.path / path)
        await world.settle(laptop)
    laptop.write("new", "new")
    await world.settle(laptop)
    desktop.write("edited", "edited while away")
    changes, asked = Line.changes, list[int]()

    def forgotten(self: Line, *arguments: Any) -> Any:
        if self.device is desktop and not asked:
            asked.append(1)
            raise CursorUnknown("that is too long ago")
        return changes(self, *arguments)

    if journal != "whole":
        monkeypatch.setattr(Line, "changes", forgotten)
        desktop.inbox = asyncio.Queue()
    await desktop.start()
    await world.settle()
    assert len(asked) == (journal != "whole")
    assert laptop.tree() == desktop.tree()
    # What an edit was made of is not known any more where the merge base is not: the journal's content stays beside it.
    first = [] if journal == "whole" else [b"the first edited"]
    assert texts(laptop) == sorted([*first, b"edited while away", b"new", b"the first docs/kept"])


@pytest.mark.parametrize("is_edited", [False, True], ids=["untouched elsewhere", "edited elsewhere"])
async def test_a_name_that_was_deleted_and_given_anew_is_another_file(pair: Pair, is_edited: bool) -> None:
    """Onedrive (2025): a file deleted online, and made anew there under its name, confused the two."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    async with cut_off(desktop):
        (laptop.path / "report").unlink()
        await world.settle(laptop)
        laptop.write("report", "another report")
        await world.settle(laptop)
        if is_edited:
            desktop.write("report", "first, edited")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert texts(desktop) == sorted([b"another report"] + [b"first, edited"] * is_edited)


# --- an edit is never overwritten unseen


@pytest.mark.parametrize("is_edited", [False, True], ids=["by nobody else", "by the other too"])
async def test_an_edit_outlives_the_loss_of_the_database(pair: Pair, is_edited: bool) -> None:
    """Onedrive 2.4.14, Syncthing (2020): without its database a device took its newer file for an older one."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    await desktop.stop()
    desktop.write("report", "edited on the desktop")
    if is_edited:
        laptop.write("report", "edited on the laptop")
        await world.settle(laptop)
    lose_database(desktop)
    await desktop.start()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert b"edited on the desktop" in texts(laptop)
    assert not is_edited or laptop.read("report") == b"edited on the laptop"


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
async def test_edit_move_and_delete_come_to_the_same_in_any_order(pair: Pair, order: Sequence[int]) -> None:
    """Syncthing (2025): its rule for edit against delete was no order, and devices disagreed for good."""
    world, laptop, desktop = pair
    tower = await world.device("tower")
    await tower.start()
    laptop.write("a/report", "first")
    await world.settle()
    devices = (laptop, desktop, tower)
    for device in devices:
        device.online.clear()
    laptop.write("a/report", "edited")
    (desktop.path / "a" / "report").unlink()
    (tower.path / "a" / "report").rename(tower.path / "moved")
    for device in devices:
        await device.folder.looker.look_at_all()
    for number in order:
        devices[number].online.set()
        await world.settle(devices[number])
    await world.settle()
    assert laptop.tree() == desktop.tree() == tower.tree()
    assert texts(desktop) == [b"edited"]


@pytest.mark.parametrize("years_ns", [-30, 30], ids=["of long ago", "of the future"])
async def test_no_clock_decides_between_two_edits(pair: Pair, years_ns: int) -> None:
    """Syncthing (2019): an older file replaced a newer one, and no conflict copy was made."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    async with cut_off(desktop):
        laptop.write("report", "by the laptop")
        await world.settle(laptop)
        desktop.write("report", "by the desktop")
        then = (desktop.path / "report").stat().st_mtime_ns + years_ns * 31_536_000 * 1_000_000_000
        os.utime(desktop.path / "report", ns=(then, then))
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (len(laptop.tree()), laptop.read("report")) == (2, b"by the laptop")
    assert texts(desktop) == [b"by the desktop", b"by the laptop"]


async def test_a_loser_whose_conflict_name_is_refused_stays(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seafile (2021): the local file was deleted when the rename to the conflict name failed."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    root, refused = desktop.folder.replica.root, list[str]()
    rename = root.rename

    def refuse(source: str, target: str) -> None:
        if "conflicted copy" in target and len(refused) < 3:
            refused.append(target)
            raise OSError(5, "input/output error")
        rename(source, target)

    monkeypatch.setattr(root, "rename", refuse)
    async with cut_off(desktop):
        laptop.write("report", "by the laptop")
        await world.settle(laptop)
        desktop.write("report", "by the desktop")
    await world.settle()
    assert len(refused) == 3
    assert laptop.tree() == desktop.tree()
    assert texts(desktop) == [b"by the desktop", b"by the laptop"]


@pytest.mark.parametrize("call", ["download", "publish"])
async def test_an_edit_made_offline_outlives_a_connection_that_comes_and_goes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Dropbox for phones (2020, as reported): offline edit, a short connection, none again: the edit was replaced."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    desktop.online.clear()
    desktop.write("report", "by the desktop")
    await desktop.folder.looker.look_at_all()
    laptop.write("report", "by the laptop")
    await world.settle(laptop)
    served, dropped = getattr(Line, call), list[int]()

    async def drop(self: Line, *arguments: Any, **options: Any) -> Any:
        if self.device is desktop and not dropped:
            dropped.append(1)
            self.device.online.clear()
        return await served(self, *arguments, **options)

    monkeypatch.setattr(Line, call, drop)
    desktop.online.set()
    await until(world, lambda: dropped)
    await desktop.stop()
    await desktop.start()
    await desktop.folder.looker.look_at_all()
    desktop.online.set()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert texts(desktop) == [b"by the desktop", b"by the laptop"]


# --- no conflict where nobody disagreed


async def test_the_same_content_on_both_sides_is_no_conflict(pair: Pair) -> None:
    """Rclone bisync 1.64, Syncthing (2025): two files with the same bytes were kept as a conflict."""
    world, laptop, desktop = pair
    laptop.write("edited", "first")
    await world.settle()
    async with cut_off(laptop, desktop):
        for device in (laptop, desktop):
            device.write("edited", "the same second edition")
            device.write("new/file", "the same new file")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert sorted(desktop.tree()) == ["edited", "new", "new/file"]


async def test_directories_that_both_sides_made_are_one(pair: Pair) -> None:
    """Maestral 1.6.2: a child that was synced before its parent made a conflict of the two folders."""
    world, laptop, desktop = pair
    async with cut_off(laptop, desktop):
        for device in (laptop, desktop):
            device.write(f"a/b/c/by {device.name}", device.name)
            device.write(f"a/b of {device.name}/file", device.name)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    files = {f"a/b/c/by {name}" for name in world.devices} | {f"a/b of {name}/file" for name in world.devices}
    directories = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    assert set(desktop.tree()) == files | directories


@pytest.mark.parametrize("is_edited", [False, True], ids=["untouched elsewhere", "edited elsewhere"])
async def test_a_rename_onto_another_file_replaces_what_its_author_saw(pair: Pair, is_edited: bool) -> None:
    """Maestral 1.5: a file renamed onto an existing one made a wrong conflict copy."""
    world, laptop, desktop = pair
    laptop.write("draft", "the new text")
    laptop.write("report", "the old text")
    await world.settle()
    async with cut_off(desktop):
        os.replace(laptop.path / "draft", laptop.path / "report")
        await world.settle(laptop)
        if is_edited:
            desktop.write("report", "the old text, edited")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert texts(desktop) == sorted([b"the new text"] + [b"the old text, edited"] * is_edited)


async def test_looking_again_and_again_changes_nothing(pair: Pair) -> None:
    """Maestral 1.7.3: its regular new look at all files made conflicts of them."""
    world, laptop, desktop = pair
    for number in range(12):
        laptop.write(f"{number % 3}/{number}", f"content {number}" * number)
    await world.settle()
    before, head, chunks = laptop.tree(), world.head, dict(world.chunks)
    for _ in range(3):
        for device in (laptop, desktop):
            for path in device.path.glob("?/*"):
                path.chmod(path.stat().st_mode)  # another ctime: all is read again
            device.folder.looker.hint("", deep=True)
        await world.settle()
    assert (laptop.tree(), desktop.tree()) == (before, before)
    assert (world.head, world.chunks) == (head, chunks)


def save_as_vim(path: Path) -> Iterator[None]:
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    yield
    path.write_text("edited")
    yield
    backup.unlink()


def save_as_emacs(path: Path) -> Iterator[None]:
    backup = path.with_name(path.name + "~")
    shutil.copy2(path, backup)
    yield
    path.write_text("edited")
    yield
    backup.unlink()


def save_as_office(path: Path) -> Iterator[None]:
    new, old = path.with_name("new.tmp"), path.with_name("old.tmp")
    new.write_text("edited")
    yield
    path.rename(old)
    yield
    new.rename(path)
    yield
    old.unlink()


def save_over(path: Path) -> Iterator[None]:
    new = path.with_name(".saving")
    new.write_text("edited")
    yield
    os.replace(new, path)


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "each step told"])
@pytest.mark.parametrize("save", [save_as_vim, save_as_emacs, save_as_office, save_over])
async def test_a_program_that_saves_by_way_of_other_names_loses_nothing(
    pair: Pair, save: Callable[[Path], Iterator[None]], is_slow: bool
) -> None:
    """Onedrive (twice): vim moves the file aside, writes it anew and deletes the backup: the edited file was deleted."""
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    for _ in save(laptop.path / "report"):
        if is_slow:
            await world.settle()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert list(desktop.tree()) == ["report"]
    assert texts(desktop) == [b"edited"]
    assert b"first" in history(world)


# --- directories


async def test_a_deleted_directory_takes_nothing_behind_its_links(pair: Pair, tmp_path: Path) -> None:
    """Syncthing (2019), ownCloud (2018, junctions): deleting a directory deleted what a link in it led to."""
    world, laptop, desktop = pair
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("not ours")
    laptop.write("directory/file", "ours")
    (laptop.path / "directory" / "link").symlink_to(tmp_path / "outside")
    (laptop.path / "directory" / "link to the file").symlink_to("../../outside/file")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    remove(laptop.path / "directory")
    await world.settle()
    assert laptop.tree() == desktop.tree() == {}
    assert (tmp_path / "outside" / "file").read_text() == "not ours"


async def test_a_deleted_directory_keeps_what_its_deleter_never_saw(pair: Pair) -> None:
    """Seafile (2015, 2025), ownCloud: deleting a directory deleted the new, changed and unsynced files in it."""
    world, laptop, desktop = pair
    for path in ("docs/edited", "docs/gone", "docs/deep/gone", "scans/gone"):
        laptop.write(path, "first")
    await world.settle()
    async with cut_off(desktop):
        remove(laptop.path / "docs")
        remove(laptop.path / "scans")
        await world.settle(laptop)
        desktop.write("docs/edited", "edited")
        desktop.write("docs/deep/new", "new")
        desktop.write(f"scans/{NOBODYS_NAME}", "synced with nobody")
    await world.settle()
    kept = ["docs", "docs/deep", "docs/deep/new", "docs/edited"]
    assert sorted(laptop.tree()) == kept
    assert sorted(desktop.tree()) == [*kept, "scans", f"scans/{NOBODYS_NAME}"]
    assert texts(laptop) == [b"edited", b"new"]
    assert desktop.read(f"scans/{NOBODYS_NAME}") == b"synced with nobody"


@pytest.mark.parametrize("act", ["delete", "move", "move its directory"])
async def test_what_a_person_does_to_a_file_while_it_is_fetched_loses_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Maestral 1.3.0: an item that was excluded while it was being downloaded was lost."""
    world, laptop, desktop = pair
    laptop.write("docs/report", "first")
    await world.settle()
    served, acted = Line.download, list[int]()

    async def download(self: Line, *arguments: Any) -> set[bytes]:
        if not acted:
            acted.append(1)
            report = self.device.path / "docs" / "report"
            if act == "delete":
                report.unlink()
            elif act == "move":
                report.rename(self.device.path / "moved")
            else:
                report.parent.rename(self.device.path / "papers")
            await self.device.folder.looker.look_at_all()
        return await served(self, *arguments)

    monkeypatch.setattr(Line, "download", download)
    laptop.write("docs/report", "second")
    await until(world, lambda: acted)
    await world.settle()
    assert laptop.tree() == desktop.tree()
    there = {"delete": "docs/report", "move": "moved", "move its directory": "papers/report"}[act]
    assert (texts(desktop), desktop.read(there)) == ([b"second"], b"second")


# --- what is sent is what somebody wrote, once


@pytest.mark.parametrize("is_killed", [False, True], ids=["the agent goes on", "the agent is killed"])
async def test_a_commit_whose_answer_is_lost_is_made_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    """OwnCloud (2016): the answer to the last PUT was lost: the file was sent twice, or was a conflict with itself."""
    monkeypatch.setattr("agent.commit.ANSWER_WAIT_S", 0.1)
    world, laptop, desktop = pair
    laptop.write("report", "first")
    await world.settle()
    served, lost = Line.publish, list[bytes]()

    async def publish(self: Line, exchange: str, key: str, body: bytes, **options: Any) -> None:
        if len(lost) == 2:
            await served(self, exchange, key, body, **options)
            return
        lost.append(body)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.device.inbox, "put_nowait", lambda _: None)
            await served(self, exchange, key, body, **options)
        raise Unavailable("the connection was lost after the message had gone")

    monkeypatch.setattr(Line, "publish", publish)
    laptop.write("report", "second")
    await until(world, lambda: lost)
    if is_killed:
        await laptop.stop()
        await laptop.start()
    await world.settle()
    assert (laptop.tree(), world.head.seq) == (desktop.tree(), 2)
    assert (list(desktop.tree()), texts(desktop)) == (["report"], [b"second"])
    assert len(set(lost)) == 1


async def test_an_upload_that_is_tried_again_sends_the_whole_file(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maestral 1.8.0: the second try of an upload began where the first had left the file, and sent zero bytes."""
    world, laptop, desktop = pair
    served, failed = Line.upload, list[int]()

    async def upload(
        self: Line,
        workspace_id: UUID,
        chunks: Iterable[tuple[Chunk, Callable[[], bytes | None]]],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        if len(failed) < 2:
            failed.append(sum(len(read() or b"") for _, read in chunks))
            raise Unavailable("it broke off at the end")
        return await served(self, workspace_id, chunks, on_bytes)

    monkeypatch.setattr(Line, "upload", upload)
    content = random.Random(0).randbytes(500_000)
    laptop.write("report", content)
    await world.settle()
    assert failed == [500_000, 500_000]
    assert (desktop.read("report"), history(world)) == (content, {content})


def while_sent(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> list[int]:
    """Do something after the first chunk of an upload has been read. The list is filled when it was done."""
    served, done = Line.upload, list[int]()

    def act_between(chunks: Iterable[Any]) -> Iterator[Any]:
        for chunk, read in chunks:
            yield chunk, read
            if not done:
                done.append(1)
                act()

    async def upload(self: Line, workspace_id: UUID, chunks: Iterable[Any], on_bytes: Any) -> set[bytes]:
        return await served(self, workspace_id, act_between(chunks), on_bytes)

    monkeypatch.setattr(Line, "upload", upload)
    return done


async def test_a_file_that_changes_between_two_chunks_of_its_upload_is_never_mixed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maestral 1.7.2: a file that was written to while it was sent came to be half the old and half the new."""
    world, laptop, desktop = pair
    old, new = (random.Random(seed).randbytes(2_000_000) for seed in (1, 2))
    done = while_sent(monkeypatch, lambda: laptop.write("report", new))
    laptop.write("report", old)
    await world.settle()
    assert done
    assert desktop.read("report") == new
    assert history(world) <= {old, new}


async def test_a_file_that_is_cut_short_while_it_is_sent_is_never_half_of_what_it_was_called(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rclone (2026): a source whose reading ended early was uploaded as a success."""
    world, laptop, desktop = pair
    whole = random.Random(1).randbytes(2_000_000)
    done = while_sent(monkeypatch, lambda: os.truncate(laptop.path / "report", 900_000))
    laptop.write("report", whole)
    await world.settle()
    assert done
    assert laptop.tree() == desktop.tree()
    assert history(world) <= {whole, whole[:900_000]}


async def test_files_that_come_and_go_in_a_moment_stop_nobody(pair: Pair) -> None:
    """Onedrive (2025): a file that was deleted as soon as it was made crashed the client."""
    world, laptop, desktop = pair

    def come_and_go() -> None:
        for number in range(300):
            brief = laptop.path / f"brief {number % 7}" / "deep"
            brief.mkdir(parents=True)
            (brief / "file").write_text(f"{number}")
            remove(brief.parent)

    laptop.write("lasting", "1")
    await asyncio.to_thread(come_and_go)
    laptop.write("lasting", "2")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert (list(desktop.tree()), desktop.read("lasting")) == (["lasting"], b"2")


async def test_a_device_whose_messages_were_dropped_catches_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wang et al. (2016): updates for the slowest reader were dropped, and nobody was told."""
    world, laptop, desktop = pair
    await world.settle()
    with monkeypatch.context() as patch:
        patch.setattr(desktop.inbox, "put_nowait", lambda _: None)
        for number in range(12):
            laptop.write(f"{number}", f"content {number}")
            await world.settle(laptop)
    assert (desktop.tree(), world.head.seq) == ({}, 12)
    laptop.write("last", "this one is told")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert len(desktop.tree()) == 13
