"""The local database: what was written is there after a crash, and what cannot be believed is put aside."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agent.index import _STEPS, SCHEMA_VERSION, Batch, Index, InFlight, Print, Prints, Taken, cursor_columns
from agent.trees import Node, replace
from broker.errors import Misconfigured
from broker.messages import encode
from broker.model import ROOT, Cursor, Kind
from tests.unit.agent.twosided import MANIFESTS, digest_of, new_directory, new_file, new_link

WORKSPACE, OTHER = uuid4(), uuid4()
A, B, C = (UUID(int=number) for number in (1, 2, 3))
XATTRS = (("user.a", b"1"), ("user.b", b""))
LOOK = Print(1, 2**63 - 1, 3, 4, -5, 6, 0o644)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    opened = Index(path)
    yield opened
    opened.close_now()


def full() -> Batch:
    """Some of everything."""
    batch = Batch()
    batch.remote = {A: new_directory(A, ROOT, "a"), B: replace(new_file(B, A, "b\n", "xy"), xattrs=XATTRS)}
    batch.local = {C: new_link(C, ROOT, "c", "to")}
    batch.synced = {A: new_directory(A, ROOT, "a")}
    batch.prints = {C: LOOK}
    batch.tombstones = {C: 9}
    batch.unannounced = {C: True}
    batch.lacking = {B: ("user.a", "user.b")}
    batch.oversized = {A: True}
    batch.manifests = {digest_of("xy"): MANIFESTS[digest_of("xy")]}
    batch.lingering = {".hutch/stage/x": ("c", LOOK)}
    batch.columns = {
        "generation": 4,
        "xattrs_read": 1,
        "number": 3,
        "request": encode(InFlight(3, b"body", None, {A: None, C: batch.local[C]})),
        "intent": b"intent",
        "problems": b"problems",
        **cursor_columns(Cursor(1, 7, b"c" * 32)),
    }
    return batch


async def test_all_is_there_again(path: Path) -> None:
    index, batch = Index(path), full()
    key = (await index.load(WORKSPACE))[0].key
    await index.write(key, batch)
    incarnation = index.incarnation
    await index.close()

    index = Index(path)
    state, trees = await index.load(WORKSPACE)
    assert (trees.remote.nodes, trees.local.nodes, trees.synced.nodes) == (
        batch.remote,
        batch.local,
        batch.synced,
    )
    assert (trees.tombstones, trees.unannounced, trees.dirty) == ({C: 9}, {C}, {A, B, C})
    assert (trees.lacking, trees.oversized, state.xattrs_read) == ({B: ("user.a", "user.b")}, {A}, True)
    assert dict(state.prints) == {C: LOOK}
    assert state.lingering == batch.lingering
    assert state.cursor == Cursor(1, 7, b"c" * 32)
    assert state.request == InFlight(3, b"body", None, {A: None, C: batch.local[C]})
    assert (state.generation, state.number, state.intent) == (4, 3, b"intent")
    assert state.problems == b"problems"
    assert index.incarnation == incarnation
    assert await index.manifests([digest_of("xy"), digest_of("x")]) == batch.manifests
    await index.close()


async def test_none_drops_a_row_and_other_folders_keep_theirs(index: Index) -> None:
    key, other = (await index.load(WORKSPACE))[0].key, (await index.load(OTHER))[0].key
    await index.write(key, full())
    await index.write(other, full())
    gone = Batch()
    gone.remote, gone.local, gone.synced = {A: None, B: None}, {C: None}, {A: None}
    gone.prints, gone.tombstones, gone.unannounced = {C: None}, {C: None}, {C: False}
    gone.lacking, gone.oversized = {B: None}, {A: False}
    gone.lingering, gone.columns = {".hutch/stage/x": None}, {"request": None, "intent": None}
    await index.write(key, gone)
    state, trees = await index.load(WORKSPACE)
    assert (len(trees.remote), len(trees.local), len(trees.synced)) == (0, 0, 0)
    assert (trees.tombstones, trees.unannounced, dict(state.prints), state.lingering) == ({}, set(), {}, {})
    assert (trees.lacking, trees.oversized) == ({}, set())
    assert (state.request, state.intent) == (None, None)
    assert len((await index.load(OTHER))[1].remote) == 2
    await index.drop_unused_manifests()
    assert await index.manifests([digest_of("xy")]) != {}
    number = (await index.load(OTHER))[0].number
    assert number > 0
    await index.forget(OTHER, "/home/ada/docs")
    await index.drop_unused_manifests()
    assert await index.manifests([digest_of("xy")]) == {}
    state, trees = await index.load(OTHER)
    assert (len(trees.remote), state.cursor, dict(state.prints), state.generation) == (0, None, {}, 0)
    assert (trees.lacking, trees.oversized) == ({}, set())
    # What was asked once is never asked again under the same number.
    assert (state.number, state.left_folder) == (number, "/home/ada/docs")
    assert state.problems is None


async def test_what_all_three_trees_say_is_one_row_and_one_object(path: Path) -> None:
    index = Index(path)
    key = (await index.load(WORKSPACE))[0].key
    node = new_file(B, ROOT, "b", "xy")
    batch = Batch()
    batch.local = {B: replace(node, version=0, content_version=0), C: new_directory(C, ROOT, "c")}
    await index.write(key, batch)
    batch = Batch()
    batch.remote, batch.synced = {B: node}, {B: node}
    await index.write(key, batch)
    assert _rows(path) == [(B.bytes, 3), (C.bytes, 1)]
    trees = (await index.load(WORKSPACE))[1]
    assert trees.remote.nodes[B] is trees.local.nodes[B] is trees.synced.nodes[B]
    assert (trees.remote.nodes[B], trees.dirty) == (node, {C})
    assert trees.local.find("b") == node
    # One of them says something else: each has its own again.
    moved = Batch()
    moved.local = {B: replace(node, name="other", version=0)}
    await index.write(key, moved)
    assert _rows(path) == [(B.bytes, 0), (B.bytes, 1), (B.bytes, 2), (C.bytes, 1)]
    trees = (await index.load(WORKSPACE))[1]
    assert (trees.remote.nodes[B], trees.synced.nodes[B], trees.local.nodes[B].name) == (node, node, "other")
    assert trees.dirty == {B, C}
    assert await index.holders(key, [digest_of("xy"), digest_of("x")]) == {digest_of("xy"): [B]}
    gone = Batch()
    gone.remote, gone.synced = {B: None}, {B: None}
    await index.write(key, gone)
    assert _rows(path) == [(B.bytes, 1), (C.bytes, 1)]
    await index.close()


def _rows(path: Path) -> list[tuple[bytes, int]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT node_id, tree FROM nodes ORDER BY node_id, tree").fetchall()


async def test_the_nodes_of_an_earlier_version_are_taken_over(path: Path) -> None:
    """When each tree still had a row for each node."""
    db = sqlite3.connect(path)
    db.executescript(f"{''.join(_STEPS[:6])} PRAGMA user_version = 6;")
    db.execute("INSERT INTO folders (workspace_id) VALUES (?)", (WORKSPACE.bytes,))
    same, other = new_file(B, ROOT, "b", "xy"), new_file(C, ROOT, "c", "x")
    rows = [(0, same), (1, replace(same, version=0)), (2, same), (0, other), (1, replace(other, mode=0o600))]
    for tree, node in rows:
        row = (
            1, tree, node.node_id.bytes, node.parent_id.bytes, node.name, str(node.kind), node.version, node.mode,
            node.mtime_ns, node.size, node.digest, node.target, node.content_version,
        )  # fmt: skip
        db.execute(f"INSERT INTO nodes VALUES ({', '.join('?' * len(row))})", row)
    db.commit()
    db.close()
    index = Index(path)
    trees = (await index.load(WORKSPACE))[1]
    assert trees.remote.nodes == {B: same, C: other}
    assert trees.local.nodes == {B: same, C: replace(other, mode=0o600)}
    assert (trees.synced.nodes, trees.dirty) == ({B: same}, {C})
    assert _rows(path) == [(B.bytes, 3), (C.bytes, 0), (C.bytes, 1)]
    await index.close()


def test_an_inode_is_its_nodes_until_the_last_of_them_has_gone() -> None:
    prints = Prints()
    prints[A], prints[B] = LOOK, LOOK  # a hard link
    other = Print(1, 5, 3, 4, 5, 6, 0o600)
    prints[C] = other
    assert (prints[A], prints[B], prints[C], len(prints)) == (LOOK, LOOK, other, 3)
    assert (prints.owner(1, LOOK.ino), prints.owner(1, 5), prints.owner(2, 5)) == (A, C, None)
    assert (prints.is_only(A, 1, LOOK.ino), prints.is_only(C, 1, 5)) == (False, True)
    del prints[A]
    assert (prints.owner(1, LOOK.ino), prints.is_only(B, 1, LOOK.ino)) == (B, True)
    prints[B] = Print(1, 6, 3, 4, 5, 6, 0o600)
    assert (prints.owner(1, LOOK.ino), prints.owner(1, 6)) == (None, B)
    prints[C] = other
    assert dict(prints) == {B: Print(1, 6, 3, 4, 5, 6, 0o600), C: other}
    assert prints.owner(1, 5) == C


async def test_a_batch_is_written_whole_or_not_at_all(path: Path) -> None:
    index = Index(path)
    key = (await index.load(WORKSPACE))[0].key
    batch = full()
    batch.columns["no_such_column"] = 1  # comes last
    with pytest.raises(sqlite3.OperationalError):
        await index.write(key, batch)
    state, trees = await index.load(WORKSPACE)
    assert (len(trees.remote), state.cursor, dict(state.prints)) == (0, None, {})
    await index.write(key, full())  # and the next one goes
    await index.close()


async def test_what_was_written_survives_a_process_that_never_closes(path: Path, tmp_path: Path) -> None:
    """As after a crash: only the files are left."""
    index = Index(path)
    await index.write((await index.load(WORKSPACE))[0].key, full())
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("index.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    again = Index(copy / "index.sqlite")
    assert len((await again.load(WORKSPACE))[1].remote) == 2
    await again.close()
    await index.close()


@pytest.mark.parametrize("damage", [b"", b"this is no database at all" * 100], ids=["zeroes", "garbage"])
async def test_a_damaged_database_is_put_aside_whole(path: Path, damage: bytes) -> None:
    index = Index(path)
    await index.write((await index.load(WORKSPACE))[0].key, full())
    incarnation = index.incarnation
    await index.close()
    size = path.stat().st_size
    path.write_bytes((damage or b"\0" * size)[:size])
    index = Index(path)
    state, trees = await index.load(WORKSPACE)
    assert (state.cursor, len(trees.remote)) == (None, 0)
    assert index.incarnation != incarnation
    assert len(list(path.parent.glob("*damaged*"))) == 1
    await index.close()


async def test_a_page_that_is_torn_is_found_when_opening(path: Path) -> None:
    index = Index(path)
    key = (await index.load(WORKSPACE))[0].key
    batch = Batch()
    batch.remote = {UUID(int=n): new_directory(UUID(int=n), ROOT, f"name {n}") for n in range(2_000)}
    await index.write(key, batch)
    await index.close()
    data = bytearray(path.read_bytes())
    data[4096 * 5 : 4096 * 20] = b"\xa5" * (4096 * 15)
    path.write_bytes(data)
    index = Index(path)
    assert (await index.load(WORKSPACE))[0].cursor is None
    assert len(list(path.parent.glob("*damaged*"))) == 1
    await index.close()


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN]
)
def test_a_database_that_cannot_be_opened_now_is_not_damaged(path: Path, monkeypatch, code: int) -> None:
    """No room, locked, or a disk that fails: put aside, it would forget what both sides had agreed on."""
    Index(path).close_now()

    def refuse(*arguments: object, **options: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("not now")
        error.sqlite_errorcode = code
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", refuse)
        with pytest.raises(sqlite3.OperationalError, match="not now"):
            Index(path)
    assert list(path.parent.glob("*damaged*")) == []
    Index(path).close_now()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
async def test_a_database_of_an_earlier_version_is_taken_over(path: Path, version: int) -> None:
    db = sqlite3.connect(path)
    db.executescript(f"{''.join(_STEPS[:version])} PRAGMA user_version = {version};")
    db.execute("INSERT INTO meta VALUES ('incarnation', ?)", (WORKSPACE.bytes,))
    db.execute(
        "INSERT INTO folders (workspace_id, generation, epoch, seq, chain) VALUES (?, 3, 1, 7, ?)",
        (WORKSPACE.bytes, b"chain"),
    )
    db.commit()
    db.close()
    index = Index(path)
    assert index.incarnation == WORKSPACE
    state, trees = await index.load(WORKSPACE)
    assert (state.generation, state.cursor, state.unclaimed) == (3, Cursor(1, 7, b"chain"), False)
    assert (trees.copies, trees.local.aliases) == ({}, {})
    assert not state.xattrs_read, "what was set before they were synced has yet to be read"
    batch = Batch()
    batch.columns["unclaimed"] = 1
    node = Node(node_id=UUID(int=5), parent_id=ROOT, name="A", kind=Kind.FILE)
    batch.local[node.node_id], batch.aliases[node.node_id] = node, "A (other spelling)"
    await index.write(state.key, batch)
    state, trees = await index.load(WORKSPACE)
    assert state.unclaimed
    assert trees.local.path(node.node_id) == "A (other spelling)"
    await index.close()


def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    Index(path).close_now()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="newer Hutch"):
        Index(path)
    assert path.read_bytes() == before
    assert list(path.parent.glob("*damaged*")) == []


async def test_when_commits_were_taken_is_kept_and_forgotten_with_their_epoch(index: Index) -> None:
    key = (await index.load(WORKSPACE))[0].key
    batch = Batch()
    batch.commits = {3: Taken(30, own=True), 4: Taken(40, own=False)}
    await index.write(key, batch)
    assert await index.commits(key, [2, 3, 4]) == batch.commits
    other = Batch()
    other.forgets_commits, other.commits = True, {3: Taken(31, own=False)}
    await index.write(key, other)
    assert await index.commits(key, [3, 4]) == {3: Taken(31, own=False)}


async def test_times_of_commits_that_nothing_needs_are_dropped_once_they_are_many(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await index.load(WORKSPACE))[0].key
    batch = Batch()
    batch.commits = {seq: Taken(seq, own=False) for seq in range(1, 6)}
    node = replace(new_directory(UUID(int=5), ROOT, "d"), version=3)
    batch.remote = {node.node_id: node}
    await index.write(key, batch)
    await index.drop_unused_commits()
    assert len(await index.commits(key, list(range(1, 6)))) == 5
    monkeypatch.setattr("agent.index.MANY_COMMITS", 4)
    await index.drop_unused_commits()
    assert set(await index.commits(key, list(range(1, 6)))) == {3}


async def test_the_content_that_a_copy_came_from_is_kept(index: Index) -> None:
    digest, copy_id = digest_of("xy"), UUID(int=5)
    content = MANIFESTS[digest]
    key = (await index.load(WORKSPACE))[0].key
    batch = Batch()
    batch.bases, batch.manifests = {copy_id: digest}, {digest: content}
    await index.write(key, batch)
    await index.drop_unused_manifests()
    assert (await index.load(WORKSPACE))[0].bases == {copy_id: digest}
    assert await index.manifests([digest]) == {digest: content}
    batch.bases, batch.manifests = {copy_id: None}, {}
    await index.write(key, batch)
    await index.drop_unused_manifests()
    assert (await index.load(WORKSPACE))[0].bases == {}
    assert await index.manifests([digest]) == {}
