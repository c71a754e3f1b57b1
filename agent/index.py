"""The local database: the three trees, the cursor, and what must survive a crash. SQLite, in one thread of its own.

It records what was observed, and two intentions: the request in flight, and the placing that has begun.
"""

import asyncio
import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from agent.trees import Node, Trees
from broker.errors import Misconfigured
from broker.messages import decode_content, decode_xattrs, encode, encode_xattrs
from broker.model import Cursor, FullContent, Kind

T = TypeVar("T")

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (
    folder          INTEGER PRIMARY KEY,
    workspace_id    BLOB NOT NULL UNIQUE,
    generation      INTEGER NOT NULL DEFAULT 0,     -- as in the folder's marker: an older database gives itself away
    epoch           INTEGER NOT NULL DEFAULT 0,
    seq             INTEGER NOT NULL DEFAULT 0,
    chain           BLOB,                           -- NULL: no snapshot was taken yet
    number          INTEGER NOT NULL DEFAULT 0,     -- of the last request
    request         BLOB,                           -- the request in flight (InFlight), until it is answered
    intent          BLOB                            -- the placing that has begun, until it is done
);
CREATE TABLE nodes (                                -- tree: 0 remote, 1 local, 2 synced
    folder INTEGER NOT NULL, tree INTEGER NOT NULL, node_id BLOB NOT NULL, parent_id BLOB NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, version INTEGER NOT NULL, mode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, target TEXT NOT NULL, content_version INTEGER NOT NULL,
    PRIMARY KEY (folder, tree, node_id)
) WITHOUT ROWID;
CREATE TABLE prints (                               -- how a local node's inode looked; times in nanoseconds
    folder INTEGER NOT NULL, node_id BLOB NOT NULL, dev INTEGER NOT NULL, ino INTEGER NOT NULL, birth_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, mode INTEGER NOT NULL,
    PRIMARY KEY (folder, node_id)
) WITHOUT ROWID;
CREATE TABLE manifests (digest BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tombstones (folder INTEGER NOT NULL, node_id BLOB NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (folder, node_id)) WITHOUT ROWID;
CREATE TABLE unannounced (folder INTEGER NOT NULL, node_id BLOB NOT NULL, PRIMARY KEY (folder, node_id)) WITHOUT ROWID;
CREATE TABLE lingering (                            -- files exchanged out of their place while a program had them open
    folder INTEGER NOT NULL, stage TEXT NOT NULL, path TEXT NOT NULL, print BLOB NOT NULL,
    PRIMARY KEY (folder, stage)
) WITHOUT ROWID;
"""

_COPIES: Final = """
CREATE TABLE copies (                               -- the conflict copy that a node's losing content was given here
    folder INTEGER NOT NULL, node_id BLOB NOT NULL, copy_id BLOB NOT NULL, PRIMARY KEY (folder, node_id)
) WITHOUT ROWID;
"""

_UNCLAIMED: Final = """
ALTER TABLE folders ADD COLUMN unclaimed INTEGER NOT NULL DEFAULT 0;    -- 1: what was deleted is yet to be asked for
"""

_ALIASES: Final = """
CREATE TABLE aliases (                              -- what the disk calls a node whose own name it takes for another's
    folder INTEGER NOT NULL, node_id BLOB NOT NULL, alias TEXT NOT NULL, PRIMARY KEY (folder, node_id)
) WITHOUT ROWID;
"""

_IGNORED: Final = """
CREATE TABLE ignored (folder INTEGER NOT NULL, node_id BLOB NOT NULL, PRIMARY KEY (folder, node_id)) WITHOUT ROWID;
"""

_LEFT: Final = """
ALTER TABLE folders ADD COLUMN left_folder TEXT;    -- where it was, when a person took the folder off; its number counts on
"""

_XATTRS: Final = """
ALTER TABLE nodes ADD COLUMN xattrs BLOB;           -- extended attributes, encoded; NULL: none
ALTER TABLE folders ADD COLUMN xattrs_read INTEGER NOT NULL DEFAULT 0;  -- 1: what was there before they were synced was read
CREATE TABLE lacking (                              -- names of extended attributes that this disk has not taken, encoded
    folder INTEGER NOT NULL, node_id BLOB NOT NULL, names BLOB NOT NULL, PRIMARY KEY (folder, node_id)
) WITHOUT ROWID;
CREATE TABLE oversized (folder INTEGER NOT NULL, node_id BLOB NOT NULL, PRIMARY KEY (folder, node_id)) WITHOUT ROWID;
"""

_STEPS: Final = (_SCHEMA, _COPIES, _UNCLAIMED, _ALIASES, _IGNORED, _LEFT, _XATTRS)
"""What each version of the schema adds to the one before."""

SCHEMA_VERSION: Final = len(_STEPS)

_encode: Final = msgspec.msgpack.encode

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TREES: Final = ("remote", "local", "synced")


class Print(Struct, frozen=True, array_like=True, gc=False):
    """How an inode looked: enough to know it again, and to see that it changed. Times in nanoseconds.

    `birth_ns` is 0 where the file system does not tell.
    """

    dev: int
    ino: int
    birth_ns: int
    ctime_ns: int
    mtime_ns: int
    size: int
    mode: int

    def same_content(self, other: "Print") -> bool:
        """Whether no write can have happened between the two looks; a change of mode alone counts as one."""
        return (self.dev, self.ino, self.ctime_ns, self.mtime_ns, self.size) == (
            other.dev,
            other.ino,
            other.ctime_ns,
            other.mtime_ns,
            other.size,
        )

    def same_file(self, other: "Print") -> bool:
        """The same inode with the same bytes, as far as can be told after a rename (which changes ctime alone)."""
        return (self.dev, self.ino, self.mtime_ns, self.size) == (
            other.dev,
            other.ino,
            other.mtime_ns,
            other.size,
        )


class InFlight(Struct, frozen=True, array_like=True):
    """A request that awaits its answer.

    `body` is sent unchanged until then; `sent` is what the disk held of each touched node when it was planned: on
    acceptance, and where the journal now says the same, that is what the two sides have agreed on.
    """

    number: int
    body: bytes
    staged: bytes | None
    sent: dict[UUID, Node | None]


class Batch:
    """What one transaction writes. Empty parts are left as they are; None drops a row."""

    def __init__(self) -> None:
        self.remote: dict[UUID, Node | None] = {}
        self.local: dict[UUID, Node | None] = {}
        self.synced: dict[UUID, Node | None] = {}
        self.prints: dict[UUID, Print | None] = {}
        self.tombstones: dict[UUID, int | None] = {}
        self.unannounced: dict[UUID, bool] = {}
        self.ignored: dict[UUID, bool] = {}
        self.copies: dict[UUID, UUID | None] = {}
        self.lacking: dict[UUID, tuple[str, ...] | None] = {}
        self.oversized: dict[UUID, bool] = {}
        self.aliases: dict[UUID, str | None] = {}
        self.manifests: dict[bytes, FullContent] = {}
        self.columns: dict[str, object] = {}
        self.lingering: dict[str, tuple[str, Print] | None] = {}


class FolderState(Struct):
    """What the database holds of a folder besides its trees. `cursor` is None before the first snapshot."""

    key: int
    generation: int
    cursor: Cursor | None
    number: int
    request: InFlight | None
    intent: bytes | None
    unclaimed: bool
    left_folder: str | None
    xattrs_read: bool
    prints: dict[UUID, Print]
    lingering: dict[str, tuple[str, Print]]


class Index:
    """The database. All calls run one after another in a thread of its own; each is one transaction."""

    def __init__(self, path: Path) -> None:
        """Open, or make, the database at `path`. A damaged one is moved aside: the folders are then merged afresh.

        Raises:
            Misconfigured: When a newer Hutch has written it.
        """
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._db = self._thread.submit(self._open).result()
        self.incarnation = UUID(
            bytes=self._thread.submit(self._meta, "incarnation", uuid.uuid4().bytes).result()
        )

    async def close(self) -> None:
        """Finish what was begun, and close."""
        await self._run(self._db.close)
        self._thread.shutdown()

    def close_now(self) -> None:
        """The same, for callers without a loop."""
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    # --- opening

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGED:
                raise  # locked, unreadable, or no room on the disk: it is as good as it was
            mark = f"damaged-{uuid.uuid4().hex[:8]}"
            for suffix in ("", "-wal", "-shm"):
                path = self._path.with_name(self._path.name + suffix)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, path.with_name(f"{self._path.name}.{mark}{suffix}"))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "cache_size=-16000"):
                db.execute(f"PRAGMA {pragma}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise Misconfigured(f"{self._path} was written by a newer Hutch: install that version again")
            if version and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
            if version < SCHEMA_VERSION:
                steps = "".join(_STEPS[version:])
                db.executescript(f"BEGIN; {steps} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _meta(self, key: str, default: bytes) -> bytes:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default))
        value: bytes = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
        return value

    # --- folders

    async def load(self, workspace_id: UUID) -> tuple[FolderState, Trees]:
        """A folder's state and trees; empty ones when the database does not know it yet."""
        return await self._run(self._load, workspace_id)

    def load_now(self, workspace_id: UUID) -> tuple[FolderState, Trees]:
        """The same, for callers without a loop. Blocks."""
        return self._thread.submit(self._load, workspace_id).result()

    def _load(self, workspace_id: UUID) -> tuple[FolderState, Trees]:
        db = self._db
        db.execute("INSERT OR IGNORE INTO folders (workspace_id) VALUES (?)", (workspace_id.bytes,))
        row = db.execute(
            "SELECT folder, generation, epoch, seq, chain, number, request, intent, unclaimed, left_folder, xattrs_read FROM folders WHERE workspace_id = ?",
            (workspace_id.bytes,),
        ).fetchone()
        key, ids = row[0], _Ids()
        state = FolderState(
            key=key,
            generation=row[1],
            cursor=None if row[4] is None else Cursor(row[2], row[3], row[4]),
            number=row[5],
            request=None if row[6] is None else msgspec.msgpack.decode(row[6], type=InFlight),
            intent=row[7],
            unclaimed=bool(row[8]),
            left_folder=row[9],
            xattrs_read=bool(row[10]),
            prints={ids[r[0]]: Print(*r[1:]) for r in db.execute(_SELECT_PRINTS, (key,))},
            lingering={
                r[0]: (r[1], msgspec.msgpack.decode(r[2], type=Print))
                for r in db.execute(_SELECT_LINGERING, (key,))
            },
        )
        return state, self._load_trees(key, ids)

    def _load_trees(self, key: int, ids: "_Ids") -> Trees:
        trees = Trees()
        for number, name in enumerate(_TREES):
            getattr(trees, name).update({node.node_id: node for node in self._load_nodes(key, number, ids)})
        rows = self._db.execute("SELECT node_id, version FROM tombstones WHERE folder = ?", (key,))
        trees.tombstones = {UUID(bytes=row[0]): row[1] for row in rows}
        rows = self._db.execute("SELECT node_id FROM unannounced WHERE folder = ?", (key,))
        trees.unannounced = {UUID(bytes=row[0]) for row in rows}
        rows = self._db.execute("SELECT node_id FROM ignored WHERE folder = ?", (key,))
        trees.ignored = {UUID(bytes=row[0]) for row in rows}
        rows = self._db.execute("SELECT node_id, copy_id FROM copies WHERE folder = ?", (key,))
        trees.copies = {UUID(bytes=row[0]): UUID(bytes=row[1]) for row in rows}
        rows = self._db.execute("SELECT node_id, names FROM lacking WHERE folder = ?", (key,))
        trees.lacking = {ids[row[0]]: msgspec.msgpack.decode(row[1], type=tuple[str, ...]) for row in rows}
        rows = self._db.execute("SELECT node_id FROM oversized WHERE folder = ?", (key,))
        trees.oversized = {ids[row[0]] for row in rows}
        rows = self._db.execute("SELECT node_id, alias FROM aliases WHERE folder = ?", (key,))
        trees.local.rename_on_disk({ids[row[0]]: row[1] for row in rows})
        trees.touch_all()
        return trees

    def _load_nodes(self, key: int, tree: int, ids: "_Ids") -> Iterator[Node]:
        rows = self._db.execute(
            "SELECT node_id, parent_id, name, kind, version, mode, mtime_ns, size, digest, target, content_version, xattrs FROM nodes"
            " WHERE folder = ? AND tree = ?",
            (key, tree),
        )
        for row in rows:
            yield Node(
                node_id=ids[row[0]],
                parent_id=ids[row[1]],
                name=row[2],
                kind=Kind(row[3]),
                version=row[4],
                mode=row[5],
                mtime_ns=row[6],
                size=row[7],
                digest=row[8],
                target=row[9],
                content_version=row[10],
                xattrs=decode_xattrs(row[11]),
            )

    async def write(self, key: int, batch: Batch) -> None:
        """Write a batch durably, in one transaction."""
        await self._run(self._write, key, batch)

    async def forget(self, workspace_id: UUID, folder: str) -> None:
        """Drop all that is known of what a person has taken off, but where it was, and how far its requests were counted."""
        await self._run(self._forget, workspace_id, folder)

    def _forget(self, workspace_id: UUID, folder: str) -> None:
        row = self._db.execute(
            "SELECT folder FROM folders WHERE workspace_id = ?", (workspace_id.bytes,)
        ).fetchone()
        if row is None:
            return
        with _Transaction(self._db) as db:
            for table in (
                "nodes",
                "prints",
                "tombstones",
                "unannounced",
                "ignored",
                "copies",
                "aliases",
                "lacking",
                "oversized",
                "lingering",
            ):
                db.execute(f"DELETE FROM {table} WHERE folder = ?", row)  # noqa: S608  # our own names
            db.execute(
                "UPDATE folders SET generation = 0, epoch = 0, seq = 0, chain = NULL, request = NULL, intent = NULL,"
                " unclaimed = 0, left_folder = ? WHERE folder = ?",
                (folder, *row),
            )

    def _write(self, key: int, batch: Batch) -> None:
        with _Transaction(self._db) as db:
            for number, name in enumerate(_TREES):
                _write_nodes(db, key, number, getattr(batch, name))
            _write_rows(
                db,
                "prints",
                7,
                key,
                {k: None if v is None else _print_row(v) for k, v in batch.prints.items()},
            )
            _write_rows(
                db,
                "tombstones",
                1,
                key,
                {k: None if v is None else (v,) for k, v in batch.tombstones.items()},
            )
            _write_rows(
                db, "unannounced", 0, key, {k: () if v else None for k, v in batch.unannounced.items()}
            )
            _write_rows(db, "ignored", 0, key, {k: () if v else None for k, v in batch.ignored.items()})
            _write_rows(
                db, "copies", 1, key, {k: None if v is None else (v.bytes,) for k, v in batch.copies.items()}
            )
            names = {k: None if v is None else (_encode(v),) for k, v in batch.lacking.items()}
            _write_rows(db, "lacking", 1, key, names)
            _write_rows(db, "oversized", 0, key, {k: () if v else None for k, v in batch.oversized.items()})
            _write_rows(
                db, "aliases", 1, key, {k: None if v is None else (v,) for k, v in batch.aliases.items()}
            )
            db.executemany(
                "INSERT OR IGNORE INTO manifests VALUES (?, ?)",
                [(digest, encode(content)) for digest, content in batch.manifests.items()],
            )
            for stage, row in batch.lingering.items():
                db.execute("DELETE FROM lingering WHERE folder = ? AND stage = ?", (key, stage))
                if row is not None:
                    db.execute(
                        "INSERT INTO lingering VALUES (?, ?, ?, ?)", (key, stage, row[0], encode(row[1]))
                    )
            for column, value in batch.columns.items():
                db.execute(f"UPDATE folders SET {column} = ? WHERE folder = ?", (value, key))  # noqa: S608

    # --- manifests

    async def manifests(self, digests: list[bytes]) -> dict[bytes, FullContent]:
        """The stored manifests of these digests; those not known are left out."""
        return await self._run(self._manifests, digests)

    def _manifests(self, digests: list[bytes]) -> dict[bytes, FullContent]:
        found = {}
        for digest in digests:
            row = self._db.execute("SELECT content FROM manifests WHERE digest = ?", (digest,)).fetchone()
            if row is not None:
                found[digest] = decode_content(row[0])
        return found

    async def drop_unused_manifests(self) -> None:
        """Forget manifests that no node names any more."""
        await self._run(
            self._db.execute, "DELETE FROM manifests WHERE digest NOT IN (SELECT digest FROM nodes)"
        )


class _Ids(dict[bytes, UUID]):
    """One object for each id: every node is named many times over."""

    def __missing__(self, key: bytes) -> UUID:
        self[key] = value = UUID(bytes=key)
        return value


def cursor_columns(cursor: Cursor) -> dict[str, object]:
    """A cursor, as `Batch.columns` takes it."""
    return {"epoch": cursor.epoch, "seq": cursor.seq, "chain": cursor.chain}


_SELECT_PRINTS: Final = (
    "SELECT node_id, dev, ino, birth_ns, ctime_ns, mtime_ns, size, mode FROM prints WHERE folder = ?"
)
_SELECT_LINGERING: Final = "SELECT stage, path, print FROM lingering WHERE folder = ?"


def _print_row(value: Print) -> tuple[int, ...]:
    return (value.dev, value.ino, value.birth_ns, value.ctime_ns, value.mtime_ns, value.size, value.mode)


def _write_nodes(db: sqlite3.Connection, key: int, tree: int, nodes: dict[UUID, Node | None]) -> None:
    gone = [(key, tree, node_id.bytes) for node_id, node in nodes.items() if node is None]
    db.executemany("DELETE FROM nodes WHERE folder = ? AND tree = ? AND node_id = ?", gone)
    db.executemany(
        "INSERT OR REPLACE INTO nodes (folder, tree, node_id, parent_id, name, kind, version, mode, mtime_ns, size,"
        " digest, target, content_version, xattrs) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                key, tree, node.node_id.bytes, node.parent_id.bytes, node.name, str(node.kind), node.version,
                node.mode, node.mtime_ns, node.size, node.digest, node.target, node.content_version, encode_xattrs(node.xattrs),
            )
            for node in nodes.values()
            if node is not None
        ],
    )  # fmt: skip


def _write_rows(
    db: sqlite3.Connection,
    table: str,
    width: int,
    key: int,
    rows: "Mapping[UUID, tuple[int | bytes | str, ...] | None]",
) -> None:
    gone = [(key, node_id.bytes) for node_id, row in rows.items() if row is None]
    db.executemany(f"DELETE FROM {table} WHERE folder = ? AND node_id = ?", gone)  # noqa: S608
    marks = ", ".join("?" * (width + 2))
    db.executemany(
        f"INSERT OR REPLACE INTO {table} VALUES ({marks})",  # noqa: S608
        [(key, node_id.bytes, *row) for node_id, row in rows.items() if row is not None],
    )


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # a full disk may have undone it already
                self._db.execute("ROLLBACK")
