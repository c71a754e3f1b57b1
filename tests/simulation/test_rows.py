"""A node's row: one for whatever the three trees say, and each of them by a case of the planner's table or for a reason."""

import itertools
from uuid import UUID

import pytest

from agent.trees import UNHASHED, Node, replace, same
from broker.model import ROOT, Kind
from tests.simulation.rows import classify, list_rows

FILE = Node(
    node_id=UUID(int=1), parent_id=ROOT, name="f", kind=Kind.FILE, mode=0o644, mtime_ns=1, digest=b"x" * 32
)
DIRECTORY = Node(node_id=UUID(int=1), parent_id=ROOT, name="d", kind=Kind.DIRECTORY, mode=0o755)
LINK = Node(node_id=UUID(int=1), parent_id=ROOT, name="l", kind=Kind.SYMLINK, target="x")


def states(node: Node) -> list[Node | None]:
    """What may become of a node: all aspects in all combinations, each changed in two ways."""
    found: list[Node | None] = [None]
    names, modes, times = (node.name, "j", "k"), (node.mode, 0o600, 0o700), (node.mtime_ns, 8, 9)
    contents = ((node.digest, node.target), (b"y" * 32, "y"), (b"z" * 32, "z"), (UNHASHED, "x"))
    for name, mode, mtime_ns, (digest, target) in itertools.product(names, modes, times, contents):
        made = replace(node, name=name)
        if node.kind is not Kind.SYMLINK:
            made = replace(made, mode=mode)
        if node.kind is Kind.FILE:
            made = replace(made, mtime_ns=mtime_ns, digest=digest)
        if node.kind is Kind.SYMLINK:
            made = replace(made, target=target)
        if made not in found:
            found.append(made)
    return found


@pytest.mark.parametrize("node", [FILE, DIRECTORY, LINK], ids=["file", "directory", "link"])
def test_whatever_three_trees_say_is_a_row_and_each_row_is_met(node: Node) -> None:
    met = set()
    for synced in (node, None):
        for remote, local in itertools.product(states(node), states(node)):
            is_unread = local is not None and local.is_unhashed
            is_known = not (remote is not None and remote.is_unhashed)  # the journal knows what it has
            is_undecided = is_unread and remote is None and synced is None
            if is_known and not is_undecided and not (same(remote, local) and same(remote, synced)):
                met.add(classify(remote, local, synced))
    kind = f"{node.kind.name.lower()}: "
    assert met == {row for row in list_rows() if row.startswith(kind)}


def test_no_row_is_listed_twice() -> None:
    assert len(list_rows()) == len(set(list_rows()))


@pytest.mark.parametrize(
    ("remote", "local", "synced", "row"),
    [
        (replace(FILE, digest=b"y"), replace(FILE, name="k"), FILE, "file: remote edited, local moved"),
        (replace(FILE, name="k"), replace(FILE, name="k"), FILE, "file: both moved"),
        (replace(FILE, name="j"), replace(FILE, name="k"), FILE, "file: remote moved, local moved"),
        (None, replace(LINK, target="y"), LINK, "symlink: remote deleted, local edited"),
        (None, None, DIRECTORY, "directory: both deleted"),
        (replace(DIRECTORY, mode=0o700), DIRECTORY, DIRECTORY, "directory: remote touched, local unchanged"),
        (None, FILE, None, "file: local new"),
        (FILE, replace(FILE, digest=UNHASHED), FILE, "file: remote unchanged, local unread"),
    ],
)
def test_a_row_says_what_was_done(
    remote: Node | None, local: Node | None, synced: Node | None, row: str
) -> None:
    assert classify(remote, local, synced) == row
