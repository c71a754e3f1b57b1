"""Extended attributes of real files: what is read, what is believed to have been removed, what a disk does not take."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import xattrs
from agent.xattrs import Seen, see, see_at, write, write_at
from broker.model import Kind, Xattrs
from tests.unit.agent.disk import Disk

ONE: Xattrs = (("user.a", b"1"),)
BOTH: Xattrs = (("user.a", b"1"), ("user.b", b"\0\xff"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    made.write("d/f", "content")
    try:
        os.setxattr(made.path, "user.try", b"")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has no extended attributes: {error}")
    made.look()
    return made


@pytest.fixture
def fd(disk: Disk) -> Iterator[int]:
    with disk.root.open("d/f") as opened:
        yield opened


def refuse(number: int):
    """A system call that fails."""

    def call(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def on_disk(disk: Disk, path: str = "d/f") -> dict[str, bytes]:
    return {name: os.getxattr(disk.path / path, name) for name in os.listxattr(disk.path / path)}


def test_what_was_written_is_read_and_nothing_else_is_touched(disk: Disk, fd: int) -> None:
    os.setxattr(fd, b"user.\xff", b"no text")
    assert write(fd, (), BOTH) == ()
    assert see(disk.root, fd, (), ()) == Seen(BOTH)
    os.setxattr(fd, "user.late", b"")
    assert write(fd, BOTH, (("user.b", b"2"),)) == ()
    assert on_disk(disk) == {"user.b": b"2", "user.late": b"", os.fsdecode(b"user.\xff"): b"no text"}
    assert write(fd, (("user.b", b"2"), ("user.late", b"")), ()) == ()
    assert see(disk.root, fd, BOTH, ()) == Seen(())


def test_what_the_disk_lacks_counts_as_being_there_until_it_is_set(disk: Disk, fd: int) -> None:
    write(fd, (), (("user.b", b"mine"),))
    assert see(disk.root, fd, BOTH, ("user.a",)) == Seen((("user.a", b"1"), ("user.b", b"mine")))
    os.setxattr(fd, "user.a", b"here")
    seen = see(disk.root, fd, BOTH, ("user.a",))
    assert seen == Seen((("user.a", b"here"), ("user.b", b"mine")), regained=("user.a",))


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_that_has_none_has_what_was_known(disk: Disk, fd: int, monkeypatch, number: int) -> None:
    write(fd, (), ONE)
    monkeypatch.setattr(os, "listxattr", refuse(number))
    assert see(disk.root, fd, BOTH, ()) == Seen(BOTH, had=False)
    monkeypatch.setattr(os, "setxattr", refuse(number))
    assert write(fd, ONE, (("user.a", b"2"), ("user.b", b""))) == ("user.a", "user.b")


def test_a_disk_that_lists_none_and_takes_none_has_removed_none(disk: Disk, fd: int, monkeypatch) -> None:
    """As tmpfs before Linux 6.6, or ext4 mounted without: they say so only when one is set, or asked for by name."""
    monkeypatch.setattr(os, "listxattr", lambda fd: [])
    with monkeypatch.context() as patch:
        patch.setattr(os, "getxattr", refuse(errno.ENODATA))
        patch.setattr(os, "setxattr", refuse(errno.ENOTSUP))
        assert see(disk.root, fd, BOTH, ()) == Seen(BOTH)
        assert write(fd, (), ONE) == ("user.a",)
        patch.setattr(os, "getxattr", refuse(errno.ENOTSUP))
        assert see(disk.root, fd, BOTH, ()) == Seen(BOTH)
    assert see(disk.root, fd, BOTH, ()) == Seen(())


def test_a_system_without_the_calls_says_that_it_lacks_them(disk: Disk, fd: int, monkeypatch) -> None:
    """MacOS has them under other names; Python has none for those."""
    for name in ("listxattr", "getxattr", "setxattr", "removexattr"):
        monkeypatch.delattr(os, name)
    assert see(disk.root, fd, BOTH, ()) == Seen(BOTH, had=False)
    assert write(fd, (), BOTH) == ("user.a", "user.b")


def test_more_than_is_synced_leaves_what_was_known(disk: Disk, fd: int) -> None:
    for number in range(64):
        os.setxattr(fd, f"user.{number}", b"")
    assert len(see(disk.root, fd, ONE, ()).xattrs) == 64
    os.setxattr(fd, "user.64", b"")
    assert see(disk.root, fd, ONE, ()) == Seen(ONE, oversized=True)
    assert write(fd, (("user.3", b""),), ONE) == ()
    assert len(on_disk(disk)) == 65, "all others are a person's"


def test_one_that_is_too_large_for_the_disk_is_lacking_and_leaves_no_old_value(
    disk: Disk, fd: int, monkeypatch
) -> None:
    write(fd, (), BOTH)
    real = os.setxattr

    def small_only(fd: int, name: str, value: bytes) -> None:
        if len(value) > 100:
            raise OSError(errno.ENOSPC, "no room in the inode")
        real(fd, name, value)

    monkeypatch.setattr(os, "setxattr", small_only)
    assert write(fd, BOTH, (("user.a", bytes(200)), ("user.b", b"new"))) == ("user.a",)
    assert on_disk(disk) == {"user.b": b"new"}


def test_a_disk_that_fails_is_no_disk_that_refuses(fd: int, monkeypatch) -> None:
    monkeypatch.setattr(os, "setxattr", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write(fd, (), ONE)


def test_one_that_goes_between_two_calls_is_read_again(disk: Disk, fd: int, monkeypatch) -> None:
    write(fd, (), BOTH)
    real = os.getxattr

    def remove_first(fd: int, name: str) -> bytes:
        if name == "user.b" and "user.b" in os.listxattr(fd):
            os.removexattr(fd, name)
        return real(fd, name)

    monkeypatch.setattr(os, "getxattr", remove_first)
    assert see(disk.root, fd, BOTH, ()) == Seen(ONE)


def test_only_what_looks_as_it_was_seen_is_read_by_its_path(disk: Disk) -> None:
    for path, kind in (("d/f", Kind.FILE), ("d", Kind.DIRECTORY)):
        os.setxattr(disk.path / path, "user.a", b"1")
        look = disk.root.look(path)
        assert look is not None
        assert see_at(disk.root, path, kind, look, (), ()) == Seen(ONE)
        other = type(look)(*(*tuple(getattr(look, f) for f in look.__struct_fields__[:3]), 7, 7, 7, 7))
        assert see_at(disk.root, path, kind, other, (), ()) is None
        assert see_at(disk.root, "away", kind, look, (), ()) is None


def test_what_somebody_set_in_the_last_moment_is_not_overwritten(disk: Disk) -> None:
    os.setxattr(disk.path / "d", "user.a", b"1")
    os.setxattr(disk.path / "d", "user.b", b"late")
    assert write_at(disk.root, "d", Kind.DIRECTORY, ONE, BOTH) is None
    assert on_disk(disk, "d") == {"user.a": b"1", "user.b": b"late"}
    os.removexattr(disk.path / "d", "user.b")
    assert write_at(disk.root, "d", Kind.DIRECTORY, ONE, BOTH) == ()
    assert write_at(disk.root, "d", Kind.DIRECTORY, ONE, BOTH) == (), "half done, or done, before a crash"


def test_a_read_only_file_gets_them_and_stays_read_only(disk: Disk, monkeypatch) -> None:
    """The kernel lets nobody but root set them on a file that its owner may not write."""
    (disk.path / "d/f").chmod(0o444)
    real = os.setxattr

    def as_owner(fd: int, name: str, value: bytes) -> None:
        if not os.fstat(fd).st_mode & 0o200:
            raise PermissionError(errno.EACCES, "read-only")
        real(fd, name, value)

    monkeypatch.setattr(os, "setxattr", as_owner)
    assert write_at(disk.root, "d/f", Kind.FILE, (), BOTH) == ()
    assert (disk.path / "d/f").stat().st_mode & 0o777 == 0o444
    assert xattrs.see_at(disk.root, "d/f", Kind.FILE, disk.root.look("d/f"), (), ()) == Seen(BOTH)  # type: ignore[arg-type]
