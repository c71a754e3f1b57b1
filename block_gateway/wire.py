"""The gateway's public face: how chunks and hashes look on the wire. Pure, and shared with the agent.

A chunk frame is a header of 41 bytes, big-endian, and then `stored size` bytes:

    hash (32) | codec (1) | raw size (4) | stored size (4) | stored bytes

`hash` is SHA-256 of the raw bytes. With codec `RAW` the stored bytes are the raw ones; with `ZSTD` they are one zstd
frame, smaller than the raw bytes; an `ABSENT` frame is a header alone, with both sizes 0. A list of hashes is 32
bytes each, end to end.
"""

import hashlib
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from broker.errors import Corrupt
from broker.model import MAX_CHUNK_SIZE_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HASH_SIZE_BYTES: Final = 32
MAX_HASHES: Final = 65_536
"""Hashes in one request, to ask for or to read."""

CONTENT_TYPE: Final = "application/octet-stream"

_HEADER: Final = struct.Struct("!32sBII")
HEADER_SIZE_BYTES: Final = _HEADER.size

_WORTH_COMPRESSING: Final = 0.94
_LEVEL: Final = 1  # 3 makes these chunks a tenth smaller, and takes half as long again
# The decoder allocates the window that a frame claims: without a bound, 30 bytes would cost 128 MiB.
_MAX_WINDOW_LOG: Final = 23


class Codec(IntEnum):
    """How a frame's stored bytes hold the raw ones."""

    RAW = 0
    ZSTD = 1
    ABSENT = 255


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a frame's bytes. Sizes in bytes; both are 0 when the chunk is absent."""

    hash: bytes
    codec: Codec
    raw_size: int
    stored_size: int

    def encode(self) -> bytes:
        """The header's 41 bytes."""
        return _HEADER.pack(self.hash, self.codec, self.raw_size, self.stored_size)


@dataclass(frozen=True, slots=True)
class Frame:
    """A chunk as it travels and is stored. Its claim is not believed before `unpack_frame`."""

    header: Header
    stored: bytes

    def encode(self) -> bytes:
        """The whole frame, as one copy."""
        return self.header.encode() + self.stored


def make_frame(chunk_hash: bytes, raw: bytes) -> Frame:
    """Pack a chunk's raw bytes, compressed where that pays (at most 94 % of the size). Takes CPU: call in a thread."""
    packed = zstd.compress(raw, _LEVEL)
    if len(packed) <= len(raw) * _WORTH_COMPRESSING:
        return Frame(Header(chunk_hash, Codec.ZSTD, len(raw), len(packed)), packed)
    return Frame(Header(chunk_hash, Codec.RAW, len(raw), len(raw)), raw)


def absent(chunk_hash: bytes) -> Header:
    """Say that there is no such chunk for this reader. It is a whole frame."""
    return Header(chunk_hash, Codec.ABSENT, 0, 0)


def unpack_frame(frame: Frame) -> bytes:
    """The chunk's raw bytes, proven. Takes CPU: call in a thread. Never makes more bytes than the header claims.

    Raises:
        Corrupt: The bytes do not decode to exactly the claimed size, or their SHA-256 is another.
    """
    raw = (
        frame.stored if frame.header.codec is Codec.RAW else _decompress(frame.stored, frame.header.raw_size)
    )
    if len(raw) != frame.header.raw_size:
        raise Corrupt("a chunk has not the size that its frame claims")
    if hashlib.sha256(raw).digest() != frame.header.hash:
        raise Corrupt("a chunk's bytes do not match its hash")
    return raw


def _decompress(stored: bytes, raw_size: int) -> bytes:
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    try:
        # One byte more than promised: a longer content shows, and an exact one is read to its end.
        raw = decoder.decompress(stored, max_length=raw_size + 1)
    except zstd.ZstdError as error:
        raise Corrupt(f"a chunk does not decompress: {error}") from error
    if not decoder.eof or decoder.unused_data:
        raise Corrupt("a chunk's bytes are not one whole zstd frame of the size that it claims")
    return raw


def parse_header(data: bytes) -> Header:
    """Read a header of 41 bytes.

    Raises:
        Corrupt: An unknown codec, or sizes that no sender of ours would claim.
    """
    chunk_hash, codec_number, raw_size, stored_size = _HEADER.unpack(data)
    try:
        codec = Codec(codec_number)
    except ValueError:
        raise Corrupt(f"a frame has the unknown codec {codec_number}") from None
    if not _sizes_are_sound(codec, raw_size, stored_size):
        raise Corrupt(f"a {codec.name} frame claims {raw_size} bytes in {stored_size}")
    return Header(chunk_hash, codec, raw_size, stored_size)


def _sizes_are_sound(codec: Codec, raw_size: int, stored_size: int) -> bool:
    if codec is Codec.ABSENT:
        return raw_size == stored_size == 0
    if not 1 <= raw_size <= MAX_CHUNK_SIZE_BYTES:
        return False
    if codec is Codec.RAW:
        return stored_size == raw_size
    return 1 <= stored_size < raw_size


class FrameParser:
    """Frames out of a stream of bytes, however it is cut. Holds at most one frame and the last piece fed.

    Feed it, then take until None:

        parser.feed(data)
        while (frame := parser.take()) is not None: ...
        parser.finish()  # at the stream's end
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: Header | None = None

    @property
    def header(self) -> Header | None:
        """The header of the frame whose bytes are still coming; None between frames."""
        return self._header

    def feed(self, data: bytes) -> None:
        """Add the stream's next bytes."""
        self._buffer += data

    def take(self) -> Frame | None:
        """The next whole frame; None when more bytes are needed (`header` then says for what).

        Raises:
            Corrupt: The stream is no stream of frames. Nothing after it can be read.
        """
        if self._header is None and not self._take_header():
            return None
        header = self._header
        assert header is not None
        if len(self._buffer) < header.stored_size:
            return None
        self._header = None
        return Frame(header, self._cut(header.stored_size))

    def finish(self) -> None:
        """Say that the stream has ended.

        Raises:
            Corrupt: In the middle of a frame.
        """
        if self._header is not None or self._buffer:
            raise Corrupt("the stream of chunks ends in the middle of one")

    def _take_header(self) -> bool:
        if len(self._buffer) < HEADER_SIZE_BYTES:
            return False
        self._header = parse_header(self._cut(HEADER_SIZE_BYTES))
        return True

    def _cut(self, size: int) -> bytes:
        piece = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return piece


def encode_hashes(hashes: Iterable[bytes]) -> bytes:
    """Hashes end to end."""
    return b"".join(hashes)


def decode_hashes(data: bytes) -> list[bytes]:
    """Read a list of hashes, as it was sent, doubles included.

    Raises:
        Corrupt: Not a whole number of hashes, or more than `MAX_HASHES`.
    """
    if len(data) % HASH_SIZE_BYTES:
        raise Corrupt("a list of hashes has a part of one")
    if len(data) > MAX_HASHES * HASH_SIZE_BYTES:
        raise Corrupt(f"a list of hashes has more than {MAX_HASHES}")
    return [data[at : at + HASH_SIZE_BYTES] for at in range(0, len(data), HASH_SIZE_BYTES)]
