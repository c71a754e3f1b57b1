"""What the agent itself decides of a hold: what is taken back, what is old, what it tells that will follow."""

from uuid import UUID

from agent.hold import Ages, count_touched, describe, find_undone
from agent.plan import Change, plan
from agent.service import HoldInfo
from agent.trees import Node, Trees, replace
from broker.model import ROOT, Kind


def node(number: int, **fields: object) -> Node:
    values: dict[str, object] = {
        "parent_id": ROOT,
        "name": f"n{number}",
        "kind": Kind.FILE,
        "version": number,
        "digest": b"one",
    }
    return Node(node_id=UUID(int=number), **{**values, **fields})  # type: ignore[arg-type]


def agreed(*nodes: Node) -> Trees:
    """All three trees hold the same."""
    trees = Trees()
    for tree in (trees.remote, trees.local, trees.synced):
        tree.update({each.node_id: each for each in nodes})
    trees.touch_all()
    return trees


def change(trees: Trees, *nodes: Node, gone: tuple[int, ...] = ()) -> None:
    """What a look at the disk has found."""
    found: dict[UUID, Node | None] = {each.node_id: each for each in nodes}
    found.update({UUID(int=number): None for number in gone})
    trees.local.update(found)
    trees.touch(found)


def undone(trees: Trees) -> list[int]:
    return sorted(node_id.int for node_id in find_undone(trees))


def test_deletions_and_other_content_are_taken_back_and_nothing_else() -> None:
    nodes = [node(number) for number in range(1, 7)]
    trees = agreed(*nodes, node(7, kind=Kind.DIRECTORY, digest=b""))
    change(
        trees,
        replace(nodes[1], digest=b"two"),  # rewritten
        replace(nodes[2], name="moved"),
        replace(nodes[3], mode=0o600),
        replace(nodes[4], digest=b""),  # saved, and not read yet
        node(8),  # new
        gone=(1, 7),
    )
    assert undone(trees) == [1, 2, 5, 7]


def test_what_the_rules_ignore_is_left_alone() -> None:
    trees = agreed(node(1), node(2))
    trees.ignored.add(UUID(int=1))
    change(trees, gone=(1, 2))
    assert undone(trees) == [2]


def test_forgetting_what_was_agreed_on_brings_the_journals_state_back() -> None:
    first, second = node(1), node(2)
    trees = agreed(first, second)
    change(trees, replace(second, digest=b"scrambled"), gone=(1,))
    found = dict.fromkeys(find_undone(trees))
    trees.synced.update(found)
    trees.touch(found)
    made = plan(trees, device="laptop", date="2026-11-22")
    [aside] = made.asides
    assert (aside.local.digest, aside.remote.digest) == (b"scrambled", b"one")
    # Once that is settled, nothing is left to be told to the journal of either.
    trees.local.update(
        {second.node_id: None, aside.new_id: replace(aside.local, node_id=aside.new_id, name=aside.name)}
    )
    trees.touch([second.node_id, aside.new_id])
    made = plan(trees, device="laptop", date="2026-11-22")
    assert {each.node_id for each in made.place} == {first.node_id, second.node_id}
    assert [each.node_id for each in made.commit] == [aside.new_id]


def test_what_is_old_is_what_was_there_an_hour_ago() -> None:
    ages = Ages()
    assert ages.old_seq(0.0, 10) == 10
    assert ages.old_seq(1_800.0, 20) == 10
    assert ages.old_seq(3_599.0, 30) == 10
    assert ages.old_seq(5_400.0, 40) == 20
    assert ages.old_seq(100_000.0, 50) == 40
    assert ages.old_seq(103_600.0, 60) == 50


def test_what_follows_are_old_nodes_that_go_or_get_other_content() -> None:
    old, young = node(3), node(9)
    directory = node(2, kind=Kind.DIRECTORY, digest=b"")
    changes = [
        Change(old, None),
        Change(old, replace(old, digest=b"two")),
        Change(old, replace(old, name="moved")),
        Change(directory, None),
        Change(directory, replace(directory, name="moved")),
        Change(None, node(20)),
        Change(young, None),
    ]
    assert count_touched(changes, old_seq=5) == 3
    assert count_touched(changes, old_seq=9) == 4
    assert count_touched(changes, old_seq=0) == 0


def test_a_person_is_told_how_much_waits() -> None:
    hold = HoldInfo(
        hold_id=UUID(int=1),
        workspace_id=UUID(int=2),
        device_id=UUID(int=3),
        device_name="laptop",
        verdict="held",
        held_at="",
        deleted=61,
        rewritten=2,
    )
    assert describe(hold) == "61 deletions and 2 changes wait for `hutch review`"
