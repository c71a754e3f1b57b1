"""Simulated disks: what the kernel is to the engine, in memory, with what a crash may leave of it.

The engine's own file-system code runs unchanged: `os`, the C library and file leases are replaced below it, in the
modules that touch a synced folder. A disk keeps the order of all changes that were not made durable. When the
machine loses power, any of them may be missing, as long as none is missing that a later, kept one builds upon.

Source: the legal states after a crash as in Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014):
data and names become durable apart, by fsync of the file and of the directory.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from errno import EACCES, EEXIST, EINVAL, EISDIR, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, ENOTSUP
from os import strerror
from typing import Final

from tests.simulation.loop import LIFE, Killed, Life

TICK_NS: Final = 4_000_000
"""How coarse the kernel's clock for inodes is."""

OWN: Final = ".hutch"
DEVICE: Final = 77

READ, WRITE, SEARCH = 0o400, 0o200, 0o100


class Inode:
    """A file, directory or symbolic link. `entries` is a directory's, `data` a file's, `target` a link's."""

    def __init__(self, number: int, kind: str, mode: int, now_ns: int) -> None:
        self.number = number
        self.kind = kind
        self.mode = mode
        self.data = b""
        self.entries: dict[str, Inode] = {}
        self.target = ""
        self.xattrs: dict[str, bytes] = {}
        self.birth_ns = self.ctime_ns = self.mtime_ns = now_ns
        self.links = 0
        self.parent: Inode | None = None
        self.name = ""
        self.writers = 0
        self.durable: Content | None = None
        self.by_engine = False

    def content(self) -> "Content":
        """What an fsync makes durable."""
        return Content(self.data, self.mode, self.mtime_ns, self.ctime_ns, dict(self.xattrs))


@dataclass
class Content:
    """Data and attributes of an inode at one moment."""

    data: bytes
    mode: int
    mtime_ns: int
    ctime_ns: int
    xattrs: dict[str, bytes]


@dataclass
class Entry:
    """One name in one directory: what it led to, and what it leads to now."""

    directory: Inode
    name: str
    before: Inode | None
    after: Inode | None

    @property
    def key(self) -> tuple[int, str]:
        """The name, whatever it leads to: all spellings of it that some disk takes for one."""
        return (id(self.directory), self.name.casefold())


@dataclass
class Change:
    """One system call's change of names: all of it, or nothing."""

    entries: list[Entry]


@dataclass
class Faults:
    """What goes wrong on a disk for a while: no room is left, or reads fail with this chance."""

    full: bool = False
    unreadable: float = 0.0


@dataclass
class Ambush:
    """Something that happens right before one of the engine's next system calls: after so many more of them."""

    after: int
    act: Callable[[], None] = field(repr=False, default=lambda: None)


class Disk:
    """One device's file system. Its root is the synced folder."""

    def __init__(
        self,
        name: str,
        chance: random.Random,
        clock: Callable[[], int],
        tell: Callable[[str, str], None],
        has_exchange: bool,
        folds_case: bool = False,
        has_xattrs: bool = True,
        xattr_size_bytes: int = 65_536,
    ) -> None:
        self.name = name
        self.folder = f"/simulated/{name}"
        self.chance = chance
        self.has_exchange = has_exchange
        self.folds_case = folds_case
        self.has_xattrs = has_xattrs
        self.xattr_size_bytes = xattr_size_bytes
        self.faults = Faults()
        self.ambushes: list[Ambush] = []
        self.shown: Callable[[str, bytes], None] = lambda path, data: None
        self.changed: Callable[[str], None] | None = None
        self.hands = Hands(self)
        self._clock = clock
        self._tell = tell
        self._log: list[Change] = []
        self._free: list[int] = []
        self._numbers = 1
        self.root = self.make("directory", 0o755)
        self.root.links = 1

    # --- the engine's system calls pass here first

    def enter(self) -> None:
        """Before a system call of the engine: it may be dead, and somebody may get in between."""
        life = LIFE.get()
        if life is not None and life.dead:
            raise Killed
        if not self.ambushes:
            return
        for ambush in list(self.ambushes):
            ambush.after -= 1
            if ambush.after < 0:
                self.ambushes.remove(ambush)
                ambush.act()
        if life is not None and life.dead:
            raise Killed

    # --- inodes

    def now_ns(self) -> int:
        """The wall clock, as inodes get it."""
        return self._clock() // TICK_NS * TICK_NS

    def make(self, kind: str, mode: int) -> Inode:
        """A new inode, with no name yet. Numbers are used again."""
        if self.faults.full:
            raise error(ENOSPC)
        if self._free and self.chance.random() < 0.7:
            number = self._free.pop()
        else:
            self._numbers += 1
            number = self._numbers
        return Inode(number, kind, mode, self.now_ns())

    def change_data(self, inode: Inode, data: bytes) -> None:
        """Give a file other bytes."""
        if len(data) > len(inode.data) and self.faults.full:
            raise error(ENOSPC)
        inode.data = data
        inode.mtime_ns = inode.ctime_ns = self.now_ns()
        self.tell(inode)

    def change_attributes(self, inode: Inode, mode: int | None = None, mtime_ns: int | None = None) -> None:
        """Give an inode another mode or time."""
        if mode is not None:
            inode.mode = mode & 0o7777
        if mtime_ns is not None:
            inode.mtime_ns = mtime_ns
        inode.ctime_ns = self.now_ns()
        self.tell(inode)

    def check_xattr(self, value: bytes) -> None:
        """Whether the disk takes an extended attribute."""
        if not self.has_xattrs:
            raise error(ENOTSUP)
        if len(value) > self.xattr_size_bytes:
            raise error(ENOSPC)

    # --- names

    def change_names(self, *entries: Entry) -> None:
        """Set names, in one step."""
        now = self.now_ns()
        self._set(entries)
        for entry in entries:
            entry.directory.mtime_ns = entry.directory.ctime_ns = now
            for inode in (entry.before, entry.after):
                if inode is not None:
                    inode.ctime_ns = now
            self._tell_path(entry.directory, entry.name)
        self._log.append(Change(list(entries)))
        if self.changed is not None:
            self.changed(" · ".join(self._describe(entry) for entry in entries))

    def _describe(self, entry: Entry) -> str:
        ends = [
            "-" if inode is None else f"{inode.kind} {inode.number} {inode.data[:24]!r}/{len(inode.data)}"
            for inode in (entry.before, entry.after)
        ]
        return f"{self.path(entry.directory)}/{entry.name}: {ends[0]} -> {ends[1]}"

    def _set(self, entries: "list[Entry] | tuple[Entry, ...]", *, back: bool = False) -> None:
        for entry in entries:
            old = entry.after if back else entry.before
            if old is not None:
                old.links -= 1
                if old.kind == "directory" and old.parent is entry.directory and old.name == entry.name:
                    old.parent = None
                entry.directory.entries.pop(entry.name, None)
        for entry in entries:
            new = entry.before if back else entry.after
            if new is not None:
                new.links += 1
                entry.directory.entries[entry.name] = new
                if new.kind == "directory" or new.parent is None or new.links == 1:
                    new.parent, new.name = entry.directory, entry.name

    def tell(self, inode: Inode) -> None:
        """Say to whoever watches that something of an inode has changed."""
        if inode.parent is not None:
            self._tell_path(inode.parent, inode.name)

    def _tell_path(self, directory: Inode, name: str) -> None:
        path = self.path(directory)
        if path is not None:
            self._tell(self.folder, f"{self.folder}/{path}/{name}" if path else f"{self.folder}/{name}")

    def path(self, directory: Inode) -> str | None:
        """Where a directory stands; None when it stands nowhere."""
        names: list[str] = []
        while directory is not self.root:
            if directory.parent is None:
                return None
            names.append(directory.name)
            directory = directory.parent
        return "/".join(reversed(names))

    # --- what a crash leaves

    def sync(self, inode: Inode) -> None:
        """fsync: a file's data and attributes, or a directory's names with all that they build upon."""
        if inode.kind != "directory":
            inode.durable = inode.content()
            return
        self._settle(lambda change: any(entry.directory is inode for entry in change.entries))

    def sync_all(self) -> None:
        """syncfs: everything."""
        for inode in self.inodes():
            inode.durable = inode.content()
        self._settle(lambda change: True)

    def inodes(self) -> list[Inode]:
        """All that have a name, parents first."""
        found, stack = [], [self.root]
        while stack:
            inode = stack.pop()
            found.append(inode)
            stack.extend(inode.entries.values())
        return found

    def _settle(self, is_meant: Callable[[Change], bool]) -> None:
        needed: set[tuple[int, str]] = set()
        left: list[Change] = []
        for change in reversed(self._log):
            keys = {entry.key for entry in change.entries}
            if is_meant(change) or keys & needed:
                needed |= keys
                self._free.extend(
                    entry.before.number
                    for entry in change.entries
                    if entry.before is not None and entry.before.links == 0 and entry.before.writers == 0
                )
            else:
                left.append(change)
        self._free = sorted(set(self._free) - self._numbers_in_use())
        self._log = left[::-1]

    def _numbers_in_use(self) -> set[int]:
        used = {inode.number for inode in self.inodes()}
        for change in self._log:
            used.update(e.before.number for e in change.entries if e.before is not None)
            used.update(e.after.number for e in change.entries if e.after is not None)
        return used

    def crash(self) -> None:
        """Lose power: of what was not made durable, some is gone, and some of a file's bytes may be."""
        lost: list[Change] = []
        missing: set[tuple[int, str]] = set()
        eager = self.chance.random()
        for change in self._log:
            keys = {entry.key for entry in change.entries}
            if keys & missing or self.chance.random() < eager:
                missing |= keys
                lost.append(change)
        for change in reversed(lost):
            self._set(change.entries, back=True)
        self._log = []
        for inode in self.inodes():
            inode.writers = 0
            if inode.kind != "directory":
                self._tear(inode)
        self._free = []

    def _tear(self, inode: Inode) -> None:
        if inode.durable is None:
            inode.durable = Content(b"", inode.mode, inode.mtime_ns, inode.ctime_ns, {})
            if inode.kind == "symlink":
                return
        new, old = inode.content(), inode.durable
        if new == old:
            return
        fate = self.chance.randrange(2 if new.data == old.data else 4)
        if fate == 0:  # all of it has reached the disk by itself
            inode.durable = new
        elif fate == 1:
            self._become(inode, old)
        elif fate == 2:  # its length, and some of its bytes
            kept = self.chance.randrange(len(new.data) + 1)
            self._become(inode, Content(new.data[:kept] + bytes(len(new.data) - kept), *_attributes(new)))
        else:
            self._become(inode, Content(b"", *_attributes(new)))

    @staticmethod
    def _become(inode: Inode, content: Content) -> None:
        inode.data, inode.mode, inode.xattrs = content.data, content.mode, dict(content.xattrs)
        inode.mtime_ns, inode.ctime_ns = content.mtime_ns, content.ctime_ns
        inode.durable = inode.content()

    # --- walking, and what calls do

    def find(self, directory: Inode, name: str, *, engine: bool) -> Inode | None:
        """What a name leads to."""
        if directory.kind != "directory":
            raise error(ENOTDIR)
        if engine and not directory.mode & SEARCH:
            raise error(EACCES)
        return directory.entries.get(self.spelled(directory, name))

    def spelled(self, directory: Inode, name: str) -> str:
        """How a name is written in a directory: where case is folded, perhaps otherwise than it was asked for."""
        if not self.folds_case or name in directory.entries:
            return name
        folded = name.casefold()
        return next((other for other in directory.entries if other.casefold() == folded), name)

    def get(self, directory: Inode, name: str, *, engine: bool) -> Inode:
        """The same; an error when there is nothing."""
        inode = self.find(directory, name, engine=engine)
        if inode is None:
            raise error(ENOENT)
        return inode

    def _may_change(self, directory: Inode, engine: bool) -> None:
        if engine and not directory.mode & WRITE:
            raise error(EACCES)
        if directory is not self.root and self.path(directory) is None:
            raise error(ENOENT)

    def add(self, directory: Inode, name: str, inode: Inode, *, engine: bool) -> None:
        """A new name. It must be free."""
        if self.find(directory, name, engine=engine) is not None:
            raise error(EEXIST)
        self._may_change(directory, engine)
        inode.by_engine = engine
        self.change_names(Entry(directory, name, None, inode))
        self._show(directory, name, inode, engine)

    def unlink(self, directory: Inode, name: str, *, engine: bool) -> None:
        """Take away the name of a file or link."""
        name = self.spelled(directory, name)
        inode = self.get(directory, name, engine=engine)
        if inode.kind == "directory":
            raise error(EISDIR)
        self._may_change(directory, engine)
        self.change_names(Entry(directory, name, inode, None))

    def rmdir(self, directory: Inode, name: str, *, engine: bool) -> None:
        """Remove an empty directory."""
        name = self.spelled(directory, name)
        inode = self.get(directory, name, engine=engine)
        if inode.kind != "directory":
            raise error(ENOTDIR)
        if inode.entries:
            raise error(ENOTEMPTY)
        self._may_change(directory, engine)
        self.change_names(Entry(directory, name, inode, None))

    def rename(
        self, source: Inode, name: str, target: Inode, new_name: str, *, over: bool, engine: bool
    ) -> None:
        """Give a file or directory another name; `over` what stands there, or only where nothing does."""
        name, new_name = self.spelled(source, name), self.spelled(target, new_name)
        inode, other = self.get(source, name, engine=engine), self.find(target, new_name, engine=engine)
        self._may_change(source, engine)
        self._may_change(target, engine)
        if other is inode:
            if over:
                return
            raise error(EEXIST)
        if other is not None:
            if not over:
                raise error(EEXIST)
            if other.kind == "directory" and (inode.kind != "directory" or other.entries):
                raise error(ENOTEMPTY)
            if other.kind != "directory" and inode.kind == "directory":
                raise error(ENOTDIR)
        self._no_ring(inode, target)
        self.change_names(Entry(source, name, inode, None), Entry(target, new_name, other, inode))
        self._show(target, new_name, inode, engine)

    def exchange(self, source: Inode, name: str, target: Inode, other_name: str, *, engine: bool) -> None:
        """RENAME_EXCHANGE."""
        name, other_name = self.spelled(source, name), self.spelled(target, other_name)
        one, other = self.get(source, name, engine=engine), self.get(target, other_name, engine=engine)
        self._may_change(source, engine)
        self._may_change(target, engine)
        if one is other:
            return
        self._no_ring(one, target)
        self._no_ring(other, source)
        self.change_names(Entry(source, name, one, other), Entry(target, other_name, other, one))
        self._show(target, other_name, one, engine)

    def _no_ring(self, inode: Inode, directory: Inode | None) -> None:
        while directory is not None:
            if directory is inode:
                raise error(EINVAL)
            directory = directory.parent

    def _show(self, directory: Inode, name: str, inode: Inode, engine: bool) -> None:
        """The engine has let a file be seen: it must be whole."""
        if not engine or inode.kind != "file":
            return
        path = self.path(directory)
        if path is not None and path.split("/")[0] != OWN:
            self.shown(f"{path}/{name}", inode.data)


class Hands:
    """What people and their programs do with a disk. No permission stops them, and nobody gets in between."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def _at(self, path: str) -> tuple[Inode, str]:
        directory = self._disk.root
        *heads, name = path.split("/")
        for head in heads:
            directory = self._disk.get(directory, head, engine=False)
        if directory.kind != "directory":
            raise error(ENOTDIR)
        return directory, name

    def _file(self, path: str) -> Inode:
        directory, name = self._at(path)
        inode = self._disk.get(directory, name, engine=False)
        if inode.kind != "file":
            raise error(EISDIR)
        return inode

    def _new_file(self, directory: Inode, name: str, data: bytes) -> Inode:
        inode = self._disk.make("file", 0o644)
        self._disk.add(directory, name, inode, engine=False)
        self._disk.change_data(inode, data)
        return inode

    def write(self, path: str, data: bytes) -> None:
        """Write a file anew, in place, or make it."""
        directory, name = self._at(path)
        if self._disk.find(directory, name, engine=False) is None:
            self._new_file(directory, name, data)
        else:
            self._disk.change_data(self._file(path), data)

    def open(self, path: str) -> Inode:
        """Open a file for writing. Close it with `close`."""
        inode = self._file(path)
        inode.writers += 1
        return inode

    def close(self, inode: Inode) -> None:
        """Close what `open` has opened."""
        inode.writers = max(0, inode.writers - 1)

    def write_open(self, inode: Inode, data: bytes) -> None:
        """Write to an open file, wherever it is by now."""
        self._disk.change_data(inode, data)

    def is_reachable(self, inode: Inode) -> bool:
        """Whether a file has a name anywhere, Hutch's stage included."""
        return any(each is inode for each in self._disk.inodes())

    def append(self, path: str, data: bytes) -> None:
        """Write at a file's end."""
        inode = self._file(path)
        self._disk.change_data(inode, inode.data + data)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file off."""
        self._disk.change_data(self._file(path), self._file(path).data[:size])

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return self._file(path).data

    def replace(self, path: str, data: bytes) -> None:
        """Write beside, and rename over."""
        directory, name = self._at(path)
        self._new_file(directory, f".{name}.new", data)
        self._disk.rename(directory, f".{name}.new", directory, name, over=True, engine=False)

    def rename(self, source: str, target: str) -> None:
        """As `mv -T`."""
        self._disk.rename(*self._at(source), *self._at(target), over=True, engine=False)

    def exchange(self, one: str, other: str) -> None:
        """Swap two names."""
        self._disk.exchange(*self._at(one), *self._at(other), engine=False)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        directory, name = self._at(path)
        if self._disk.find(directory, name, engine=False) is not None:
            raise error(EEXIST)
        self._disk.add(directory, name, self._disk.make("directory", 0o755), engine=False)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._disk.rmdir(*self._at(path), engine=False)

    def unlink(self, path: str) -> None:
        """Remove a file or link."""
        self._disk.unlink(*self._at(path), engine=False)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        directory, name = self._at(path)
        if self._disk.find(directory, name, engine=False) is not None:
            raise error(EEXIST)
        inode = self._disk.make("symlink", 0o777)
        inode.target = target
        self._disk.add(directory, name, inode, engine=False)

    def chmod(self, path: str, mode: int) -> None:
        """Change a mode."""
        self._disk.change_attributes(self._disk.get(*self._at(path), engine=False), mode=mode)

    def utime(self, path: str, mtime_ns: int) -> None:
        """Change a file's time."""
        self._disk.change_attributes(self._file(path), mtime_ns=mtime_ns)

    def tag(self, path: str, name: str, value: bytes | None) -> None:
        """Set an extended attribute, or (None) remove it."""
        self._disk.check_xattr(value or b"")
        inode = self._disk.get(*self._at(path), engine=False)
        if value is None:
            inode.xattrs.pop(name, None)
        else:
            inode.xattrs[name] = value
        self._disk.change_attributes(inode)

    def sync(self, path: str) -> None:
        """Make a file durable, with all names that lead to it."""
        directory, name = self._at(path)
        self._disk.sync(self._disk.get(directory, name, engine=False))
        at: Inode | None = directory
        while at is not None:
            self._disk.sync(at)
            at = at.parent

    def open_up(self) -> None:
        """Give everything back the rights without which nobody can sync it."""
        for path, kind in self.tree().items():
            inode = self._disk.get(*self._at(path), engine=False)
            wanted = inode.mode | (0o700 if kind == "directory" else 0o600)
            if kind != "symlink" and wanted != inode.mode:
                self._disk.change_attributes(inode, mode=wanted)

    def spelled(self, path: str) -> str:
        """A path as the disk writes its last name, which may have been there in another case."""
        head, slash, name = path.rpartition("/")
        try:
            return head + slash + self._disk.spelled(self._at(path)[0], name)
        except OSError:
            return path

    # --- looking

    def tree(self) -> dict[str, str]:
        """Kinds by path."""
        return {path: inode.kind for path, inode in self._walk()}

    def describe(self) -> dict[str, tuple[object, ...]]:
        """All that is synced, by path."""
        return {path: _describe(inode) for path, inode in self._walk()}

    def contents(self) -> list[bytes]:
        """What all files hold."""
        return [inode.data for _, inode in self._walk() if inode.kind == "file"]

    def staged(self) -> list[bytes]:
        """What lies in Hutch's own folder, its mark aside: replaced files that a program has open, or content that comes."""
        own = self._disk.root.entries.get(OWN)
        stage = None if own is None else own.entries.get("stage")
        return [] if stage is None else [inode.data for inode in stage.entries.values()]

    def stage(self) -> list[str]:
        """Names in the stage."""
        own = self._disk.root.entries.get(OWN)
        stage = None if own is None else own.entries.get("stage")
        return [] if stage is None else sorted(stage.entries)

    def _walk(self) -> Iterator[tuple[str, Inode]]:
        stack = [("", self._disk.root)]
        while stack:
            head, directory = stack.pop()
            for name, inode in directory.entries.items():
                if name == OWN and not head:
                    continue
                path = f"{head}/{name}" if head else name
                yield path, inode
                if inode.kind == "directory":
                    stack.append((path, inode))


def _describe(inode: Inode) -> tuple[object, ...]:
    mode = inode.mode & 0o777
    if inode.kind == "directory":
        return ("directory", mode, dict(inode.xattrs))
    if inode.kind == "symlink":
        return ("symlink", inode.target)
    return ("file", mode, inode.mtime_ns, dict(inode.xattrs), inode.data)


def _attributes(content: Content) -> tuple[int, int, int, dict[str, bytes]]:
    return (content.mode, content.mtime_ns, content.ctime_ns, content.xattrs)


def error(number: int) -> OSError:
    """An error as the kernel gives it."""
    return OSError(number, strerror(number))


def is_gone(life: Life | None) -> bool:
    """Whether the program that held something is no more."""
    return life is not None and life.dead
