"""Frames on the wire: pure, whatever the stream is cut into."""

import hashlib
import random
import struct

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from block_gateway.wire import (
    HEADER_SIZE_BYTES,
    MAX_HASHES,
    Codec,
    Frame,
    FrameParser,
    Header,
    absent,
    decode_hashes,
    encode_hashes,
    make_frame,
    parse_header,
    unpack_frame,
)
from broker.errors import Corrupt
from broker.model import MAX_CHUNK_SIZE_BYTES

TEXT = b"the same words again and again, " * 200
NOISE = random.Random(1).randbytes(5_000)


def sha(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def claim(raw: bytes, codec: Codec, stored: bytes, raw_size: int | None = None) -> Frame:
    """A frame with whatever header somebody might send."""
    size = len(raw) if raw_size is None else raw_size
    return Frame(Header(sha(raw), codec, size, len(stored)), stored)


def parse_all(pieces: list[bytes]) -> list[Frame]:
    parser = FrameParser()
    frames = []
    for piece in pieces:
        parser.feed(piece)
        while (frame := parser.take()) is not None:
            frames.append(frame)
    parser.finish()
    return frames


def test_header_has_its_layout_for_good() -> None:
    header = Header(bytes(range(32)), Codec.ZSTD, 0x00010203, 0x00000405)
    assert header.encode() == bytes(range(32)) + bytes([1, 0, 1, 2, 3, 0, 0, 4, 5])
    assert absent(b"\7" * 32).encode() == b"\7" * 32 + b"\xff" + bytes(8)


def test_text_is_compressed_and_noise_is_not() -> None:
    assert make_frame(sha(TEXT), TEXT).header.codec is Codec.ZSTD
    assert make_frame(sha(NOISE), NOISE) == Frame(Header(sha(NOISE), Codec.RAW, 5_000, 5_000), NOISE)


@pytest.mark.parametrize("raw", [b"x", TEXT, NOISE, bytes(MAX_CHUNK_SIZE_BYTES)])
def test_what_is_packed_unpacks(raw: bytes) -> None:
    assert unpack_frame(make_frame(sha(raw), raw)) == raw


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_frames_survive_any_cutting_of_the_stream(chunks: list[bytes], data: st.DataObject) -> None:
    frames = [make_frame(sha(raw), raw) for raw in chunks]
    stream = b"".join(frame.encode() for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse_all(pieces) == frames


def test_parser_says_what_is_coming() -> None:
    parser = FrameParser()
    frame = make_frame(sha(NOISE), NOISE)
    parser.feed(frame.encode()[: HEADER_SIZE_BYTES + 10])
    assert parser.take() is None
    assert parser.header == frame.header
    parser.feed(frame.stored[10:])
    assert parser.take() == frame
    assert parser.header is None


@pytest.mark.parametrize("cut", [1, HEADER_SIZE_BYTES - 1, HEADER_SIZE_BYTES, HEADER_SIZE_BYTES + 1, -1])
def test_truncated_stream_is_corrupt(cut: int) -> None:
    stream = make_frame(sha(NOISE), NOISE).encode()
    with pytest.raises(Corrupt):
        parse_all([stream[:cut]])


@pytest.mark.parametrize(
    ("codec", "raw_size", "stored_size"),
    [
        (2, 10, 10),  # a codec of the future
        (0, 0, 0),  # an empty chunk
        (0, 10, 9),  # raw bytes of another number
        (0, MAX_CHUNK_SIZE_BYTES + 1, MAX_CHUNK_SIZE_BYTES + 1),  # too large
        (0, 2**32 - 1, 2**32 - 1),
        (1, MAX_CHUNK_SIZE_BYTES + 1, 10),  # too large once unpacked
        (1, 10, 10),  # compressed, and no smaller
        (1, 10, 0),
        (255, 1, 0),  # absent, with bytes
        (255, 0, 1),
    ],
)
def test_header_that_no_sender_of_ours_writes_is_corrupt(codec: int, raw_size: int, stored_size: int) -> None:
    with pytest.raises(Corrupt):
        parse_header(struct.pack("!32sBII", bytes(32), codec, raw_size, stored_size))


def streamed(raw: bytes, window_log: int) -> bytes:
    """A zstd frame whose maker did not know its size: it claims the whole window."""
    encoder = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return encoder.compress(raw) + encoder.flush()


def test_stream_with_a_modest_window_unpacks() -> None:
    assert unpack_frame(claim(TEXT, Codec.ZSTD, streamed(TEXT, window_log=22))) == TEXT


LIES = {
    "other bytes": Frame(Header(sha(b"abc"), Codec.RAW, 3, 3), b"abd"),
    "other bytes, compressed": Frame(make_frame(sha(TEXT + b"!"), TEXT).header, zstd.compress(TEXT)),
    "more raw bytes than there are": claim(TEXT, Codec.ZSTD, zstd.compress(TEXT), len(TEXT) + 1),
    "fewer raw bytes than there are": claim(TEXT, Codec.ZSTD, zstd.compress(TEXT), len(TEXT) - 1),
    "no zstd frame": claim(TEXT, Codec.ZSTD, b"not zstd"),
    "a zstd frame cut short": claim(TEXT, Codec.ZSTD, zstd.compress(TEXT)[:-3]),
    "something after the frame": claim(TEXT, Codec.ZSTD, zstd.compress(TEXT) + b"x"),
    "two frames": claim(TEXT + TEXT, Codec.ZSTD, zstd.compress(TEXT) * 2),
    "a bomb": claim(bytes(1000), Codec.ZSTD, zstd.compress(bytes(64 * 1024 * 1024)), 1000),
    "a window of 128 MiB": claim(TEXT, Codec.ZSTD, streamed(TEXT, window_log=27)),
}


@pytest.mark.parametrize("frame", LIES.values(), ids=LIES.keys())
def test_frame_that_lies_is_corrupt(frame: Frame) -> None:
    with pytest.raises(Corrupt):
        unpack_frame(frame)


def test_hashes_come_back_in_order_with_doubles() -> None:
    hashes = [sha(b"a"), sha(b"b"), sha(b"a")]
    assert decode_hashes(encode_hashes(hashes)) == hashes
    assert decode_hashes(b"") == []


@pytest.mark.parametrize("size", [1, 31, 33, 32 * (MAX_HASHES + 1)])
def test_list_of_hashes_is_whole_and_bounded(size: int) -> None:
    with pytest.raises(Corrupt):
        decode_hashes(bytes(size))
