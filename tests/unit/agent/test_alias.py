"""Which node gets an alias where names are folded, by table and by property."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alias import alias_beside, choose_aliases, nodes_to_rename
from agent.names import Folding, alias_name
from agent.plan import Change
from agent.trees import Node, Tree, replace
from broker.model import ROOT, Kind

CASE, SPELLING = Folding(case=True), Folding(spelling=True)
IDS = [UUID(int=number) for number in range(1, 9)]


def file(number: int, name: str, parent_id: UUID = ROOT) -> Node:
    return Node(node_id=IDS[number], parent_id=parent_id, name=name, kind=Kind.FILE, digest=b"x")


def test_who_comes_second_gets_it() -> None:
    local = Tree([file(0, "Readme.md")])
    assert choose_aliases([Change(None, file(1, "README.md"))], local, CASE) == {
        IDS[1]: "README (other spelling).md"
    }


def test_of_two_that_come_together_one_keeps_its_name() -> None:
    changes = [Change(None, file(number, name)) for number, name in enumerate(("a", "A", "b"))]
    assert choose_aliases(changes, Tree(), CASE) == {IDS[1]: "A (other spelling)"}


def test_three_spellings_of_one_name_are_counted() -> None:
    changes = [Change(None, file(number, name)) for number, name in enumerate(("abc", "Abc", "ABC"))]
    assert choose_aliases(changes, Tree(), CASE) == {
        IDS[1]: "Abc (other spelling)",
        IDS[2]: "ABC (other spelling 2)",
    }


def test_a_name_that_goes_in_the_same_placing_is_free() -> None:
    old = file(0, "readme")
    local = Tree([old])
    assert choose_aliases([Change(old, None), Change(None, file(1, "README"))], local, CASE) == {}
    moved = Change(old, replace(old, name="elsewhere"))
    assert choose_aliases([moved, Change(None, file(1, "README"))], local, CASE) == {}
    assert choose_aliases([Change(old, replace(old, name="README"))], local, CASE) == {}


def test_where_names_are_told_apart_nobody_has_one() -> None:
    local = Tree([file(0, "readme"), file(1, "README")])
    change = [Change(None, file(2, "Readme"))]
    assert choose_aliases(change, local, Folding()) == {}
    assert choose_aliases(change, local, SPELLING) == {}


def test_one_that_is_merely_edited_keeps_it() -> None:
    local, edited = with_alias()
    change = Change(local.nodes[IDS[1]], edited)
    assert choose_aliases([change], local, CASE) == {IDS[1]: "README (other spelling)"}
    assert nodes_to_rename(local, CASE) == []


def test_it_goes_once_the_name_is_free() -> None:
    local, _ = with_alias()
    local.update({IDS[0]: None})
    assert nodes_to_rename(local, CASE) == [IDS[1]]
    node = local.nodes[IDS[1]]
    assert choose_aliases([Change(node, node)], local, CASE) == {}
    local.rename_on_disk({IDS[1]: None})
    assert (local.path(IDS[1]), nodes_to_rename(local, CASE)) == ("README", [])


def test_a_disk_that_folds_no_more_gives_all_their_own_names() -> None:
    local, _ = with_alias()
    assert nodes_to_rename(local, Folding()) == [IDS[1]]


def test_an_alias_is_itself_a_name_that_is_taken() -> None:
    local, _ = with_alias()
    change = Change(None, file(2, "readme (OTHER spelling)"))
    assert choose_aliases([change], local, CASE) == {IDS[2]: "readme (OTHER spelling) (other spelling)"}
    assert alias_beside(local, ROOT, "README (other Spelling)", CASE).endswith("(other spelling)")
    assert alias_beside(local, ROOT, "free", CASE) == "free"


def with_alias() -> tuple[Tree, Node]:
    """`readme`, and `README` under an alias; and the latter, edited."""
    local = Tree([file(0, "readme"), file(1, "README")])
    local.rename_on_disk({IDS[1]: "README (other spelling)"})
    return local, replace(local.nodes[IDS[1]], digest=b"y")


def test_paths_go_by_the_names_on_disk() -> None:
    directory = Node(node_id=IDS[1], parent_id=ROOT, name="DIR", kind=Kind.DIRECTORY)
    local = Tree([file(0, "dir"), directory, file(2, "x", IDS[1])])
    local.rename_on_disk({IDS[1]: "DIR (other spelling)"})
    assert local.path(IDS[2]) == "DIR (other spelling)/x"
    assert local.find("DIR (other spelling)/x") == local.nodes[IDS[2]]
    assert local.find("DIR/x") is None
    assert local.find("dir") == local.nodes[IDS[0]]
    assert local.child(ROOT, "DIR") == directory
    # It goes with the node to another directory, and with the node for good.
    local.update({IDS[2]: replace(local.nodes[IDS[2]], parent_id=ROOT, name="y")})
    local.update({IDS[1]: None})
    assert (local.aliases, local.find("DIR (other spelling)")) == ({}, None)


NAMES = st.sampled_from(
    ["a", "A", "b", "B", "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"]
)


@given(
    here=st.lists(NAMES, unique=True, max_size=4),
    new=st.lists(NAMES, unique=True, max_size=4),
    folding=st.sampled_from([CASE, SPELLING, Folding(case=True, spelling=True), Folding()]),
)
def test_afterwards_all_names_on_disk_differ(here: list[str], new: list[str], folding: Folding) -> None:
    local = Tree()
    for number, name in enumerate([*here, *new]):
        node = file(number, name)
        if local.child(ROOT, name) is not None:
            continue
        aliases = choose_aliases([Change(None, node)], local, folding)
        local.update({node.node_id: node})
        local.rename_on_disk(aliases)
        folded = [folding.fold(local.name_on_disk(each)) for each in local.nodes.values()]
        assert len(folded) == len(set(folded))
        assert [local.find(local.path(each) or "") for each in local.nodes] == list(local.nodes.values())


@pytest.mark.parametrize("name", ["n" * 255, "n" * 250 + ".txt", "é" * 127])
def test_however_long_the_name_it_fits(name: str) -> None:
    alias = alias_name(name, lambda candidate: not candidate.endswith("(other spelling)"))
    assert len(alias.encode()) <= 255
    assert "(other spelling 2)" in alias or name.endswith(".txt")
