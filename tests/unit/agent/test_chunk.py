"""Cutting and reading chunks of real files."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.chunk import CuttingCancelled, choose_cut, cut_file, matches, read_chunk
from broker.model import MAX_CHUNK_SIZE_BYTES, Chunk

MIB = 1024 * 1024


def noise(size: int, seed: int) -> bytes:
    """The same bytes on every machine and version: only hashes promise that."""
    blocks = (hashlib.sha256(f"{seed} {at}".encode()).digest() for at in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def write(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def cut(fd: int, log2: int = 16) -> tuple[Chunk, ...]:
    return cut_file(fd, cut=log2, cancelled=lambda: False)[0]


GOLDEN = {
    (16, 1_000_000): [69016, 106346, 82780, 20165, 79540, 67181, 90866, 67254, 106847, 119669, 76590, 91182, 22564],
    (18, 4_000_000): [194950, 352729, 346494, 334124, 361404, 298843, 394009, 595519, 304336, 340704, 269108, 207780],
    (20, 12_000_000): [1229617, 521963, 1093879, 2319777, 1972026, 1156224, 1268252, 1065544, 1085833, 286885],
}  # fmt: skip


@pytest.mark.parametrize(("log2", "size"), GOLDEN)
def test_cut_points_never_move(open_file: int, log2: int, size: int) -> None:
    """A cutter that cuts elsewhere would send every file of every person again."""
    write(open_file, noise(size, log2))
    manifest, read = cut_file(open_file, cut=log2, cancelled=lambda: False)
    assert read == size
    assert [chunk.size for chunk in manifest] == GOLDEN[log2, size]


def test_manifest_is_the_files_bytes_in_order(open_file: int) -> None:
    content = noise(300_000, 1)
    write(open_file, content)
    at = 0
    for chunk in cut(open_file):
        assert chunk.hash == hashlib.sha256(content[at : at + chunk.size]).digest()
        at += chunk.size
    assert at == len(content)


def test_cutting_starts_at_the_files_start_wherever_the_descriptor_stands(open_file: int) -> None:
    write(open_file, noise(200_000, 1))
    first = cut(open_file)
    os.lseek(open_file, 100_000, os.SEEK_SET)
    assert cut(open_file) == first


def test_empty_file_has_no_chunks(open_file: int) -> None:
    assert cut_file(open_file, cut=16, cancelled=lambda: False) == ((), 0)
    assert matches(open_file, ())


def test_chunks_of_constant_bytes_stay_within_the_limit(open_file: int) -> None:
    write(open_file, b"\0" * (9 * MIB))
    assert max(chunk.size for chunk in cut(open_file, 20)) == MAX_CHUNK_SIZE_BYTES


def test_insertion_changes_few_chunks(open_file: int) -> None:
    content = noise(2_000_000, 5)
    write(open_file, content)
    before = set(cut(open_file))
    write(open_file, content[:700_000] + b"an insertion" + content[700_000:])
    assert len(set(cut(open_file)) - before) <= 2


def test_cancelling_stops_between_chunks(open_file: int) -> None:
    write(open_file, noise(500_000, 1))
    answers = iter([False, False, True])
    with pytest.raises(CuttingCancelled):
        cut_file(open_file, cut=16, cancelled=lambda: next(answers))


@pytest.mark.parametrize(
    ("size", "log2"),
    [(0, 16), (16 * MIB, 16), (16 * MIB + 1, 18), (256 * MIB, 18), (256 * MIB + 1, 20), (2**40, 20)],
)
def test_average_grows_with_the_file(size: int, log2: int) -> None:
    assert choose_cut(size) == log2


def test_matches_only_exactly_these_bytes(open_file: int) -> None:
    content = noise(300_000, 2)
    write(open_file, content)
    manifest = cut(open_file)
    assert matches(open_file, manifest)
    os.pwrite(open_file, bytes([content[150_000] ^ 1]), 150_000)
    assert not matches(open_file, manifest), "one bit differs"
    write(open_file, content + b"x")
    assert not matches(open_file, manifest), "one byte longer"
    write(open_file, content[:-1])
    assert not matches(open_file, manifest), "one byte shorter"


def test_read_chunk_verifies_and_leaves_the_position_alone(open_file: int) -> None:
    content = noise(300_000, 3)
    write(open_file, content)
    first, second = cut(open_file)[:2]
    os.lseek(open_file, 7, os.SEEK_SET)
    assert read_chunk(open_file, first.size, second) == content[first.size : first.size + second.size]
    assert os.lseek(open_file, 0, os.SEEK_CUR) == 7
    os.ftruncate(open_file, first.size + 10)
    assert read_chunk(open_file, first.size, second) is None, "truncated meanwhile"
    assert read_chunk(open_file, 1, first) is None, "other bytes there"
