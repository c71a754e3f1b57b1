"""A device that has lost its database was away while others deleted: what it still has of that does not come back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.index import Index
from agent.marker import Marker, remove_marker, write_marker
from broker.errors import NotFound, Unavailable
from tests.agents.test_convergence import two
from tests.agents.world import Device, Line


def lose_database(device: Device) -> None:
    for suffix in ("", "-wal", "-shm"):
        (device.home / f"index.sqlite{suffix}").unlink(missing_ok=True)


async def test_what_others_deleted_goes_and_what_was_edited_stays(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "edited.txt", "kept.txt", "docs/a.txt", "docs/b.txt", "moved.txt"):
        laptop.write(path, path)
    (laptop.path / "link").symlink_to("kept.txt")
    await world.settle()
    await desktop.stop()
    for path in ("gone.txt", "edited.txt", "docs/a.txt", "docs/b.txt", "link"):
        (laptop.path / path).unlink()
    (laptop.path / "docs").rmdir()
    (laptop.path / "moved.txt").rename(laptop.path / "elsewhere.txt")
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("edited.txt", "edited while away")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["edited.txt", "elsewhere.txt", "kept.txt", "moved.txt"]
    assert laptop.read("edited.txt") == b"edited while away"
    await laptop.stop()
    await desktop.stop()


async def test_a_new_file_in_a_deleted_directory_revives_it(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("docs/a.txt", "a")
    await world.settle()
    await desktop.stop()
    (laptop.path / "docs/a.txt").unlink()
    (laptop.path / "docs").rmdir()
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("docs/new.txt", "new")
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["docs", "docs/new.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_a_folder_that_is_added_for_the_first_time_is_merged_whole(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    laptop.write("gone.txt", "text")
    await world.settle()
    (laptop.path / "gone.txt").unlink()
    await world.settle()
    phone = await world.device("phone")
    phone.write("gone.txt", "text")
    await phone.start()
    await world.settle()
    assert phone.tree() == laptop.tree() == desktop.tree()
    assert list(phone.tree()) == ["gone.txt"]
    for device in (laptop, desktop, phone):
        await device.stop()


async def test_a_server_that_cannot_tell_of_deleted_nodes_holds_nothing_up(
    tmp_path: Path, monkeypatch
) -> None:
    def unknown(self: Line, workspace_id: object) -> None:
        raise NotFound("no such call")

    monkeypatch.setattr(Line, "deleted", unknown)
    world, laptop, desktop = await two(tmp_path)
    laptop.write("gone.txt", "gone")
    await world.settle()
    await desktop.stop()
    (laptop.path / "gone.txt").unlink()
    await world.settle(laptop)
    lose_database(desktop)
    desktop.write("new.txt", "new")
    await desktop.start()
    await world.settle()
    assert sorted(laptop.tree()) == sorted(desktop.tree()) == ["gone.txt", "new.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_a_database_of_before_is_settled_as_a_lost_one(tmp_path: Path) -> None:
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "edited.txt", "kept.txt"):
        laptop.write(path, path)
    await world.settle()
    await desktop.stop()
    before = {path.name: path.read_bytes() for path in desktop.home.iterdir()}
    await desktop.start()
    await world.settle()
    await desktop.stop()
    (laptop.path / "gone.txt").unlink()
    laptop.write("edited.txt", "edited by another")
    await world.settle(laptop)
    lose_database(desktop)
    for name, data in before.items():
        (desktop.home / name).write_bytes(data)
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert sorted(desktop.tree()) == ["edited.txt", "kept.txt"]
    assert desktop.read("edited.txt") == b"edited by another"
    await laptop.stop()
    await desktop.stop()


async def test_old_copies_are_known_when_the_service_is_busy_for_a_moment(
    tmp_path: Path, monkeypatch
) -> None:
    """With no merge base an old version is no edit; a service that cannot tell just now is asked again."""
    world, laptop, desktop = await two(tmp_path)
    laptop.write("text", "old")
    await world.settle()
    await desktop.stop()
    laptop.write("text", "new")
    await world.settle(laptop)
    lose_database(desktop)
    answer, refusals = Line.versions, 3

    def busy(self: Line, *arguments: Any) -> Any:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise Unavailable("too many are asking just now")
        return answer(self, *arguments)

    monkeypatch.setattr(Line, "versions", busy)
    await desktop.start()
    await world.settle()
    assert desktop.tree() == laptop.tree()
    assert [*desktop.tree()] == ["text"]
    assert desktop.read("text") == b"new"
    await laptop.stop()
    await desktop.stop()


async def test_a_folder_that_was_taken_off_and_comes_back_brings_nothing_back(tmp_path: Path) -> None:
    """`hutch remove`, and `hutch add` a while later."""
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "kept.txt"):
        laptop.write(path, path)
    await world.settle()
    number = desktop.folder.replica.number
    await desktop.stop()
    index = Index(desktop.home / "index.sqlite")
    await index.forget(world.workspace_id, str(desktop.path))
    await index.close()
    remove_marker(desktop.path)
    write_marker(desktop.path, Marker(workspace_id=world.workspace_id, device_id=desktop.device_id))
    (laptop.path / "gone.txt").unlink()
    await world.settle(laptop)
    desktop.write("new.txt", "new")
    await desktop.start()
    await world.settle()
    assert sorted(desktop.tree()) == sorted(laptop.tree()) == ["kept.txt", "new.txt"]
    assert desktop.folder.replica.number > number
    await laptop.stop()
    await desktop.stop()


@pytest.mark.parametrize("call", ["deleted", "versions"])
async def test_a_question_that_is_cut_off_is_asked_again(tmp_path: Path, monkeypatch, call: str) -> None:
    """Nothing is told to the journal in between: what others have deleted would come back."""
    world, laptop, desktop = await two(tmp_path)
    for path in ("gone.txt", "docs/gone.txt", "kept.txt"):
        laptop.write(path, path)
    await world.settle()
    await desktop.stop()
    (laptop.path / "gone.txt").unlink()
    (laptop.path / "docs/gone.txt").unlink()
    await world.settle(laptop)
    head = world.head
    lose_database(desktop)
    asked, answer = asyncio.Event(), getattr(Line, call)

    def cut_off(self: Line, *arguments: Any) -> Any:
        asked.set()
        raise Unavailable("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Line, call, cut_off)
        await desktop.start()
        await asyncio.wait_for(asked.wait(), 30)
        await desktop.stop()  # and the agent ends while it waits to ask again
    assert getattr(Line, call) is answer
    assert world.head == head
    await desktop.start()
    await world.settle()
    assert world.head == head
    assert sorted(desktop.tree()) == sorted(laptop.tree()) == ["docs", "kept.txt"]
    await laptop.stop()
    await desktop.stop()


async def test_what_is_revived_between_the_question_and_its_answer_stays(tmp_path: Path, monkeypatch) -> None:
    world, laptop, desktop = await two(tmp_path)
    phone = await world.device("phone")
    await phone.start()
    laptop.write("gone.txt", "text")
    await world.settle()
    await desktop.stop()
    await phone.stop()
    (laptop.path / "gone.txt").unlink()
    await world.settle(laptop)
    lose_database(desktop)
    phone.write("gone.txt", "text, edited: it is wanted after all")
    answer, waiting, go_on = Line.versions, asyncio.Event(), asyncio.Event()

    def versions(self: Line, *arguments: Any) -> Any:
        stream = answer(self, *arguments)
        return stream if self.device.name != "desktop" else _Held(stream, waiting, go_on)

    monkeypatch.setattr(Line, "versions", versions)
    await desktop.start()
    await asyncio.wait_for(waiting.wait(), 30)
    await phone.start()
    await world.settle(laptop, phone)
    go_on.set()
    await world.settle()
    assert desktop.tree() == laptop.tree() == phone.tree()
    assert [*desktop.tree()] == ["gone.txt"]
    assert desktop.read("gone.txt") == b"text, edited: it is wanted after all"
    for device in (laptop, desktop, phone):
        await device.stop()


class _Held:
    """An answer that comes when it is let go."""

    def __init__(self, stream: Any, waiting: asyncio.Event, go_on: asyncio.Event) -> None:
        self._stream, self._waiting, self._go_on = stream, waiting, go_on

    async def __aenter__(self) -> Any:
        self._waiting.set()
        await self._go_on.wait()
        return await self._stream.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._stream.__aexit__(*error)
