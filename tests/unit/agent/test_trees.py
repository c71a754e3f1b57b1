"""The trees: names, paths, and what counts as the same."""

from uuid import UUID

import pytest

from agent.trees import Node, Tree, Trees, agreed_xattrs, merge_xattrs, replace, same
from broker.model import ROOT, Kind
from tests.unit.agent.twosided import new_directory, new_file, new_link

A, B, C, D = (UUID(int=n) for n in (10, 11, 12, 13))


def small() -> Tree:
    """a/ (A) with b/ (B) with c (C, a file); d (D, a file)."""
    return Tree(
        [
            new_directory(A, ROOT, "a"),
            new_directory(B, A, "b"),
            new_file(C, B, "c", "x"),
            new_file(D, ROOT, "d", "y"),
        ]
    )


def test_paths_lead_both_ways() -> None:
    tree = small()
    assert [tree.path(node_id) for node_id in (ROOT, A, B, C, D)] == ["", "a", "a/b", "a/b/c", "d"]
    assert tree.find("a/b/c") == tree.get(C)
    assert tree.find("") is None
    assert tree.find("a/c") is None
    assert tree.find("d/c") is None


def test_below_gives_parents_first_and_not_the_node_itself() -> None:
    assert [node.node_id for node in small().below(A)] == [B, C]
    assert list(small().below(D)) == []


def test_names_are_swapped_and_rotated_in_one_update() -> None:
    tree = Tree([new_file(A, ROOT, "a", "x"), new_file(B, ROOT, "b", "x"), new_file(C, ROOT, "c", "x")])
    moved = {A: "b", B: "c", C: "a"}
    tree.update({node_id: replace(tree.nodes[node_id], name=name) for node_id, name in moved.items()})
    assert {name: tree.child(ROOT, name) for name in "abc"} == {
        name: tree.nodes[node_id] for node_id, name in moved.items()
    }


def test_a_path_that_is_not_connected_or_runs_in_a_ring_is_none() -> None:
    ring = Tree([new_directory(A, B, "a"), new_directory(B, A, "b"), new_file(C, UUID(int=99), "c", "x")])
    assert [ring.path(node_id) for node_id in (A, B, C, D)] == [None] * 4


def test_an_alias_outlives_another_of_the_same_name_that_comes_and_goes() -> None:
    """A node comes into a directory under the alias of one that stands there, and gets another name at once."""
    tree = small()
    tree.rename_on_disk({C: "an alias", D: "an alias"})
    tree.update({D: replace(tree.nodes[D], parent_id=B)})
    tree.rename_on_disk({D: None})
    assert (tree.find("a/b/an alias"), tree.find("a/b/d")) == (tree.nodes[C], tree.nodes[D])
    assert tree.find("a/b/c") is None


def test_two_nodes_of_one_name_can_both_be_dropped() -> None:
    """A merge base that is learned node by node has such for a while; dropping them must not fail."""
    tree = Tree([new_file(A, B, "a", "x"), new_file(C, B, "a", "y")])
    tree.update({C: None})
    tree.update({A: None})
    assert len(tree) == 0
    assert tree.children(B) == []


def test_a_node_leaves_a_name_that_another_has_taken_over() -> None:
    tree = Tree([new_file(A, B, "a", "x")])
    tree.update({C: new_file(C, B, "a", "y")})
    tree.update({A: new_file(A, B, "other", "x")})
    assert tree.child(B, "a") == tree.get(C)
    assert tree.child(B, "other") == tree.get(A)


FILE = new_file(A, ROOT, "a", "x")
LINK = new_link(A, ROOT, "a", "to")
DIRECTORY = new_directory(A, ROOT, "a")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (None, None, True),
        (FILE, None, False),
        (FILE, replace(FILE, version=7, content_version=7), True),
        (FILE, replace(FILE, name="b"), False),
        (FILE, replace(FILE, mode=0o600), False),
        (FILE, replace(FILE, mtime_ns=2), False),
        (FILE, replace(FILE, digest=b"other"), False),
        (replace(FILE, digest=b""), replace(FILE, digest=b""), False),  # who knows what an unread file holds
        (LINK, replace(LINK, mtime_ns=2, mode=0o777), True),
        (LINK, replace(LINK, target="elsewhere"), False),
        (DIRECTORY, replace(DIRECTORY, mtime_ns=2), True),
        (DIRECTORY, replace(DIRECTORY, mode=0o700), False),
        (FILE, LINK, False),
    ],
)
def test_what_two_trees_agree_on(one: Node | None, other: Node | None, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_dirty_is_what_differs_in_any_of_the_three() -> None:
    trees = Trees()
    trees.remote.update({A: DIRECTORY})
    trees.touch([A])
    assert trees.dirty == {A}
    trees.local.update({A: DIRECTORY})
    trees.touch([A])
    assert trees.dirty == {A}
    trees.synced.update({A: DIRECTORY})
    trees.touch([A])
    assert trees.dirty == set()
    trees.local.update({B: new_directory(B, ROOT, "b")})
    trees.touch_all()
    assert trees.dirty == {B}


def test_only_files_can_be_unread() -> None:
    assert [n.is_unhashed for n in (FILE, replace(FILE, digest=b""), DIRECTORY, LINK)] == [
        False,
        True,
        False,
        False,
    ]


def test_who_loses_its_name_to_another_is_shadowed_until_it_goes_or_moves() -> None:
    tree = Tree([new_file(A, ROOT, "a", "x")])
    tree.update({B: new_file(B, ROOT, "a", "y")})
    assert (tree.child(ROOT, "a"), tree.shadowed) == (tree.nodes[B], {A})
    tree.update({A: new_file(A, ROOT, "b", "x")})
    assert tree.shadowed == set()
    tree.update({C: new_file(C, ROOT, "a", "x")})
    tree.update({B: None})
    assert (tree.child(ROOT, "a"), tree.shadowed) == (tree.nodes[C], set())


def test_who_was_shadowed_has_its_name_again_when_the_other_goes() -> None:
    tree = Tree([new_file(A, ROOT, "a", "x")])
    tree.update({B: new_file(B, ROOT, "a", "y")})
    tree.update({B: new_file(B, ROOT, "b", "y")})
    assert (tree.child(ROOT, "a"), tree.child(ROOT, "b")) == (tree.nodes[A], tree.nodes[B])
    assert {node.node_id for node in tree.children(ROOT)} == {A, B}
    assert tree.shadowed == set()


X, Y, Z = b"x", b"y", b"z"


def tags(**values: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted((f"user.{name}", value) for name, value in values.items()))


@pytest.mark.parametrize(
    ("remote", "local", "synced", "merged", "agreed"),
    [
        (tags(), tags(), tags(), tags(), tags()),
        (tags(a=X), tags(), tags(), tags(a=X), tags()),
        (tags(), tags(a=X), tags(), tags(a=X), tags()),
        (tags(a=X), tags(b=Y), tags(), tags(a=X, b=Y), tags()),
        (tags(a=X), tags(a=Y), tags(), tags(a=X), tags()),
        (tags(a=X), tags(a=Y), tags(a=Z), tags(a=X), tags(a=Z)),
        (tags(a=X), tags(a=X), tags(a=Z), tags(a=X), tags(a=X)),
        (tags(a=Z), tags(), tags(a=Z), tags(), tags(a=Z)),
        (tags(), tags(a=Z), tags(a=Z), tags(), tags(a=Z)),
        (tags(), tags(a=X), tags(a=Z), tags(), tags(a=Z)),
        (tags(a=X), tags(), tags(a=Z), tags(a=X), tags(a=Z)),
        (tags(), tags(), tags(a=Z), tags(), tags()),
        (tags(a=X, b=Y), tags(a=X), tags(b=Z), tags(a=X, b=Y), tags(a=X, b=Z)),
        (tags(a=b""), tags(a=X), tags(a=X), tags(a=b""), tags(a=X)),
    ],
)
def test_each_extended_attribute_is_merged_for_itself(remote, local, synced, merged, agreed) -> None:
    """Of two values the journal's wins; an empty one is a value; and where all was merged both sides agree."""
    assert merge_xattrs(remote, local, synced) == merged
    assert agreed_xattrs(remote, local, synced) == agreed
    assert merge_xattrs(merged, merged, agreed) == merged


def test_two_sets_that_are_too_many_together_are_the_journals() -> None:
    ours = tuple((f"user.our {number:02}", b"") for number in range(40))
    theirs = tuple((f"user.their {number:02}", b"") for number in range(40))
    assert merge_xattrs(theirs, ours, ()) == theirs
    assert merge_xattrs(theirs[:24], ours, ()) == (*ours, *theirs[:24])


def test_links_have_none_and_all_else_is_compared_by_them() -> None:
    for kind, is_same in ((Kind.FILE, False), (Kind.DIRECTORY, False), (Kind.SYMLINK, True)):
        node = Node(node_id=UUID(int=1), parent_id=ROOT, name="n", kind=kind, digest=b"d")
        assert same(node, replace(node, xattrs=tags(a=X))) is is_same
