"""The local database: the three trees, the cursor, and what must survive a crash. SQLite, in one thread of its own.

It records what was observed, and two intentions: the request in flight, and the placing that has begun.
"""

import asyncio
import contextlib
import gc
import os
import sqlite3
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from agent.trees import Node, Tree, Trees
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

_AGREED: Final = """
CREATE TABLE agreed (                               -- as `nodes`; tree: 3 where all three say the same, and then no other
    folder INTEGER NOT NULL, tree INTEGER NOT NULL, node_id BLOB NOT NULL, parent_id BLOB NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, version INTEGER NOT NULL, mode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, target TEXT NOT NULL, content_version INTEGER NOT NULL,
    PRIMARY KEY (folder, node_id, tree)
) WITHOUT ROWID;
INSERT INTO agreed
    SELECT r.folder, 3, r.node_id, r.parent_id, r.name, r.kind, r.version, r.mode, r.mtime_ns, r.size, r.digest, r.target,
        r.content_version
    FROM nodes r JOIN nodes l USING (folder, node_id) JOIN nodes s USING (folder, node_id)
    WHERE r.tree = 0 AND l.tree = 1 AND s.tree = 2
        AND (r.parent_id, r.name, r.kind, r.mode, r.mtime_ns, r.size, r.digest, r.target)
            = (l.parent_id, l.name, l.kind, l.mode, l.mtime_ns, l.size, l.digest, l.target)
        AND (r.parent_id, r.name, r.kind, r.mode, r.mtime_ns, r.size, r.digest, r.target)
            = (s.parent_id, s.name, s.kind, s.mode, s.mtime_ns, s.size, s.digest, s.target);
INSERT INTO agreed
    SELECT folder, tree, node_id, parent_id, name, kind, version, mode, mtime_ns, size, digest, target, content_version
    FROM nodes n
    WHERE NOT EXISTS (SELECT 1 FROM agreed a WHERE a.folder = n.folder AND a.node_id = n.node_id AND a.tree = 3);
DROP TABLE nodes;
ALTER TABLE agreed RENAME TO nodes;
CREATE INDEX nodes_by_digest ON nodes (digest);
ALTER TABLE folders ADD COLUMN rules BLOB;          -- by which rules everything was looked at last (`Rules.digest`)
"""

_BASES: Final = """
CREATE TABLE bases (                                -- what a conflict copy made here, and its original, both came from
    folder INTEGER NOT NULL, copy_id BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (folder, copy_id)
) WITHOUT ROWID;
CREATE TABLE commits (                              -- when the service took each commit that was received, by its clock
    folder INTEGER NOT NULL, seq INTEGER NOT NULL, committed_ns INTEGER NOT NULL,
    own INTEGER NOT NULL,                           -- 1: it came from this device
    PRIMARY KEY (folder, seq)
) WITHOUT ROWID;
"""

_UNDONE: Final = """
ALTER TABLE folders ADD COLUMN undone BLOB;         -- the held commit that was taken back last
"""

_PROBLEMS: Final = """
ALTER TABLE folders ADD COLUMN problems BLOB;           -- what was wrong at the last look (agent.standing); NULL: nothing is known
"""

_XATTRS: Final = """
ALTER TABLE nodes ADD COLUMN xattrs BLOB;           -- extended attributes, encoded; NULL: none
ALTER TABLE folders ADD COLUMN xattrs_read INTEGER NOT NULL DEFAULT 0;  -- 1: what was there before they were synced was read
CREATE TABLE lacking (                              -- names of extended attributes that this disk has not taken, encoded
    folder INTEGER NOT NULL, node_id BLOB NOT NULL, names BLOB NOT NULL, PRIMARY KEY (folder, node_id)
) WITHOUT ROWID;
CREATE TABLE oversized (folder INTEGER NOT NULL, node_id BLOB NOT NULL, PRIMARY KEY (folder, node_id)) WITHOUT ROWID;
"""

_STEPS: Final = (
    _SCHEMA,
    _COPIES,
    _UNCLAIMED,
    _ALIASES,
    _IGNORED,
    _LEFT,
    _AGREED,
    _BASES,
    _UNDONE,
    _PROBLEMS,
    _XATTRS,
)
"""What each version of the schema adds to the one before."""

SCHEMA_VERSION: Final = len(_STEPS)

MANY_COMMITS: Final = 10_000
"""How many times of commits are kept without asking whether anything needs them."""

_encode: Final = msgspec.msgpack.encode

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TREES: Final = ("remote", "local", "synced")
_ALL: Final = len(_TREES)
_KINDS: Final = {str(kind): kind for kind in Kind}


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


_PACKED: Final = struct.Struct("<QQqqqHq")


class Prints(MutableMapping[UUID, Print]):
    """How each node of the local tree looked, and whose an inode is. Packed: there may be very many."""

    def __init__(self) -> None:
        self._packed: dict[UUID, bytes] = {}
        self._owners: dict[int, dict[int, UUID]] = {}  # by device, by inode
        self._also: dict[
            tuple[int, int], list[UUID]
        ] = {}  # nodes of an inode that another one owns: hard links

    def __getitem__(self, node_id: UUID) -> Print:
        dev, ino, ctime_ns, mtime_ns, size, mode, birth_ns = _PACKED.unpack(self._packed[node_id])
        return Print(dev, ino, birth_ns, ctime_ns, mtime_ns, size, mode)

    def __setitem__(self, node_id: UUID, look: Print) -> None:
        if node_id in self._packed:
            self._disown(node_id)
        self.put(node_id, *_print_row(look))

    def __delitem__(self, node_id: UUID) -> None:
        self._disown(node_id)
        del self._packed[node_id]

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._packed

    def put(
        self,
        node_id: UUID,
        dev: int,
        ino: int,
        birth_ns: int,
        ctime_ns: int,
        mtime_ns: int,
        size: int,
        mode: int,
    ) -> None:
        """Take in the print of a node that has none yet."""
        self._packed[node_id] = _PACKED.pack(dev, ino, ctime_ns, mtime_ns, size, mode, birth_ns)
        owners = self._owners.setdefault(dev, {})
        if owners.setdefault(ino, node_id) is not node_id:
            self._also.setdefault((dev, ino), []).append(node_id)

    def _disown(self, node_id: UUID) -> None:
        dev, ino, *_ = _PACKED.unpack(self._packed[node_id])
        others = self._also.get((dev, ino), [])
        if node_id in others:
            others.remove(node_id)
        elif others:
            self._owners[dev][ino] = others.pop(0)
        else:
            del self._owners[dev][ino]
        if not others:
            self._also.pop((dev, ino), None)

    def owner(self, dev: int, ino: int) -> UUID | None:
        """Whose inode that is; the node that had it first, where several have it."""
        owners = self._owners.get(dev)
        return None if owners is None else owners.get(ino)

    def is_only(self, node_id: UUID, dev: int, ino: int) -> bool:
        """Whether an inode is that of a node, and of no other."""
        owners = self._owners.get(dev)
        owner = None if owners is None else owners.get(ino)
        if owner is not node_id and owner != node_id:
            return False
        return not self._also or (dev, ino) not in self._also

    def is_as_seen(self, node_id: UUID, status: "os.stat_result", mode: int) -> bool:
        """Whether a node's inode looks as it did: nothing of it was changed, not even its permission bits."""
        packed = self._packed.get(node_id)
        return packed is not None and packed.startswith(
            _AS_SEEN.pack(
                status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size, mode
            )
        )


_AS_SEEN: Final = struct.Struct("<QQqqqH")
"""The beginning of `_PACKED`."""


class Taken(Struct, frozen=True):
    """When the service took a commit, in nanoseconds since 1970 by its clock, and whether it came from this device."""

    committed_ns: int
    own: bool


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
        self.bases: dict[UUID, bytes | None] = {}
        self.commits: dict[int, Taken] = {}
        self.forgets_commits = False
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
    rules: bytes | None
    undone: UUID | None
    problems: bytes | None
    xattrs_read: bool
    prints: Prints
    lingering: dict[str, tuple[str, Print]]
    bases: dict[UUID, bytes]


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
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "cache_size=-4000"):
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
            "SELECT folder, generation, epoch, seq, chain, number, request, intent, unclaimed, left_folder, rules, undone, problems, xattrs_read"
            " FROM folders WHERE workspace_id = ?",
            (workspace_id.bytes,),
        ).fetchone()
        key, ids = row[0], _Ids()
        with _no_collecting():
            trees, prints = self._load_trees(key, ids), self._load_prints(key, ids)
        state = FolderState(
            key=key,
            generation=row[1],
            cursor=None if row[4] is None else Cursor(row[2], row[3], row[4]),
            number=row[5],
            request=None if row[6] is None else msgspec.msgpack.decode(row[6], type=InFlight),
            intent=row[7],
            unclaimed=bool(row[8]),
            left_folder=row[9],
            rules=row[10],
            undone=None if row[11] is None else UUID(bytes=row[11]),
            problems=row[12],
            xattrs_read=bool(row[13]),
            prints=prints,
            lingering={
                r[0]: (r[1], msgspec.msgpack.decode(r[2], type=Print))
                for r in db.execute(_SELECT_LINGERING, (key,))
            },
            bases={
                ids[r[0]]: r[1]
                for r in db.execute("SELECT copy_id, digest FROM bases WHERE folder = ?", (key,))
            },
        )
        return state, trees

    def _load_prints(self, key: int, ids: "_Ids") -> Prints:
        prints = Prints()
        for row in self._db.execute(_SELECT_PRINTS, (key,)):
            prints.put(ids[row[0]], *row[1:])
        return prints

    def _load_trees(self, key: int, ids: "_Ids") -> Trees:
        trees = Trees()
        agreed: list[Node] = []
        apart: dict[int, dict[UUID, Node | None]] = {number: {} for number in range(len(_TREES))}
        for number, node in self._load_nodes(key, ids):
            if number == _ALL:
                agreed.append(node)
            else:
                apart[number][node.node_id] = node
        trees.remote = Tree(agreed)
        del agreed
        trees.local, trees.synced = trees.remote.copy(), trees.remote.copy()
        for number, name in enumerate(_TREES):
            getattr(trees, name).update(apart[number])
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
        trees.touch({*apart[0], *apart[1], *apart[2]})  # all others are one object in all three
        return trees

    def _load_nodes(self, key: int, ids: "_Ids") -> Iterator[tuple[int, Node]]:
        """All nodes of a folder, each with the number of its tree. Equal small values are one object: there may be very many."""
        one: dict[object, Any] = {}
        for row in self._db.execute(f"SELECT node_id, tree, {_COLUMNS} FROM nodes WHERE folder = ?", (key,)):  # noqa: S608
            (
                _,
                tree,
                parent_id,
                name,
                kind,
                mode,
                mtime_ns,
                size,
                digest,
                target,
                xattrs,
                version,
                content_version,
            ) = row
            yield (
                tree,
                Node(
                    node_id=ids[row[0]],
                    parent_id=ids[parent_id],
                    name=name,
                    kind=_KINDS[kind],
                    version=one.setdefault(version, version),
                    mode=one.setdefault(mode, mode),
                    mtime_ns=mtime_ns,
                    size=size,
                    digest=digest,
                    target=target,
                    xattrs=decode_xattrs(xattrs),
                    content_version=one.setdefault(content_version, content_version),
                ),
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
                "bases",
                "commits",
                "aliases",
                "lacking",
                "oversized",
                "lingering",
            ):
                db.execute(f"DELETE FROM {table} WHERE folder = ?", row)  # noqa: S608  # our own names
            db.execute(
                "UPDATE folders SET generation = 0, epoch = 0, seq = 0, chain = NULL, request = NULL, intent = NULL,"
                " unclaimed = 0, rules = NULL, problems = NULL, left_folder = ? WHERE folder = ?",
                (folder, *row),
            )

    def _write(self, key: int, batch: Batch) -> None:
        with _Transaction(self._db) as db:
            _write_nodes(db, key, (batch.remote, batch.local, batch.synced))
            _write_rows(db, "prints", 7, key, batch.prints, _print_row)
            _write_rows(db, "tombstones", 1, key, batch.tombstones, lambda version: (version,))
            _write_rows(db, "unannounced", 0, key, batch.unannounced, lambda stays: () if stays else None)
            _write_rows(db, "ignored", 0, key, batch.ignored, lambda is_ignored: () if is_ignored else None)
            _write_rows(db, "copies", 1, key, batch.copies, lambda copy_id: (copy_id.bytes,))
            _write_rows(db, "aliases", 1, key, batch.aliases, lambda alias: (alias,))
            _write_rows(db, "lacking", 1, key, batch.lacking, lambda names: (_encode(names),))
            _write_rows(
                db, "oversized", 0, key, batch.oversized, lambda is_oversized: () if is_oversized else None
            )
            _write_bases(db, key, batch.bases)
            if batch.forgets_commits:
                db.execute("DELETE FROM commits WHERE folder = ?", (key,))
            db.executemany(
                "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)",
                [(key, seq, taken.committed_ns, taken.own) for seq, taken in batch.commits.items()],
            )
            db.executemany(
                "INSERT OR IGNORE INTO manifests VALUES (?, ?)",
                ((digest, encode(content)) for digest, content in batch.manifests.items()),
            )
            for stage, row in batch.lingering.items():
                db.execute("DELETE FROM lingering WHERE folder = ? AND stage = ?", (key, stage))
                if row is not None:
                    db.execute(
                        "INSERT INTO lingering VALUES (?, ?, ?, ?)", (key, stage, row[0], encode(row[1]))
                    )
            for column, value in batch.columns.items():
                db.execute(f"UPDATE folders SET {column} = ? WHERE folder = ?", (value, key))  # noqa: S608

    # --- when commits were taken

    async def commits(self, key: int, seqs: list[int]) -> dict[int, Taken]:
        """When the service took these commits; those that came with a snapshot are not known, and left out."""
        return await self._run(self._commits, key, seqs)

    def _commits(self, key: int, seqs: list[int]) -> dict[int, Taken]:
        found = {}
        for seq in seqs:
            row = self._db.execute(
                "SELECT committed_ns, own FROM commits WHERE folder = ? AND seq = ?", (key, seq)
            ).fetchone()
            if row is not None:
                found[seq] = Taken(row[0], bool(row[1]))
        return found

    async def drop_unused_commits(self) -> None:
        """Forget the times of commits that are no node's version any more, once they are many more than the nodes."""
        await self._run(self._drop_unused_commits)

    def _drop_unused_commits(self) -> None:
        count = "SELECT (SELECT count(*) FROM commits), (SELECT count(*) FROM prints)"
        commits, nodes = self._db.execute(count).fetchone()
        if commits > 2 * nodes + MANY_COMMITS:
            self._db.execute(
                "DELETE FROM commits WHERE (folder, seq) NOT IN (SELECT folder, version FROM nodes)"
            )

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

    async def holders(self, key: int, digests: list[bytes]) -> dict[bytes, list[UUID]]:
        """For each of these digests some of the folder's nodes that hold it, in whichever tree."""
        return await self._run(self._holders, key, digests)

    def _holders(self, key: int, digests: list[bytes]) -> dict[bytes, list[UUID]]:
        found = {}
        for digest in digests:
            rows = self._db.execute(_SELECT_HOLDERS, (digest, key, _HOLDERS)).fetchall()
            if rows:
                found[digest] = [UUID(bytes=row[0]) for row in rows]
        return found

    async def drop_unused_manifests(self, *, share: float = 0.0) -> None:
        """Forget manifests that no node names any more, once these may be more than a share of all."""
        await self._run(self._drop_unused_manifests, share)

    def _drop_unused_manifests(self, share: float) -> None:
        count = self._db.execute("SELECT count(*) FROM manifests").fetchone()[0]
        used = self._db.execute("SELECT count(DISTINCT digest) FROM nodes WHERE digest != x''").fetchone()[0]
        if count - used > share * count:
            self._db.execute(
                "DELETE FROM manifests WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.digest = manifests.digest)"
                " AND NOT EXISTS (SELECT 1 FROM bases WHERE bases.digest = manifests.digest)"
            )


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """Do not look for cycles while very many objects are made that are none: each time, all so far would be looked at."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Ids(dict[bytes, UUID]):
    """One object for each id: every node is named many times over."""

    def __missing__(self, key: bytes) -> UUID:
        self[key] = value = UUID(bytes=key)
        return value


def cursor_columns(cursor: Cursor) -> dict[str, object]:
    """A cursor, as `Batch.columns` takes it."""
    return {"epoch": cursor.epoch, "seq": cursor.seq, "chain": cursor.chain}


_HOLDERS: Final = 16
_SELECT_HOLDERS: Final = "SELECT DISTINCT node_id FROM nodes WHERE digest = ? AND folder = ? LIMIT ?"
_SELECT_PRINTS: Final = (
    "SELECT node_id, dev, ino, birth_ns, ctime_ns, mtime_ns, size, mode FROM prints WHERE folder = ?"
)
_SELECT_LINGERING: Final = "SELECT stage, path, print FROM lingering WHERE folder = ?"


def _print_row(value: Print) -> tuple[int, ...]:
    return (value.dev, value.ino, value.birth_ns, value.ctime_ns, value.mtime_ns, value.size, value.mode)


_COLUMNS: Final = (
    "parent_id, name, kind, mode, mtime_ns, size, digest, target, xattrs, version, content_version"
)
_VERSIONS: Final = 2
"""How many of the last of `_COLUMNS` do not matter to whether trees say the same: only the remote tree has its own."""

_SELECT_NODE: Final = f"SELECT tree, {_COLUMNS} FROM nodes WHERE folder = ? AND node_id = ?"  # noqa: S608
_MARKS: Final = ", ".join("?" * (3 + _COLUMNS.count(",") + 1))
_INSERT_NODE: Final = f"INSERT OR REPLACE INTO nodes (folder, node_id, tree, {_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608

_Row = tuple[Any, ...]


def _node_row(node: Node) -> _Row:
    return (
        node.parent_id.bytes, node.name, str(node.kind), node.mode, node.mtime_ns, node.size, node.digest, node.target,
        encode_xattrs(node.xattrs), node.version, node.content_version,
    )  # fmt: skip


def _write_nodes(db: sqlite3.Connection, key: int, changes: tuple[dict[UUID, Node | None], ...]) -> None:
    """Write what changes in each tree. What all of them say is one row: nearly all nodes are like that, nearly always."""
    for at, nodes in enumerate(changes):
        for node_id in nodes:
            if not any(node_id in earlier for earlier in changes[:at]):
                _write_node(
                    db, (key, node_id.bytes), [(node_id in each, each.get(node_id)) for each in changes]
                )


def _write_node(db: sqlite3.Connection, at: _Row, changes: list[tuple[bool, Node | None]]) -> None:
    before: dict[int, _Row] = {row[0]: row[1:] for row in db.execute(_SELECT_NODE, at)}
    now = dict.fromkeys(range(len(_TREES)), before[_ALL]) if _ALL in before else dict(before)
    for number, (is_changed, node) in enumerate(changes):
        if node is not None:
            now[number] = _node_row(node)
        elif is_changed:
            now.pop(number, None)
    if len(now) == len(_TREES) and len({row[:-_VERSIONS] for row in now.values()}) == 1:
        now = {_ALL: now[0]}
    for number in before.keys() - now.keys():
        db.execute("DELETE FROM nodes WHERE folder = ? AND node_id = ? AND tree = ?", (*at, number))
    for number, row in now.items():
        if before.get(number) != row:
            db.execute(_INSERT_NODE, (*at, number, *row))


def _write_rows(
    db: sqlite3.Connection,
    table: str,
    width: int,
    key: int,
    values: Mapping[UUID, T | None],
    row_of: Callable[[T], _Row | None],
) -> None:
    """Write, one by one, what a map holds of nodes. None, and what has no row, is dropped."""
    delete = f"DELETE FROM {table} WHERE folder = ? AND node_id = ?"  # noqa: S608  # our own names
    insert = f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * (width + 2))})"  # noqa: S608
    for node_id, value in values.items():
        row = None if value is None else row_of(value)
        if row is None:
            db.execute(delete, (key, node_id.bytes))
        else:
            db.execute(insert, (key, node_id.bytes, *row))


def _write_bases(db: sqlite3.Connection, key: int, bases: Mapping[UUID, bytes | None]) -> None:
    for copy_id, digest in bases.items():
        db.execute("DELETE FROM bases WHERE folder = ? AND copy_id = ?", (key, copy_id.bytes))
        if digest is not None:
            db.execute("INSERT INTO bases VALUES (?, ?, ?)", (key, copy_id.bytes, digest))


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
