"""Extended attributes in conflicts, after a lost database, and set by programs that are faster than the agent."""

import asyncio
import os
from pathlib import Path

import pytest

from agent import place
from tests.agents.world import Device, Line, World

COPY = "conflicted copy"


def tags(path: Path) -> dict[str, bytes]:
    """What stands on the disk."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}


@pytest.fixture
async def pair(tmp_path: Path):
    try:
        os.setxattr(tmp_path, "user.try", b"")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has no extended attributes: {error}")
    world = await World.make(tmp_path)
    made = world, await world.device("laptop"), await world.device("desktop")
    for device in made[1:]:
        await device.start()
    yield made
    for device in made[1:]:
        await device.stop()


async def test_a_conflict_copy_has_the_attributes_of_what_it_is_a_copy_of(
    pair: tuple[World, Device, Device],
) -> None:
    world, laptop, desktop = pair
    laptop.write("file", "content")
    await world.settle()
    await desktop.stop()
    desktop.write("file", "of the desktop")
    os.setxattr(desktop.path / "file", "user.by", b"desktop")
    laptop.write("file", "of the laptop")
    os.setxattr(laptop.path / "file", "user.by", b"laptop")
    await world.settle(laptop)
    await desktop.start()
    await world.settle()
    for device in (laptop, desktop):
        (copy,) = [path for path in device.tree() if COPY in path]
        assert (device.read("file"), tags(device.path / "file")) == (b"of the laptop", {"user.by": b"laptop"})
        assert (device.read(copy), tags(device.path / copy)) == (b"of the desktop", {"user.by": b"desktop"})


async def test_with_a_lost_database_the_journals_stand(pair: tuple[World, Device, Device]) -> None:
    """As with modes: what is different on the disk may be old."""
    world, laptop, desktop = pair
    for name in ("same", "other"):
        laptop.write(f"d/{name}", name)
        os.setxattr(laptop.path / f"d/{name}", "user.a", b"1")
    os.setxattr(laptop.path / "d", "user.a", b"1")
    await world.settle()
    head = world.head
    await desktop.stop()
    for file in desktop.home.iterdir():
        file.unlink()
    os.setxattr(desktop.path / "d/other", "user.a", b"2")
    await desktop.start()
    await world.settle()
    assert world.head == head
    for device in (laptop, desktop):
        assert [tags(device.path / path) for path in ("d", "d/same", "d/other")] == [{"user.a": b"1"}] * 3


async def test_a_program_that_marks_each_file_the_instant_it_arrives_is_seen(
    pair: tuple[World, Device, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark comes within the tick of the inodes' clock in which the file was placed."""
    world, laptop, desktop = pair
    real = place.carry_out

    def carry_out(root, intent):
        outcome = real(root, intent)
        for step in intent.steps:
            if root is desktop.folder.replica.root and step.target is not None and step.source is None:
                path = desktop.path / step.target
                os.setxattr(path, "user.indexed", b"yes")
                look = root.look(step.target)
                outcome.placed[step.node.node_id] = look  # as if the clock had not ticked
        return outcome

    monkeypatch.setattr(place, "carry_out", carry_out)
    laptop.write("d/file", "content")
    async with asyncio.timeout(20):
        while not all(
            (laptop.path / path).exists() and tags(laptop.path / path) == {"user.indexed": b"yes"}
            for path in ("d", "d/file")
        ):
            await world.settle()
            desktop.folder.looker.hint("", deep=True)
    assert laptop.tree() == desktop.tree()


async def test_a_commit_of_many_large_ones_goes_in_bodies_that_the_service_takes(
    pair: tuple[World, Device, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four thousand files with as many as they may have are a quarter of a gigabyte."""
    monkeypatch.setattr("agent.commit.MESSAGE_SIZE_BYTES", 2_500)
    monkeypatch.setattr("agent.commit.MAX_BODY_SIZE_BYTES", 9_000)
    sizes: list[int] = []
    real = Line.put_body

    async def put_body(self: Line, sha: bytes, body: bytes) -> None:
        sizes.append(len(body))
        await real(self, sha, body)

    monkeypatch.setattr(Line, "put_body", put_body)
    world, laptop, desktop = pair
    laptop.may_run.clear()
    for number in range(24):
        laptop.write(f"{number}", "content")
        os.setxattr(laptop.path / f"{number}", "user.large", bytes(1_000))
    await laptop.folder.looker.look_at_all()
    async with asyncio.timeout(20):
        while not laptop.folder.hasher.is_done:
            await laptop.folder.looker.look_at_all()
    laptop.may_run.set()
    laptop.folder.replica.notify()
    await world.settle()
    assert all(tags(desktop.path / f"{number}") == {"user.large": bytes(1_000)} for number in range(24))
    assert sizes
    assert max(sizes) <= 9_000
