"""Tell what changes below a folder. On Linux by inotify itself, elsewhere by `watchfiles`, whose call `awatch` is like.

`watchfiles` follows symbolic links on Linux: one to `/` would have the whole machine watched. It also drops without a
word what the kernel drops (an overflow of events, a directory for which no watch was left), and gives up at a name
that is no UTF-8. Here all that ends the watching, or the watching says so: whoever watches looks at all then.

Source: inotify(7); the layout of an event is the kernel's ABI.
"""

import asyncio
import ctypes
import errno
import os
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from agent.filesystem import Root
from agent.finish import in_thread
from broker.model import RESERVED_NAME

POLL_S: Final = 5.0
"""How long to leave between two looks where there are no events."""

_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED, _ONLYDIR, _ISDIR = 0x2000, 0x4000, 0x8000, 0x0100_0000, 0x4000_0000
_WANTED: Final = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
)
_EVENT: Final = struct.Struct("=iIII")
_READ_SIZE_BYTES: Final = 256 * 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)


class WatchEnded(Exception):  # noqa: N818  # not an error: a reason to watch anew
    """Events may have been missed. Look at everything, and watch again."""


async def awatch(
    folder: str, *, step: int, debounce: int, force_polling: bool, rust_timeout: int
) -> AsyncIterator[set[str]]:
    """Sets of paths at which something has changed.

    Args:
        folder: What to watch, with all below it but Hutch's own directory at its top.
        step: Milliseconds without another event after which those so far are told of.
        debounce: Milliseconds after which they are told of in any case.
        force_polling: There are no events to be had: wait for a while, and end.
        rust_timeout: Milliseconds after which `watchfiles` looks whether it shall stop.

    Raises:
        WatchEnded: When some may have been missed.
        OSError: When the folder cannot be watched; with "limit" in its words, for a want of watches.
    """
    if force_polling:
        await asyncio.sleep(POLL_S)
        return
    if sys.platform == "linux":
        async for paths in _by_inotify(folder, step / 1_000, debounce / 1_000):
            yield paths
        return
    try:
        async for changes in watchfiles.awatch(
            folder,
            watch_filter=None,
            step=step,
            debounce=debounce,
            rust_timeout=rust_timeout,
            yield_on_timeout=False,
        ):
            yield {path for _, path in changes}
    except ExceptionGroup as errors:
        if errors.split(WatchfilesRustInternalError)[1] is not None:
            raise
        raise WatchEnded("a name that the watcher cannot tell of") from errors


async def _by_inotify(folder: str, step_s: float, debounce_s: float) -> AsyncIterator[set[str]]:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    inotify = _Inotify(Path(folder))
    try:
        await in_thread(inotify.cover, "")
        loop.add_reader(inotify.fd, readable.set)
        while True:
            await readable.wait()
            paths, until = set[str](), loop.time() + debounce_s
            while readable.is_set() and loop.time() < until:
                readable.clear()
                paths |= await in_thread(inotify.take)
                await asyncio.sleep(step_s)
            if paths:
                yield {f"{folder}/{path}" if path else folder for path in paths}
    finally:
        loop.remove_reader(inotify.fd)
        inotify.close()


class _Inotify:
    """Watches of all directories below a folder. Follows no link, and stays on the folder's file system."""

    def __init__(self, folder: Path) -> None:
        self._root = Root(folder)
        self._paths: dict[int, str] = {}
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            number = ctypes.get_errno()
            self._root.close()
            raise OSError(
                number, "the limit of watchers is reached" if number == errno.EMFILE else os.strerror(number)
            )

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)
        self._root.close()

    def cover(self, path: str) -> set[str]:
        """Watch a directory and all below it. Blocks. One that was moved here is known by its new path from now on.

        Returns:
            What is watched by that.
        """
        stack, covered = [path], set[str]()
        while stack:
            at = stack.pop()
            try:
                with self._root.directory(at) as fd:
                    if os.fstat(fd).st_dev == self._root.device:
                        self._watch(fd, at)
                        covered.add(at)
                        stack.extend(self._below(fd, at))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    raise OSError(error.errno, "the limit of watches is reached") from error
        return covered

    def _below(self, fd: int, path: str) -> list[str]:
        with os.scandir(fd) as entries:
            return [
                f"{path}/{entry.name}" if path else entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and (path or entry.name != RESERVED_NAME)
            ]

    def _watch(self, fd: int, path: str) -> None:
        # By the descriptor: a path may be too long for the kernel, and lead elsewhere by now.
        number = _libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d/." % fd, _WANTED | _ONLYDIR)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._paths[number] = path

    def take(self) -> set[str]:
        """The paths of the events so far. New directories are watched. Blocks for those."""
        paths: set[str] = set()
        while True:
            try:
                data = os.read(self.fd, _READ_SIZE_BYTES)
            except BlockingIOError:
                return paths
            at, covered = 0, set[str]()  # all these events are older than what is covered for them
            while at < len(data):
                number, mask, _, size = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
                at += _EVENT.size + size
                self._take_event(number, mask, os.fsdecode(name), paths, covered)

    def _take_event(self, number: int, mask: int, name: str, paths: set[str], covered: set[str]) -> None:
        if mask & (_OVERFLOW | _UNMOUNT):
            raise WatchEnded("the kernel dropped events, or the folder was unmounted")
        directory = self._paths.get(number)
        if directory is None:
            return
        if mask & _IGNORED:
            del self._paths[number]
            return
        if not directory and mask & (_DELETE_SELF | _MOVE_SELF):
            raise WatchEnded("the folder was moved or removed")
        path = f"{directory}/{name}" if directory and name else directory or name
        paths.add(path)
        is_new = mask & _ISDIR and mask & (_CREATE | _MOVED_TO) and path != RESERVED_NAME
        if is_new and path not in covered:
            covered |= self.cover(path)
