"""The planner's table: what becomes of two people's changes, a sentence a row."""

from collections.abc import Callable
from uuid import UUID

import pytest

from agent.plan import Change, KeepAside, Plan, merge_node, overlay, plan, select
from agent.trees import UNHASHED, Node, Tree, Trees, replace
from broker.model import ROOT, Kind
from tests.unit.agent.twosided import (
    CONTENTS,
    SIZES,
    Run,
    digest_of,
    new_directory,
    new_file,
    new_link,
)

LETTERS = {digest_of(letters): letters for letters in CONTENTS}
COPY = "(conflicted copy of laptop 2026-11-22)"

Act = Callable[[Run, Tree], dict[UUID, Node | None]]


def at(tree: Tree, path: str) -> Node:
    node = tree.find(path)
    assert node is not None, path
    return node


def place_of(tree: Tree, path: str) -> tuple[UUID, str]:
    head, _, name = path.rpartition("/")
    return (at(tree, head).node_id if head else ROOT, name)


def write(path: str, letters: str) -> Act:
    """Save a file: new, or other content."""

    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        old, digest = tree.find(path), digest_of(letters)
        if old is None:
            node_id = run.new_id()
            return {node_id: new_file(node_id, *place_of(tree, path), letters)}
        return {old.node_id: replace(old, digest=digest, size=SIZES[digest], mtime_ns=2)}

    return act


def mkdir(path: str) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        node_id = run.new_id()
        return {node_id: new_directory(node_id, *place_of(tree, path))}

    return act


def link(path: str, target: str) -> Act:
    """Make a link, or lead it elsewhere."""

    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        old = tree.find(path)
        if old is not None:
            return {old.node_id: replace(old, target=target)}
        node_id = run.new_id()
        return {node_id: new_link(node_id, *place_of(tree, path), target)}

    return act


def move(source: str, target: str) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        parent_id, name = place_of(tree, target)
        node = at(tree, source)
        return {node.node_id: replace(node, parent_id=parent_id, name=name)}

    return act


def swap(one: str, other: str) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        a, b = at(tree, one), at(tree, other)
        return {
            a.node_id: replace(a, parent_id=b.parent_id, name=b.name),
            b.node_id: replace(b, parent_id=a.parent_id, name=a.name),
        }

    return act


def delete(path: str) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        node = at(tree, path)
        return {node.node_id: None, **{below.node_id: None for below in tree.below(node.node_id)}}

    return act


def chmod(path: str, mode: int) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        node = at(tree, path)
        return {node.node_id: replace(node, mode=mode)}

    return act


def touch(path: str, mtime_ns: int) -> Act:
    def act(run: Run, tree: Tree) -> dict[UUID, Node | None]:
        node = at(tree, path)
        return {node.node_id: replace(node, mtime_ns=mtime_ns)}

    return act


def started() -> Run:
    """Both sides have f (x), g (y), d/ with e/ with h (xy), empty/ and l -> to."""
    run = Run()
    tree = run.trees.local
    for act in (
        write("f", "x"), write("g", "y"), mkdir("d"), mkdir("d/e"), write("d/e/h", "xy"), mkdir("empty"), link("l", "to"),
    ):  # fmt: skip
        run.write(local=act(run, tree))
    run.settle()
    return run


def here(run: Run, *acts: Act) -> None:
    """The person at this device."""
    for act in acts:
        changes = act(run, run.trees.local)
        run.write(local={k: None if v is None else replace(v, version=0) for k, v in changes.items()})


def elsewhere(run: Run, *acts: Act) -> None:
    """A person at another device, whose commits are accepted."""
    for act in acts:
        tree = run.head_tree()
        changes = [Change(tree.get(node_id), node) for node_id, node in act(run, tree).items()]
        assert run.change_elsewhere(changes), run.last_outcome


def shown(tree: Tree) -> dict[str, str]:
    """Paths, with letters, targets, or a slash; with the mode and time where they are not the usual."""
    found = {}
    for node in tree.nodes.values():
        path = tree.path(node.node_id)
        assert path is not None
        word = {Kind.DIRECTORY: "/", Kind.SYMLINK: f"-> {node.target}"}.get(node.kind) or LETTERS[node.digest]
        usual = 0o755 if node.kind is Kind.DIRECTORY else 0o644
        found[path] = word if node.mode in (usual, 0) else f"{word} {node.mode:o}"
    return found


BASE = {"f": "x", "g": "y", "d": "/", "d/e": "/", "d/e/h": "xy", "empty": "/", "l": "-> to"}


def but(*without: str, **changes: str) -> dict[str, str]:
    """The tree that both had, without some paths and with others. `__` is a slash."""
    kept = {path: word for path, word in BASE.items() if path not in without}
    return {**kept, **{path.replace("__", "/"): word for path, word in changes.items()}}


def copy(path: str, word: str, tree: dict[str, str]) -> dict[str, str]:
    """With a conflict copy beside."""
    return {**tree, f"{path} {COPY}": word}


Row = tuple[str, list[Act], list[Act], dict[str, str]]

# What happens, what another device did, what the person here did, and what both have in the end.
FILES: list[Row] = [
    ("nothing happens", [], [], BASE),
    ("a file made here", [], [write("n", "x")], but(n="x")),
    ("a file made elsewhere", [write("n", "x")], [], but(n="x")),
    ("two files of one name and other content: the first commit keeps the name",
     [write("n", "x")], [write("n", "y")], copy("n", "y", but(n="x"))),
    ("two files of one name and content are one", [write("n", "x")], [write("n", "x")], but(n="x")),
    ("an edit here", [], [write("f", "xy")], but(f="xy")),
    ("an edit elsewhere", [write("f", "xy")], [], but(f="xy")),
    ("two edits: both are kept", [write("f", "y")], [write("f", "xyz")], copy("f", "xyz", but(f="y"))),
    ("the same edit twice", [write("f", "y")], [write("f", "y")], but(f="y")),
    ("an edit wins over a delete elsewhere", [delete("f")], [write("f", "y")], but(f="y")),
    ("an edit wins over a delete here", [write("f", "y")], [delete("f")], but(f="y")),
    ("a delete wins over a touch", [touch("f", 9)], [delete("f")], but("f")),
    ("a delete wins over a mere move", [delete("f")], [move("f", "d/f")], but("f")),
    ("a delete here wins over a mere move elsewhere", [move("f", "d/f")], [delete("f")], but("f")),
    ("two deletes", [delete("f")], [delete("f")], but("f")),
    ("a move here and an edit elsewhere meet", [write("f", "y")], [move("f", "d/n")], but("f", d__n="y")),
    ("an edit here and a move elsewhere meet", [move("f", "d/n")], [write("f", "y")], but("f", d__n="y")),
    ("of two moves the journal's wins", [move("f", "d/a")], [move("f", "d/b")], but("f", d__a="x")),
    ("the same move twice", [move("f", "d/a")], [move("f", "d/a")], but("f", d__a="x")),
    ("a mode here and an edit elsewhere meet", [write("f", "y")], [chmod("f", 0o600)], but(f="y 600")),
    ("a mode elsewhere and an edit here meet", [chmod("f", 0o600)], [write("f", "y")], but(f="y 600")),
    ("of two modes the journal's wins", [chmod("f", 0o600)], [chmod("f", 0o755)], but(f="x 600")),
    ("a mode and a move meet", [chmod("f", 0o600)], [move("f", "n")], but("f", n="x 600")),
    ("two edits of a file that moved: the copy stays where its editor had it",
     [write("f", "y"), move("f", "d/n")], [write("f", "xyz")], copy("f", "xyz", but("f", d__n="y"))),
    ("a file that is deleted and made again here, and edited elsewhere",
     [write("f", "xyz")], [delete("f"), write("f", "y")], copy("f", "y", but(f="xyz"))),
    ("a file that is deleted and made again elsewhere, and edited here",
     [delete("f"), write("f", "y")], [write("f", "xyz")], copy("f", "xyz", but(f="y"))),
]  # fmt: skip

KINDS: list[Row] = [
    ("a link made on both sides alike is one", [link("n", "a")], [link("n", "a")], but(n="-> a")),
    ("two links of one name: the first commit keeps it",
     [link("n", "a")], [link("n", "b")], copy("n", "-> b", but(n="-> a"))),
    ("a link that leads elsewhere now", [link("l", "a")], [], but(l="-> a")),
    ("two links changed: both are kept", [link("l", "a")], [link("l", "b")], copy("l", "-> b", but(l="-> a"))),
    ("a changed link wins over a delete", [delete("l")], [link("l", "b")], but(l="-> b")),
    ("a file and a directory of one name", [mkdir("n")], [write("n", "x")], copy("n", "x", but(n="/"))),
    ("a link and a file of one name", [link("n", "a")], [write("n", "x")], copy("n", "x", but(n="-> a"))),
    ("a file becomes a directory here, and is edited elsewhere",
     [write("f", "y")], [delete("f"), mkdir("f"), write("f/in", "x")],
     {**but(f="y"), f"f {COPY}": "/", f"f {COPY}/in": "x"}),
    ("a file becomes a directory elsewhere, and is edited here",
     [delete("f"), mkdir("f"), write("f/in", "x")], [write("f", "y")], copy("f", "y", but(f="/", f__in="x"))),
    ("a directory becomes a file here, and gets a new file elsewhere",
     [write("d/new", "x")], [delete("d"), write("d", "y")],
     {**but("d/e", "d/e/h", d="/", d__new="x"), f"d {COPY}": "y"}),
    ("a directory becomes a file elsewhere, and an edit in it here is kept",
     [delete("d"), write("d", "y")], [write("d/e/h", "xyz")],
     {**but("d/e", "d/e/h", d="y"), f"d {COPY}": "/", f"d {COPY}/e": "/", f"d {COPY}/e/h": "xyz"}),
]  # fmt: skip

DIRECTORIES: list[Row] = [
    ("two directories of one name merge, with what is in them",
     [mkdir("n"), write("n/a", "x")], [mkdir("n"), write("n/b", "y")], but(n="/", n__a="x", n__b="y")),
    ("directories of one name merge all the way down",
     [mkdir("n"), mkdir("n/m"), write("n/m/a", "x")], [mkdir("n"), mkdir("n/m"), write("n/m/a", "y")],
     copy("n/m/a", "y", but(n="/", n__m="/", n__m__a="x"))),
    ("a directory deleted on both sides", [delete("d")], [delete("d")], but("d", "d/e", "d/e/h")),
    ("an edit in a deleted directory brings back its directories, and nothing else",
     [delete("d")], [write("d/e/h", "y")], but(d__e__h="y")),
    ("a new file in a directory that was deleted elsewhere",
     [delete("d")], [write("d/e/n", "y")], but("d/e/h", d__e__n="y")),
    ("a new file elsewhere in a directory that was deleted here",
     [write("d/e/n", "y")], [delete("d")], but("d/e/h", d__e__n="y")),
    ("a file moved into a directory that was deleted elsewhere",
     [delete("empty")], [move("f", "empty/f")], but("f", empty__f="x")),
    ("a file moved elsewhere into a directory that was deleted here",
     [move("f", "empty/f")], [delete("empty")], but("f", empty__f="x")),
    ("a file moved out of a directory that was deleted elsewhere is deleted with it",
     [delete("d")], [move("d/e/h", "h")], but("d", "d/e", "d/e/h")),
    ("a file moved out elsewhere, and its directory deleted here: the delete saw it",
     [move("d/e/h", "h")], [delete("d")], but("d", "d/e", "d/e/h")),
    ("a moved directory takes along what is made in it elsewhere",
     [write("d/e/n", "y")], [move("d", "empty/d")],
     but("d", "d/e", "d/e/h", empty__d="/", empty__d__e="/", empty__d__e__h="xy", empty__d__e__n="y")),
    ("a renamed directory, and one renamed inside",
     [move("d/e", "d/x")], [move("d", "y")], but("d", "d/e", "d/e/h", y="/", y__x="/", y__x__h="xy")),
    ("two moves that would close a ring: this device's is undone",
     [move("d", "empty/d")], [move("empty", "d/empty")],
     but("d", "d/e", "d/e/h", empty__d="/", empty__d__e="/", empty__d__e__h="xy")),
    ("a directory's mode", [chmod("d", 0o700)], [write("d/n", "x")], but(d="/ 700", d__n="x")),
    ("a directory turned inside out",
     [move("d/e", "e"), move("d", "e/d")], [write("d/n", "x")],
     but("d", "d/e", "d/e/h", e="/", e__h="xy", e__d="/", e__d__n="x")),
]  # fmt: skip

NAMES: list[Row] = [
    ("names swapped here", [], [swap("f", "g")], but(f="y", g="x")),
    ("names swapped elsewhere", [swap("f", "g")], [], but(f="y", g="x")),
    ("names swapped on both sides", [swap("f", "g")], [swap("f", "g")], but(f="y", g="x")),
    ("names rotated elsewhere, an edit here",
     [move("f", "t"), move("g", "f"), move("t", "g")], [write("f", "xyz")], but(f="y", g="xyz")),
    ("a directory and a file swap names", [swap("empty", "f")], [write("empty/n", "y")], but(f="/", f__n="y", empty="x")),
    ("a name that was freed elsewhere and taken here", [move("f", "n")], [delete("g"), move("f", "g")], but("f", "g", n="x")),
    ("two nodes move to one name: the journal's has it",
     [move("f", "n")], [move("g", "n")], copy("n", "y", but("f", "g", n="x"))),
    ("a new file here takes the name that a file gets elsewhere",
     [move("f", "n")], [write("n", "xyz")], copy("n", "xyz", but("f", n="x"))),
    ("a file is made under the name of one deleted elsewhere", [delete("f")], [delete("f"), write("f", "y")], but(f="y")),
    ("a copy made here under the name that the file gets elsewhere is another file",
     [move("f", "n")], [write("n", "x")], copy("n", "x", but("f", n="x"))),
]  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["at once", "placed first"])
@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [pytest.param(*row[1:], id=row[0]) for row in FILES + KINDS + DIRECTORIES + NAMES],
)
def test_what_becomes_of_two_sides(
    theirs: list[Act], ours: list[Act], expected: dict[str, str], late: bool
) -> None:
    run = started()
    elsewhere(run, *theirs)
    here(run, *ours)
    if late:  # the order of placing and committing is for nobody to count on
        run.receive()
        run.send(run.plan_of_commits())
    run.settle()
    assert shown(run.trees.local) == expected
    assert shown(run.head_tree()) == expected
    assert run.plan().is_empty


# --- what waits


def planned(run: Run, *held: UUID) -> Plan:
    run.receive()
    return plan(run.trees, device="laptop", date="2026-11-22", held=held)


def ids(changes: tuple[Change, ...]) -> set[UUID]:
    return {change.node_id for change in changes}


def test_an_unread_file_waits_and_holds_up_nothing_else() -> None:
    run = started()
    f, g = at(run.trees.local, "f"), at(run.trees.local, "g")
    run.write(local={f.node_id: replace(f, digest=UNHASHED)})
    elsewhere(run, write("f", "xyz"), write("g", "xyz"))
    assert ids(planned(run).place) == {g.node_id}
    assert planned(run).commit == ()


def test_an_unread_file_keeps_its_directory() -> None:
    """Who knows what is in it: an edit wins over a delete."""
    run = started()
    h = at(run.trees.local, "d/e/h")
    run.write(local={h.node_id: replace(h, digest=UNHASHED)})
    elsewhere(run, delete("d"))
    assert planned(run).place == ()


def test_a_held_node_is_left_alone_on_both_sides() -> None:
    run = started()
    f = at(run.trees.local, "f").node_id
    here(run, write("f", "xyz"))
    elsewhere(run, write("g", "xyz"))
    made = planned(run, f)
    assert (ids(made.commit), ids(made.place)) == (set(), {at(run.trees.local, "g").node_id})


def test_what_a_held_directory_is_to_hold_waits_with_it() -> None:
    run = started()
    here(run, mkdir("n"), write("n/in", "x"), write("other", "x"))
    made = planned(run, at(run.trees.local, "n").node_id)
    assert ids(made.commit) == {at(run.trees.local, "other").node_id}


def test_a_name_that_a_held_node_has_is_not_taken() -> None:
    run = started()
    f = at(run.trees.local, "f").node_id
    here(run, delete("f"), move("g", "f"))
    (change,) = planned(run, f).commit
    assert change.after is not None
    assert change.after.name == f"f {COPY}"
    assert ids(planned(run).commit) == {f, change.node_id}


def test_nothing_is_committed_while_somebody_has_to_be_identified() -> None:
    run = started()
    here(run, write("n", "y"), write("other", "x"))
    elsewhere(run, write("n", "x"))
    made = planned(run)
    assert [type(aside) for aside in made.asides] == [KeepAside]
    assert (made.commit, made.place, made.agreed) == ((), (), ())


def test_a_directory_that_had_to_stay_is_told_to_nobody() -> None:
    run = started()
    elsewhere(run, delete("d"))
    run.settle(stays=lambda node: node.name == "d")
    assert shown(run.head_tree()) == but("d", "d/e", "d/e/h")
    assert shown(run.trees.local) == but("d/e", "d/e/h")
    assert run.plan().is_empty


def test_a_file_made_in_a_directory_that_had_to_stay_brings_it_back() -> None:
    run = started()
    elsewhere(run, delete("d"))
    run.settle(stays=lambda node: node.name == "d")
    here(run, write("d/n", "y"))
    run.settle()
    assert shown(run.head_tree()) == but("d/e", "d/e/h", d__n="y")


def test_a_revived_node_keeps_its_id() -> None:
    run = started()
    d = at(run.trees.local, "d").node_id
    elsewhere(run, delete("d"))
    here(run, write("d/e/h", "y"))
    run.settle()
    assert at(run.head_tree(), "d").node_id == d


# --- without a merge base


def fresh(run: Run) -> Run:
    """The same two sides after the database was lost: new ids on disk, nothing agreed upon."""
    old, new = run.trees, Trees()
    ids = {node_id: run.new_id() for node_id in old.local.nodes}
    ids[ROOT] = ROOT
    new.local.update(
        {
            ids[node.node_id]: replace(node, node_id=ids[node.node_id], parent_id=ids[node.parent_id])
            for node in old.local.nodes.values()
        }
    )
    run.trees, run.received = new, 0
    run.trees.touch_all()
    return run


def test_a_lost_database_deletes_nothing_and_makes_no_conflict_of_what_is_equal() -> None:
    run = fresh(started())
    run.settle()
    assert shown(run.trees.local) == shown(run.head_tree()) == BASE


def test_a_lost_database_brings_back_what_was_deleted_and_keeps_both_of_what_differs() -> None:
    run = started()
    elsewhere(run, delete("d"), write("f", "xyz"))
    here(run, write("g", "xy"), delete("l"))
    fresh(run).settle()
    expected = copy("f", "x", copy("g", "xy", but(f="xyz", g="y")))
    assert shown(run.trees.local) == shown(run.head_tree()) == expected


# --- parts


def test_an_empty_file_tree_has_nothing_to_do() -> None:
    assert plan(Trees(), device="laptop", date="today").is_empty


def test_merging_is_for_each_aspect_alone() -> None:
    base = new_file(UUID(int=1), ROOT, "f", "x")
    remote, local = replace(base, name="r", mode=0o600), replace(base, mtime_ns=9, parent_id=UUID(int=2))
    merged = merge_node(remote, local, base)
    assert merged is not None
    assert (merged.place, merged.mode, merged.mtime_ns) == ((ROOT, "r"), 0o600, 9)


def test_a_selection_takes_along_what_it_needs() -> None:
    run = started()
    here(run, mkdir("n"), mkdir("n/m"), write("n/m/a", "x"), delete("f"), move("g", "f"))
    made, local = planned(run), run.trees.local
    by_id = {change.node_id: change for change in made.commit}
    deep = at(local, "n/m/a").node_id
    chosen = select([by_id[deep], *made.commit], limit=3, is_ready=lambda change: True)
    assert ids(tuple(chosen)) >= {deep, at(local, "n").node_id, at(local, "n/m").node_id}
    unready = select(made.commit, limit=99, is_ready=lambda change: change.node_id != at(local, "n").node_id)
    assert deep not in ids(tuple(unready))
    assert at(local, "f").node_id in ids(tuple(unready))


def chain(length: int, *, closed: bool) -> tuple[Tree, list[Change]]:
    """Files that each take the name of the next one; `closed`: the last one that of the first."""
    nodes = [new_file(UUID(int=1 + number), ROOT, str(number), "x") for number in range(length)]
    ends = [str(number + 1) for number in range(length)]
    if closed:
        ends[-1] = "0"
    return Tree(nodes), [
        Change(node, replace(node, name=name)) for node, name in zip(nodes, ends, strict=True)
    ]


def test_a_chain_that_is_longer_than_a_commit_goes_in_parts_from_its_free_end() -> None:
    tree, changes = chain(5_000, closed=False)
    rounds = 0
    while changes:
        chosen = select(changes, limit=1_000, is_ready=lambda change: True, tree=tree)
        assert 0 < len(chosen) <= 1_000
        tree.update({change.node_id: change.after for change in chosen})
        assert len(tree.children(ROOT)) == 5_000, "a name was taken twice"
        gone = {change.node_id for change in chosen}
        changes = [change for change in changes if change.node_id not in gone]
        rounds += 1
    assert rounds == 5


def test_a_ring_goes_whole_however_long() -> None:
    tree, changes = chain(5_000, closed=True)
    assert len(select(changes, limit=1_000, is_ready=lambda change: True, tree=tree)) == 5_000


def test_changes_of_one_entry_go_together() -> None:
    run = started()
    elsewhere(run, swap("f", "g"))
    elsewhere(run, write("d/e/h", "y"))
    made, slow = planned(run), at(run.trees.local, "f").node_id
    chosen = select(
        made.place,
        limit=99,
        is_ready=lambda change: change.node_id != slow,
        commit_of=lambda change: run.trees.remote.nodes[change.node_id].version,
    )
    assert ids(tuple(chosen)) == {at(run.trees.local, "d/e/h").node_id}


def test_paths_of_a_tree_that_is_still_to_come() -> None:
    run = started()
    d, e, h = (at(run.trees.local, path) for path in ("d", "d/e", "d/e/h"))
    changes = [Change(d, replace(d, name="x")), Change(e, replace(e, parent_id=ROOT)), Change(h, None)]
    path = overlay(run.trees.local, changes, {})
    assert [path(node.node_id) for node in (d, e, h)] == ["x", "e", None]
