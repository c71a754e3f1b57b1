"""Every row of the planner's table, carried out until both sides rest; and what holds for all of them."""

import random
import re
from collections.abc import Callable, Iterable
from uuid import UUID

import pytest

from agent.plan import Change, Plan, plan
from agent.trees import Node, Tree, Trees, replace, same
from broker.messages import decode_entry
from tests.unit.agent.plan_cases import Case, cases
from tests.unit.agent.plan_scenes import ADA, BOB, Hands, Scene, Who, shown
from tests.unit.agent.twosided import Run

CASES = list(cases())

each_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.sentence) for case in CASES])


class Table(Run):
    """A run that begins with a scene, in which one person then changes the journal and another the disk.

    Args:
        scene: What both have.
        theirs: Who changes the journal, and the word for what they do.
        ours: Who changes the disk, and the word for that.
        backwards: Whether what is made later gets a lower id.
    """

    def __init__(
        self, scene: Scene, theirs: tuple[Who, str], ours: tuple[Who, str], *, backwards: bool = False
    ) -> None:
        super().__init__()
        self.backwards = backwards
        self.placed: list[UUID] = []
        self.write(local=self._done(self.trees.local, BOB, lambda hands, who: scene.begin(hands)))
        self.settle()
        begun = self.head_tree()
        made = self._done(begun, theirs[0], scene.acts[theirs[1]][1])
        if made:
            assert self.change_elsewhere([Change(begun.get(node_id), node) for node_id, node in made.items()])
        made = self._done(self.trees.local, ours[0], scene.acts[ours[1]][1])
        self.write(local={k: None if node is None else replace(node, version=0) for k, node in made.items()})
        self.placed.clear()
        self.journal_before, self.disk_before = self.head_tree(), Tree(self.trees.local.nodes.values())
        self._begun = len(self.store.journal[self.workspace_id])

    def _done(self, tree: Tree, who: Who, act: Callable[[Hands, Who], None]) -> dict[UUID, Node | None]:
        hands = Hands(tree, self.new_id)
        act(hands, who)
        return hands.changes()

    def new_id(self) -> UUID:
        number = super().new_id().int
        return UUID(int=1_000_000 - number if self.backwards else number)

    def place(self, planned: Plan, stays: Callable[[Node], bool] = lambda node: False) -> None:
        before = dict(self.trees.local.nodes)
        super().place(planned, stays)
        after = self.trees.local.nodes
        self.placed += [n for n in {*before, *after} if not same(before.get(n), after.get(n))]

    @property
    def committed(self) -> list[UUID]:
        """The nodes of which this device has told the journal since."""
        entries = [decode_entry(entry) for entry, _ in self.store.journal[self.workspace_id][self._begun :]]
        return [operation.node_id for entry in entries for operation in entry.operations]

    def seen(self) -> set[str]:
        """What there is on both sides."""
        on_disk = shown(self.trees.local)
        assert shown(self.head_tree()) == on_disk
        return on_disk


class Shuffled(Table):
    """Asks for each plan with everything in several other orders."""

    def plan(self) -> Plan:
        planned = super().plan()
        for seed in range(3):
            trees = shuffled(self.trees, random.Random(seed))
            assert plan(trees, device="laptop", date="2026-11-22") == planned
        return planned


def shuffled(trees: Trees, chance: random.Random) -> Trees:
    """The same trees, built in another order."""
    other = Trees()
    for name in ("remote", "local", "synced"):
        nodes = list(getattr(trees, name).nodes.values())
        chance.shuffle(nodes)
        getattr(other, name).update({node.node_id: node for node in nodes})
    for name in ("dirty", "unannounced", "unread"):
        ids = list(getattr(trees, name))
        chance.shuffle(ids)
        getattr(other, name).update(ids)
    other.tombstones.update(trees.tombstones)
    other.copies.update(trees.copies)
    return other


def table(case: Case, kind: type[Table] = Table, *, backwards: bool = False) -> Table:
    return kind(case.scene, (ADA, case.theirs), (BOB, case.ours), backwards=backwards)


@each_case
@pytest.mark.parametrize("late", [False, True], ids=["at once", "committed first"])
def test_what_comes_of_it(case: Case, late: bool) -> None:
    run = table(case)
    if late and case.is_settled:
        run.receive()
        run.send(run.plan_of_commits())
    run.settle()
    assert run.seen() == case.expected


@each_case
def test_only_what_has_to_be_done_is_done(case: Case) -> None:
    """Each side gets what the row says that it lacks, each node once; a second plan has nothing more to say."""
    run = table(case)
    run.settle()
    assert (bool(run.placed), bool(run.committed)) == (case.places, case.commits)
    journal, disk = run.head_tree(), run.trees.local
    for done, before, after in (
        (run.committed, run.journal_before, journal),
        (run.placed, run.disk_before, disk),
    ):
        assert len(done) == len(set(done))
        assert [n for n in done if same(before.get(n), after.get(n))] == []
    assert run.plan().is_empty


@each_case
def test_no_order_matters(case: Case) -> None:
    """The plan is the same however trees and sets are ordered, and comes to the same whatever the ids."""
    for backwards in (False, True) if case.is_settled else (False,):
        run = table(case, Shuffled, backwards=backwards)
        run.settle()
        assert run.seen() == case.expected


# What is not even: where both have changed one aspect, or want one name, the journal's change stands, since all other devices have
# it already; and a content that others have is not to be renamed under them, so the disk's goes aside.
@pytest.mark.parametrize("case", [pytest.param(case, id=case.sentence) for case in CASES if case.is_even])
def test_it_does_not_matter_whose_side_is_the_journals(case: Case) -> None:
    """Bob's change is in the journal and ada's on disk: the same comes out, and what was placed is committed."""
    run = Table(case.scene, (BOB, case.ours), (ADA, case.theirs))
    run.settle()
    assert run.seen() == case.expected
    assert (bool(run.committed), bool(run.placed)) == (case.places, case.commits)


def test_who_comes_second_loses_no_content() -> None:
    """The other rows, with the sides exchanged: the same contents are there either way, but for the names."""
    for case in CASES:
        if not case.is_even:
            run = Table(case.scene, (BOB, case.ours), (ADA, case.theirs))
            run.settle()
            assert contents(run.seen()) == contents(case.expected), case.sentence


def contents(tree: Iterable[str]) -> list[str]:
    """What files hold and where links lead, of a tree as `shown` has it."""
    found = (re.search(r"[=>]([a-z]+)", word) for word in tree)
    return sorted(match[1] for match in found if match)


def test_the_table_has_every_pair_once() -> None:
    pairs = [(case.scene.thing, case.theirs, case.ours) for case in CASES]
    assert len(pairs) == len(set(pairs))
    for scene in {case.scene.thing: case.scene for case in CASES}.values():
        rows = {(theirs, ours) for thing, theirs, ours in pairs if thing == scene.thing}
        assert rows == {(theirs, ours) for theirs in scene.acts for ours in scene.acts}
    assert len({case.sentence for case in CASES}) == len(CASES)
