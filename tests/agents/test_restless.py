"""Files that change all the time: kept up with now and then, never half, and whole in the end."""

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.agents.test_convergence import two
from tests.filesystems.people import errors, until


def append_without_a_pause(path: Path, stop: threading.Event) -> None:
    with path.open("ab", buffering=0) as log:
        number = 0
        while not stop.is_set():
            number += 1
            log.write(b"line %06d\n" % number)
            os.sched_yield()


async def test_a_log_that_never_comes_to_rest_is_kept_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.hashing.GROWING_AFTER_S", 0.2)
    monkeypatch.setattr("agent.pace.FIRST_REST_S", 0.2)
    world, laptop, desktop = await two(tmp_path)
    await world.settle()
    stop = threading.Event()
    writer = threading.Thread(target=append_without_a_pause, args=(laptop.path / "log", stop))
    writer.start()
    try:
        await until(world, lambda: world.head.seq >= 3 and (desktop.path / "log").exists(), 60)
        seen = desktop.read("log")
        lines = seen.split(b"\n")
        assert lines[:-1] == [b"line %06d" % (number + 1) for number in range(len(lines) - 1)]
    finally:
        stop.set()
        writer.join()
    await world.settle()
    assert laptop.tree() == desktop.tree()
    assert desktop.read("log").startswith(seen)
    assert errors(laptop) == {}
    await laptop.stop()
    await desktop.stop()


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


async def test_what_changes_again_and_again_is_left_alone_until_its_time_or_until_somebody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.pace.FREE_READS", 1)
    monkeypatch.setattr("agent.pace.FIRST_REST_S", 1_000.0)
    world, laptop, desktop = await two(tmp_path)
    for number in range(3):
        version = f"version {number}"
        laptop.write("log", version)
        await until(world, partial(_holds, desktop.path / "log", version.encode()))
    head = world.head
    laptop.write("log", "the next version")
    laptop.write("other", "something else")
    await until(world, lambda: (desktop.path / "other").exists())
    assert desktop.read("log") == b"version 2"
    assert world.head.seq == head.seq + 1
    # An edit that comes meanwhile from elsewhere overwrites nothing.
    desktop.write("log", "from the desktop")
    await world.settle()
    assert laptop.tree() == desktop.tree()
    contents = sorted(desktop.read(name) for name in desktop.tree() if name.startswith("log"))
    assert contents == [b"from the desktop", b"the next version"]
    await laptop.stop()
    await desktop.stop()
