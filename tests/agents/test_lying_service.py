"""A hostile or broken service, to whole agents: nothing outside the folder is touched, what it says is reported.

The service is the one in memory; what it sends of its journal, its snapshot and its chunks is bent on the way.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from agent.service import Stream
from broker.messages import ChangeNotice, JournalEntry, SnapshotNode, decode_entry, encode
from broker.model import (
    MAX_CHUNK_SIZE_BYTES,
    ROOT,
    Chunk,
    Cursor,
    Delete,
    FullContent,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Move,
    Operation,
    Put,
    SetAttributes,
    extend_chain,
)
from tests.agents import world as world_room
from tests.agents.world import Device, World
from tests.filesystems.people import errors, until

A, B = UUID(int=0xA), UUID(int=0xB)
HUGE = 2**62


def directory(name: str, node_id: UUID = A, parent_id: UUID = ROOT) -> MakeDirectory:
    return MakeDirectory(node_id=node_id, parent_id=parent_id, name=name, mode=0o755)


def link(name: str, target: str, node_id: UUID = A) -> MakeSymlink:
    return MakeSymlink(node_id=node_id, parent_id=ROOT, name=name, target=target, mtime_ns=0)


def put(name: str, chunks: tuple[Chunk, ...] = (), node_id: UUID = B, parent_id: UUID = ROOT) -> Put:
    return Put(
        node_id=node_id, parent_id=parent_id, name=name, mode=0o644, mtime_ns=0, content=FullContent(20, chunks)
    )  # fmt: skip


REFUSED: dict[str, tuple[Operation, ...]] = {
    "a name that leads out": (directory("../outside"),),
    "the parent's name": (directory(".."),),
    "its own name": (put("."),),
    "an absolute name": (put("/etc/passwd"),),
    "an empty name": (put(""),),
    "a NUL in a name": (put("a\0b"),),
    "a name of 256 bytes": (put("n" * 256),),
    "our own folder": (directory(".hutch"),),
    "what folds to our own folder": (directory(".HuTcH"),),
    "a move into our own folder": (put("x"), Move(node_id=B, base_version=1, parent_id=ROOT, name=".hutch")),
    "a move out by its name": (put("x"), Move(node_id=B, base_version=1, parent_id=ROOT, name="../x")),
    "an empty target": (link("l", ""),),
    "a target with a NUL": (link("l", "a\0b"),),
    "a target of 5,000 bytes": (link("l", "t" * 5_000),),
    "a file below a link": (link("d", "/tmp"), put("x", parent_id=A)),
    "a file below a file": (put("d", node_id=A), put("x", parent_id=A)),
    "a file below itself": (put("x", node_id=A, parent_id=A),),
    "a parent that is not there": (put("x", parent_id=uuid4()),),
    "a ring of two": (directory("a", A, B), directory("b", B, A)),
    "a directory moved below itself": (
        directory("a", A), directory("b", B, A), Move(node_id=A, base_version=1, parent_id=B, name="a"),
    ),
    "two nodes of one name": (directory("same", A), directory("same", B)),
    "the root as a node": (directory("x", ROOT),),
    "a move of the root": (Move(node_id=ROOT, base_version=1, parent_id=A, name="x"),),
    "a directory that becomes a file": (directory("x", A), put("x", node_id=A)),
    "attributes of nothing": (SetAttributes(node_id=uuid4(), base_version=1, mode=0o777),),
}  # fmt: skip


class Scene:
    """A desktop that is in step, beside files that are none of the service's business."""

    def __init__(self, world: World, laptop: Device, desktop: Device, outside: Path) -> None:
        self.world = world
        self.laptop = laptop
        self.desktop = desktop
        self.outside = outside
        self.before = everything(outside.parent, but={desktop.path, desktop.home, laptop.path, laptop.home})

    def check(self) -> None:
        """Nothing outside is other than it was; nothing but what the person had is inside."""
        known = {self.desktop.path, self.desktop.home, self.laptop.path, self.laptop.home}
        assert everything(self.outside.parent, but=known) == self.before
        assert set(self.desktop.tree()) == {"mine"}
        assert self.desktop.read("mine") == b"mine"
        assert sorted(os.listdir(self.desktop.path / ".hutch")) == ["marker.json", "stage"]

    def entry(self, *operations: Operation, seq: int | None = None) -> bytes:
        """A journal entry as of the laptop, after the last one."""
        last = decode_entry(self.world.store.journal[self.world.workspace_id][-1][0])
        fields = {field: getattr(last, field) for field in last.__struct_fields__}
        at = self.world.head.seq + 1 if seq is None else seq
        return encode(
            JournalEntry(**{**fields, "seq": at, "number": last.number + 1, "operations": operations})
        )

    def add(self, entry: bytes) -> ChangeNotice:
        """Put an entry into the journal unseen by any check; the notice of it."""
        head = self.world.head
        chain = extend_chain(head.chain, entry)
        self.world.store.journal[self.world.workspace_id].append((entry, chain))
        workspace = self.world.store.workspaces[self.world.workspace_id]
        self.world.store.workspaces[self.world.workspace_id] = msgspec.structs.replace(
            workspace, seq=head.seq + 1, chain=chain
        )
        return ChangeNotice(workspace_id=self.world.workspace_id, head=self.world.head, entries=(entry,))


def everything(folder: Path, but: set[Path]) -> dict[str, object]:
    """All files below a folder with their content."""
    found: dict[str, object] = {}
    for here, names, files in os.walk(folder):
        names[:] = [name for name in names if Path(here) / name not in but]
        for name in files:
            path = Path(here) / name
            found[str(path)] = os.readlink(path) if path.is_symlink() else path.read_bytes()
        found.update({str(Path(here) / name): "/" for name in names})
    return found


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    world = await World.make(tmp_path)
    laptop, desktop = await world.device("laptop"), await world.device("desktop")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("not the service's")
    await laptop.start()
    await desktop.start()
    desktop.write("mine", "mine")
    await world.settle()
    await laptop.stop()
    yield Scene(world, laptop, desktop, tmp_path / "outside")
    await desktop.stop()


@pytest.mark.parametrize("operations", REFUSED.values(), ids=REFUSED)
async def test_an_entry_that_no_service_should_send_is_refused_and_reported(
    scene: Scene, operations: tuple[Operation, ...]
) -> None:
    notice = scene.add(scene.entry(*operations))
    await scene.desktop.folder.take(notice)
    await until(scene.world, lambda: errors(scene.desktop).get("") == "corrupt")
    scene.check()
    # What the person does goes on being seen; nothing of it is lost.
    scene.desktop.write("mine too", "written meanwhile")
    await scene.desktop.folder.looker.look_at_all()
    (scene.desktop.path / "mine too").unlink()
    scene.check()


@pytest.mark.parametrize("operations", REFUSED.values(), ids=REFUSED)
async def test_the_same_in_a_first_snapshot(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, operations: tuple[Operation, ...]
) -> None:
    records = snapshot_of(operations)
    if records is None:
        return  # a snapshot cannot say it

    @asynccontextmanager
    async def snapshot(line: world_room.Line, workspace_id: UUID) -> AsyncIterator[Stream[SnapshotNode]]:
        yield Stream(scene.world.head, len(records), world_room._stream(records))

    monkeypatch.setattr(world_room.Line, "snapshot", snapshot)
    await scene.desktop.folder.replica.distrust()
    scene.desktop.folder.receiver.ask()
    scene.desktop.folder.looker.hint("", deep=True)
    await until(scene.world, lambda: errors(scene.desktop).get("") == "corrupt")
    scene.check()


def snapshot_of(operations: Sequence[Operation]) -> list[SnapshotNode] | None:
    """The records that would say the same; None where there are none."""
    records = []
    for operation in operations:
        if not isinstance(operation, MakeDirectory | MakeSymlink | Put):
            return None
        kinds = {MakeDirectory: Kind.DIRECTORY, MakeSymlink: Kind.SYMLINK, Put: Kind.FILE}
        records.append(
            SnapshotNode(
                node_id=operation.node_id,
                parent_id=operation.parent_id,
                name=operation.name,
                kind=kinds[type(operation)],
                version=1,
                mode=0o755,
                mtime_ns=0,
                target=operation.target if isinstance(operation, MakeSymlink) else "",
                content=operation.content if isinstance(operation, Put) and isinstance(operation.content, FullContent) else None,
                content_version=1,
            )
        )  # fmt: skip
    if len({record.node_id for record in records}) < len(records):
        return None
    return records


async def test_a_link_to_outside_and_then_files_through_it(scene: Scene) -> None:
    """First a link, which a person may have; then, in later entries, what would go through it."""
    notice = scene.add(scene.entry(link("d", str(scene.outside))))
    await scene.desktop.folder.take(notice)
    await scene.world.settle(scene.desktop)
    assert os.readlink(scene.desktop.path / "d") == str(scene.outside)
    notice = scene.add(scene.entry(put("file", parent_id=A)))
    await scene.desktop.folder.take(notice)
    await until(scene.world, lambda: errors(scene.desktop).get("") == "corrupt")
    (scene.desktop.path / "d").unlink()
    scene.check()


JOURNALS: dict[str, Callable[[Scene], bytes]] = {
    "an entry of a number that leaves a gap": lambda scene: scene.entry(directory("a"), seq=9),
    "an entry of a number that goes back": lambda scene: scene.entry(directory("a"), seq=0),
    "an entry of a huge number": lambda scene: scene.entry(directory("a"), seq=2**63 - 1),
    "bytes that are no entry": lambda scene: b"\xc1 nonsense",
    "no bytes": lambda scene: b"",
    "a nest without a bottom": lambda scene: b"\x91" * 10_000,
}


@pytest.mark.parametrize("make", JOURNALS.values(), ids=JOURNALS)
async def test_a_journal_with_a_gap_or_going_back_or_of_nonsense_moves_nothing(
    scene: Scene, make: Callable[[Scene], bytes]
) -> None:
    cursor = scene.desktop.folder.replica.cursor
    notice = scene.add(make(scene))
    await scene.desktop.folder.take(notice)
    scene.desktop.folder.receiver.ask()
    await until(
        scene.world,
        lambda: errors(scene.desktop).get("") == "corrupt",
    )
    assert scene.desktop.folder.replica.cursor == cursor
    scene.check()


async def test_a_head_that_goes_back_is_no_reason_to_undo_anything(scene: Scene) -> None:
    """An older head is an old message; with another chain, the base is distrusted, and nothing is deleted for it."""
    first = Cursor(1, 0, b"\0" * 32)
    await scene.desktop.folder.take(
        ChangeNotice(workspace_id=scene.world.workspace_id, head=first, entries=())
    )
    scene.desktop.folder.compare_head(Cursor(1, 1, b"\1" * 32))
    scene.desktop.folder.compare_head(Cursor(0, 2**62, b"\2" * 32))
    await scene.desktop.folder.looker.look_at_all()
    scene.check()


async def test_sizes_that_no_disk_holds_end_nobody(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of 20 GB that nobody has: it is left out, and said so."""
    chunk = Chunk(hashlib.sha256(b"x").digest(), MAX_CHUNK_SIZE_BYTES)
    many = tuple(chunk for _ in range(5_000))
    await scene.desktop.folder.take(scene.add(scene.entry(put("huge", many))))
    await until(scene.world, lambda: errors(scene.desktop).get("huge") == "missing_chunks")
    scene.check()


async def test_times_and_modes_at_their_limits_end_nobody(scene: Scene) -> None:
    """The latest and the earliest moment that the wire can say, and no right for anybody."""
    for number, mtime_ns in enumerate((2**63 - 1, -(2**63), 0)):
        operation = put(f"file {number}", node_id=UUID(int=100 + number))
        entry = scene.entry(msgspec.structs.replace(operation, mtime_ns=mtime_ns, mode=0o777 * (number % 2)))
        await scene.desktop.folder.take(scene.add(entry))
    await until(scene.world, lambda: (scene.desktop.path / "file 2").exists())
    for number in range(3):
        (scene.desktop.path / f"file {number}").unlink()
    scene.check()


async def test_a_delete_of_what_the_journal_never_had_deletes_nothing(scene: Scene) -> None:
    await scene.desktop.folder.take(scene.add(scene.entry(Delete(node_id=uuid4(), base_version=1))))
    await scene.world.settle(scene.desktop)
    scene.check()
