"""The system calls that the engine makes, answered by simulated disks: `os`, the C library, and file leases."""

import contextlib
import ctypes
import errno
import os
import random
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import msgspec

from agent.marker import MARKER, Marker
from tests.simulation.disk import DEVICE, OWN, READ, WRITE, Disk, Inode, error, is_gone
from tests.simulation.loop import LIFE, Life

FIRST_FD: Final = 1 << 20
"""Simulated descriptors count from here: no real one is as large."""

_KINDS: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
_OTHERS: Final = frozenset({"agent.index", "agent.home", "agent.durable", "agent.marker"})
"""Modules whose files are not the synced folder's: the database is a real one."""


class Handle:
    """An open file or directory."""

    def __init__(self, disk: Disk, inode: Inode, writing: bool) -> None:
        self.disk = disk
        self.inode = inode
        self.writing = writing
        self.at = 0
        self.life: Life | None = LIFE.get()


class Disks:
    """All devices' disks, and who has what open."""

    def __init__(
        self, chance: random.Random, clock: Callable[[], int], tell: Callable[[str, str], None]
    ) -> None:
        self._chance = chance
        self._clock = clock
        self._tell = tell
        self._disks: dict[str, Disk] = {}
        self.handles: dict[int, Handle] = {}
        self._next_fd = FIRST_FD

    def add(
        self,
        name: str,
        *,
        has_exchange: bool = True,
        folds_case: bool = False,
        has_xattrs: bool = True,
        xattr_size_bytes: int = 65_536,
    ) -> Disk:
        """A new, empty disk."""
        disk = Disk(
            name,
            self._chance,
            self._clock,
            self._tell,
            has_exchange,
            folds_case,
            has_xattrs,
            xattr_size_bytes,
        )
        self._disks[name] = disk
        return disk

    def of(self, name: str) -> Disk:
        """A device's disk."""
        return self._disks[name]

    def at(self, path: str) -> Disk | None:
        """Whose folder an absolute path is; None for real paths."""
        return next((disk for disk in self._disks.values() if path == disk.folder), None)

    def open(self, disk: Disk, inode: Inode, writing: bool) -> int:
        """A new descriptor."""
        self._next_fd += 1
        self.handles[self._next_fd] = Handle(disk, inode, writing)
        return self._next_fd

    def is_written(self, disk: Disk, inode: Inode) -> bool:
        """Whether anybody has a file open for writing."""
        held = any(
            handle.inode is inode and handle.disk is disk and handle.writing and not is_gone(handle.life)
            for handle in self.handles.values()
        )
        return held or inode.writers > 0


class SimulatedOs:
    """What `os` is to the engine's modules. Whatever is not simulated is the real one's."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _handle(self, fd: int) -> Handle:
        handle = self._disks.handles.get(fd)
        if handle is None:
            raise error(errno.EBADF)
        handle.disk.enter()
        return handle

    def _at(self, name: Any, dir_fd: int | None) -> tuple[Disk, Inode, str]:
        assert dir_fd is not None, name
        handle = self._handle(dir_fd)
        if handle.inode.kind != "directory":
            raise error(errno.ENOTDIR)
        return handle.disk, handle.inode, os.fsdecode(name)

    # --- opening

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None:
            disk = self._disks.at(os.fsdecode(path))
            if disk is None:
                raise error(errno.ENOENT)
            disk.enter()
            return self._disks.open(disk, disk.root, writing=False)
        disk, directory, name = self._at(path, dir_fd)
        inode = disk.find(directory, name, engine=True)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if inode is None:
            if not flags & os.O_CREAT:
                raise error(errno.ENOENT)
            inode = disk.make("file", mode)
            disk.add(directory, name, inode, engine=True)
        elif flags & os.O_EXCL:
            raise error(errno.EEXIST)
        if inode.kind == "symlink":
            raise error(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP)
        if flags & os.O_DIRECTORY and inode.kind != "directory":
            raise error(errno.ENOTDIR)
        if inode.kind == "directory" and writing:
            raise error(errno.EISDIR)
        if inode.kind == "file" and not inode.mode & (WRITE if writing else READ):
            raise error(errno.EACCES)
        if writing and self._is_seen(disk, directory):
            disk.shown(f"{disk.path(directory)}/{name}", b"\0written in place by the engine\0")
        return self._disks.open(disk, inode, writing)

    @staticmethod
    def _is_seen(disk: Disk, directory: Inode) -> bool:
        path = disk.path(directory)
        return path is not None and path.split("/")[0] != OWN

    def dup(self, fd: int) -> int:
        handle = self._handle(fd)
        return self._disks.open(handle.disk, handle.inode, handle.writing)

    def close(self, fd: int) -> None:
        self._disks.handles.pop(fd, None)

    # --- looking

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> SimpleNamespace:
        if dir_fd is None:
            disk = self._disks.at(os.fsdecode(path))
            if disk is None:
                raise error(errno.ENOENT)
            disk.enter()
            return status_of(disk.root)
        disk, directory, name = self._at(path, dir_fd)
        return status_of(disk.get(directory, name, engine=True))

    def fstat(self, fd: int) -> SimpleNamespace:
        return status_of(self._handle(fd).inode)

    def readlink(self, name: Any, *, dir_fd: int) -> str:
        disk, directory, name = self._at(name, dir_fd)
        inode = disk.get(directory, name, engine=True)
        if inode.kind != "symlink":
            raise error(errno.EINVAL)
        return inode.target

    def _names(self, fd: int) -> tuple[Disk, Inode, list[str]]:
        handle = self._handle(fd)
        inode = handle.inode
        if not inode.mode & READ:
            raise error(errno.EACCES)
        names = sorted(inode.entries)
        handle.disk.chance.shuffle(names)  # no file system promises an order
        return handle.disk, inode, names

    def listdir(self, fd: int) -> list[str]:
        return self._names(fd)[2]

    @contextlib.contextmanager
    def scandir(self, fd: int) -> "Iterator[Iterator[DirEntry]]":
        disk, inode, names = self._names(fd)
        yield (DirEntry(disk, inode, name) for name in names)

    # --- reading and writing

    def lseek(self, fd: int, position: int, how: int) -> int:
        handle = self._handle(fd)
        if how == getattr(os, "SEEK_DATA", 3):
            if position >= len(handle.inode.data):
                raise error(errno.ENXIO)
            handle.at = position
            return position
        if how == getattr(os, "SEEK_HOLE", 4):
            handle.at = len(handle.inode.data)
            return handle.at
        handle.at = position if how == os.SEEK_SET else len(handle.inode.data) + position
        return handle.at

    def _read(self, handle: Handle, size: int, offset: int) -> bytes:
        if handle.disk.faults.unreadable and handle.disk.chance.random() < handle.disk.faults.unreadable:
            raise error(errno.EIO)
        return handle.inode.data[offset : offset + size]

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self._read(self._handle(fd), size, offset)

    def read(self, fd: int, size: int) -> bytes:
        handle = self._handle(fd)
        data = self._read(handle, size, handle.at)
        handle.at += len(data)
        return data

    def readv(self, fd: int, buffers: list[memoryview]) -> int:
        data = self.read(fd, sum(len(buffer) for buffer in buffers))
        at = 0
        for buffer in buffers:
            piece = data[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            at += len(piece)
        return at

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        handle = self._handle(fd)
        whole = bytearray(handle.inode.data)
        whole.extend(bytes(max(0, offset - len(whole))))
        whole[offset : offset + len(data)] = data
        handle.disk.change_data(handle.inode, bytes(whole))
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        handle = self._handle(fd)
        data = handle.inode.data
        # A hole takes no room.
        handle.inode.data = data[:size] + bytes(max(0, size - len(data)))
        handle.disk.change_attributes(handle.inode, mtime_ns=handle.disk.now_ns())

    def fsync(self, fd: int) -> None:
        handle = self._handle(fd)
        handle.disk.sync(handle.inode)

    # --- attributes

    def _target(self, target: Any, dir_fd: int | None) -> tuple[Disk, Inode]:
        if isinstance(target, int):
            handle = self._handle(target)
            return handle.disk, handle.inode
        disk, directory, name = self._at(target, dir_fd)
        return disk, disk.get(directory, name, engine=True)

    def utime(
        self, target: Any, *, ns: tuple[int, int], dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        disk, inode = self._target(target, dir_fd)
        disk.change_attributes(inode, mtime_ns=ns[1])

    def chmod(
        self, target: Any, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        disk, inode = self._target(target, dir_fd)
        disk.change_attributes(inode, mode=mode)

    def fchmod(self, fd: int, mode: int) -> None:
        self.chmod(fd, mode)

    def listxattr(self, fd: int) -> list[str]:
        return sorted(self._attributed(fd).inode.xattrs)

    def _attributed(self, fd: int) -> Handle:
        handle = self._handle(fd)
        if not handle.disk.has_xattrs:
            raise error(errno.ENOTSUP)
        return handle

    def getxattr(self, fd: int, name: str) -> bytes:
        inode = self._attributed(fd).inode
        if name not in inode.xattrs:
            raise error(errno.ENODATA)
        return inode.xattrs[name]

    def setxattr(self, fd: int, name: str, value: bytes, flags: int = 0) -> None:
        handle = self._attributed(fd)
        handle.disk.check_xattr(value)
        handle.inode.xattrs[name] = bytes(value)
        handle.disk.change_attributes(handle.inode)

    def removexattr(self, fd: int, name: str) -> None:
        handle = self._attributed(fd)
        if handle.inode.xattrs.pop(name, None) is None:
            raise error(errno.ENODATA)
        handle.disk.change_attributes(handle.inode)

    # --- names

    def mkdir(self, name: Any, mode: int = 0o777, *, dir_fd: int) -> None:
        disk, directory, name = self._at(name, dir_fd)
        if disk.find(directory, name, engine=True) is not None:
            raise error(errno.EEXIST)
        disk.add(directory, name, disk.make("directory", mode), engine=True)

    def symlink(self, target: str, name: Any, *, dir_fd: int) -> None:
        disk, directory, name = self._at(name, dir_fd)
        inode = disk.make("symlink", 0o777)
        inode.target = target
        disk.add(directory, name, inode, engine=True)

    def unlink(self, name: Any, *, dir_fd: int) -> None:
        disk, directory, name = self._at(name, dir_fd)
        disk.unlink(directory, name, engine=True)

    def rmdir(self, name: Any, *, dir_fd: int) -> None:
        disk, directory, name = self._at(name, dir_fd)
        disk.rmdir(directory, name, engine=True)

    def link(
        self, source: Any, target: Any, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool = True
    ) -> None:
        disk, directory, name = self._at(source, src_dir_fd)
        inode = disk.get(directory, name, engine=True)
        if inode.kind == "directory":
            raise error(errno.EPERM)
        _, new_directory, new_name = self._at(target, dst_dir_fd)
        disk.add(new_directory, new_name, inode, engine=True)

    def rename(self, source: Any, target: Any, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        disk, directory, name = self._at(source, src_dir_fd)
        _, new_directory, new_name = self._at(target, dst_dir_fd)
        disk.rename(directory, name, new_directory, new_name, over=True, engine=True)


class DirEntry:
    """An entry of a listing; how it looks is asked only when somebody wants to know."""

    def __init__(self, disk: Disk, directory: Inode, name: str) -> None:
        self._disk = disk
        self._directory = directory
        self.name = name

    def stat(self, *, follow_symlinks: bool) -> SimpleNamespace:
        self._disk.enter()
        return status_of(self._disk.get(self._directory, self.name, engine=True))

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        inode = self._directory.entries.get(self.name)
        return inode is not None and inode.kind == "directory"

    def is_symlink(self) -> bool:
        inode = self._directory.entries.get(self.name)
        return inode is not None and inode.kind == "symlink"

    def inode(self) -> int:
        return self._directory.entries[self.name].number


class Libc:
    """The C library's calls that Python has no name for."""

    def __init__(self, disks: Disks, calls: SimulatedOs) -> None:
        self._disks = disks
        self._calls = calls

    def renameat2(self, source_fd: int, source: bytes, target_fd: int, target: bytes, flag: int) -> int:
        disk = self._disks.handles[source_fd].disk
        if not disk.has_exchange:
            return _failed(errno.EINVAL)
        try:
            _, directory, name = self._calls._at(source, source_fd)
            _, new_directory, new_name = self._calls._at(target, target_fd)
            if flag == 2:
                disk.exchange(directory, name, new_directory, new_name, engine=True)
            else:
                disk.rename(directory, name, new_directory, new_name, over=False, engine=True)
        except OSError as failure:
            return _failed(failure.errno or errno.EIO)
        return 0

    def statx(self, dir_fd: int, name: bytes, flags: int, mask: int, buffer: Any) -> int:
        try:
            disk, directory, path = self._calls._at(name, dir_fd)
            inode = disk.get(directory, path, engine=True)
        except OSError as failure:
            return _failed(failure.errno or errno.EIO)
        struct.pack_into("=I", buffer, 0, mask)
        struct.pack_into("=qI", buffer, 80, *divmod(inode.birth_ns, 1_000_000_000))
        return 0

    def syscall(self, number: int, *arguments: Any) -> int:
        return _failed(errno.ENOSYS)  # openat2: paths are walked name by name here, each a call of its own

    def syncfs(self, fd: int) -> int:
        self._calls._handle(fd).disk.sync_all()
        return 0


class Leases:
    """`fcntl`, as far as it says who has a file open for writing."""

    def __init__(self, disks: Disks, calls: SimulatedOs) -> None:
        self._disks = disks
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        import fcntl

        return getattr(fcntl, name)

    def fcntl(self, fd: int, command: int, argument: int) -> int:
        handle = self._calls._handle(fd)
        if argument == self.F_RDLCK and self._disks.is_written(handle.disk, handle.inode):
            raise error(errno.EAGAIN)
        return 0


def _failed(number: int) -> int:
    ctypes.set_errno(number)
    return -1


def status_of(inode: Inode) -> SimpleNamespace:
    """What stat(2) says of an inode."""
    return SimpleNamespace(
        st_dev=DEVICE,
        st_ino=inode.number,
        st_mode=_KINDS[inode.kind] | inode.mode,
        st_size=len(inode.data) if inode.kind == "file" else 0,
        st_blocks=len(inode.data) // 512 + 1,
        st_nlink=inode.links,
        st_mtime_ns=inode.mtime_ns,
        st_ctime_ns=inode.ctime_ns,
    )


@contextlib.contextmanager
def installed(disks: Disks) -> Iterator[None]:
    """Put the simulated kernel under the engine's modules, while the block lasts."""
    calls = SimulatedOs(disks)

    def read_marker(folder: object) -> Marker | None:
        disk = disks.at(str(folder))
        own = None if disk is None else disk.root.entries.get(OWN)
        inode = None if own is None else own.entries.get(MARKER)
        return None if inode is None else msgspec.json.decode(inode.data, type=Marker)

    def write_marker(folder: object, marker: Marker) -> None:
        disk = disks.at(str(folder))
        assert disk is not None
        hands = disk.hands
        if OWN not in disk.root.entries:
            hands.mkdir(OWN)
        hands.replace(f"{OWN}/{MARKER}", msgspec.json.encode(marker))
        hands.sync(f"{OWN}/{MARKER}")

    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("agent.") and name not in _OTHERS and getattr(module, "os", None) is os:
                stack.enter_context(mock.patch.object(module, "os", calls))
        stack.enter_context(mock.patch("agent.filesystem._libc", Libc(disks, calls)))
        stack.enter_context(mock.patch("agent.filesystem.fcntl", Leases(disks, calls)))
        for user in ("agent.folder", "tests.simulation.device"):
            stack.enter_context(mock.patch(f"{user}.read_marker", read_marker))
            stack.enter_context(mock.patch(f"{user}.write_marker", write_marker))
        yield
