"""What people are told: of what would be done, and why; of one path, and what it waits for. A sentence a row."""

from collections.abc import Callable
from uuid import UUID

import pytest
from msgspec import structs

from agent.explain import DOWN, UP, WAITS, Explanation, Item, Reason, Seen, View, explain, outlook
from agent.trees import UNHASHED, Node, Tree, Trees, replace
from broker.model import ROOT
from tests.unit.agent.twosided import new_directory, new_file, new_link

D, F, G, H, N, M = (UUID(int=n) for n in range(10, 16))
FILE, DIRECTORY = Seen(kind="file"), Seen(kind="directory")
BESIDE = "f (conflicted copy of laptop 2026-11-22)"

Do = Callable[[Trees], None]


def base() -> Trees:
    """A file f (F), and d/ (D) with d/g (G), the same everywhere, of version 5."""
    nodes = [new_file(F, ROOT, "f", "x"), new_directory(D, ROOT, "d"), new_file(G, D, "g", "y")]
    trees = Trees()
    for tree in (trees.remote, trees.local, trees.synced):
        tree.update({node.node_id: replace(node, version=5) for node in nodes})
    return trees


def put(tree: str, node: Node) -> Do:
    return lambda trees: getattr(trees, tree).update({node.node_id: node})


def edit(tree: str, node_id: UUID, **changes: object) -> Do:
    def do(trees: Trees) -> None:
        side: Tree = getattr(trees, tree)
        side.update({node_id: replace(side.nodes[node_id], **changes)})

    return do


def content(tree: str, node_id: UUID, letters: str) -> Do:
    new = new_file(node_id, ROOT, "", letters)
    return edit(tree, node_id, digest=new.digest, size=new.size, version=9 if tree == "remote" else 0)


def drop(tree: str, *node_ids: UUID) -> Do:
    def do(trees: Trees) -> None:
        getattr(trees, tree).update(dict.fromkeys(node_ids))
        if tree == "remote":
            trees.tombstones.update(dict.fromkeys(node_ids, 9))

    return do


def view(*acts: Do, **known: object) -> View:
    trees = base()
    for act in acts:
        act(trees)
    trees.touch_all()
    defaults = View(trees=trees, device="laptop", date="2026-11-22", cursor=9, head=9)
    return structs.replace(defaults, **known)


def row(item: Item) -> tuple[str, str, str, str]:
    return (item.direction, item.change, item.path, item.why)


ROWS: list[tuple[str, list[Do], dict[str, object], list[tuple[str, str, str, str]]]] = [
    ("nothing differs", [], {}, []),
    ("new here", [put("local", new_file(N, D, "n", "z"))], {}, [(UP, "new", "d/n", "new here")]),
    ("new there", [put("remote", new_file(N, D, "n", "z"))], {}, [(DOWN, "new", "d/n", "new on another device")]),
    ("edited here", [content("local", F, "xy")], {}, [(UP, "changed", "f", "changed here")]),
    ("edited there", [content("remote", F, "xy")], {}, [(DOWN, "changed", "f", "changed on another device")]),
    ("renamed here", [edit("local", F, name="e")], {}, [(UP, "renamed", "e", "renamed here")]),
    ("renamed there", [edit("remote", F, name="e")], {}, [(DOWN, "renamed", "e", "renamed on another device")]),
    ("moved and edited here", [edit("local", F, parent_id=D), content("local", F, "xy")], {},
     [(UP, "renamed", "d/f", "renamed and changed here")]),
    ("its mode, here", [edit("local", F, mode=0o600)], {}, [(UP, "attributes", "f", "mode or time changed here")]),
    ("its mode, there", [edit("remote", F, mode=0o600)], {},
     [(DOWN, "attributes", "f", "mode or time changed on another device")]),
    ("deleted here", [drop("local", F)], {}, [(UP, "deleted", "f", "deleted here")]),
    ("deleted there", [drop("remote", F)], {},
     [(DOWN, "deleted", "f", "deleted on another device, unchanged here")]),
    ("deleted there, merely renamed here", [drop("remote", F), edit("local", F, name="e")], {},
     [(DOWN, "deleted", "e", "deleted on another device, merely renamed here")]),
    ("a directory deleted here", [drop("local", D, G)], {},
     [(UP, "deleted", "d", "deleted here"), (UP, "deleted", "d/g", "deleted here")]),
    ("deleted there, edited here", [drop("remote", F), content("local", F, "xy")], {},
     [(UP, "new", "f", "deleted on another device, but changed here since: it comes back")]),
    ("deleted here, edited there", [drop("local", F), content("remote", F, "xy")], {},
     [(DOWN, "new", "f", "deleted here, but changed on another device since: it comes back")]),
    ("a directory deleted there, a file in it edited here", [drop("remote", D, G), content("local", G, "xy")], {},
     [(UP, "new", "d", "deleted on another device, but it holds something that was changed here: it comes back"),
      (UP, "new", "d/g", "deleted on another device, but changed here since: it comes back")]),
    ("a directory deleted here, a file in it edited there", [drop("local", D, G), content("remote", G, "xy")], {},
     [(DOWN, "new", "d", "deleted here, but it holds something that another device has changed: it comes back"),
      (DOWN, "new", "d/g", "deleted here, but changed on another device since: it comes back")]),
    ("edited on both sides", [content("local", F, "xy"), content("remote", F, "z")], {},
     [(UP, "new", BESIDE, "both sides changed f: this is yours, kept beside it"),
      (DOWN, "changed", "f", f"both sides changed it: yours is kept beside as {BESIDE}")]),
    ("two new files of one name", [put("local", new_file(N, ROOT, "f2", "z")), put("remote", new_file(M, ROOT, "f2", "q"))],
     {}, [(UP, "new", f"f2{BESIDE[1:]}", "both sides changed f2: this is yours, kept beside it"),
          (DOWN, "changed", "f2", f"both sides changed it: yours is kept beside as f2{BESIDE[1:]}")]),
    ("two new directories of one name are one",
     [put("local", new_directory(N, ROOT, "e")), put("remote", new_directory(M, ROOT, "e")),
      put("local", new_file(H, N, "h", "z"))], {}, [(UP, "new", "e/h", "new here")]),
    ("edited there, renamed here", [content("remote", F, "xy"), edit("local", F, name="e")], {},
     [(UP, "renamed", "e", "renamed here"), (DOWN, "changed", "e", "changed on another device")]),
    ("a directory and a new file in it that meet a link of its name",
     [put("local", new_directory(N, ROOT, "e")), put("remote", new_link(M, ROOT, "e", "f"))], {},
     [(DOWN, "renamed", f"e{BESIDE[1:]}", "another has its name: it gets one of its own"),
      (DOWN, "new", "e", "new on another device")]),
    ("saved, not read yet", [put("local", new_file(N, D, "n", "z")), edit("local", N, digest=UNHASHED)], {},
     [(UP, "new", "d/n", "saved here, and yet to be read")]),
    ("edited, not read yet", [edit("local", F, digest=UNHASHED)], {},
     [(UP, "changed", "f", "saved here, and yet to be read")]),
    ("asked for", [content("local", F, "xy")], {"in_flight": {F: None}},
     [(UP, "changed", "f", "changed here; the service has been asked to take it")]),
    ("held", [content("local", F, "xy")], {"problems": {"\0held": Reason("held", "waits for `hutch review`")}},
     [(UP, "changed", "f", "changed here; held, and waits for `hutch review`")]),
    ("being placed", [content("remote", F, "xy")], {"placing": {F}},
     [(DOWN, "changed", "f", "changed on another device; it is being put in place")]),
    ("refused", [content("local", F, "xy")], {"parked": {F: Reason("over_quota", "no room")}},
     [(WAITS, "changed", "f", "the service refuses it: no room")]),
    ("content that nobody has", [content("remote", F, "xy")], {"broken": {F: Reason("missing_chunks", "not there")}},
     [(WAITS, "changed", "f", "not there")]),
    ("a new file in a directory that is refused",
     [put("local", new_directory(N, ROOT, "e")), put("local", new_file(M, N, "n", "z"))],
     {"parked": {N: Reason("forbidden", "you may only read")}},
     [(WAITS, "new", "e", "the service refuses it: you may only read"),
      (WAITS, "new", "e/n", "waits for the directory e")]),
    ("the name is taken by what is refused",
     [edit("local", F, name="e"), put("local", new_file(N, ROOT, "f", "z"))],
     {"parked": {F: Reason("forbidden", "you may only read")}},
     [(WAITS, "renamed", "e", "the service refuses it: you may only read"),
      (WAITS, "new", "f", "waits for the name, which f has yet")]),
    ("a directory deleted there that holds what is not read yet",
     [drop("remote", D, G), put("local", new_file(N, D, "n", "z")), edit("local", N, digest=UNHASHED)], {},
     [(UP, "new", "d/n", "saved here, and yet to be read"),
      (DOWN, "deleted", "d/g", "deleted on another device, unchanged here"),
      (WAITS, "deleted", "d", "deleted on another device: waits for d/n, which is in it")]),
    ("a directory deleted there that had to stay",
     [drop("remote", D, G), drop("local", G), drop("synced", D, G), lambda trees: trees.unannounced.add(D)], {},
     [(WAITS, "new", "d", "deleted on another device, and kept here: it is not empty")]),
    ("ignored", [content("remote", F, "xy"), lambda trees: trees.ignored.add(F)], {},
     [(WAITS, "changed", "f", "a rule ignores it: each device keeps what it has")]),
    ("what was deleted is yet to be asked for", [put("local", new_file(N, D, "n", "z"))], {"is_unclaimed": True},
     [(WAITS, "new", "d/n", "waits until the service has told what other devices have deleted meanwhile")]),
    ("before the first contact", [put("local", new_file(N, D, "n", "z"))], {"cursor": None}, []),
    ("before the first look", [put("local", new_file(N, D, "n", "z"))], {"is_looked": False}, []),
]  # fmt: skip


@pytest.mark.parametrize(("acts", "known", "rows"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_each_change_is_listed_with_its_reason(
    acts: list[Do], known: dict[str, object], rows: list[tuple[str, str, str, str]]
) -> None:
    about = view(*acts, **known)
    before = about.trees.copy()
    found = outlook(about)
    assert sorted(row(item) for item in (*found.up, *found.down, *found.waits)) == sorted(rows)
    for name in ("remote", "local", "synced"):
        assert getattr(about.trees, name).nodes == getattr(before, name).nodes
    assert about.trees.dirty == before.dirty


def test_sizes_count_where_bytes_move() -> None:
    found = outlook(view(content("local", F, "xyz"), edit("local", G, name="h")))
    assert {i.path: (i.moves_bytes, i.previous) for i in found.up} == {
        "f": (True, None),
        "d/h": (False, "d/g"),
    }
    assert found.up[1].size_bytes == new_file(F, ROOT, "f", "xyz").size


@pytest.mark.parametrize(
    ("known", "note"),
    [
        ({"head": 10}, "1 commit of the folder's journal still to be received"),
        ({"is_paused": True}, "the agent is paused: nothing is done until `hutch resume`"),
        ({"is_running": False}, "no agent runs: this is as of when the last one did (hutch run)"),
        ({"problems": {"\0place": Reason("disk_full", "no room")}}, "no room (disk_full)"),
        ({"cursor": None}, "nothing was received from the service yet"),
        ({"is_looked": False}, "the folder is being looked at: ask again in a moment"),
    ],
)
def test_what_holds_for_the_whole_folder_is_said_once(known: dict[str, object], note: str) -> None:
    assert note in outlook(view(**known)).notes


STATES: list[tuple[str, str, Seen, list[Do], dict[str, object], str, str]] = [
    ("synced", "f", FILE, [], {}, "synced", "It is synced"),
    ("the folder", "", DIRECTORY, [content("local", F, "xy")], {}, "folder", "This is a synced folder: 1 to send."),
    ("the quiet folder", "", DIRECTORY, [], {}, "folder", "all is synced"),
    ("Hutch's own", ".hutch/stage", DIRECTORY, [], {}, "own", "never synced"),
    ("behind a link", "l/a", Seen(link="l"), [], {}, "behind_link", "l is a symbolic link"),
    ("a name for no device", "a", Seen(kind="file", bad_name="too long"), [], {}, "bad_name", "too long"),
    ("an own rule", "n.tmp", Seen(kind="file", rule="*.tmp"), [], {}, "ignored", "`*.tmp`, a line of .hutchignore,"),
    ("a rule of Hutch's", "Thumbs.db", Seen(kind="file", rule="Thumbs.db"), [], {}, "ignored", "Hutch's own rules"),
    ("ignored, and known elsewhere", "f", Seen(kind="file", rule="f"), [lambda t: t.ignored.add(F)], {}, "ignored",
     "each device keeps what it has"),
    ("a pipe", "p", Seen(kind="special"), [], {"problems": {"p": Reason("special", "pipes are not synced")}}, "special",
     "pipes are not synced"),
    ("a new pipe", "p", Seen(kind="special"), [], {}, "special", "pipes, sockets and devices"),
    ("another file system", "m/deep", FILE, [], {"problems": {"m": Reason("mount", "mounted")}}, "mount", "(that is m)"),
    ("no permission", "f", FILE, [], {"problems": {"f": Reason("unreadable", "Permission denied")}}, "unreadable",
     "Permission denied"),
    ("a bad line of the rules", "f", FILE, [], {"problems": {"\0rules": Reason("bad_rule", "line 1")}}, "synced",
     "It is synced"),
    ("not looked at yet", "n", FILE, [], {}, "unseen", "was not looked at since it came"),
    ("gone since the look", "f", Seen(), [], {}, "unseen", "is gone from the disk now"),
    ("changed since the look", "f", Seen(kind="file", is_changed=True), [], {}, "unseen", "changed on disk since"),
    ("nowhere", "n", Seen(), [], {}, "absent", "nothing of this name"),
    ("not read yet", "f", FILE, [edit("local", F, digest=UNHASHED)], {}, "unread", "yet to be read"),
    ("edited here", "f", FILE, [content("local", F, "xy")], {}, "to_send", "to be sent: changed here."),
    ("asked for", "f", FILE, [content("local", F, "xy")], {"in_flight": {F: None}}, "in_flight",
     "It is on its way: changed here; the service has yet to answer."),
    ("held", "f", FILE, [content("local", F, "xy")], {"problems": {"\0held": Reason("held", "waits")}}, "held",
     "held, and waits for `hutch review`"),
    ("edited there", "f", FILE, [content("remote", F, "xy")], {}, "to_fetch", "newer version is on its way here"),
    ("new there", "d/n", Seen(), [put("remote", new_file(N, D, "n", "z"))], {}, "to_fetch", "It is to come here"),
    ("deleted here", "f", Seen(), [drop("local", F)], {}, "to_send", "to be sent: deleted here."),
    ("both sides", "f", FILE, [content("local", F, "xy"), content("remote", F, "z")], {}, "conflict",
     f"yours is kept beside as {BESIDE}"),
    ("refused", "f", FILE, [content("local", F, "xy")], {"parked": {F: Reason("forbidden", "you may only read")}},
     "refused", "you may only read (forbidden)"),
    ("content that nobody has", "f", FILE, [content("remote", F, "xy")],
     {"broken": {F: Reason("missing_chunks", "not there")}}, "missing", "not there (missing_chunks)"),
    ("kept for what is in it", "d", DIRECTORY,
     [drop("remote", D, G), drop("synced", D, G), edit("local", G, digest=UNHASHED), lambda t: t.unannounced.add(D)], {},
     "kept", "it holds d/g"),
    ("waits", "e/n", FILE, [put("local", new_directory(N, ROOT, "e")), put("local", new_file(M, N, "n", "z"))],
     {"parked": {N: Reason("forbidden", "no")}}, "waits", "Waits for the directory e."),
    ("an alias", "F2", FILE,
     [put(t, replace(new_file(N, ROOT, "F", "z"), version=7)) for t in ("remote", "local", "synced")]
     + [lambda t: t.local.rename_on_disk({N: "F2"})], {}, "synced", "On the other devices it is called F"),
    ("a conflict copy", BESIDE, FILE, [put(t, replace(new_file(N, ROOT, BESIDE, "z"), version=7))
     for t in ("remote", "local", "synced")], {}, "synced", "the conflict copy that laptop kept on 2026-11-22 of f"),
    ("behind", "f", FILE, [], {"head": 12}, "synced", "3 commits of the folder's journal still to be received."),
    ("paused", "f", FILE, [content("local", F, "xy")], {"is_paused": True}, "to_send", "The agent is paused"),
    ("before the first contact", "f", FILE, [], {"cursor": None}, "unknown", "not known yet"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "seen", "acts", "known", "state", "says"), [s[1:] for s in STATES], ids=[s[0] for s in STATES]
)
def test_a_path_is_explained(
    path: str, seen: Seen, acts: list[Do], known: dict[str, object], state: str, says: str
) -> None:
    about = explain(view(*acts, **known), path, seen)
    assert about.state == state
    assert says in " ".join(about.sentences)
    assert all(sentence.endswith((".", ").")) for sentence in about.sentences)


def test_an_explanation_knows_the_versions() -> None:
    def versions(about: Explanation) -> tuple[int | None, int | None]:
        return about.version, about.agreed

    assert versions(explain(view(), "f", FILE)) == (5, 5)
    edited = explain(view(content("remote", F, "xy")), "f", FILE)
    assert versions(edited) == (9, 5)
    assert "The service has version 9 of it, as far as was received." in edited.sentences
    assert "This device and the service last agreed on version 5." in edited.sentences
    assert versions(explain(view(put("local", new_file(N, D, "n", "z"))), "d/n", FILE)) == (None, None)


def test_an_explanation_names_what_is_waited_for() -> None:
    acts = [put("local", new_directory(N, ROOT, "e")), put("local", new_file(M, N, "n", "z"))]
    about = explain(view(*acts, parked={N: Reason("forbidden", "no")}), "e/n", FILE)
    assert about.waits_for == ("e",)


def test_a_copy_of_the_trees_is_another_one() -> None:
    trees = base()
    other = trees.copy()
    for act in (content("local", F, "xy"), drop("remote", F), lambda t: t.local.rename_on_disk({G: "h"})):
        act(other)
    assert trees.local.find("d/g") == trees.remote.find("d/g")
    assert trees.local.nodes[F] == trees.remote.nodes[F] == trees.remote.find("f")
