"""Refusals that planning again does not mend by itself: the agent sends what the service misses, or sets it aside."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from broker.messages import CommitRefused, CommitRequest, Conflict, decode_request
from broker.model import ConflictCode, FullContent, Put
from tests.agents.test_convergence import two
from tests.agents.world import World

Refuse = Callable[[CommitRequest], ConflictCode | None]


def refusing(world: World, monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> list[CommitRequest]:
    """Have the service refuse what `refuse` says; what was asked is noted."""
    commit, asked = world.commit, list[CommitRequest]()

    async def commit_or_refuse(device_id: UUID, body: bytes) -> None:
        request = decode_request(body)
        assert isinstance(request, CommitRequest)
        asked.append(request)
        code = refuse(request)
        if code is None:
            await commit(device_id, body)
            return
        world.device_of(device_id).inbox.put_nowait(
            CommitRefused(
                workspace_id=world.workspace_id,
                incarnation=request.incarnation,
                number=request.number,
                head=world.head,
                conflicts=(Conflict(code=code),),
            )
        )

    monkeypatch.setattr(world, "commit", commit_or_refuse)
    return asked


async def test_a_splice_whose_base_has_gone_is_sent_whole(tmp_path: Path, monkeypatch) -> None:
    world, laptop, desktop = await two(tmp_path)
    content = bytearray(b"".join(number.to_bytes(4, "big") for number in range(300_000)))
    laptop.write("large", bytes(content))
    await world.settle()
    gone = refusing(world, monkeypatch, lambda request: None if is_whole(request) else ConflictCode.BASE_GONE)
    content[7] ^= 1
    laptop.write("large", bytes(content))
    await world.settle()
    assert [is_whole(request) for request in gone] == [False, True]
    assert desktop.read("large") == bytes(content)
    # It was that one commit's matter: the next one is a splice again.
    monkeypatch.undo()
    later = refusing(world, monkeypatch, lambda request: None)
    content[7] ^= 2
    laptop.write("large", bytes(content))
    await world.settle()
    assert [is_whole(request) for request in later] == [False]
    assert desktop.read("large") == bytes(content)
    await laptop.stop()
    await desktop.stop()


def is_whole(request: CommitRequest) -> bool:
    puts = [operation for operation in request.operations if isinstance(operation, Put)]
    return all(isinstance(put.content, FullContent) for put in puts)


async def test_chunks_that_the_service_misses_are_sent_again(tmp_path: Path, monkeypatch) -> None:
    world, laptop, desktop = await two(tmp_path)
    refusals = 1

    def lost(request: CommitRequest) -> ConflictCode | None:
        nonlocal refusals
        if not refusals:
            return None
        refusals -= 1
        world.store.proofs.clear()
        world.chunks.clear()
        return ConflictCode.MISSING_CHUNKS

    asked = refusing(world, monkeypatch, lost)
    laptop.write("text", "text")
    await world.settle()
    assert len(asked) == 2
    assert desktop.read("text") == b"text"
    await laptop.stop()
    await desktop.stop()


async def test_who_may_only_read_keeps_what_is_changed_here_and_follows_the_others(
    tmp_path: Path, monkeypatch
) -> None:
    world, laptop, desktop = await two(tmp_path)

    def forbidden(request: CommitRequest) -> ConflictCode | None:
        is_readers = request.incarnation == desktop.folder.replica.index.incarnation
        return ConflictCode.FORBIDDEN if is_readers else None

    refusing(world, monkeypatch, forbidden)
    laptop.write("text", "text")
    await world.settle()
    desktop.write("mine", "mine")
    await world.settle()
    assert [(e["path"], e["code"]) for e in desktop.folder.status()["errors"]] == [("mine", "forbidden")]
    laptop.write("text", "edited")
    await world.settle()
    assert (desktop.read("text"), desktop.read("mine")) == (b"edited", b"mine")
    assert sorted(laptop.tree()) == ["text"]
    await laptop.stop()
    await desktop.stop()
