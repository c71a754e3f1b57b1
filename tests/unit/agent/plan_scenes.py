"""What two people may do to one thing: the words of the planner's table (`plan_cases`), and what they do to a tree.

Ada works at another device: what she does is in the journal. Bob works at this one: what he does is on disk. Where a word does
not say `alike`, each does it in a way of their own, so that it can be seen whose change has come to stay.
"""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from msgspec import Struct

from agent.trees import Node, Tree, replace, same
from broker.model import ROOT, Kind
from tests.unit.agent.twosided import (
    CONTENTS,
    MORE_CONTENTS,
    SIZES,
    digest_of,
    new_directory,
    new_file,
    new_link,
)

COPY: Final = " (conflicted copy of laptop 2026-11-22)"

TIMES: Final = {
    letters: number for number, letters in enumerate(("x", "y", "z", "xy", "q", "yq", "zq", "xyz"), 1)
}
"""When a content was saved: each has a time of its own, so that a time shows whose content it belongs to."""

_LETTERS: Final = {digest_of(letters): letters for letters in (*CONTENTS, *MORE_CONTENTS)}


class Who(Struct, frozen=True):
    """How one person does what both may do.

    Attributes:
        edit: What an edited file holds then.
        make: What a new file holds.
        time: What a touched file's time is then.
        mode: What a file's mode is then; `directory_mode`, a directory's.
        name: What things are called, and where a link leads.
        place: Into which directory things are moved.
    """

    edit: str
    make: str
    time: int
    mode: int
    directory_mode: int
    name: str
    place: str


ADA: Final = Who(edit="y", make="yq", time=11, mode=0o600, directory_mode=0o700, name="j", place="b")
BOB: Final = Who(edit="z", make="zq", time=12, mode=0o755, directory_mode=0o750, name="k", place="c")


class Hands:
    """Changes a tree of its own, step by step; `changes` is what has become of it as a whole."""

    def __init__(self, tree: Tree, new_id: Callable[[], UUID]) -> None:
        self._before = tree
        self._tree = Tree(tree.nodes.values())
        self._new_id = new_id

    def changes(self) -> dict[UUID, Node | None]:
        """All nodes that are no longer as they were."""
        ids = sorted({*self._before.nodes, *self._tree.nodes}, key=lambda node_id: node_id.int)
        return {n: self._tree.get(n) for n in ids if not same(self._before.get(n), self._tree.get(n))}

    def write(self, path: str, letters: str) -> None:
        """Save a file."""
        old, digest = self._tree.find(path), digest_of(letters)
        if old is None:
            made = new_file(self._new_id(), *self._place(path), letters, mtime_ns=TIMES[letters])
            self._set(made)
        else:
            self._set(replace(old, digest=digest, size=SIZES[digest], mtime_ns=TIMES[letters]))

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self._set(new_directory(self._new_id(), *self._place(path)))

    def link(self, path: str, target: str) -> None:
        """Make a link, or lead it elsewhere."""
        old = self._tree.find(path)
        self._set(
            replace(old, target=target) if old else new_link(self._new_id(), *self._place(path), target)
        )

    def move(self, source: str, target: str) -> None:
        """Give a thing another place."""
        parent_id, name = self._place(target)
        self._set(replace(self._at(source), parent_id=parent_id, name=name))

    def swap(self, one: str, other: str) -> None:
        """Let two things have each other's place."""
        a, b = self._at(one), self._at(other)
        self._tree.update(
            {
                a.node_id: replace(a, parent_id=b.parent_id, name=b.name),
                b.node_id: replace(b, parent_id=a.parent_id, name=a.name),
            }
        )

    def delete(self, path: str) -> None:
        """Delete a thing, and all that is in it."""
        node = self._at(path)
        self._tree.update(
            dict.fromkeys([node.node_id, *(below.node_id for below in self._tree.below(node.node_id))])
        )

    def chmod(self, path: str, mode: int) -> None:
        """Change a mode."""
        self._set(replace(self._at(path), mode=mode))

    def touch(self, path: str, mtime_ns: int) -> None:
        """Change a time."""
        self._set(replace(self._at(path), mtime_ns=mtime_ns))

    def _set(self, node: Node) -> None:
        self._tree.update({node.node_id: node})

    def _at(self, path: str) -> Node:
        node = self._tree.find(path)
        assert node is not None, path
        return node

    def _place(self, path: str) -> tuple[UUID, str]:
        head, _, name = path.rpartition("/")
        return (self._at(head).node_id if head else ROOT, name)


Act = Callable[[Hands, Who], None]


class Scene(Struct, frozen=True):
    """One thing, and what may be done to it.

    Attributes:
        thing: What it is, in words.
        begin: Makes what both have; `b` and `c`, two empty directories, are in every scene.
        scenery: What else there is, as `shown` shows it: a row tells of it only when it has changed.
        acts: By the word that the table has for it: what it is in a sentence, and the doing.
    """

    thing: str
    begin: Callable[[Hands], None]
    scenery: tuple[str, ...]
    acts: dict[str, tuple[str, Act]]


def shown(tree: Tree) -> set[str]:
    """Each node as the table has it: `a/f=x`, `a/`, `a/l>target`; with `:mode` and `@time` where they are not the usual."""
    found = set()
    for node in tree.nodes.values():
        path = tree.path(node.node_id)
        assert path is not None, ("not connected", node)
        found.add(_shown(path, node).replace(COPY, "~"))
    return found


def _shown(path: str, node: Node) -> str:
    if node.kind is Kind.SYMLINK:
        return f"{path}>{node.target}"
    if node.kind is Kind.DIRECTORY:
        return f"{path}/" + ("" if node.mode == 0o755 else f":{node.mode:o}")
    letters = _LETTERS[node.digest]
    mode = "" if node.mode == 0o644 else f":{node.mode:o}"
    return f"{path}={letters}{mode}" + ("" if node.mtime_ns == TIMES[letters] else f"@{node.mtime_ns}")


def _nothing(hands: Hands, who: Who) -> None:
    """Both have enough of those."""


def _delete_targets(hands: Hands, who: Who) -> None:
    hands.delete("b")
    hands.delete("c")


# --- a file


def _begin_file(hands: Hands) -> None:
    for path in ("a", "b", "c"):
        hands.mkdir(path)
    hands.write("a/f", "x")
    hands.write("a/g", "q")


def _move_and_edit(hands: Hands, who: Who) -> None:
    hands.write("a/f", who.edit)
    hands.move("a/f", f"{who.place}/f")


def _file_to_directory(hands: Hands, who: Who) -> None:
    hands.delete("a/f")
    hands.mkdir("a/f")
    hands.write(f"a/f/{who.name}", who.make)


def _file_to_link(hands: Hands, who: Who) -> None:
    hands.delete("a/f")
    hands.link("a/f", who.name)


def _remake_file(hands: Hands, who: Who) -> None:
    hands.delete("a/f")
    hands.write("a/f", who.make)


def _back_up(hands: Hands, who: Who) -> None:
    hands.move("a/f", f"a/{who.name}")
    hands.write("a/f", who.make)


FILE: Final = Scene(
    thing="a file",
    begin=_begin_file,
    scenery=("a/", "b/", "c/", "a/g=q"),
    acts={
        "leaves": ("leaves it", _nothing),
        "edits": ("edits it", lambda hands, who: hands.write("a/f", who.edit)),
        "edits-alike": ("makes the one edit", lambda hands, who: hands.write("a/f", "xy")),
        "touches": ("saves the same bytes anew", lambda hands, who: hands.touch("a/f", who.time)),
        "chmods": ("changes its mode", lambda hands, who: hands.chmod("a/f", who.mode)),
        "renames": ("renames it", lambda hands, who: hands.move("a/f", f"a/{who.name}")),
        "renames-alike": ("gives it the one name", lambda hands, who: hands.move("a/f", "a/n")),
        "recases": ("changes the case of its name", lambda hands, who: hands.move("a/f", "a/F")),
        "moves": ("moves it to another directory", lambda hands, who: hands.move("a/f", f"{who.place}/f")),
        "moves-edits": ("moves and edits it", _move_and_edit),
        "deletes": ("deletes it", lambda hands, who: hands.delete("a/f")),
        "deletes-parent": ("deletes the directory around it", lambda hands, who: hands.delete("a")),
        "deletes-targets": ("deletes the directories that things are moved to", _delete_targets),
        "to-directory": ("puts a directory in its place", _file_to_directory),
        "to-link": ("puts a link in its place", _file_to_link),
        "remakes": ("deletes it and makes another under its name", _remake_file),
        "backs-up": ("renames it and makes another under its name", _back_up),
        "swaps": ("swaps its name with another file's", lambda hands, who: hands.swap("a/f", "a/g")),
    },
)

# --- a symbolic link


def _begin_link(hands: Hands) -> None:
    for path in ("a", "b", "c"):
        hands.mkdir(path)
    hands.link("a/l", "o")
    hands.write("a/g", "q")


def _move_and_relink(hands: Hands, who: Who) -> None:
    hands.link("a/l", who.name)
    hands.move("a/l", f"{who.place}/l")


def _link_to_file(hands: Hands, who: Who) -> None:
    hands.delete("a/l")
    hands.write("a/l", who.make)


def _link_to_directory(hands: Hands, who: Who) -> None:
    hands.delete("a/l")
    hands.mkdir("a/l")
    hands.write(f"a/l/{who.name}", who.make)


def _remake_link(hands: Hands, who: Who) -> None:
    hands.delete("a/l")
    hands.link("a/l", who.name)


LINK: Final = Scene(
    thing="a symbolic link",
    begin=_begin_link,
    scenery=("a/", "b/", "c/", "a/g=q"),
    acts={
        "leaves": ("leaves it", _nothing),
        "leads": ("leads it elsewhere", lambda hands, who: hands.link("a/l", who.name)),
        "leads-alike": ("leads it to the one new target", lambda hands, who: hands.link("a/l", "n")),
        "renames": ("renames it", lambda hands, who: hands.move("a/l", f"a/{who.name}")),
        "renames-alike": ("gives it the one name", lambda hands, who: hands.move("a/l", "a/n")),
        "recases": ("changes the case of its name", lambda hands, who: hands.move("a/l", "a/L")),
        "moves": ("moves it to another directory", lambda hands, who: hands.move("a/l", f"{who.place}/l")),
        "moves-leads": ("moves it and leads it elsewhere", _move_and_relink),
        "deletes": ("deletes it", lambda hands, who: hands.delete("a/l")),
        "deletes-parent": ("deletes the directory around it", lambda hands, who: hands.delete("a")),
        "deletes-targets": ("deletes the directories that things are moved to", _delete_targets),
        "to-file": ("puts a file in its place", _link_to_file),
        "to-directory": ("puts a directory in its place", _link_to_directory),
        "remakes": ("deletes it and makes another under its name", _remake_link),
        "swaps": ("swaps its name with a file's", lambda hands, who: hands.swap("a/l", "a/g")),
    },
)

# --- a directory


def _begin_directory(hands: Hands) -> None:
    for path in ("a", "b", "c", "a/d", "a/e"):
        hands.mkdir(path)
    hands.write("a/d/f", "x")
    hands.write("a/e/h", "xyz")
    hands.write("a/g", "q")


def _directory_to_file(hands: Hands, who: Who) -> None:
    hands.delete("a/d")
    hands.write("a/d", who.make)


def _directory_to_link(hands: Hands, who: Who) -> None:
    hands.delete("a/d")
    hands.link("a/d", who.name)


def _remake_directory(hands: Hands, who: Who) -> None:
    hands.delete("a/d")
    hands.mkdir("a/d")
    hands.write(f"a/d/{who.name}", who.make)


DIRECTORY: Final = Scene(
    thing="a directory",
    begin=_begin_directory,
    scenery=("a/", "b/", "c/", "a/e/", "a/e/h=xyz", "a/g=q"),
    acts={
        "leaves": ("leaves it", _nothing),
        "chmods": ("changes its mode", lambda hands, who: hands.chmod("a/d", who.directory_mode)),
        "renames": ("renames it", lambda hands, who: hands.move("a/d", f"a/{who.name}")),
        "renames-alike": ("gives it the one name", lambda hands, who: hands.move("a/d", "a/n")),
        "recases": ("changes the case of its name", lambda hands, who: hands.move("a/d", "a/D")),
        "moves": ("moves it to another directory", lambda hands, who: hands.move("a/d", f"{who.place}/d")),
        "fills": ("makes a file in it", lambda hands, who: hands.write(f"a/d/{who.name}", who.make)),
        "fills-alike": ("makes the one file in it", lambda hands, who: hands.write("a/d/n", "xy")),
        "edits-inside": ("edits the file in it", lambda hands, who: hands.write("a/d/f", who.edit)),
        "empties": ("deletes the file in it", lambda hands, who: hands.delete("a/d/f")),
        "takes-out": ("moves the file in it out", lambda hands, who: hands.move("a/d/f", f"{who.place}/f")),
        "moves-in": ("moves another file into it", lambda hands, who: hands.move("a/g", "a/d/g")),
        "deletes": ("deletes it", lambda hands, who: hands.delete("a/d")),
        "deletes-parent": ("deletes the directory around it", lambda hands, who: hands.delete("a")),
        "deletes-targets": ("deletes the directories that things are moved to", _delete_targets),
        "to-file": ("puts a file in its place", _directory_to_file),
        "to-link": ("puts a link in its place", _directory_to_link),
        "remakes": ("deletes it and makes another under its name", _remake_directory),
        "swaps": ("swaps its name with its neighbour's", lambda hands, who: hands.swap("a/d", "a/e")),
        "nests": ("moves it into its neighbour", lambda hands, who: hands.move("a/d", "a/e/d")),
        "swallows": ("moves its neighbour into it", lambda hands, who: hands.move("a/e", "a/d/e")),
    },
)

# --- a name that nothing has yet


def _begin_name(hands: Hands) -> None:
    for path in ("a", "b", "c"):
        hands.mkdir(path)
    hands.write("a/f", "x")
    hands.write("a/g", "q")


def _make_directory(hands: Hands, who: Who) -> None:
    hands.mkdir("a/n")
    hands.write(f"a/n/{who.name}", who.make)


def _make_alike_with(change: Callable[[Hands, Who], None]) -> Act:
    def act(hands: Hands, who: Who) -> None:
        hands.write("a/n", "xy")
        change(hands, who)

    return act


def _move_one_in(hands: Hands, who: Who) -> None:
    hands.move("a/f" if who is ADA else "a/g", "a/n")


NAME: Final = Scene(
    thing="a free name",
    begin=_begin_name,
    scenery=("a/", "b/", "c/", "a/f=x", "a/g=q"),
    acts={
        "leaves": ("leaves it", _nothing),
        "file": ("makes a file there", lambda hands, who: hands.write("a/n", who.make)),
        "file-alike": ("makes the one file there", lambda hands, who: hands.write("a/n", "xy")),
        "file-timed": (
            "makes the one file there, at a time of its own",
            _make_alike_with(lambda hands, who: hands.touch("a/n", who.time)),
        ),
        "file-moded": (
            "makes the one file there, with a mode of its own",
            _make_alike_with(lambda hands, who: hands.chmod("a/n", who.mode)),
        ),
        "directory": ("makes a directory there, with a file", _make_directory),
        "empty-directory": ("makes an empty directory there", lambda hands, who: hands.mkdir("a/n")),
        "link": ("makes a link there", lambda hands, who: hands.link("a/n", who.name)),
        "link-alike": ("makes the one link there", lambda hands, who: hands.link("a/n", "n")),
        "moves-f": ("moves a file there", lambda hands, who: hands.move("a/f", "a/n")),
        "moves-own": ("moves a file of its own choice there", _move_one_in),
        "deletes-parent": ("deletes the directory around it", lambda hands, who: hands.delete("a")),
    },
)

# --- three directories, which may come to stand in each other


def _begin_ring(hands: Hands) -> None:
    for path in ("p", "q", "r"):
        hands.mkdir(path)
    hands.write("p/f", "x")
    hands.write("q/f", "xy")
    hands.write("r/f", "xyz")


def _moves(*moves: str) -> Act:
    """`q r` moves q into r."""

    def act(hands: Hands, who: Who) -> None:
        for move in moves:
            source, _, target = move.partition(" ")
            hands.move(source, f"{target}/{source.rpartition('/')[2]}")

    return act


def _ring_and_delete(hands: Hands, who: Who) -> None:
    hands.move("p", "q/p")
    hands.delete("r")


RING: Final = Scene(
    thing="three directories",
    begin=_begin_ring,
    scenery=("p/", "q/", "r/", "p/f=x", "q/f=xy", "r/f=xyz"),
    acts={
        "leaves": ("leaves them", _nothing),
        "p-in-q": ("moves p into q", _moves("p q")),
        "q-in-p": ("moves q into p", _moves("q p")),
        "q-in-r": ("moves q into r", _moves("q r")),
        "r-in-p": ("moves r into p", _moves("r p")),
        "p-in-q-in-r": ("moves p into q, and that into r", _moves("p q", "q r")),
        "q-in-r-in-p": ("moves q into r, and that into p", _moves("q r", "r p")),
        "r-in-q-in-p": ("moves r into q, and that into p", _moves("r q", "q p")),
        "edits-in-q": ("edits the file in q", lambda hands, who: hands.write("q/f", who.edit)),
        "deletes-q": ("deletes q", lambda hands, who: hands.delete("q")),
        "p-in-q-deletes-r": ("moves p into q, and deletes r", _ring_and_delete),
    },
)
