"""What becomes of a commit: a sentence each, told on what stood before, held on the twin and on PostgreSQL alike."""

from dataclasses import dataclass

from tests.commits.words import (
    Say,
    chmod,
    copy,
    delete,
    link,
    mkdir,
    mount,
    move,
    put,
    splice,
)

Conflicts = list[tuple[str, int | None]]


@dataclass(frozen=True)
class Case:
    """`expected` is the tree, by path, after a commit that is accepted; or the conflicts of one that is refused.

    Attributes:
        sentence: What is held.
        before: Commits of alice's that are accepted first.
        commit: The operations in question.
    """

    sentence: str
    commit: list[Say]
    expected: dict[str, str] | Conflicts
    before: tuple[list[Say], ...] = ()
    workspace: str = "home"
    device: str = "alice's"


FILE = [put("f", content="ab")]
TREE = [mkdir("d"), put("x", parent="d"), mkdir("e", parent="d"), put("y", parent="e", content="b")]
PAIR = [put("p", content="a"), put("q", content="b")]
LONG = "n" * 256

# fmt: off
CASES = [
    # --- making
    Case("a new file is there", FILE, {"f": "ab"}),
    Case("an empty file has no chunks", [put("f", content="")], {"f": ""}),
    Case("an editor commits too", FILE, {"f": "ab"}, device="bob's"),
    Case("parents may come after their children", [put("x", parent="d"), mkdir("d")], {"d": "/", "d/x": "a"}),
    Case("links and directories are there", [link("l"), mkdir("d")], {"l": "-> there", "d": "/"}),
    Case("several operations on one node take effect in order",
         [put("f", content="a"), put("f", "g", content="b")], {"g": "b"}),
    Case("what is not there has no attributes", [put("f"), chmod("g", base=1)],
         [("stale_version", 1)]),
    Case("a new node must be new", [put("f", base=None)], [("stale_version", 0)], before=(FILE,)),
    Case("a new node must be new, to a tombstone as well", [put("f", base=None)], [("stale_version", 0)],
         before=(FILE, [delete("f")])),
    # --- names
    *(Case(f"{name!r:.12} is no name", [put("f", name)], [("bad_name", 0)])
      for name in ("", ".", "..", "a/b", "a\0b", LONG, "ü" * 128, ".hutch", ".HUTCH", ".hu\u200dtch", ".hutch.")),
    Case("a link needs a target", [link("l", "")], [("bad_name", 0)]),
    Case("a link's target has no NUL byte", [link("l", "a\0")], [("bad_name", 0)]),
    Case("case makes another name", [put("f", "a"), put("g", "A")], {"a": "a", "A": "a"}),
    Case("two new nodes want one name", [put("f", "n"), mkdir("g", "n")], [("name_taken", 1)]),
    Case("a name is taken", [put("g", "f")], [("name_taken", 0)], before=(FILE,)),
    Case("a name is free again after a delete", [put("g", "f", content="c")], {"f": "c"},
         before=(FILE, [delete("f")])),
    Case("a name is freed by the same commit, later", [put("g", "f", content="c"), delete("f")], {"f": "c"},
         before=(FILE,)),
    Case("a name is freed by a move in the same commit", [put("g", "f", content="c"), move("f", "h")],
         {"f": "c", "h": "ab"}, before=(FILE,)),
    Case("names are swapped", [move("p", "q"), move("q", "p")], {"q": "a", "p": "b"}, before=(PAIR,)),
    Case("names are rotated", [move("p", "q"), move("q", "r"), move("r", "p")], {"q": "a", "r": "b", "p": "c"},
         before=(PAIR, [put("r", content="c")])),
    Case("half a swap is none", [move("p", "q")], [("name_taken", 0)], before=(PAIR,)),
    Case("attributes hold a name as any change does", [chmod("p"), put("g", "p")], [("name_taken", 1)],
         before=(PAIR,)),
    Case("one name may live in two directories", [put("x", "n"), mkdir("d"), put("y", "n", "d", content="b")],
         {"n": "a", "d": "/", "d/n": "b"}),
    # --- versions
    Case("a file is replaced", [put("f", content="c")], {"f": "c"}, before=(FILE,)),
    *(Case("a version that is not the standing one is stale", [say], [("stale_version", 0)], before=(FILE, [chmod("f")]))
      for say in (put("f", base=1), move("f", "g", base=1), chmod("f", base=1), delete("f", base=1), put("f", base=9))),
    Case("what never was cannot be moved", [move("f", base=1)], [("stale_version", 0)]),
    Case("all conflicts are told",
         [put("f", base=1), put("g", ".."), put("h", content="A"), put("i", content="b")],
         [("stale_version", 0), ("bad_name", 1), ("missing_chunks", 2)], before=(FILE, [chmod("f")])),
    Case("a node's version in a commit is the one before it", [chmod("f"), move("f", "g"), put("f", "g", content="c")],
         {"g": "c"}, before=(FILE,)),
    Case("a directory cannot become a file", [put("d")], [("bad_name", 0)], before=([mkdir("d")],)),
    Case("a file cannot become a link", [link("f")], [("bad_name", 0)], before=(FILE,)),
    Case("the root cannot be changed", [mkdir("/", "root", base=None)], [("bad_name", 0)]),
    Case("the root cannot be deleted", [delete("/", base=0)], [("bad_name", 0)]),
    # --- places
    Case("a parent must be there", [put("x", parent="nowhere")], [("parent_gone", 0)]),
    Case("a file is no parent", [put("x", parent="f")], [("parent_gone", 0)], before=(FILE,)),
    Case("a deleted directory is no parent", [put("x", parent="d")], [("parent_gone", 0)],
         before=([mkdir("d")], [delete("d")])),
    Case("a directory deleted in the same commit is no parent", [put("x", parent="d"), delete("d", digest=True)],
         [("parent_gone", 0)], before=([mkdir("d")],)),
    Case("nor is one that is swept along", [put("x", parent="e"), delete("d", "e")],
         [("parent_gone", 0)], before=([mkdir("d"), mkdir("e", parent="d")],)),
    Case("a directory moves with all below it", [mkdir("g"), move("d", parent="g")],
         {"g": "/", "g/d": "/", "g/d/x": "a", "g/d/e": "/", "g/d/e/y": "b"}, before=(TREE,)),
    Case("a directory cannot stand in itself", [move("d", parent="d")], [("cycle", 0)], before=(TREE,)),
    Case("nor below itself", [move("d", parent="e")], [("cycle", 0)], before=(TREE,)),
    Case("nor can two stand in each other", [move("d", parent="g"), move("g", parent="d")],
         [("cycle", 0), ("cycle", 1)], before=([mkdir("d"), mkdir("g")],)),
    Case("new ones neither", [mkdir("d", parent="g"), mkdir("g", parent="d")], [("cycle", 0), ("cycle", 1)]),
    Case("parent and child may change places", [move("e", "d"), move("d", "e", parent="e")],
         {"d": "/", "d/e": "/", "d/e/x": "a", "d/y": "b"}, before=(TREE,)),
    # --- deletes
    Case("a file is deleted", [delete("f")], {}, before=(FILE,)),
    Case("an empty directory is deleted", [delete("d")], {}, before=([mkdir("d")],)),
    Case("an empty directory is deleted with the digest of nothing", [delete("d", digest=True)], {},
         before=([mkdir("d")],)),
    Case("a directory is deleted with all that its author knew", [delete("d", "x", "e", "y")], {}, before=(TREE,)),
    Case("not with what its author did not know", [delete("d", "x", "e")], [("subtree_changed", 0)], before=(TREE,)),
    Case("not with what has changed", [delete("d", "x", "e", "y"), chmod("f")], [("subtree_changed", 0)],
         before=(TREE, FILE, [chmod("y")], [put("z", parent="e")])),
    Case("without a digest it must be empty", [delete("d")], [("not_empty", 0)], before=(TREE,)),
    Case("it is empty once all below is deleted", [delete("y"), delete("e"), delete("x"), delete("d")], {},
         before=(TREE,)),
    Case("in any order", [delete("d"), delete("e"), delete("x"), delete("y")], {}, before=(TREE,)),
    Case("what was moved out is not deleted", [move("y"), delete("d", "x", "e")], {"y": "b"}, before=(TREE,)),
    Case("what is moved out later is not deleted", [delete("d", "x", "e"), move("y")], {"y": "b"}, before=(TREE,)),
    Case("a directory is moved out with what it holds", [move("e"), delete("d", "x")], {"e": "/", "e/y": "b"},
         before=(TREE,)),
    Case("what changes below goes with the version before", [chmod("x"), delete("d", "x", "e", "y")], {},
         before=(TREE,)),
    Case("what is deleted beside is no longer below", [delete("x"), delete("d", "e", "y")], {}, before=(TREE,)),
    Case("a deleted node cannot be deleted again", [delete("f")], [("stale_version", 0)],
         before=(FILE, [delete("f")])),
    Case("nothing follows a delete of the same node", [delete("f"), put("f", content="c")], [("stale_version", 1)],
         before=(FILE,)),
    # --- tombstones
    Case("a put revives", [put("f", content="c")], {"f": "c"}, before=(FILE, [delete("f")])),
    Case("a put revives with a splice against what it held", [put("f", content=splice(1, 1, "c", "ac"))],
         {"f": "ac"}, before=(FILE, [delete("f")])),
    Case("a move revives", [move("f", "g")], {"g": "ab"}, before=(FILE, [delete("f")])),
    Case("a directory revives without what it held", [mkdir("d")], {"d": "/"},
         before=(TREE, [delete("d", "x", "e", "y")])),
    Case("and what it held revives by itself", [mkdir("d"), move("y", parent="d")], {"d": "/", "d/y": "b"},
         before=(TREE, [delete("d", "x", "e", "y")])),
    Case("a link revives", [move("l", "m")], {"m": "-> there"}, before=([link("l")], [delete("l")])),
    Case("not by a version that was before the delete", [put("f", base=1)], [("stale_version", 0)],
         before=(FILE, [delete("f")])),
    Case("attributes do not revive", [chmod("f")], [("stale_version", 0)], before=(FILE, [delete("f")])),
    # --- content
    Case("a splice replaces some chunks", [put("f", content=splice(1, 1, "cd", "acde"))], {"f": "acde"},
         before=([put("f", content="abe")],)),
    Case("a splice past the base's end has no base", [put("f", content=splice(1, 5, "c", "ac"))],
         [("base_gone", 0)], before=(FILE,)),
    Case("a splice that makes something else has no base", [put("f", content=splice(1, 1, "c", "zz"))],
         [("base_gone", 0)], before=(FILE,)),
    Case("a new file has no base", [put("f", content=splice(0, 0, "c", "c"))], [("base_gone", 0)]),
    Case("content is copied", [put("g", content=copy("f"))], {"f": "ab", "g": "ab"}, before=(FILE,)),
    Case("content is copied from history", [put("g", content=copy("f", 1))], {"f": "c", "g": "ab"},
         before=(FILE, [put("f", content="c")])),
    Case("content is copied from the deleted", [put("g", content=copy("f"))], {"g": "ab"},
         before=(FILE, [delete("f")])),
    Case("content that never was cannot be copied", [put("g", content=copy("f", 7))], [("base_gone", 0)],
         before=(FILE,)),
    Case("chunks that nobody uploaded are missing", [put("f", content="aBC")], [("missing_chunks", 0)]),
    Case("spliced-in chunks are asked for too", [put("f", content=splice(0, 1, "C", "Cb"))],
         [("missing_chunks", 0)], before=(FILE,)),
    # --- roles and mounts
    Case("a viewer may not commit", FILE, [("forbidden", None)], device="carol's"),
    Case("a stranger may not commit", FILE, [("forbidden", None)], device="dave's"),
    Case("a workspace is mounted in one's own", [mount("m")], {"m": "@"}, workspace="alone"),
    Case("a mount is moved and deleted", [move("m", "n")], {"n": "@"}, before=([mount("m")],), workspace="alone"),
    Case("a mount revives", [move("m", "n")], {"n": "@"}, before=([mount("m")], [delete("m")]), workspace="alone"),
    Case("a shared workspace holds no mounts", [mount("m")], [("nested_share", 0)]),
    Case("a workspace is not mounted in itself", [mount("m", "alone")], [("nested_share", 0)], workspace="alone"),
    Case("what one is no member of is not mounted", [mount("m", "nowhere")], [("forbidden", 0)], workspace="alone"),
    Case("a mount is no parent", [put("x", parent="m")], [("parent_gone", 0)], before=([mount("m")],),
         workspace="alone"),
    Case("a mount shows one workspace for good", [mount("m", "home")], [("bad_name", 0)], before=([mount("m")],),
         workspace="alone"),
]
