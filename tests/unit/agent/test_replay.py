"""Journal entries upon the remote tree, honest and hostile ones; and changes into operations."""

from collections.abc import Callable
from uuid import UUID

import pytest
from msgspec import UNSET

from agent.plan import Change
from agent.replay import check_nodes, node_of, operations, replay
from agent.trees import Node, Tree, replace
from broker.errors import Corrupt
from broker.messages import JournalEntry, SnapshotNode
from broker.model import (
    ROOT,
    Content,
    CopiedContent,
    Delete,
    FullContent,
    Kind,
    MakeDirectory,
    MakeSymlink,
    Move,
    Operation,
    Put,
    SetAttributes,
    Splice,
    SplicedContent,
    subtree_digest,
)
from tests.unit.agent.twosided import MANIFESTS, digest_of, manifest, new_directory, new_file, new_link

A, B, C, D, E = (UUID(int=number) for number in range(1, 6))


def journal_tree() -> Tree:
    """a/ with b/ with c (x, y, z); d (x); e, a link. All of version 3."""
    nodes = [
        new_directory(A, ROOT, "a"),
        new_directory(B, A, "b"),
        new_file(C, B, "c", "xyz"),
        new_file(D, ROOT, "d", "x"),
        new_link(E, ROOT, "e", "to"),
    ]
    return Tree(replace(n, version=3, content_version=3 if n.kind is Kind.FILE else 0) for n in nodes)


def entry(*asked: Operation) -> JournalEntry:
    return JournalEntry(
        seq=4, user_id=A, device_id=A, incarnation=A, number=1, committed_ns=0, operations=asked
    )


def after(*asked: Operation) -> Tree:
    """The tree after an entry."""
    tree = journal_tree()
    tree.update(replay(entry(*asked), tree, MANIFESTS.get).nodes)
    return tree


def put(node_id: UUID, parent_id: UUID, name: str, content: Content) -> Put:
    return Put(
        node_id=node_id,
        base_version=3,
        parent_id=parent_id,
        name=name,
        mode=0o600,
        mtime_ns=9,
        content=content,
    )


def move(node_id: UUID, parent_id: UUID, name: str) -> Move:
    return Move(node_id=node_id, base_version=3, parent_id=parent_id, name=name)


NEW = UUID(int=99)


def test_a_put_gives_content_and_place() -> None:
    node = after(put(NEW, B, "new", manifest("xy"))).nodes[NEW]
    assert (node.digest, node.size, node.version, node.content_version) == (digest_of("xy"), 241, 4, 4)
    assert (node.mode, node.mtime_ns, node.place) == (0o600, 9, (B, "new"))


def test_a_splice_is_against_what_the_node_held() -> None:
    splices = (Splice(1, 1, manifest("q").chunks),)
    node = after(put(C, B, "c", SplicedContent(16, splices, digest_of("xqz")))).nodes[C]
    assert node.digest == digest_of("xqz")


def test_a_copy_is_of_what_another_node_holds() -> None:
    assert after(put(NEW, ROOT, "new", CopiedContent(C, 3))).nodes[NEW].digest == digest_of("xyz")


def test_a_deleted_directory_takes_along_all_but_what_moves_out() -> None:
    replayed = replay(
        entry(move(C, ROOT, "saved"), move(D, B, "lost"), Delete(node_id=A, base_version=3)),
        journal_tree(),
        MANIFESTS.get,
    )
    assert {node_id: node is not None for node_id, node in replayed.nodes.items()} == {
        A: False, B: False, C: True, D: False,
    }  # fmt: skip
    assert replayed.tombstones == {A: 4, B: 4, D: 4}


def test_names_are_swapped_in_one_entry() -> None:
    tree = after(move(D, ROOT, "e"), move(E, ROOT, "d"))
    assert (tree.find("d"), tree.find("e")) == (tree.nodes[E], tree.nodes[D])


def test_attributes_leave_the_rest() -> None:
    before = journal_tree().nodes[C]
    node = after(SetAttributes(node_id=C, base_version=3, mode=0o700, mtime_ns=None)).nodes[C]
    assert node == replace(before, mode=0o700, version=4)


HOSTILE: list[tuple[str, tuple[Operation, ...]]] = [
    ("a name with a slash", (put(NEW, ROOT, "../x", manifest("x")),)),
    ("an empty name", (move(D, ROOT, ""),)),
    ("our own folder", (MakeDirectory(node_id=NEW, parent_id=ROOT, name=".hutch", mode=0o700),)),
    ("our own folder, folded", (move(A, ROOT, ".HUTCH"),)),
    ("a name with a NUL", (MakeDirectory(node_id=NEW, parent_id=ROOT, name="a\0", mode=0o700),)),
    ("a link without a target", (MakeSymlink(node_id=NEW, parent_id=ROOT, name="l", target="", mtime_ns=0),)),
    ("a splice past the end", (put(C, B, "c", SplicedContent(16, (Splice(2, 5, ()),), digest_of("x"))),)),
    ("a splice that lies", (put(C, B, "c", SplicedContent(16, (Splice(0, 1, ()),), digest_of("xy"))),)),
    ("a splice of a node that is not there", (put(NEW, B, "n", SplicedContent(16, (), digest_of("x"))),)),
    ("a copy of nothing", (put(NEW, B, "n", CopiedContent(UUID(int=77), 3)),)),
    ("a copy of a directory", (put(NEW, B, "n", CopiedContent(A, 3)),)),
    ("a move of a node that is not there", (move(NEW, ROOT, "n"),)),
    ("attributes of a node that is not there", (SetAttributes(node_id=NEW, base_version=3, mode=0o700),)),
    ("attributes of a deleted node", (Delete(node_id=D, base_version=3), SetAttributes(node_id=D, base_version=3, mode=0))),
    ("a file made of a directory", (put(A, ROOT, "a", manifest("x")),)),
    ("a directory made of a file", (MakeDirectory(node_id=D, base_version=3, parent_id=ROOT, name="d", mode=0),)),
    ("a taken name", (put(NEW, ROOT, "d", manifest("x")),)),
    ("two new nodes of one name", (put(NEW, A, "n", manifest("x")), move(D, A, "n"))),
    ("a parent that is not there", (put(NEW, UUID(int=77), "n", manifest("x")),)),
    ("a parent that is a file", (put(NEW, D, "n", manifest("x")),)),
    ("a parent that is a link", (put(NEW, E, "n", manifest("x")),)),
    ("a parent that is deleted", (Delete(node_id=A, base_version=3), put(NEW, B, "n", manifest("x")))),
    ("a directory within itself", (move(A, B, "a"),)),
    ("a ring of new directories", (
        MakeDirectory(node_id=NEW, parent_id=UUID(int=98), name="x", mode=0),
        MakeDirectory(node_id=UUID(int=98), parent_id=NEW, name="x", mode=0),
    )),
    ("the root as a node", (MakeDirectory(node_id=ROOT, parent_id=ROOT, name="x", mode=0),)),
]  # fmt: skip


@pytest.mark.parametrize("asked", [pytest.param(asked, id=why) for why, asked in HOSTILE])
def test_what_no_journal_can_say_is_refused_and_changes_nothing(asked: tuple[Operation, ...]) -> None:
    tree = journal_tree()
    with pytest.raises(Corrupt):
        replay(entry(*asked), tree, MANIFESTS.get)
    assert tree.nodes == journal_tree().nodes


def record(**changes: object) -> SnapshotNode:
    values = {
        "node_id": NEW, "parent_id": ROOT, "name": "n", "kind": Kind.FILE, "version": 3, "mode": 0o644, "mtime_ns": 9,
        "target": "", "content": manifest("xy"), "content_version": 3, **changes,
    }  # fmt: skip
    return SnapshotNode(**values)  # type: ignore[arg-type]


def test_a_snapshot_tells_what_the_journal_would() -> None:
    node, content = node_of(record())
    assert content == manifest("xy")
    assert node == replace(new_file(NEW, ROOT, "n", "xy", mtime_ns=9), version=3, content_version=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a/b"},
        {"name": ".Hutch"},
        {"content": None},
        {"kind": Kind.DIRECTORY},
        {"kind": Kind.SYMLINK, "content": None, "target": "a\0"},
    ],
)
def test_a_snapshot_that_no_service_sends_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        node_of(record(**changes))


def test_a_whole_snapshot_is_checked_like_an_entry() -> None:
    nodes = journal_tree().nodes
    check_nodes(nodes, Tree())
    with pytest.raises(Corrupt):
        check_nodes({**nodes, NEW: new_file(NEW, ROOT, "d", "x")}, Tree())


# --- changes into operations


def asked(*changes: tuple[Node | None, Node | None], whole: bool = False) -> tuple[Operation, ...]:
    tree = journal_tree()
    return operations([Change(*change) for change in changes], tree, {NEW: 2}, MANIFESTS.get, whole=whole)


def changed(change: Callable[[Node], Node], node_id: UUID) -> tuple[Node, Node]:
    node = journal_tree().nodes[node_id]
    return node, change(node)


def test_a_move_with_other_attributes_is_two_operations() -> None:
    made = asked(changed(lambda n: replace(n, name="x", mode=0o600, mtime_ns=7), D))
    assert made == (move(D, ROOT, "x"), SetAttributes(node_id=D, base_version=3, mode=0o600, mtime_ns=7))


def test_a_revival_names_the_deletion_that_it_knows_of() -> None:
    (made,) = asked((None, new_directory(NEW, ROOT, "n")))
    assert made == MakeDirectory(node_id=NEW, base_version=2, parent_id=ROOT, name="n", mode=0o755)


def content_of(*changes: tuple[Node | None, Node | None], whole: bool = False) -> Content:
    """What the first operation, a put, says of its content."""
    first = asked(*changes, whole=whole)[0]
    assert isinstance(first, Put)
    return first.content


def test_content_goes_by_splice_by_copy_or_whole() -> None:
    edit = changed(lambda n: replace(n, digest=digest_of("xqz")), C)
    splices = (Splice(1, 1, manifest("q").chunks),)
    assert content_of(edit) == SplicedContent(16, splices, digest_of("xqz"))
    assert content_of(edit, whole=True) == manifest("xqz")
    assert content_of((None, new_file(NEW, ROOT, "n", "xyz"))) == CopiedContent(C, 3)
    assert content_of((None, new_file(NEW, ROOT, "n", "x"))) == manifest("x")
    assert content_of((None, new_file(NEW, ROOT, "n", ""))) == FullContent(16, ())


def test_a_copy_is_never_of_what_the_same_commit_changes() -> None:
    gone = journal_tree().nodes[C]
    assert content_of((None, new_file(NEW, ROOT, "n", "xyz")), (gone, None)) == manifest("xyz")


def test_one_delete_stands_for_all_below() -> None:
    tree = journal_tree()
    made = asked(*[(tree.nodes[node_id], None) for node_id in (C, B, A)])
    assert made == (Delete(node_id=A, base_version=3, subtree=subtree_digest([(B, 3), (C, 3)])),)


def test_what_moves_out_takes_along_what_is_deleted_below_it() -> None:
    """B moves out of a, which goes; c goes from b: the delete of a holds neither."""
    tree = journal_tree()
    b = tree.nodes[B]
    made = asked((tree.nodes[A], None), (b, replace(b, parent_id=ROOT)), (tree.nodes[C], None))
    assert made == (
        move(B, ROOT, "b"),
        Delete(node_id=A, base_version=3, subtree=subtree_digest([])),
        Delete(node_id=C, base_version=3),
    )


def test_a_link_goes_with_its_target() -> None:
    made = asked((None, new_link(NEW, ROOT, "n", "to")))
    assert made == (
        MakeSymlink(node_id=NEW, base_version=2, parent_id=ROOT, name="n", target="to", mtime_ns=0),
    )


# --- extended attributes

TAGS, OTHERS = (("user.a", b"1"),), (("user.a", b"2"), ("user.b", b""))


def test_extended_attributes_stay_where_nothing_is_said_of_them() -> None:
    tagged = (
        SetAttributes(node_id=D, base_version=3, mode=0o600, xattrs=TAGS),
        SetAttributes(node_id=A, base_version=3, mode=0o700, xattrs=OTHERS),
    )
    more = (
        put(D, ROOT, "d", manifest("y")),
        SetAttributes(node_id=A, base_version=3, mode=0o755),
        move(A, ROOT, "z"),
    )
    nodes = after(*tagged, *more).nodes
    assert (nodes[D].xattrs, nodes[A].xattrs, nodes[B].xattrs) == (TAGS, OTHERS, ())
    nodes = after(*tagged, SetAttributes(node_id=D, base_version=3, mode=0, xattrs=())).nodes
    assert nodes[D].xattrs == ()


def test_a_node_that_is_made_anew_has_those_that_come_with_it() -> None:
    tagged = SetAttributes(node_id=D, base_version=3, mode=0o600, xattrs=TAGS)
    made = after(tagged, Delete(node_id=D, base_version=3), put(D, ROOT, "d", manifest("y")))
    assert made.nodes[D].xattrs == ()
    new = MakeDirectory(node_id=NEW, parent_id=ROOT, name="n", mode=0o755, xattrs=OTHERS)
    assert after(new).nodes[NEW].xattrs == OTHERS


BAD_XATTRS = [
    (("trusted.a", b""),), (("user.b", b""), ("user.a", b"")), (("user.a", bytes(70_000)),),
    (("user.\udcff", b""),), (("user.", b""),), (("user.a", b""),) * 2,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_XATTRS, ids=range(len(BAD_XATTRS)))
def test_extended_attributes_that_no_device_may_have_are_refused(bad) -> None:
    for operation in (
        SetAttributes(node_id=D, base_version=3, mode=0, xattrs=bad),
        MakeDirectory(node_id=NEW, parent_id=ROOT, name="n", mode=0, xattrs=bad),
    ):
        with pytest.raises(Corrupt):
            after(operation)
    with pytest.raises(Corrupt):
        node_of(record(xattrs=bad))


def test_a_snapshot_tells_of_them_where_there_are_any() -> None:
    assert node_of(record())[0].xattrs == ()
    assert node_of(record(xattrs=TAGS))[0].xattrs == TAGS


def test_only_other_extended_attributes_are_asked_for() -> None:
    (made,) = asked(changed(lambda n: replace(n, xattrs=TAGS), D))
    assert made == SetAttributes(
        node_id=D, base_version=3, mode=0o644, mtime_ns=journal_tree().nodes[D].mtime_ns, xattrs=TAGS
    )
    (made,) = asked(changed(lambda n: replace(n, mode=0o600), A))
    assert made == SetAttributes(node_id=A, base_version=3, mode=0o600)
    node = replace(journal_tree().nodes[D], xattrs=TAGS)
    (made,) = asked((node, replace(node, digest=digest_of("y"), xattrs=())))
    assert isinstance(made, Put)
    assert made.xattrs == ()
    (made,) = asked((node, replace(node, digest=digest_of("y"))))
    assert isinstance(made, Put)
    assert made.xattrs is UNSET
    (made,) = asked((None, replace(new_directory(NEW, ROOT, "n"), xattrs=OTHERS)))
    assert isinstance(made, MakeDirectory)
    assert made.xattrs == OTHERS
