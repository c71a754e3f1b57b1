"""Whatever both sides have moved into each other: no plan, and no part of one, cuts a directory off from the folder."""

import itertools
import random
from collections.abc import Iterable, Iterator
from uuid import UUID

import pytest

from agent.plan import Change, overlay, plan, select
from agent.trees import Node, Tree, Trees, replace
from broker.model import ROOT, Kind

SEEDS = 1_500


def entry(number: int, parent_id: UUID, name: str, kind: Kind) -> Node:
    digest = b"a" * 32 if kind is Kind.FILE else b""
    return Node(node_id=UUID(int=number), parent_id=parent_id, name=name, kind=kind, digest=digest)


def directories(tree: Tree) -> list[UUID]:
    return [ROOT, *(node_id for node_id, node in tree.nodes.items() if node.kind is Kind.DIRECTORY)]


def some_tree(chance: random.Random) -> Tree:
    tree = Tree()
    for number in range(1, chance.randrange(4, 14)):
        kind = Kind.DIRECTORY if chance.random() < 0.85 else Kind.FILE
        node = entry(number, chance.choice(directories(tree)), f"{number}", kind)
        tree.update({node.node_id: node})
    return tree


def worked_on(tree: Tree, who: str, chance: random.Random, numbers: Iterator[int]) -> Tree:
    """The tree after some moves, new directories, deletes and edits."""
    tree = Tree(tree.nodes.values())
    for _ in range(chance.randrange(3, 12)):
        action, parent_id = chance.random(), chance.choice(directories(tree))
        node = chance.choice(list(tree.nodes.values())) if tree.nodes else None
        if action < 0.1 or node is None:
            made = entry(next(numbers), parent_id, f"{who} {chance.random()}", Kind.DIRECTORY)
            tree.update({made.node_id: made})
        elif action < 0.75 and parent_id not in {
            node.node_id,
            *(n.node_id for n in tree.below(node.node_id)),
        }:
            tree.update({node.node_id: replace(node, parent_id=parent_id, name=f"{who} {chance.random()}")})
        elif action < 0.9:
            tree.update(dict.fromkeys([node.node_id, *(n.node_id for n in tree.below(node.node_id))]))
        elif node.kind is Kind.FILE:
            tree.update({node.node_id: replace(node, digest=chance.randbytes(32))})
    return tree


def some_trees(seed: int) -> tuple[Trees, random.Random]:
    chance, numbers, trees = random.Random(seed), itertools.count(1_000), Trees()
    base = some_tree(chance)
    trees.synced.update(base.nodes)
    trees.local.update(worked_on(base, "here", chance, numbers).nodes)
    trees.remote.update(worked_on(base, "there", chance, numbers).nodes)
    trees.touch({*trees.local.nodes, *trees.remote.nodes, *trees.synced.nodes})
    return trees, chance


def cut_off(tree: Tree, changes: Iterable[Change]) -> list[UUID]:
    """The nodes that would stand nowhere."""
    after = {change.node_id: change.after for change in changes}
    path = overlay(tree, changes, {})
    alive = [n for n in {*tree.nodes, *after} if n not in after or after[n] is not None]
    return [node_id for node_id in alive if path(node_id) is None]


@pytest.mark.parametrize("side", ["place", "commit"])
def test_nothing_is_cut_off(side: str) -> None:
    for seed in range(SEEDS):
        trees, chance = some_trees(seed)
        planned = plan(trees, device="laptop", date="today")
        tree = trees.local if side == "place" else trees.remote
        changes = planned.place if side == "place" else planned.commit
        assert cut_off(tree, changes) == [], seed
        unready = {change.node_id for change in changes if chance.random() < 0.2}
        chosen = select(changes, limit=100, is_ready=lambda c, u=unready: c.node_id not in u, tree=tree)  # type: ignore[misc]
        assert cut_off(tree, chosen) == [], seed


def test_a_directory_that_had_to_stay_still_does_when_a_ring_that_it_came_back_in_is_undone() -> None:
    for seed in range(SEEDS):
        trees, chance = some_trees(seed)
        only_here = [node for node_id, node in trees.local.nodes.items() if node_id not in trees.remote]
        stayed = [n.node_id for n in only_here if n.kind is Kind.DIRECTORY and chance.random() < 0.6]
        trees.unannounced.update(stayed)
        planned = plan(trees, device="laptop", date="today")
        gone = {change.node_id for change in planned.place if change.after is None}
        assert gone.isdisjoint(stayed), seed
