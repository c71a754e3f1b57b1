"""Bringing content to the stage: whole, or not at all."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agent.filesystem import STAGE
from agent.plan import Change
from agent.stage import Source, Stager, stage_path
from agent.trees import Node, replace
from broker.errors import Corrupt, Unavailable
from broker.model import ROOT, Chunk, FullContent, Kind, manifest_digest
from tests.unit.agent.disk import Disk


def chunk_of(data: bytes) -> Chunk:
    return Chunk(hashlib.sha256(data).digest(), len(data))


class Gateway:
    """Has some chunks; `fails` after having given that many."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = {hashlib.sha256(data).digest(): data for data in chunks}
        self.asked: list[bytes] = []
        self.fails: int | None = None
        self.silent: set[bytes] = set()

    async def download(
        self,
        workspace_id: UUID,
        chunks: Sequence[Chunk],
        sink: Callable[[Chunk, bytes], None],
        on_bytes: Callable[[int], None],
    ) -> set[bytes]:
        absent = set()
        for number, chunk in enumerate(chunks):
            if number == self.fails:
                raise Unavailable("gone")
            data = self.chunks.get(chunk.hash)
            self.asked.append(data or b"?")
            if data is None:
                absent.add(chunk.hash)
            elif data not in self.silent:
                sink(chunk, data)
        return absent


def file_of(number: int, *pieces: bytes, mode: int = 0o640) -> tuple[Node, FullContent]:
    content = FullContent(16, tuple(chunk_of(piece) for piece in pieces))
    node = Node(
        node_id=UUID(int=number),
        parent_id=ROOT,
        name=f"{number}",
        kind=Kind.FILE,
        mode=mode,
        mtime_ns=1_234_567_890_000_000_001,
        size=sum(map(len, pieces)),
        digest=manifest_digest(content.chunks),
    )
    return node, content


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


async def stage(
    disk: Disk, gateway: Gateway, *files: tuple[Node, FullContent], sources: dict[UUID, Source] | None = None
):
    stager = Stager(disk.root, gateway, uuid4())  # type: ignore[arg-type]
    manifests = {node.digest: content for node, content in files}
    return await stager.stage(
        [Change(None, node) for node, _ in files], manifests, sources or {}, lambda size: None
    )


def content(disk: Disk, node: Node) -> bytes:
    return (disk.path / stage_path(node)).read_bytes()


async def test_content_comes_with_its_mode_and_time(disk: Disk) -> None:
    gateway = Gateway(b"one", b"two")
    node, manifest = file_of(1, b"one", b"two", b"one")
    staged, lost = await stage(disk, gateway, (node, manifest))
    status = (disk.path / stage_path(node)).stat()
    assert content(disk, node) == b"onetwoone"
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, node.mtime_ns)
    assert (staged[node.node_id].look.ino, lost) == (status.st_ino, set())
    assert sorted(gateway.asked) == [b"one", b"two"]  # each chunk once


async def test_an_empty_file_and_a_link_need_nobody(disk: Disk) -> None:
    empty, nothing = file_of(1)
    link = Node(
        node_id=UUID(int=2), parent_id=ROOT, name="l", kind=Kind.SYMLINK, target="../away", mtime_ns=5
    )
    gateway = Gateway()
    staged, _ = await stage(disk, gateway, (empty, nothing), (link, nothing))
    assert gateway.asked == []
    assert content(disk, empty) == b""
    assert (disk.path / stage_path(link)).readlink() == Path("../away")
    assert len(staged) == 2


async def test_what_the_old_file_has_is_not_fetched(disk: Disk) -> None:
    _, old = file_of(9, b"head", b"body", b"tail")
    disk.write("old", "headbodytail")
    node, manifest = file_of(1, b"new head", b"body", b"tail")
    gateway = Gateway(b"new head")
    await stage(disk, gateway, (node, manifest), sources={node.node_id: Source("old", old)})
    assert content(disk, node) == b"new headbodytail"
    assert gateway.asked == [b"new head"]


async def test_an_old_file_that_was_written_to_is_not_believed(disk: Disk) -> None:
    _, old = file_of(9, b"head", b"body")
    disk.write("old", "headBODY")
    node, manifest = file_of(1, b"body", b"head")
    gateway = Gateway(b"body")
    await stage(disk, gateway, (node, manifest), sources={node.node_id: Source("old", old)})
    assert content(disk, node) == b"bodyhead"


async def test_what_cannot_be_had_is_left_out_and_hides_nobody_else(disk: Disk) -> None:
    good, bad = file_of(1, b"one"), file_of(2, b"one", b"missing")
    staged, lost = await stage(disk, Gateway(b"one"), good, bad)
    assert (set(staged), lost) == ({good[0].node_id}, {bad[0].node_id})
    assert disk.stage() == [Path(stage_path(good[0])).name]


async def test_a_chunk_that_never_came_leaves_no_hole(disk: Disk) -> None:
    """The gateway said neither yes nor no."""
    gateway = Gateway(b"one", b"two")
    gateway.silent.add(b"two")
    node, manifest = file_of(1, b"one", b"two")
    staged, lost = await stage(disk, gateway, (node, manifest))
    assert (staged, lost) == ({}, {node.node_id})
    assert disk.stage() == []


async def test_what_is_all_zeros_is_left_a_hole(disk: Disk) -> None:
    """From the gateway as from the old file; zeros between other bytes are written as they are."""
    hole, mixed = bytes(1_048_576), b"a" + bytes(100_000) + b"b"
    _, old = file_of(9, mixed, hole)
    (disk.path / "old").write_bytes(mixed + hole)
    node, manifest = file_of(1, hole, mixed, hole, hole)
    other = file_of(2, hole, hole, b"end")
    gateway = Gateway(hole, b"end")
    await stage(disk, gateway, (node, manifest), other, sources={node.node_id: Source("old", old)})
    assert content(disk, node) == hole + mixed + hole + hole
    assert content(disk, other[0]) == hole + hole + b"end"
    for each in (node, other[0]):
        assert (disk.path / stage_path(each)).stat().st_blocks * 512 < 300_000
    assert sorted(gateway.asked) == sorted([hole, b"end"])


async def test_a_transfer_that_breaks_off_leaves_nothing(disk: Disk) -> None:
    gateway = Gateway(b"one", b"two")
    gateway.fails = 1
    with pytest.raises(Unavailable):
        await stage(disk, gateway, file_of(1, b"one"), file_of(2, b"two"))
    assert disk.stage() == []


async def test_a_manifest_that_does_not_add_up_is_refused(disk: Disk) -> None:
    node, manifest = file_of(1, b"one")
    other = Node(**{**{f: getattr(node, f) for f in node.__struct_fields__}, "size": 99})
    with pytest.raises(Corrupt):
        await stage(disk, Gateway(b"one"), (other, manifest))
    assert disk.stage() == []


async def test_many_files_are_made_durable_in_one_call(disk: Disk, monkeypatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("agent.stage.sync_everything", calls.append)
    monkeypatch.setattr("agent.stage.sync_fd", lambda fd: pytest.fail("one call is cheaper"))
    staged, _ = await stage(disk, Gateway(b"one"), *(file_of(number, b"one") for number in range(20)))
    assert (len(staged), calls) == (20, [disk.root.fd])


async def test_only_what_is_still_our_own_is_thrown_away(disk: Disk) -> None:
    node, manifest = file_of(1, b"one")
    staged, _ = await stage(disk, Gateway(b"one"), (node, manifest))
    stager = Stager(disk.root, Gateway(), uuid4())  # type: ignore[arg-type]
    disk.write("mine", "a person's")
    disk.rename("mine", stage_path(node))
    stager.discard(staged.values())
    assert content(disk, node) == b"a person's"
    assert stage_path(node).startswith(STAGE)


async def test_content_comes_with_its_extended_attributes_read_only_or_not(disk: Disk, monkeypatch) -> None:
    tags = (("user.a", b"1"), ("user.b", b"large"))
    node, manifest = file_of(1, b"one", mode=0o444)
    node = replace(node, xattrs=tags)
    real = os.setxattr

    def small_only(fd: int, name: str, value: bytes) -> None:
        if not os.fstat(fd).st_mode & 0o200:
            raise PermissionError("read-only")
        if len(value) > 3:
            raise OSError(errno.ENOSPC, "too large for this inode")
        real(fd, name, value)

    monkeypatch.setattr(os, "setxattr", small_only)
    staged, _ = await stage(disk, Gateway(b"one"), (node, manifest))
    assert staged[node.node_id].lacking == ("user.b",)
    assert disk.tags(stage_path(node)) == (("user.a", b"1"),)
    assert staged[node.node_id].look == disk.root.look(stage_path(node)), "they were set first"
    status = (disk.path / stage_path(node)).stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o444, node.mtime_ns)
