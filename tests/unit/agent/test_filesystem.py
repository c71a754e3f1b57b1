"""The folder by relative paths: nothing outside it can be reached, and nothing is overwritten."""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import filesystem
from agent.filesystem import Root, kind_of, sync_everything, sync_fd
from broker.model import Kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """inside/ with file, and a way out: out -> ../outside, where secret is."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "file").write_text("file")
    (inside / "sub").mkdir()
    (inside / "out").symlink_to("../outside")
    return inside


@pytest.fixture
def root(folder: Path) -> Iterator[Root]:
    opened = Root(folder)
    yield opened
    opened.close()


WAYS_OUT: list[tuple[str, Callable[[Root], object]]] = [
    ("open", lambda root: root.open("out/secret").__enter__()),
    ("rename from", lambda root: root.rename("out/secret", "stolen")),
    ("rename to", lambda root: root.rename("file", "out/file")),
    ("exchange", lambda root: root.exchange("file", "out/secret")),
    ("make a directory", lambda root: root.make_directory("out/new")),
    ("make a link", lambda root: root.make_symlink("out/new", "x", 0)),
    ("remove a file", lambda root: root.remove_file("out/secret")),
    ("remove a directory", lambda root: root.remove_directory("out/secret")),
    ("set attributes", lambda root: root.set_attributes("out/secret", Kind.FILE, 0o777, 0)),
    ("set attributes of what a link leads to", lambda root: root.set_attributes("out", Kind.FILE, 0o777, 0)),
    ("open what a link leads to", lambda root: root.open("out").__enter__()),
    ("list", lambda root: root.directory("out").__enter__()),
]


@pytest.mark.parametrize("act", [pytest.param(act, id=name) for name, act in WAYS_OUT])
def test_no_link_leads_out(root: Root, folder: Path, act: Callable[[Root], object]) -> None:
    outside = folder.parent / "outside"
    before = os.stat(outside / "secret").st_mode
    with pytest.raises(OSError, match=r".") as caught:
        act(root)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert os.listdir(outside) == ["secret"]
    assert os.stat(outside / "secret").st_mode == before
    assert sorted(os.listdir(folder)) == ["file", "out", "sub"]


def test_what_is_behind_a_link_is_not_seen(root: Root) -> None:
    assert root.look("out/secret") is None
    assert root.look("file/below") is None
    assert root.look("nothing") is None
    assert root.look("out") is not None


@pytest.fixture(params=["kernel", "without"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the kernel's calls, and as where there are none."""
    if request.param == "without":
        monkeypatch.setattr(filesystem, "_rename_at", lambda *arguments: False)
    return str(request.param)


def test_a_rename_never_overwrites(root: Root, folder: Path, renames: str) -> None:
    (folder / "other").write_text("other")
    for source, target in (
        ("file", "other"),
        ("file", "sub"),
        ("sub", "file"),
        ("file", "out"),
        ("sub", "out"),
    ):
        with pytest.raises(FileExistsError):
            root.rename(source, target)
    (folder / "empty").mkdir()
    with pytest.raises(FileExistsError):
        root.rename("sub", "empty")  # which a plain rename would replace
    assert (folder / "other").read_text() == "other"
    assert (folder / "file").read_text() == "file"


def test_a_rename_moves_files_links_and_directories(root: Root, folder: Path, renames: str) -> None:
    for name in ("file", "out", "sub"):
        root.rename(name, f"{name} moved")
    assert sorted(os.listdir(folder)) == ["file moved", "out moved", "sub moved"]
    assert os.readlink(folder / "out moved") == "../outside"
    with pytest.raises(FileNotFoundError):
        root.rename("file", "x")


def test_an_exchange_swaps_in_one_step(root: Root, folder: Path) -> None:
    (folder / "other").write_text("other")
    assert root.exchange("file", "other") is True
    assert (folder / "file").read_text() == "other"
    with pytest.raises(FileNotFoundError):
        root.exchange("file", "nothing")
    assert (folder / "file").read_text() == "other"


def test_a_pipe_in_a_files_place_does_not_hold_up_the_reader(root: Root, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(OSError, match="not a regular file"), root.open("pipe"):
        pass


def test_attributes_of_a_file_that_its_owner_cannot_read(root: Root, folder: Path) -> None:
    (folder / "file").chmod(0)
    root.set_attributes("file", Kind.FILE, 0o600, 7)
    status = (folder / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o600, 7)


def test_a_time_that_is_not_given_is_left_alone(root: Root, folder: Path) -> None:
    os.utime(folder / "file", ns=(5, 5))
    root.set_attributes("file", Kind.FILE, 0o600, None)
    root.set_attributes("sub", Kind.DIRECTORY, 0o700, None)
    assert (folder / "file").stat().st_mtime_ns == 5
    assert stat.S_IMODE((folder / "sub").stat().st_mode) == 0o700


def test_a_file_that_is_open_for_writing_is_known(root: Root, folder: Path) -> None:
    assert root.is_open_for_writing("file") is False
    with (folder / "file").open("rb"):
        assert root.is_open_for_writing("file") is False
    with (folder / "file").open("ab"):
        assert root.is_open_for_writing("file") is True
    assert root.is_open_for_writing("nothing") is False
    assert root.is_open_for_writing("out") is False


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOLCK])
def test_where_there_are_no_leases_nobody_can_tell(root: Root, monkeypatch, number: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("agent.filesystem.fcntl.fcntl", refuse)
    assert root.is_open_for_writing("file") is None
    assert root.is_open_for_writing("out") is False  # a link is open to nobody


def test_a_folder_that_moved_or_was_replaced_is_not_in_place(root: Root, folder: Path) -> None:
    assert root.is_in_place()
    folder.rename(folder.with_name("moved"))
    assert not root.is_in_place()
    folder.mkdir()
    assert not root.is_in_place()
    folder.rmdir()
    folder.with_name("moved").rename(folder)
    assert root.is_in_place()


def test_a_removed_folder_is_not_in_place(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    root = Root(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert not root.is_in_place()
    root.close()


def test_descriptors_are_given_back(root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("file", "sub/nothing", "out/secret", "file/below", "nothing/at/all"):
        root.look(path)
        with pytest.raises(OSError, match=r"."):
            root.make_directory(f"{path}/x/y")
    assert len(os.listdir("/proc/self/fd")) == before


def test_syncing_what_has_gone_is_no_error(root: Root) -> None:
    root.sync({"", "sub", "nothing", "file/below"})
    sync_everything(root.fd)


@pytest.mark.parametrize(
    ("number", "raises"),
    [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)],
)
def test_only_a_file_system_that_has_no_sync_is_excused(monkeypatch, number: int, raises: bool) -> None:
    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if raises:
        with pytest.raises(OSError, match=r"."):
            sync_fd(0)
    else:
        sync_fd(0)


def test_kinds(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    kinds = {name: kind_of(os.lstat(folder / name).st_mode) for name in ("file", "sub", "out", "pipe")}
    assert kinds == {"file": Kind.FILE, "sub": Kind.DIRECTORY, "out": Kind.SYMLINK, "pipe": None}


def test_an_inode_tells_when_it_was_made(root: Root, folder: Path) -> None:
    before = root.look("file")
    (folder / "file").write_text("other")
    after = root.look("file")
    (folder / "new").write_text("new")
    new = root.look("new")
    assert before is not None
    assert after is not None
    assert new is not None
    assert before.birth_ns == after.birth_ns <= new.birth_ns
    assert before.birth_ns > 0 or not hasattr(ctypes.CDLL(None), "statx")
