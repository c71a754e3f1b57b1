"""Replaced files that a program may have open: kept until nobody can write to them any more."""

from pathlib import Path

import pytest

from agent.filesystem import Root
from tests.agents.test_convergence import two
from tests.filesystems.people import until


async def test_where_nobody_can_tell_a_replaced_file_is_kept_for_a_while_and_late_lines_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Root, "is_open_for_writing", lambda self, path: None)
    monkeypatch.setattr("agent.fetch.LINGER_LOOK_S", 0.05)
    world, laptop, desktop = await two(tmp_path)
    for name in ("written", "quiet"):
        laptop.write(name, "before")
    await world.settle()
    with (desktop.path / "written").open("ab") as program:
        for name in ("written", "quiet"):
            laptop.write(name, "after")
        await world.settle()
        assert len(desktop.stage()) == 2
        program.write(b", and a line that came late")
    monkeypatch.setattr("agent.fetch.UNTOLD_S", 0.0)
    await until(world, lambda: desktop.stage() == [])
    await world.settle()
    assert laptop.tree() == desktop.tree()
    contents = sorted(desktop.read(name) for name in desktop.tree())
    assert contents == [b"after", b"after", b"before, and a line that came late"]
    await laptop.stop()
    await desktop.stop()
