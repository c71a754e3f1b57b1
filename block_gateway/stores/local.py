"""Packs as files below one directory: the embedded default, durable on a single machine.

<root>/packs/<first two hex digits>/<pack id>
<root>/temporary/<random>/      one a running gateway, with a lock that dies with it
"""

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from block_gateway.stores.contract import Store, StoreFull
from broker.errors import Corrupt, Misconfigured, NotFound, Unavailable

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_FAN_OUT: Final = tuple(f"{number:02x}" for number in range(256))


class LocalStore(Store):
    """Packs in a local directory. Several gateways on one machine may share it.

    Args:
        root: An absolute path; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._packs = root / "packs"
        self._temporaries = root / "temporary"
        self._temporary = self._temporaries  # our own below it, once opened
        self._lock: int | None = None

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise Misconfigured(
                f"HUTCH_GATEWAY_STORE: {self._packs.parent} cannot be used: {error}"
            ) from error

    async def close(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            await asyncio.to_thread(self._leave, lock)

    async def put(self, pack_id: UUID, data: bytes) -> None:
        with _translated():
            await asyncio.to_thread(self._put, pack_id, data)

    async def get_range(self, pack_id: UUID, offset: int, length: int) -> bytes:
        with _translated():
            return await asyncio.to_thread(self._get_range, pack_id, offset, length)

    async def delete(self, pack_id: UUID) -> None:
        with _translated():
            await asyncio.to_thread(self._delete, pack_id)

    async def exists(self, pack_id: UUID) -> bool:
        with _translated():
            return await asyncio.to_thread(self._path(pack_id).is_file)

    async def list_packs(self) -> AsyncIterator[UUID]:
        for shelf in _FAN_OUT:
            with _translated():
                names = await asyncio.to_thread(os.listdir, self._packs / shelf)
            for name in names:
                yield UUID(name)

    def _path(self, pack_id: UUID) -> Path:
        return self._packs / pack_id.hex[:2] / str(pack_id)

    def _prepare(self) -> None:
        # All shelves are made durable now, so that a put need not ask whether its own is.
        for shelf in _FAN_OUT:
            (self._packs / shelf).mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        _sync_directory(self._packs)
        _sync_directory(self._packs.parent)
        self._temporaries.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
        for left in self._temporaries.iterdir():
            _remove_if_stale(left)
        while (lock := self._enter()) is None:
            pass
        self._lock = lock

    def _enter(self) -> int | None:
        """Make and lock our own temporary directory; None when a starting neighbour took it for a stale one."""
        self._temporary = self._temporaries / uuid4().hex
        self._temporary.mkdir(mode=_PRIVATE_DIRECTORY)
        try:
            lock = os.open(self._temporary, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._temporary.exists():
                return lock
        except BlockingIOError:
            pass
        os.close(lock)
        return None

    def _leave(self, lock: int) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(lock)

    def _put(self, pack_id: UUID, data: bytes) -> None:
        target = self._path(pack_id)
        temporary = self._temporary / str(pack_id)
        try:
            _write_durably(temporary, data)
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)

    def _get_range(self, pack_id: UUID, offset: int, length: int) -> bytes:
        try:
            fd = os.open(self._path(pack_id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"there is no pack {pack_id}") from error
        try:
            data = os.pread(fd, length, offset)
            while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
                data += more
        finally:
            os.close(fd)
        if len(data) < length:
            raise Corrupt(f"pack {pack_id} is shorter than its index says")
        return data

    def _delete(self, pack_id: UUID) -> None:
        path = self._path(pack_id)
        path.unlink(missing_ok=True)
        _sync_directory(path.parent)


def _write_durably(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_if_stale(directory: Path) -> None:
    """Remove another life's temporary files, unless that gateway lives: then it holds the lock."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull("the block store is full: make room on its disk") from error
        raise Unavailable(f"the block store's disk fails: {error.strerror}") from error
