"""A file system in memory with the whims of others, mounted for real: `python -m tests.filesystems.fuse PLACE [OPTIONS]`.

It speaks the kernel's FUSE protocol over `/dev/fuse` by itself, so that a test needs neither a library nor a device
of that kind: one that folds case or normalises names (as macOS and Windows do), refuses some names, has no exchange
of two names, keeps coarse times, or has a quota. Only what a synchroniser calls is there.

Source: include/uapi/linux/fuse.h, protocol 7.31.
"""

import argparse
import ctypes
import errno
import os
import signal
import stat
import struct
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

HEADER = struct.Struct("<IIQQIIIHH")
ANSWER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
MAX_WRITE = 128 * 1024
NOREPLACE, EXCHANGE = 1, 2


class Options(argparse.Namespace):
    """What kind of file system to be."""

    place: str
    fold_case: bool
    normalise: bool
    keep_spelling: bool
    refuse: str
    name_bytes: int
    plain_rename: bool
    grain_ns: int
    quota_bytes: int


class Inode:
    """One object; `names` are a directory's entries by folded name."""

    def __init__(self, number: int, mode: int, now: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = self.gid = 0
        self.data = bytearray()
        self.names: dict[str, tuple[str, Inode]] = {}
        self.mtime = self.ctime = now
        self.links = 2 if stat.S_ISDIR(mode) else 1


class Failed(Exception):  # noqa: N818  # an answer, by its number
    """The call fails with this number."""

    def __init__(self, number: int) -> None:
        self.number = number


class FileSystem:
    """The tree, and one method for each call of the protocol."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.inodes: dict[int, Inode] = {}
        self.root = self._make(stat.S_IFDIR | 0o777)
        self.quota_bytes = options.quota_bytes
        self.calls: dict[int, Callable[[Inode, bytes], bytes]] = {
            1: self.lookup, 3: self.getattr, 4: self.setattr, 5: self.readlink, 6: self.symlink, 9: self.mkdir,
            10: self.unlink, 11: self.rmdir, 12: self.rename, 13: self.link, 14: self.open, 15: self.read,
            16: self.write, 17: self.statfs, 18: self.nothing, 20: self.nothing, 25: self.nothing, 26: self.init,
            27: self.open, 28: self.readdir, 29: self.nothing, 30: self.nothing, 35: self.create, 50: self.nothing,
        }  # fmt: skip
        if not options.plain_rename:
            self.calls[45] = self.rename2

    # --- names

    def fold(self, name: str) -> str:
        if self.options.normalise:
            name = unicodedata.normalize("NFD", name)
        return name.casefold() if self.options.fold_case else name

    def decode(self, raw: bytes) -> str:
        name = raw.rstrip(b"\0").decode(errors="surrogateescape")
        if len(raw.rstrip(b"\0")) > self.options.name_bytes:
            raise Failed(errno.ENAMETOOLONG)
        if any(c in self.options.refuse for c in name):
            raise Failed(errno.EINVAL)
        return name

    def stored(self, name: str) -> str:
        respells = self.options.normalise and not self.options.keep_spelling
        return unicodedata.normalize("NFD", name) if respells else name

    # --- inodes

    def now(self) -> int:
        grain = self.options.grain_ns
        return time.time_ns() // grain * grain  # noqa: TID251  # a file system has the wall clock's time

    def _make(self, mode: int) -> Inode:
        inode = Inode(len(self.inodes) + 1, mode, self.now())
        self.inodes[inode.number] = inode
        return inode

    def _add(self, parent: Inode, raw: bytes, mode: int) -> Inode:
        name = self.decode(raw)
        if self.fold(name) in parent.names:
            raise Failed(errno.EEXIST)
        inode = self._make(mode)
        self._enter(parent, name, inode)
        return inode

    def _enter(self, parent: Inode, name: str, inode: Inode) -> None:
        parent.names[self.fold(name)] = (self.stored(name), inode)
        parent.mtime = parent.ctime = self.now()

    def _leave(self, parent: Inode, name: str) -> Inode:
        inode = parent.names.pop(self.fold(name))[1]
        parent.mtime = parent.ctime = inode.ctime = self.now()
        return inode

    def _find(self, parent: Inode, name: str) -> Inode:
        if self.fold(name) not in parent.names:
            raise Failed(errno.ENOENT)
        return parent.names[self.fold(name)][1]

    def attributes(self, inode: Inode) -> bytes:
        size, seconds = len(inode.data), 1_000_000_000
        times = (inode.mtime, inode.mtime, inode.ctime)
        return ATTRIBUTES.pack(
            inode.number, size, -(-size // 512), *(t // seconds for t in times), *(t % seconds for t in times),
            inode.mode, inode.links, inode.uid, inode.gid, 0, 4096, 0,
        )  # fmt: skip

    def entry(self, inode: Inode) -> bytes:
        return struct.pack("<4Q2I", inode.number, 0, 0, 0, 0, 0) + self.attributes(inode)

    # --- calls

    def init(self, _: Inode, body: bytes) -> bytes:
        readahead = struct.unpack_from("<I", body, 8)[0]
        return struct.pack("<4I2H2I2H8I", 7, 31, readahead, 1 << 5, 12, 9, MAX_WRITE, 1, 0, 0, *[0] * 8)

    def nothing(self, *_: object) -> bytes:
        return b""

    def lookup(self, parent: Inode, body: bytes) -> bytes:
        return self.entry(self._find(parent, self.decode(body)))

    def getattr(self, inode: Inode, _: bytes) -> bytes:
        return struct.pack("<Q2I", 0, 0, 0) + self.attributes(inode)

    def setattr(self, inode: Inode, body: bytes) -> bytes:
        valid, size = struct.unpack_from("<I", body)[0], struct.unpack_from("<Q", body, 16)[0]
        mtime, mtime_ns = struct.unpack_from("<q", body, 40)[0], struct.unpack_from("<I", body, 60)[0]
        mode, _, uid, gid = struct.unpack_from("<4I", body, 68)
        if valid & 1:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        inode.uid = uid if valid & 2 else inode.uid
        inode.gid = gid if valid & 4 else inode.gid
        if valid & 8:
            self._resize(inode, size)
        if valid & 256:
            inode.mtime = self.now()
        elif valid & 32:
            grain = self.options.grain_ns
            inode.mtime = (mtime * 1_000_000_000 + mtime_ns) // grain * grain
        inode.ctime = self.now()
        return self.getattr(inode, b"")

    def _resize(self, inode: Inode, size: int) -> None:
        used = sum(len(other.data) for other in self.inodes.values())
        if size > len(inode.data) and used + size - len(inode.data) > self.quota_bytes:
            raise Failed(errno.EDQUOT)
        del inode.data[size:]
        inode.data.extend(bytes(size - len(inode.data)))
        inode.mtime = inode.ctime = self.now()

    def readlink(self, inode: Inode, _: bytes) -> bytes:
        return bytes(inode.data)

    def symlink(self, parent: Inode, body: bytes) -> bytes:
        name, target = body.split(b"\0")[:2]
        inode = self._add(parent, name, stat.S_IFLNK | 0o777)
        inode.data.extend(target)
        return self.entry(inode)

    def mkdir(self, parent: Inode, body: bytes) -> bytes:
        mode, umask = struct.unpack_from("<II", body)
        return self.entry(self._add(parent, body[8:], stat.S_IFDIR | mode & ~umask & 0o7777))

    def unlink(self, parent: Inode, body: bytes) -> bytes:
        name = self.decode(body)
        self._find(parent, name)
        self._leave(parent, name).links -= 1
        return b""

    def rmdir(self, parent: Inode, body: bytes) -> bytes:
        name = self.decode(body)
        if self._find(parent, name).names:
            raise Failed(errno.ENOTEMPTY)
        self._leave(parent, name).links = 0
        return b""

    def rename(self, parent: Inode, body: bytes, flags: int = 0, at: int = 8) -> bytes:
        target = self.inodes[struct.unpack_from("<Q", body)[0]]
        old, new = (self.decode(raw) for raw in body[at:].split(b"\0")[:2])
        inode = self._find(parent, old)
        taken = target.names.get(self.fold(new))
        if flags & NOREPLACE and taken is not None:
            raise Failed(errno.EEXIST)
        if flags & EXCHANGE:
            other = self._find(target, new)
            self._enter(parent, old, other)
            self._enter(target, new, inode)
            inode.ctime = other.ctime = self.now()
            return b""
        if taken is not None and taken[1].names:
            raise Failed(errno.ENOTEMPTY)
        self._leave(parent, old)
        self._enter(target, new, inode)
        return b""

    def rename2(self, parent: Inode, body: bytes) -> bytes:
        return self.rename(parent, body, flags=struct.unpack_from("<I", body, 8)[0], at=16)

    def link(self, parent: Inode, body: bytes) -> bytes:
        inode, name = self.inodes[struct.unpack_from("<Q", body)[0]], self.decode(body[8:])
        if self.fold(name) in parent.names:
            raise Failed(errno.EEXIST)
        self._enter(parent, name, inode)
        inode.links += 1
        inode.ctime = self.now()
        return self.entry(inode)

    def open(self, inode: Inode, body: bytes) -> bytes:
        if struct.unpack_from("<I", body)[0] & os.O_TRUNC:
            self._resize(inode, 0)
        return struct.pack("<QII", 0, 0, 0)

    def create(self, parent: Inode, body: bytes) -> bytes:
        _, mode, umask = struct.unpack_from("<III", body)
        inode = self._add(parent, body[16:], stat.S_IFREG | mode & ~umask & 0o7777)
        return self.entry(inode) + struct.pack("<QII", 0, 0, 0)

    def read(self, inode: Inode, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        return bytes(inode.data[offset : offset + size])

    def write(self, inode: Inode, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        if offset + size > len(inode.data):
            self._resize(inode, offset + size)
        inode.data[offset : offset + size] = body[40 : 40 + size]
        inode.mtime = inode.ctime = self.now()
        return struct.pack("<II", size, 0)

    def statfs(self, *_: object) -> bytes:
        return struct.pack(
            "<5Q4I6I",
            1 << 20,
            1 << 19,
            1 << 19,
            1 << 20,
            1 << 19,
            4096,
            self.options.name_bytes,
            4096,
            *[0] * 7,
        )

    def readdir(self, inode: Inode, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        out = b""
        for at, (name, child) in list(enumerate(inode.names.values(), 1))[offset:]:
            raw = name.encode(errors="surrogateescape")
            entry = struct.pack("<QQII", child.number, at, len(raw), stat.S_IFMT(child.mode) >> 12) + raw
            entry += bytes(-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    # --- the loop

    def serve(self, device: int) -> None:
        """Answer the kernel until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, MAX_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            _, code, unique, node = HEADER.unpack_from(request)[:4]
            if code in (2, 36, 42):  # forget, interrupt: no answer
                continue
            number, answer = 0, b""
            try:
                call = self.calls.get(code)
                if call is None:
                    raise Failed(errno.ENOSYS)
                answer = call(self.inodes.get(node, self.root), request[HEADER.size :])
            except Failed as failed:
                number = failed.number
            try:
                os.write(device, ANSWER.pack(ANSWER.size + len(answer), -number, unique) + answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # whoever asked has been interrupted
                    raise


def mount(place: str) -> int:
    """Mount; the descriptor by which the kernel asks."""
    device = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={device},rootmode=40777,user_id=0,group_id=0,allow_other,default_permissions".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"hutch-test", os.fsencode(place), b"fuse.hutch-test", 0, data) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), place)
    return device


def main() -> None:
    """Mount, say so, and serve. SIGUSR1 lifts the quota."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place")
    for flag in ("--fold-case", "--normalise", "--keep-spelling", "--plain-rename"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--refuse", default="")
    parser.add_argument("--name-bytes", type=int, default=255)
    parser.add_argument("--grain-ns", type=int, default=1)
    parser.add_argument("--quota-bytes", type=int, default=1 << 40)
    options = parser.parse_args(namespace=Options())
    system = FileSystem(options)

    def lift(*_: object) -> None:
        system.quota_bytes = 1 << 40

    signal.signal(signal.SIGUSR1, lift)
    device = mount(str(Path(options.place)))
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    system.serve(device)


if __name__ == "__main__":
    main()
