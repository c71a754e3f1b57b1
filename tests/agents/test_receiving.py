"""Notices come twice, late, out of order, or from somebody who lies: the remote tree is the journal, or waits."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker.messages import ChangeNotice, JournalEntry, decode_entry, encode
from broker.model import ROOT, Cursor, Delete, MakeDirectory, Move, extend_chain
from tests.agents.world import Device, World

ENTRIES = 6


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[tuple[World, Device, list[ChangeNotice]]]:
    """A device that is online at seq 1 and then cut off, and the notices of what follows, one an entry."""
    world = await World.make(tmp_path)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    await laptop.start()
    await desktop.start()
    laptop.write("0", "0")
    await world.settle()
    desktop.online.clear()
    for number in range(1, ENTRIES + 1):
        laptop.write(str(number), str(number))
        await world.settle(laptop)
    journal = world.store.journal[world.workspace_id]
    notices = [
        ChangeNotice(workspace_id=world.workspace_id, head=Cursor(1, seq, chain), entries=(entry,))
        for seq, (entry, chain) in enumerate(journal, 1)
    ]
    yield world, desktop, notices[1:]
    await laptop.stop()
    await desktop.stop()


async def follow(desktop: Device, *notices: ChangeNotice) -> int:
    """Take notices; how far the cursor is then."""
    for notice in notices:
        await desktop.folder.take(notice)
    cursor = desktop.folder.replica.cursor
    assert cursor is not None
    return cursor.seq


async def test_notices_in_any_order_and_any_number_come_to_the_same(scene) -> None:
    world, desktop, notices = scene
    chance = random.Random(7)
    shuffled = [*notices, *notices, notices[0]]
    chance.shuffle(shuffled)
    assert await follow(desktop, *shuffled) == ENTRIES + 1
    assert desktop.folder.replica.cursor == world.head
    assert {node.name for node in desktop.folder.replica.trees.remote.nodes.values()} == set("0123456")


async def test_a_gap_is_never_passed(scene) -> None:
    _, desktop, notices = scene
    assert await follow(desktop, notices[0], *notices[2:]) == 2
    assert await follow(desktop, notices[1]) == ENTRIES + 1


async def test_one_notice_of_many_entries(scene) -> None:
    world, desktop, notices = scene
    whole = ChangeNotice(
        workspace_id=world.workspace_id, head=notices[-1].head, entries=tuple(n.entries[0] for n in notices)
    )
    assert await follow(desktop, notices[0], whole) == ENTRIES + 1


async def test_a_notice_that_does_not_chain_on_is_not_taken(scene) -> None:
    _, desktop, notices = scene
    entry = decode_entry(notices[0].entries[0])
    forged = encode(
        JournalEntry(**{**{f: getattr(entry, f) for f in entry.__struct_fields__}, "user_id": uuid4()})
    )
    lie = ChangeNotice(workspace_id=notices[0].workspace_id, head=notices[0].head, entries=(forged,))
    assert await follow(desktop, lie) == 1
    assert await follow(desktop, *notices) == ENTRIES + 1


HOSTILE = {
    "a name that leads out": MakeDirectory(node_id=uuid4(), parent_id=ROOT, name="../out", mode=0o700),
    "a parent that nobody knows": MakeDirectory(node_id=uuid4(), parent_id=uuid4(), name="x", mode=0o700),
    "a move of what nobody knows": Move(node_id=uuid4(), base_version=1, parent_id=ROOT, name="x"),
    "a taken name": MakeDirectory(node_id=uuid4(), parent_id=ROOT, name="0", mode=0o700),
}


@pytest.mark.parametrize("operation", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_entry_changes_nothing_in_memory_or_database(scene, operation) -> None:
    world, desktop, notices = scene
    good = decode_entry(notices[0].entries[0])
    fields = {field: getattr(good, field) for field in good.__struct_fields__}
    bad = encode(JournalEntry(**{**fields, "seq": 3, "operations": (operation,)}))
    head = Cursor(1, 3, extend_chain(notices[0].head.chain, bad))
    replica = desktop.folder.replica
    before = dict(replica.trees.remote.nodes)
    entries = (notices[0].entries[0], bad)
    assert (
        await follow(desktop, ChangeNotice(workspace_id=world.workspace_id, head=head, entries=entries)) == 1
    )
    assert replica.trees.remote.nodes == before
    state, trees = await replica.index.load(world.workspace_id)
    assert (state.cursor, trees.remote.nodes) == (replica.cursor, before)
    assert await follow(desktop, *notices) == ENTRIES + 1


async def test_an_entry_that_deletes_leaves_its_tombstone(scene) -> None:
    world, desktop, notices = scene
    await follow(desktop, *notices)
    node = desktop.folder.replica.trees.remote.find("0")
    assert node is not None
    good = decode_entry(notices[0].entries[0])
    fields = {field: getattr(good, field) for field in good.__struct_fields__}
    delete = Delete(node_id=node.node_id, base_version=node.version)
    entry = encode(JournalEntry(**{**fields, "seq": ENTRIES + 2, "operations": (delete,)}))
    head = Cursor(1, ENTRIES + 2, extend_chain(world.head.chain, entry))
    desktop.may_run.clear()
    notice = ChangeNotice(workspace_id=world.workspace_id, head=head, entries=(entry,))
    assert await follow(desktop, notice) == ENTRIES + 2
    assert desktop.folder.replica.trees.tombstones[node.node_id] == ENTRIES + 2
