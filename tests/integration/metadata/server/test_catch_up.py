"""Following a journal: from a cursor that is known, in pages, or by a snapshot of one instant."""

import uuid
from contextlib import aclosing

import aiohttp
import msgpack
import pytest

from broker.messages import (
    DeletedNode,
    decode_content,
    decode_deleted_node,
    decode_retained_version,
    decode_snapshot_node,
    decode_stream_head,
    encode,
    encode_xattrs,
)
from broker.model import ROOT, Chunk, Cursor, FullContent, Kind, extend_chain, first_chain
from metadata.catch_up import INLINE_MANIFEST_BYTES, PAGE_ROWS, PAGE_SIZE_BYTES
from tests.integration.metadata.server.house import sql


class Tree:
    """A workspace whose journal and nodes are written straight into the database, as the workers would."""

    def __init__(self, house, device, workspace_id):
        self.house, self.device, self.id = house, device, workspace_id
        self.chains = [first_chain(workspace_id)]

    async def journal(self, *entries):
        """Append these entries (any bytes: to the metadata server they are opaque)."""
        for entry in entries:
            self.chains.append(extend_chain(self.chains[-1], entry))
            await sql(self.house, "INSERT INTO journal VALUES ($1, $2, $3, $4)",
                      self.id, len(self.chains) - 1, self.chains[-1], entry)  # fmt: skip
        await sql(self.house, "UPDATE workspaces SET head_seq = $2, head_chain = $3 WHERE workspace_id = $1",
                  self.id, len(self.chains) - 1, self.chains[-1])  # fmt: skip

    async def node(self, name, parent=ROOT, *, node_id=None, kind="directory", content=None, deleted=False):
        node_id = node_id or uuid.uuid4()
        await sql(self.house,
                  "INSERT INTO nodes (workspace_id, node_id, parent_id, name, kind, version, deleted, content_version)"
                  " VALUES ($1, $2, $3, $4, $5, 1, $6, $7)",
                  self.id, node_id, parent, name, kind, deleted, 1 if content else None)  # fmt: skip
        if content:
            await self.version(node_id, 1, content)
        return node_id

    async def version(self, node_id, version, content):
        await sql(self.house, "INSERT INTO versions (workspace_id, node_id, version, manifest, digest, size_bytes,"
                  " mtime_ns, mode, user_id, device_id) VALUES ($1, $2, $3, $4, $5, 0, 0, 0, $1, $1)",
                  self.id, node_id, version, encode(content), bytes(32))  # fmt: skip

    def cursor(self, seq):
        return Cursor(1, seq, self.chains[seq])

    async def changes(self, epoch, after, chain):
        query = {
            "epoch": str(epoch),
            "after": str(after),
            "chain": chain if isinstance(chain, str) else chain.hex(),
        }
        return await self.house.call("GET", f"/v1/workspaces/{self.id}/changes", self.device, params=query)

    async def snapshot(self):
        answer = await self.house.call("GET", f"/v1/workspaces/{self.id}/snapshot", self.device)
        assert answer.status == 200
        return read_snapshot(answer.objects)


def read_snapshot(objects):
    head, *records = objects
    nodes = [decode_snapshot_node(each) for each in records]
    assert len(nodes) == head["count"]
    return decode_stream_head(msgpack.packb(head)).head, nodes


def content_of(chunks):
    return FullContent(16, tuple(Chunk(i.to_bytes(32, "big"), 1000) for i in range(chunks)))


@pytest.fixture
async def tree(house):
    device = await house.link(await house.person())
    return Tree(house, device, await house.workspace(device))


async def test_changes_are_the_very_entries_after_the_cursor(tree):
    entries = [b"entry %d" % number for number in range(1, 6)]
    await tree.journal(*entries)
    for after in range(6):
        answer = await tree.changes(1, after, tree.chains[after])
        assert answer.status == 200
        head, *found = answer.objects
        assert decode_stream_head(msgpack.packb(head)).head == tree.cursor(5)
        assert head["count"] == 5 - after
        assert found == entries[after:]


async def test_changes_come_in_pages_whatever_the_entries_weigh(tree):
    entries = [bytes([number]) * size for number, size in enumerate(
        [10, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES - 10, 20, 3 * PAGE_SIZE_BYTES, 5], 1)]  # fmt: skip
    entries += [b"small"] * 600
    await tree.journal(*entries)
    workspace = (await tree.house.services.registry.workspaces_of(uuid.UUID(tree.device.session["user_id"])))[
        0
    ]
    async with aclosing(tree.house.services.catch_up.changes(workspace, 0)) as pieces:
        sizes = [len(piece) async for piece in pieces]
    assert max(sizes) <= 3 * PAGE_SIZE_BYTES + 10
    assert len(sizes) > 6
    answer = await tree.changes(1, 0, tree.chains[0])
    assert answer.objects[1:] == entries


async def test_a_cursor_that_the_journal_never_had_is_unknown(tree):
    await tree.journal(b"one", b"two")
    other = bytes(32)
    for epoch, after, chain in [
        (1, 0, other),
        (1, 1, other),
        (1, 1, tree.chains[2]),
        (1, 2, tree.chains[1]),
        (1, 3, tree.chains[2]),
        (0, 1, tree.chains[1]),
        (2, 1, tree.chains[1]),
        (2, 0, tree.chains[0]),
    ]:
        answer = await tree.changes(epoch, after, chain)
        assert (answer.status, answer.code) == (409, "cursor_unknown"), (epoch, after)


@pytest.mark.parametrize(
    ("epoch", "after", "chain"),
    [("x", "0", "00" * 32), ("1", "", "00" * 32), ("1", "-1", "00" * 32), ("1", "0", "00"), ("1", "0", "zz" * 32),
     ("1", str(2**63), "00" * 32), (str(2**70), "0", "00" * 32)],
)  # fmt: skip
async def test_a_cursor_that_is_none_is_a_bad_request(tree, epoch, after, chain):
    answer = await tree.changes(epoch, after, chain)
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_a_journal_with_a_hole_breaks_the_stream_off(tree):
    await tree.journal(b"one", b"two", b"three")
    await sql(tree.house, "DELETE FROM journal WHERE workspace_id = $1 AND seq = 2", tree.id)
    with pytest.raises(aiohttp.ClientError):
        await tree.changes(1, 1, tree.chains[1])


async def test_a_snapshot_names_every_live_node_after_its_parent(tree):
    await tree.journal(b"one")
    # Ids that sort against the tree's order: only depth can put parents first.
    ids = [uuid.UUID(int=(1 << 120) - depth) for depth in range(40)]
    parent = ROOT
    for depth, node_id in enumerate(ids):
        await tree.node(f"d{depth}", parent, node_id=node_id)
        await tree.node(f"f{depth}", parent, kind="file", content=content_of(depth))
        parent = node_id
    gone = await tree.node("gone", deleted=True)
    head, nodes = await tree.snapshot()
    assert head == tree.cursor(1)
    assert len(nodes) == 80
    seen = {ROOT}
    for node in nodes:
        assert node.parent_id in seen
        seen.add(node.node_id)
    assert gone not in seen
    files = {node.name: node.content for node in nodes if node.kind is Kind.FILE}
    assert files["f39"] == content_of(39)


async def test_a_snapshot_of_nothing_is_a_head(tree):
    assert await tree.snapshot() == (tree.cursor(0), [])


async def test_a_snapshot_skips_nothing_live_though_its_parent_were_lost(tree):
    lost = await tree.node("below nothing", uuid.uuid4())
    _, nodes = await tree.snapshot()
    assert [node.node_id for node in nodes] == [lost]


async def test_a_snapshot_has_large_manifests_whole(tree):
    large = content_of(INLINE_MANIFEST_BYTES)
    for number in range(PAGE_ROWS + 5):
        await tree.node(f"small {number}", kind="file", content=content_of(2))
    await tree.node("large", kind="file", content=large)
    _, nodes = await tree.snapshot()
    contents = {node.name: node.content for node in nodes}
    assert contents.pop("large") == large
    assert len(contents) == PAGE_ROWS + 5
    assert set(contents.values()) == {content_of(2)}


async def test_a_snapshot_has_extended_attributes_in_pieces_that_are_bounded(tree):
    """Sixty-four nodes with as many as a node may have are four megabytes of them."""
    many = tuple((f"user.{number:02}", bytes([number]) * 1000) for number in range(64))
    plain = await tree.node("plain")
    full = [await tree.node(f"{number:02}") for number in range(64)]
    await sql(tree.house, "UPDATE nodes SET xattrs = $2 WHERE node_id = ANY ($1)", full, encode_xattrs(many))
    _, nodes = await tree.snapshot()
    assert {node.node_id: node.xattrs or () for node in nodes} == {plain: (), **dict.fromkeys(full, many)}
    async with aclosing(tree.house.services.catch_up.snapshot(tree.id)) as pieces:
        assert max([len(piece) async for piece in pieces]) < PAGE_SIZE_BYTES + 10_000


async def test_a_snapshot_is_of_one_instant(tree):
    await tree.journal(b"one")
    before = {await tree.node(f"{number}") for number in range(3)}
    async with aclosing(tree.house.services.catch_up.snapshot(tree.id)) as pieces:
        unpacker = msgpack.Unpacker()
        unpacker.feed(await anext(pieces))
        await tree.node("later")
        await sql(
            tree.house, "UPDATE nodes SET deleted = true WHERE workspace_id = $1 AND name = '0'", tree.id
        )
        await tree.journal(b"two")
        async for piece in pieces:
            unpacker.feed(piece)
    head, nodes = read_snapshot(list(unpacker))
    assert head == tree.cursor(1)
    assert {node.node_id for node in nodes} == before
    head, nodes = await tree.snapshot()
    assert head == tree.cursor(2)
    assert len(nodes) == 3


async def test_a_reader_who_leaves_gives_the_connection_back(tree):
    for number in range(3):
        await tree.node(f"{number}")
    pool = tree.house.pool
    for _ in range(pool.get_max_size() + 2):
        async with aclosing(tree.house.services.catch_up.snapshot(tree.id)) as pieces:
            await anext(pieces)
    assert (await tree.snapshot())[0] == tree.cursor(0)


async def test_all_versions_that_are_kept_are_told(tree):
    live = await tree.node("live", kind="file", content=content_of(1))
    gone = await tree.node("gone", kind="file", content=content_of(2), deleted=True)
    await tree.version(live, 7, content_of(INLINE_MANIFEST_BYTES))
    other = await tree.node("other", kind="file", content=content_of(3))
    body = msgpack.packb([live.bytes, gone.bytes, live.bytes, uuid.uuid4().bytes])
    answer = await tree.house.call("POST", f"/v1/workspaces/{tree.id}/versions", tree.device, data=body)
    head, *records = answer.objects
    versions = [decode_retained_version(each) for each in records]
    assert head == {"count": 3}
    found = {(each.node_id, each.version): decode_content(each.content) for each in versions}
    assert found == {
        (live, 1): content_of(1), (live, 7): content_of(INLINE_MANIFEST_BYTES), (gone, 1): content_of(2),
    }  # fmt: skip
    assert other not in {each.node_id for each in versions}


async def test_what_was_deleted_is_told_with_its_place_the_latest_first(tree):
    docs = await tree.node("docs", deleted=True)
    gone = await tree.node("gone", docs, kind="file", content=content_of(2), deleted=True)
    await sql(tree.house, "UPDATE nodes SET version = 9 WHERE node_id = $1", gone)
    await tree.node("no content is kept", kind="file", deleted=True)
    await tree.node("live", kind="file", content=content_of(1))
    answer = await tree.house.call("GET", f"/v1/workspaces/{tree.id}/deleted", tree.device)
    head, *records = answer.objects
    assert head == {"count": 2}
    assert [decode_deleted_node(each) for each in records] == [
        DeletedNode(node_id=gone, parent_id=docs, name="gone", kind=Kind.FILE, version=9),
        DeletedNode(node_id=docs, parent_id=ROOT, name="docs", kind=Kind.DIRECTORY, version=1),
    ]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", msgpack.packb({}), msgpack.packb([1]), msgpack.packb([b"short"]),
             msgpack.packb([bytes(16)] * 1001)],
)  # fmt: skip
async def test_what_is_no_list_of_nodes_is_a_bad_request(tree, body):
    answer = await tree.house.call("POST", f"/v1/workspaces/{tree.id}/versions", tree.device, data=body)
    assert (answer.status, answer.code) == (400, "bad_request")
