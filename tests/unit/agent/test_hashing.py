"""Reading files whose content is not known: only what stood still is believed."""

import hashlib
import os
from pathlib import Path
from uuid import UUID

import pytest

from agent import hashing
from agent.chunk import CuttingCancelled, cut_file
from agent.hashing import Job, read_files
from agent.xattrs import Seen
from broker.model import Chunk
from tests.unit.agent.disk import Disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    made.write("a", "content of a")
    made.write("b", "content of b")
    made.write("empty", "")
    made.look()
    return made


def job(disk: Disk, path: str) -> Job:
    node_id: UUID = disk.id_at(path)
    return Job(disk.tree.nodes[node_id], path, disk.prints[node_id], 16)


def no() -> bool:
    return False


def test_a_file_at_rest_is_read(disk: Disk) -> None:
    (read,) = read_files(disk.root, [job(disk, "a")], no)
    assert read.content is not None
    assert read.content.chunks == (Chunk(hashlib.sha256(b"content of a").digest(), 12),)
    (empty,) = read_files(disk.root, [job(disk, "empty")], no)
    assert empty.content is not None
    assert empty.content.chunks == ()


def change_while(disk: Disk, monkeypatch, act) -> None:
    """Do something when the file has been cut, before it is looked at again."""
    cut = cut_file

    def cut_then(fd: int, **options: object):
        result = cut(fd, **options)  # type: ignore[arg-type]
        act()
        return result

    monkeypatch.setattr(hashing, "cut_file", cut_then)


def same_size_and_time(disk: Disk) -> None:
    disk.write("a", "CONTENT OF A")


CHANGES = {
    "appended to": lambda disk: disk.write("a", "content of a, and more", mtime_ns=9),
    "truncated": lambda disk: os.truncate(disk.path / "a", 3),
    "rewritten with its size and time kept": same_size_and_time,
    "given another mode": lambda disk: (disk.path / "a").chmod(0o600),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_read_is_not_believed(disk: Disk, monkeypatch, change) -> None:
    change_while(disk, monkeypatch, lambda: change(disk))
    (read,) = read_files(disk.root, [job(disk, "a")], no)
    assert (read.content, read.error) == (None, None)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changed_since_the_look_is_not_read(disk: Disk, monkeypatch, change) -> None:
    waiting = job(disk, "a")
    change(disk)
    monkeypatch.setattr(hashing, "cut_file", lambda *arguments, **options: pytest.fail("not to be read"))
    (read,) = read_files(disk.root, [waiting], no)
    assert (read.content, read.error) == (None, None)


def test_another_file_under_its_name_is_not_believed(disk: Disk) -> None:
    waiting = job(disk, "a")
    disk.write("new", "content of a")
    disk.rename("new", "a")
    (read,) = read_files(disk.root, [waiting], no)
    assert (read.content, read.error) == (None, None)


def test_a_file_renamed_over_while_it_is_read_is_found_by_the_next_look(disk: Disk, monkeypatch) -> None:
    """What was read is the old file, whole; the name has another inode by now."""

    def rename_over() -> None:
        disk.write("new", "something else")
        disk.rename("new", "a")

    change_while(disk, monkeypatch, rename_over)
    read_files(disk.root, [job(disk, "a")], no)
    monkeypatch.undo()
    seen = disk.look().local[disk.id_at("a")]
    assert seen is not None
    assert seen.digest == b""


def test_a_file_that_is_gone_is_no_error_and_one_that_cannot_be_read_is(disk: Disk, monkeypatch) -> None:
    jobs = [job(disk, "a"), job(disk, "b")]
    (disk.path / "a").unlink()
    (disk.path / "b").unlink()
    os.mkfifo(disk.path / "b")
    gone, unreadable = read_files(disk.root, jobs, no)
    assert (gone.content, gone.error) == (None, None)
    assert unreadable.content is None
    assert unreadable.error == "not a regular file"


def test_stopping_gives_what_was_read_so_far(disk: Disk, monkeypatch) -> None:
    cut = cut_file
    done: list[int] = []

    def cut_one(fd: int, **options: object):
        if done:
            raise CuttingCancelled("stopped")
        done.append(fd)
        return cut(fd, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing, "cut_file", cut_one)
    reads = read_files(disk.root, [job(disk, "a"), job(disk, "b")], no)
    assert [read.job.path for read in reads] == ["a"]


def test_extended_attributes_come_with_the_content(disk: Disk) -> None:
    try:
        disk.tag("a", kind=b"draft")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has none: {error}")
    disk.look()
    (read,) = read_files(disk.root, [job(disk, "a")], no)
    assert read.seen == Seen((("user.kind", b"draft"),))
    lacking = Job(**{f: getattr(read.job, f) for f in Job.__struct_fields__} | {"lacking": ("user.kind",)})
    disk.tag("a", kind=None)
    assert read_files(disk.root, [lacking], no)[0].seen is None, "it looks otherwise than it was seen"


def test_extended_attributes_that_change_while_a_file_is_read_are_not_believed(
    disk: Disk, monkeypatch
) -> None:
    change_while(disk, monkeypatch, lambda: disk.tag("a", kind=b"late"))
    (read,) = read_files(disk.root, [job(disk, "a")], no)
    assert (read.content, read.seen, read.error) == (None, None, None)
