"""Cut files into chunks by their content (FastCDC), so that an insertion moves one boundary and not all that follow.

Everything here reads and hashes: call it in a thread. Files are read as streams or by `pread`, never by mmap: a
truncation by somebody else meanwhile would kill the process.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Final

from pyfastcdc import FastCDC

from broker.errors import Retryable
from broker.model import MAX_CHUNK_SIZE_BYTES, Chunk, Manifest

CUTS: Final = (16, 18, 20)
"""The log2 of the average chunk sizes in use. Stored with each file: another cutter finds other boundaries."""

_NORMALIZATION: Final = 2  # fewer very small and very large chunks than with 1
_MIB: Final = 1024 * 1024


class CuttingCancelled(Retryable):
    """The caller's `cancelled` said so. Nothing was kept; cut again when there is reason to."""

    code = "cancelled"


def choose_cut(size: int) -> int:
    """The log2 of the average chunk size for a file of `size` bytes: 64 KiB, 256 KiB or 1 MiB.

    Small chunks send less of a small edit, and cost about 40 bytes each in every manifest, index and request. A file
    that people edit is mostly below 16 MiB: there 64 KiB is at most some 256 entries. Up to 256 MiB the average
    grows fourfold, which keeps to about 1,000 entries; above it 1 MiB, as chunks may be 4 MiB at most, so that 1 GiB
    takes 1,000 entries too. A file that has been cut before keeps its cut, or it would share nothing with its past.
    """
    if size <= 16 * _MIB:
        return 16
    if size <= 256 * _MIB:
        return 18
    return 20


def cut_file(
    fd: int, *, cut: int, cancelled: Callable[[], bool], size: int | None = None
) -> tuple[Manifest, int]:
    """Read an open file from its start to its end, into a manifest.

    Source: FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking", 2020), as in pyfastcdc.

    Args:
        fd: Open for reading. Its position moves.
        cut: log2 of the average chunk size, one of `CUTS`.
        cancelled: Asked once a chunk.
        size: How many bytes of it, from the beginning; None: all.

    Returns:
        The manifest of what was read, and the number of bytes read. The file may have changed meanwhile: the caller
        compares its `fstat` before and after, and believes this only if nothing moved.

    Raises:
        CuttingCancelled: `cancelled()` was true.
        OSError: The file cannot be read.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    stream = _Descriptor(fd) if size is None else _Beginning(fd, size)
    chunks: list[Chunk] = []
    total = 0
    for piece in _cutter(cut).cut_stream(stream):
        if cancelled():
            raise CuttingCancelled("stopped cutting a file, as was asked")
        # `data` is valid only until the next piece: hashed here, never kept.
        chunks.append(Chunk(hashlib.sha256(piece.data).digest(), piece.length))
        total += piece.length
    return tuple(chunks), total


def matches(fd: int, manifest: Manifest) -> bool:
    """Say whether the open file holds exactly the manifest's bytes, hashed along the manifest's own boundaries.

    Stops at the first difference. Raises `OSError` when the file cannot be read.
    """
    size = sum(chunk.size for chunk in manifest)
    if os.fstat(fd).st_size != size:
        return False
    return begins_with(fd, manifest) and os.pread(fd, 1, size) == b""


def begins_with(fd: int, manifest: Manifest) -> bool:
    """Say whether the open file begins with the manifest's bytes. Raises `OSError` when it cannot be read."""
    offset = 0
    for chunk in manifest:
        if read_chunk(fd, offset, chunk) is None:
            return False
        offset += chunk.size
    return True


def read_chunk(fd: int, offset: int, chunk: Chunk) -> bytes | None:
    """The chunk's bytes from `offset` of an open file; None when the file does not hold them there (any more).

    Does not move the file's position: several threads may read one descriptor. Raises `OSError` when it cannot be read.
    """
    data = _pread_all(fd, chunk.size, offset)
    if len(data) != chunk.size or hashlib.sha256(data).digest() != chunk.hash:
        return None
    return data


def _pread_all(fd: int, size: int, offset: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) in (0, size):
        return data
    parts = [data]
    got = len(data)
    while got < size and (data := os.pread(fd, size - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def _cutter(cut: int) -> FastCDC:
    average = 2**cut
    return FastCDC(
        average,
        min_size=average // 4,
        max_size=min(average * 4, MAX_CHUNK_SIZE_BYTES),
        normalized_chunking=_NORMALIZATION,
    )


class _Descriptor:
    """A file descriptor as the stream that the cutter reads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def readinto(self, buffer: memoryview) -> int:
        return os.readv(self._fd, [buffer])


class _Beginning:
    """The first bytes of a descriptor."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        got = os.readv(self._fd, [buffer[: self._left]])
        self._left -= got
        return got
