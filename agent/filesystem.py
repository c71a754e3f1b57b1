"""One folder's files, by relative path. Nothing outside the folder can be reached, by whatever symbolic link.

Every path is walked name by name from an open root directory, following no link. The two renames that a
synchroniser needs (one that never overwrites, one that exchanges) come from the kernel where it has them.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.index import Print
from agent.names import Folding
from broker.model import MODE_MASK, RESERVED_NAME, Kind

STAGE: Final = f"{RESERVED_NAME}/stage"
_PROBE: Final = f"{RESERVED_NAME}/probe"
_TELLING_NAMES: Final = ("a:b", "a?b", "a\\b", "a\nb", "a.", "a ", "n" * 255, "nul")
"""Names that one or the other file system refuses."""

_NO_NAMES: Final = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)

SYNC_ALL_FROM: Final = 16
"""From how many files on one sync of the whole file system is cheaper than one a file."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_STATX_BTIME: Final = 0x800
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_MACOS_FLAGS: Final = {_RENAME_NOREPLACE: 0x4, _RENAME_EXCHANGE: 0x2}

_libc: Final = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2: Final = 437  # the same number on every architecture (openat2(2))
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_MAX_PATH_SIZE_BYTES: Final = 4_000
_has_openat2 = sys.platform == "linux"


class Root:
    """An open root directory. Paths are relative, with slashes; `""` is the root itself. Use from any thread.

    Raises `OSError` from every call, as the `os` module does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fd = os.open(folder, _DIRECTORY)
        self.device = os.fstat(self.fd).st_dev
        self.folding = Folding()
        self.respells = False
        self._probed = False
        self._refuses_some = False

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.fd)

    def is_in_place(self) -> bool:
        """Whether the folder's path still leads to this directory (it may be unmounted, moved or replaced)."""
        try:
            now, then = os.stat(self.folder), os.fstat(self.fd)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino) and then.st_nlink > 0

    @contextlib.contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """An open descriptor of a directory."""
        fd = os.dup(self.fd)
        try:
            for part in _parts(path):
                child = _open_below(fd, part)
                os.close(fd)
                fd = child
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """An open descriptor of a path's directory, and the last name."""
        head, _, name = path.rpartition("/")
        with self.directory(head) as fd:
            yield fd, name

    # --- what its file system does to names

    def probe(self) -> None:
        """Find out which names are one to this file system, and whether it refuses any. Asks it once. Blocks."""
        if self._probed:
            return
        name = "Probe \N{LATIN CAPITAL LETTER E WITH ACUTE}"
        with self._probing(name):
            self.folding = Folding(
                case=self.look(f"{_PROBE}/{name.lower()}") is not None,
                spelling=self.look(f"{_PROBE}/{unicodedata.normalize('NFD', name)}") is not None,
            )
            with self.directory(_PROBE) as fd:
                self.respells = os.listdir(fd) != [name]
        self._refuses_some = any(self._try_name(name) is not None for name in _TELLING_NAMES)
        self._probed = True

    def refusals(self, names: Collection[str]) -> dict[str, str]:
        """Of some names those that this file system does not take, and why. Blocks."""
        if not self._refuses_some:
            return {}
        reasons = {name: self._try_name(name) for name in sorted(names)}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _try_name(self, name: str) -> str | None:
        try:
            with self._probing(name):
                return None
        except OSError as error:
            if error.errno in _NO_NAMES:
                return os.strerror(error.errno)
            raise

    @contextlib.contextmanager
    def _probing(self, name: str) -> Iterator[None]:
        """An empty directory of that name, for a moment, where nobody looks."""
        with contextlib.suppress(FileExistsError):
            self.make_directory(_PROBE)
        path = f"{_PROBE}/{name}"
        try:
            with contextlib.suppress(FileExistsError):
                self.make_directory(path)
            try:
                yield
            finally:
                self.remove_directory(path)
        finally:
            with contextlib.suppress(OSError):
                self.remove_directory(_PROBE)

    def is_named(self, path: str) -> bool:
        """Whether what can be reached by a path has just that name, and not one that this file system takes for it."""
        if not self.folding.any:
            return True
        spelling = Folding(spelling=self.folding.spelling)
        with self.parent(path) as (fd, name):
            return spelling.fold(name) in (spelling.fold(other) for other in os.listdir(fd))

    # --- looking

    def look(self, path: str) -> Print | None:
        """How the object at a path looks now, itself and not what it may link to; None when nothing is there."""
        try:
            with self.parent(path) as (fd, name):
                return print_of(os.stat(name, dir_fd=fd, follow_symlinks=False), birth_ns(fd, name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[int]:
        """A descriptor to read a regular file. Never blocks on a pipe that took the file's place."""
        with self.parent(path) as (fd, name):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=fd)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            yield file
        finally:
            os.close(file)

    # --- changing

    def rename(self, source: str, target: str) -> None:
        """Rename, never over anything: `FileExistsError` when the target's name is taken."""
        with self.parent(source) as (source_fd, source_name), self.parent(target) as (target_fd, target_name):
            if not _rename_at(source_fd, source_name, target_fd, target_name, _RENAME_NOREPLACE):
                _rename_without_kernel(source_fd, source_name, target_fd, target_name)

    def exchange(self, one: str, other: str) -> bool:
        """Swap two existing objects in one step. False when the kernel or file system has no such call."""
        with self.parent(one) as (one_fd, one_name), self.parent(other) as (other_fd, other_name):
            return _rename_at(one_fd, one_name, other_fd, other_name, _RENAME_EXCHANGE)

    def make_directory(self, path: str, mode: int = 0o700) -> None:
        """Make one directory."""
        with self.parent(path) as (fd, name):
            os.mkdir(name, mode, dir_fd=fd)

    def make_symlink(self, path: str, target: str, mtime_ns: int) -> None:
        """Make a symbolic link, never over anything."""
        with self.parent(path) as (fd, name):
            os.symlink(target, name, dir_fd=fd)
            os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)

    def remove_file(self, path: str) -> None:
        """Unlink anything but a directory."""
        with self.parent(path) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        with self.parent(path) as (fd, name):
            os.rmdir(name, dir_fd=fd)

    def set_attributes(self, path: str, kind: Kind, mode: int, mtime_ns: int | None) -> None:
        """Give a file its mode and (unless that is None) its time, or a directory its mode."""
        with self.parent(path) as (fd, name):
            flags = (
                _DIRECTORY
                if kind is Kind.DIRECTORY
                else os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
            try:
                target = os.open(name, flags, dir_fd=fd)
            except (
                PermissionError
            ):  # unreadable to its owner: chmod by name; the caller has just checked what it is
                os.chmod(name, mode | 0o400, dir_fd=fd)
                target = os.open(name, flags, dir_fd=fd)
            try:
                os.fchmod(target, mode)
                if mtime_ns is not None:  # last: whoever finds the time set knows that all was done
                    os.utime(target, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(target)

    def sync(self, paths: Iterable[str]) -> None:
        """Make the names in directories durable, with the names that lead there."""
        for path in sorted({above for each in paths for above in _with_parents(each)}):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.directory(path) as fd:
                sync_fd(fd)

    def is_open_for_writing(self, path: str) -> bool | None:
        """Whether a program has a file open for writing, asked by a read lease.

        None: it cannot be told. Leases are Linux's alone, not on every file system, and for a file's owner only.
        """
        try:
            with self.parent(path) as (fd, name):
                if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    return False
            if sys.platform != "linux":
                return None
            with self.open(path) as fd:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        return False


def _parts(path: str) -> list[bytes]:
    """A directory's path in pieces that the kernel takes at once: names, where it walks no path without links."""
    if not path:
        return []
    left = os.fsencode(path)
    if not _has_openat2:
        return left.split(b"/")
    parts: list[bytes] = []
    while len(left) > _MAX_PATH_SIZE_BYTES:
        at = left.rindex(b"/", 0, _MAX_PATH_SIZE_BYTES)
        parts.append(left[:at])
        left = left[at + 1 :]
    return [*parts, left]


def _open_below(fd: int, path: bytes) -> int:
    """Open a directory by a path of which no part is a link. Linux walks it in one call (openat2), else name by name."""
    global _has_openat2
    if b"/" not in path:
        return os.open(path, _DIRECTORY, dir_fd=fd)
    how = struct.pack("=QQQ", _DIRECTORY, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    found = _libc.syscall(_SYS_OPENAT2, fd, path, how, len(how))
    if found >= 0:
        return int(found)
    number = ctypes.get_errno()
    if number == errno.ELOOP:  # as it is told of a last name
        number = errno.ENOTDIR
    if number in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a sandbox
        _has_openat2 = False
        return _walk(fd, path)
    raise OSError(number, os.strerror(number), os.fsdecode(path))


def _walk(fd: int, path: bytes) -> int:
    at = os.dup(fd)
    for name in path.split(b"/"):
        try:
            child = os.open(name, _DIRECTORY, dir_fd=at)
        finally:
            os.close(at)
        at = child
    return at


def _with_parents(path: str) -> Iterator[str]:
    """A directory's path, and those of all that it stands in."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def sync_fd(fd: int) -> None:
    """fsync, but for file systems that have none for this kind of object."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync_everything(fd: int) -> None:
    """Make all that was written to a descriptor's file system durable, in one call."""
    if hasattr(_libc, "syncfs"):
        if _libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    else:
        os.sync()


def print_of(status: os.stat_result, birth: int) -> Print:
    """A stat result, as the index keeps it."""
    return Print(
        status.st_dev,
        status.st_ino,
        birth,
        status.st_ctime_ns,
        status.st_mtime_ns,
        status.st_size,
        stat.S_IMODE(status.st_mode) & MODE_MASK,
    )


def kind_of(mode: int) -> Kind | None:
    """What a `st_mode` stands for; None for pipes, sockets and devices, which are not synced."""
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    return Kind.SYMLINK if stat.S_ISLNK(mode) else None


def birth_ns(dir_fd: int, name: str) -> int:
    """When an inode was made: it tells a re-used inode number from a moved file. 0 where nobody knows.

    Source: statx(2), whose buffer's layout is the kernel's ABI (stx_mask at 0, stx_btime at 80).
    """
    if sys.platform == "darwin":
        return int(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_birthtime * 1e9)
    if not hasattr(_libc, "statx"):
        return 0
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(dir_fd, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer) != 0:
        return 0
    if not struct.unpack_from("=I", buffer, 0)[0] & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _rename_at(source_fd: int, source: str, target_fd: int, target: str, flag: int) -> bool:
    """renameat2(2) or macOS's renameatx_np(2). False when this system or file system does not have it."""
    if sys.platform == "darwin":
        call, value = getattr(_libc, "renameatx_np", None), _MACOS_FLAGS[flag]
    else:
        call, value = getattr(_libc, "renameat2", None), flag
    if call is None:
        return False
    if call(source_fd, os.fsencode(source), target_fd, os.fsencode(target), value) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), source)


def _rename_without_kernel(source_fd: int, source: str, target_fd: int, target: str) -> None:
    """A hard link never overwrites; a directory cannot be linked, but renaming one over a file or a full one fails."""
    if stat.S_ISDIR(os.stat(source, dir_fd=source_fd, follow_symlinks=False).st_mode):
        with contextlib.suppress(FileNotFoundError):
            os.stat(target, dir_fd=target_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        return
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    os.unlink(source, dir_fd=source_fd)
