"""Agents killed at any instant while two people work: nothing is lost, half, or left over. The long run is by hand."""

import os
from pathlib import Path

import pytest

from tests.e2e.device import Pair
from tests.e2e.kill_agent import Trial
from tests.e2e.pages import PAGE_BYTES, Content, HalfError, Mark, appended, parse, render, saved
from tests.e2e.stack import Stack
from tests.e2e.typist import Reader, Record, Typist, strays

KILLS = 15


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_agents_are_killed_while_two_people_work(running: Stack, pair: Pair) -> None:
    trial = Trial(running, pair, "test")
    await trial.run(KILLS, KILLS, print)
    assert not trial.is_wrong, {name: found[:3] for name, found in trial.wrong.items() if found}
    assert trial.counts["kills"] == KILLS
    assert trial.counts["commits"] > 0
    assert all(sum(typist.done.values()) > KILLS for typist in trial.typists)
    assert all(reader.files > 0 for reader in trial.readers)


WHOLE = appended(appended(saved("ada", 1, 3), "bob", 7), "ada", 2)


@pytest.mark.parametrize("content", [saved("ada", 1, 1), saved("ada", 2, 300), WHOLE], ids=str)
def test_a_whole_content_is_read_as_what_was_written(content: Content) -> None:
    assert parse(render(content)) == content


def test_what_is_half_is_seen() -> None:
    data, other = render(WHOLE), render(saved("bob", 9, 5))
    zeros = bytes(PAGE_BYTES)
    for half in (
        b"",
        data[:-1],
        data[: 2 * PAGE_BYTES],  # two pages of three
        data[PAGE_BYTES:],  # no beginning
        data[:PAGE_BYTES] + zeros + data[2 * PAGE_BYTES :],
        data[:PAGE_BYTES] + other[PAGE_BYTES : 2 * PAGE_BYTES] + data[2 * PAGE_BYTES :],
        data[:100] + b"?" + data[101:],
        data + zeros,
        other + data,
        other + other[-PAGE_BYTES:],
    ):
        with pytest.raises(HalfError):
            parse(half)
    cut = Mark("ada", 1, 3, 2)
    assert parse(data[: 2 * PAGE_BYTES], may_be_cut=True) == (cut,)
    assert parse(b"", may_be_cut=True) == ()
    with pytest.raises(HalfError):
        parse(data[:PAGE_BYTES] + zeros, may_be_cut=True)


def test_a_reader_sees_half_a_file_and_a_stray_name(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.rec").write_bytes(render(WHOLE)[: 2 * PAGE_BYTES])
    (tmp_path / "two.wip").write_bytes(render(WHOLE)[: 2 * PAGE_BYTES])
    (tmp_path / "three (conflicted copy of laptop 2026-01-01 2).rec").write_bytes(render(WHOLE))
    (tmp_path / "three.rec.in").write_bytes(render(WHOLE))
    reader = Reader("ada", tmp_path)
    reader.read_all()
    assert (reader.files, reader.cut, len(reader.half)) == (3, 1, 1)
    assert "letters/one.rec" in reader.half[0]
    assert strays(tmp_path) == ["three.rec.in"]


def test_what_a_person_wrote_is_owed_until_somebody_replaces_it(tmp_path: Path) -> None:
    """Two people in one folder, and nobody who syncs it: all that is owed is there, and nothing else."""
    record, folder = Record(), tmp_path / "folder"
    folder.mkdir()
    people = [Typist(name, folder, tmp_path / "drafts", record, name, pause_s=0.0) for name in ("ada", "bob")]
    for _ in range(300):
        for person in people:
            person.act()
    assert len(people[0].done) >= 11
    assert all(not person.torn and person.blind == 0 for person in people)
    there = {
        parse((Path(place) / name).read_bytes())
        for place, _, names in os.walk(folder)
        for name in names
        if not (Path(place) / name).is_symlink()
    }
    assert record.living == there
    assert record.written > 100
    assert strays(folder) == []
    assert os.listdir(tmp_path / "drafts") == []
