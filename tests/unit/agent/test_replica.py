"""A folder's state: what is forgotten, and what must not be yet."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agent.filesystem import Root
from agent.index import Batch, Index
from agent.replica import Replica
from broker.model import ROOT, Cursor
from tests.unit.agent.twosided import new_directory

A = UUID(int=1)
SEQ = 9


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    index, workspace_id = Index(tmp_path / "index.sqlite"), uuid4()
    state, trees = await index.load(workspace_id)
    (tmp_path / "folder").mkdir()
    root = Root(tmp_path / "folder")
    yield Replica(
        workspace_id=workspace_id,
        name="home",
        device_id=uuid4(),
        device_name="laptop",
        index=index,
        root=root,
        state=state,
        trees=trees,
        today=lambda: "2026-11-22",
    )
    root.close()
    await index.close()


def deleted() -> Batch:
    """The journal deletes a node."""
    batch = Batch()
    batch.remote[A] = None
    batch.tombstones[A] = SEQ
    return batch


async def stored_tombstones(replica: Replica) -> dict[UUID, int]:
    return (await replica.index.load(replica.workspace_id))[1].tombstones


async def test_a_tombstone_of_which_this_device_has_nothing_is_forgotten(replica: Replica) -> None:
    await replica.write(deleted())
    assert (replica.trees.tombstones, await stored_tombstones(replica)) == ({}, {})


async def test_a_tombstone_of_what_is_just_being_placed_is_kept(replica: Replica) -> None:
    """Else what is placed a moment later could never be told of: it would be new, where the journal has a tombstone."""
    replica.placing = {A}
    await replica.write(deleted())
    placed = Batch()
    placed.local[A] = new_directory(A, ROOT, "a")
    replica.placing = set()
    await replica.write(placed)
    assert (replica.trees.tombstones, await stored_tombstones(replica)) == ({A: SEQ}, {A: SEQ})


async def test_a_tombstone_of_what_could_not_be_placed_is_forgotten_then(replica: Replica) -> None:
    replica.placing = {A}
    await replica.write(deleted())
    replica.placing = set()
    await replica.write(Batch())
    assert (replica.trees.tombstones, await stored_tombstones(replica)) == ({}, {})


async def test_what_is_told_of_an_earlier_epoch_is_no_reason_to_wait(replica: Replica) -> None:
    """A message from before the service was restored comes late: the journal that it speaks of is no more."""
    replica.set_cursor(Batch(), Cursor(2, 1, b"c" * 32))
    replica.tell_head(Cursor(1, 6, b"o" * 32))
    assert not replica.is_behind
    replica.tell_head(Cursor(3, 0, b"n" * 32))
    assert replica.is_behind
    replica.set_cursor(Batch(), Cursor(3, 0, b"n" * 32))
    assert not replica.is_behind
