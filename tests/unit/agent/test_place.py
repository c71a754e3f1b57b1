"""Placing on a real folder: every kind of step, a crash between any two system calls, and people who are faster."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from agent import filesystem, place
from agent.filesystem import Root
from agent.place import Intent
from agent.plan import Change
from agent.trees import Node, replace
from broker.model import ROOT, Kind
from tests.unit.agent.disk import DATE, Crash, Disk, Faults

NEW = [UUID(int=number) for number in range(1000, 1010)]
COPY = f"(conflicted copy of laptop {DATE})"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return prepared(tmp_path)


def prepared(base: Path) -> Disk:
    """a/ with one and two; b/ with sub/ with three; top; link."""
    disk = Disk(base)
    for path in ("a/one", "a/two", "b/sub/three", "top"):
        disk.write(path, f"old {path}")
    (disk.path / "link").symlink_to("top")
    disk.look()
    return disk


def file_at(parent_id: UUID, name: str, content: str, node_id: UUID = NEW[0], mode: int = 0o644) -> Node:
    return Node(
        node_id=node_id,
        parent_id=parent_id,
        name=name,
        kind=Kind.FILE,
        mode=mode,
        mtime_ns=5_000_000_000,
        size=len(content),
        digest=content.encode(),
    )


def directory_at(parent_id: UUID, name: str, node_id: UUID, mode: int = 0o755) -> Node:
    return Node(node_id=node_id, parent_id=parent_id, name=name, kind=Kind.DIRECTORY, mode=mode)


def rewritten(node: Node, content: str) -> Node:
    return replace(node, digest=content.encode(), size=len(content), mtime_ns=5_000_000_000)


Scenario = Callable[[Disk], Intent]


def creates(disk: Disk) -> Intent:
    """A new file in a new directory, and a link."""
    directory = directory_at(ROOT, "new", NEW[1], mode=0o700)
    file = file_at(NEW[1], "file", "fresh", mode=0o600)
    link = Node(node_id=NEW[2], parent_id=NEW[1], name="link", kind=Kind.SYMLINK, target="file")
    return disk.intend([Change(None, n) for n in (link, file, directory)], {NEW[0]: "fresh", NEW[2]: "file"})


def replaces(disk: Disk) -> Intent:
    """Other content in a file, and another target in a link."""
    top, link = disk.node("top"), disk.node("link")
    changes = [Change(top, rewritten(top, "new top")), Change(link, replace(link, target="a"))]
    return disk.intend(changes, {top.node_id: "new top", link.node_id: "a"})


def deletes(disk: Disk) -> Intent:
    """A directory with all that is in it, and a file."""
    return disk.intend([Change(disk.node(path), None) for path in ("a", "a/one", "a/two", "top", "link")])


def swaps(disk: Disk) -> Intent:
    """Two files change names."""
    one, two = disk.node("a/one"), disk.node("a/two")
    return disk.intend([Change(one, replace(one, name="two")), Change(two, replace(two, name="one"))])


def rotates(disk: Disk) -> Intent:
    """Directories and a file pass their names round."""
    a, b, top = disk.node("a"), disk.node("b"), disk.node("top")
    return disk.intend(
        [
            Change(a, replace(a, name="b")),
            Change(b, replace(b, name="top")),
            Change(top, replace(top, name="a")),
        ]
    )


def inverts(disk: Disk) -> Intent:
    """b/sub becomes sub/b."""
    b, sub = disk.node("b"), disk.node("b/sub")
    return disk.intend(
        [Change(b, replace(b, parent_id=sub.node_id)), Change(sub, replace(sub, parent_id=ROOT))]
    )


def takes_the_name_above(disk: Disk) -> Intent:
    """One directory takes the name of another, which goes into it, beside a new `sub`: the other has a `sub` as well."""
    a, b = disk.node("a"), disk.node("b")
    changes = [
        Change(a, replace(a, name="b")),
        Change(b, replace(b, parent_id=a.node_id, name="new")),
        Change(None, file_at(a.node_id, "sub", "fresh")),
    ]
    return disk.intend(changes, {NEW[0]: "fresh"})


def makes_another_in_the_place(disk: Disk) -> Intent:
    """A directory moves, and a new one gets its name, with a file in it that has the name of one in the old one."""
    a = disk.node("a")
    changes = [
        Change(a, replace(a, name="x")),
        Change(None, directory_at(ROOT, "a", NEW[1])),
        Change(None, file_at(NEW[1], "one", "fresh")),
    ]
    return disk.intend(changes, {NEW[0]: "fresh"})


def leaves_its_name(disk: Disk) -> Intent:
    """A file moves into a directory, and a new one gets its name."""
    top, a = disk.node("top"), disk.node("a")
    moved = replace(top, parent_id=a.node_id, name="moved")
    return disk.intend([Change(None, file_at(ROOT, "top", "fresh")), Change(top, moved)], {NEW[0]: "fresh"})


def empties(disk: Disk) -> Intent:
    """The only thing in a directory moves out, and the directory goes."""
    three, sub = disk.node("b/sub/three"), disk.node("b/sub")
    return disk.intend([Change(sub, None), Change(three, replace(three, parent_id=ROOT))])


def takes_over(disk: Disk) -> Intent:
    """A file gets the name of one that goes, and other content on the way."""
    one, top = disk.node("a/one"), disk.node("top")
    moved = replace(rewritten(one, "moved"), parent_id=ROOT, name="top")
    return disk.intend([Change(top, None), Change(one, moved)], {one.node_id: "moved"})


def changes_kind(disk: Disk) -> Intent:
    """A directory gives way to a file of its name, and a file to a directory."""
    gone = [Change(disk.node(path), None) for path in ("a", "a/one", "a/two", "top")]
    file, directory = file_at(ROOT, "a", "a file"), directory_at(ROOT, "top", NEW[1])
    return disk.intend([*gone, Change(None, file), Change(None, directory)], {file.node_id: "a file"})


def replaces_directories(disk: Disk) -> Intent:
    """A directory gives way to another one of its name, with something else in it."""
    gone = [Change(disk.node(path), None) for path in ("a", "a/one", "a/two")]
    directory, file = directory_at(ROOT, "a", NEW[1]), file_at(NEW[1], "one", "another")
    return disk.intend([*gone, Change(None, directory), Change(None, file)], {file.node_id: "another"})


def sets_attributes(disk: Disk) -> Intent:
    """Modes and times."""
    top, a = disk.node("top"), disk.node("a")
    return disk.intend([Change(top, replace(top, mode=0o600, mtime_ns=7)), Change(a, replace(a, mode=0o700))])


def fills_and_closes(disk: Disk) -> Intent:
    """A directory gets another mode, and a new file in it."""
    a = disk.node("a")
    changes = [Change(a, replace(a, mode=0o700)), Change(None, file_at(a.node_id, "new", "fresh"))]
    return disk.intend(changes, {NEW[0]: "fresh"})


SCENARIOS = [
    creates, replaces, deletes, swaps, rotates, inverts, empties, takes_over, changes_kind,
    replaces_directories, sets_attributes, takes_the_name_above, makes_another_in_the_place,
    leaves_its_name, fills_and_closes,
]  # fmt: skip

OLD = {
    "a": "/", "a/one": "old a/one", "a/two": "old a/two", "b": "/", "b/sub": "/", "b/sub/three": "old b/sub/three",
    "top": "old top", "link": "-> top",
}  # fmt: skip


def without(*paths: str, **new: str) -> dict[str, str]:
    """What stood before, without some paths and with others. `__` stands for a slash."""
    kept = {path: content for path, content in OLD.items() if path not in paths}
    return {**kept, **{path.replace("__", "/"): content for path, content in new.items()}}


EXPECTED: dict[Scenario, dict[str, str]] = {
    creates: without(new="/", new__file="fresh", new__link="-> file"),
    replaces: without(top="new top", link="-> a"),
    deletes: without("a", "a/one", "a/two", "top", "link"),
    swaps: without(a__one="old a/two", a__two="old a/one"),
    rotates: {
        "a": "old top", "b": "/", "b/one": "old a/one", "b/two": "old a/two", "link": "-> top",
        "top": "/", "top/sub": "/", "top/sub/three": "old b/sub/three",
    },
    inverts: without("b", "b/sub", "b/sub/three", sub="/", sub__b="/", sub__three="old b/sub/three"),
    empties: without("b/sub", "b/sub/three", three="old b/sub/three"),
    takes_over: without("a/one", top="moved"),
    changes_kind: without("a/one", "a/two", a="a file", top="/"),
    replaces_directories: without("a/two", a__one="another"),
    sets_attributes: OLD,
    makes_another_in_the_place: without("a/two", a__one="fresh", x="/", x__one="old a/one", x__two="old a/two"),
    leaves_its_name: without(top="fresh", a__moved="old top"),
    fills_and_closes: without(a__new="fresh"),
    takes_the_name_above: {
        "b": "/", "b/one": "old a/one", "b/two": "old a/two", "b/sub": "fresh",
        "b/new": "/", "b/new/sub": "/", "b/new/sub/three": "old b/sub/three", "top": "old top", "link": "-> top",
    },
}  # fmt: skip


def is_clean(disk: Disk) -> bool:
    """Whether a look after the placing finds nothing that differs from what it noted."""
    sight = disk.look()
    return not sight.local


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_kind_of_step(disk: Disk, scenario: Scenario, exchanges: bool, monkeypatch) -> None:
    if not exchanges:
        monkeypatch.setattr(filesystem, "_rename_at", lambda *arguments: False)
    intent = scenario(disk)
    assert place.check(disk.root, intent) == set()
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert disk.contents() == EXPECTED[scenario]
    assert disk.stage() == []
    assert (outcome.look_again, outcome.late, outcome.lingering, outcome.stayed) == (set(), 0, {}, set())
    assert len(outcome.placed) == len(intent.steps)
    assert is_clean(disk)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_between_any_two_calls(tmp_path: Path, scenario: Scenario, exchanges: bool) -> None:
    """After the restart all is done: nothing is lost, doubled or left in the stage."""
    at, crashed = 0, True
    while crashed:
        at += 1
        for after in (False, True):
            crashed = crash(tmp_path / f"{at}-{after}", scenario, exchanges, at, after)
    assert at > len(EXPECTED[scenario]) // 8


def crash(base: Path, scenario: Scenario, exchanges: bool, at: int, after: bool) -> bool:
    """Stop at one call, start again, look. False when there are fewer calls."""
    base.mkdir()
    disk = prepared(base)
    intent = scenario(disk)
    crashed = False
    with pytest.MonkeyPatch.context() as patch:
        if not exchanges:
            patch.setattr(filesystem, "_rename_at", lambda *arguments: False)
        with pytest.MonkeyPatch.context() as faulty:
            Faults(faulty, at, after)
            try:
                disk.carry_out(intent)
            except Crash:
                crashed = True
        disk.reopen()
        outcome = disk.carry_out(intent)
        disk.settle(intent, outcome)
        returned = place.sweep(disk.root, outcome.lingering, "recovered", "laptop", DATE)
    where = f"{scenario.__name__} at {at} {after}"
    assert returned == [], where
    assert disk.contents() == EXPECTED[scenario], where
    assert disk.stage() == [], where
    assert len(outcome.placed) == len(intent.steps), where
    assert is_clean(disk), where
    disk.root.close()
    return crashed


# --- people are faster


def between(monkeypatch, call: str, act: Callable[[], object], when: Callable[..., bool]) -> None:
    """Do something right before the first such call of the root."""
    original = getattr(Root, call)
    done: list[bool] = []

    def wrapped(root: Root, *arguments: str) -> object:
        if not done and when(*arguments):
            done.append(True)
            act()
        return original(root, *arguments)

    monkeypatch.setattr(Root, call, wrapped)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
@pytest.mark.parametrize("anew", [True, False], ids=["saved anew", "written in place"])
def test_an_edit_right_before_the_replacing_is_kept_beside(
    disk: Disk, monkeypatch, anew: bool, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(filesystem, "_rename_at", lambda *arguments: False)
    intent = replaces(disk)

    def edit() -> None:
        if anew:
            disk.write("top~", "late", mtime_ns=9)
            disk.rename("top~", "top")
        else:
            disk.write("top", "late", mtime_ns=9)

    between(monkeypatch, "exchange", edit, lambda one, other: other == "top")
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert outcome.late == 1
    assert disk.contents() == {**EXPECTED[replaces], f"top {COPY}": "late"}
    assert disk.stage() == []


def test_an_edit_of_the_same_size_right_before_modes_and_times_are_set_is_not_hidden_by_them(
    disk: Disk, monkeypatch
) -> None:
    intent = sets_attributes(disk)
    edit = "new top"
    assert len(edit) == len("old top")
    between(monkeypatch, "look", lambda: disk.write("top", edit, mtime_ns=9), lambda path: path == "top")
    outcome = disk.carry_out(intent)
    assert disk.id_at("top") not in outcome.placed
    assert outcome.look_again == {""}
    assert (disk.path / "top").stat().st_mtime_ns == 9


def test_what_was_taken_away_comes_back_beside_what_has_come_to_its_name(disk: Disk, monkeypatch) -> None:
    monkeypatch.setattr(filesystem, "_rename_at", lambda *arguments: False)
    intent = replaces(disk)
    between(
        monkeypatch,
        "rename",
        lambda: disk.write("top", "late", mtime_ns=9),
        lambda source, target: source.endswith(".in") and target == "top",
    )
    outcome = disk.carry_out(intent)
    assert disk.id_at("top") not in outcome.placed
    assert outcome.look_again == {""}
    assert disk.contents() == without(top="late", link="-> a") | {f"top {COPY}": "old top"}
    assert disk.stage() == [f"{disk.id_at('top').hex}.in"]  # who staged it throws it away


def test_an_edit_right_before_the_deleting_stays(disk: Disk, monkeypatch) -> None:
    intent = deletes(disk)
    between(
        monkeypatch,
        "rename",
        lambda: disk.write("a/one", "late", mtime_ns=9),
        lambda source, target: source == "a/one",
    )
    outcome = disk.carry_out(intent)
    assert disk.contents() == {
        "a": "/",
        "a/one": "late",
        "b": "/",
        "b/sub": "/",
        "b/sub/three": "old b/sub/three",
    }
    assert outcome.stayed == {disk.id_at("a")}
    assert disk.id_at("a/one") not in outcome.placed
    assert outcome.look_again == {"a"}
    assert disk.stage() == []


def test_an_edit_of_what_was_just_placed_is_seen_later(disk: Disk, monkeypatch) -> None:
    """It is written to the new inode: how the file looks then is not how it was placed."""
    intent = replaces(disk)
    between(monkeypatch, "look", lambda: disk.write("top", "upon new", mtime_ns=9), _only_when_placed(disk))
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert disk.contents()["top"] == "upon new"
    seen = disk.look().local[disk.id_at("top")]
    assert seen is not None
    assert seen.digest == b""
    assert outcome.look_again == {""}


def _only_when_placed(disk: Disk) -> Callable[[str], bool]:
    return lambda path: path == "top" and (disk.path / "top").read_text() == "new top"


def test_an_edit_while_the_machine_was_down_is_seen_later(disk: Disk, monkeypatch) -> None:
    """All was done but the noting of it; before the restart somebody writes to what was placed."""
    intent = replaces(disk)
    disk.carry_out(intent)
    disk.write("top", "upon new", mtime_ns=9)
    disk.reopen()
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    seen = disk.look().local[disk.id_at("top")]
    assert seen is not None
    assert seen.digest == b""


def test_a_file_that_appears_at_a_new_name_is_left_alone(disk: Disk, monkeypatch) -> None:
    file = file_at(ROOT, "fresh", "from elsewhere")
    intent = disk.intend([Change(None, file)], {file.node_id: "from elsewhere"})
    disk.write("fresh", "mine")
    assert place.check(disk.root, intent) == {""}
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert disk.contents()["fresh"] == "mine"
    assert outcome.placed == {}
    assert outcome.look_again == {""}
    assert disk.stage() == []


def test_children_do_not_go_into_a_directory_that_is_not_theirs(disk: Disk, monkeypatch) -> None:
    """What is in a deleted directory keeps it, and a new one of its name waits for the next plan."""
    intent = replaces_directories(disk)
    disk.write("a/unsynced", "stays")
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert disk.contents()["a/unsynced"] == "stays"
    assert "a/one" not in disk.contents()
    assert outcome.stayed == {disk.id_at("a")}
    assert disk.stage() == []


def test_nothing_is_followed_out_of_the_folder(disk: Disk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_text("outside")
    (outside / "two").write_text("outside")
    intent = deletes(disk)
    disk.rename("a", "was a")
    (disk.path / "a").symlink_to(outside)
    assert place.check(disk.root, intent) != set()
    disk.carry_out(intent)
    assert sorted(os.listdir(outside)) == ["one", "two"]
    assert disk.contents()["was a/one"] == "old a/one"


def test_no_file_is_put_through_a_link(disk: Disk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    file = file_at(disk.id_at("b"), "fresh", "secret")
    intent = disk.intend([Change(None, file)], {file.node_id: "secret"})
    disk.rename("b", "was b")
    (disk.path / "b").symlink_to(outside)
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert os.listdir(outside) == []
    assert outcome.placed == {}
    assert disk.stage() == []


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "only reads"])
def test_a_file_that_is_open_for_writing_lingers(disk: Disk, writes: bool) -> None:
    intent = replaces(disk)
    with (disk.path / "top").open("ab" if writes else "rb"):
        outcome = disk.carry_out(intent)
    assert disk.contents() == EXPECTED[replaces]
    assert len(outcome.lingering) == writes
    assert [(disk.path / stage).read_text() for stage in outcome.lingering] == ["old top"] * writes


def test_a_file_of_which_nobody_can_tell_whether_it_is_open_lingers(disk: Disk, monkeypatch) -> None:
    """No leases on this file system, or not for this person: a program may write to it yet."""
    monkeypatch.setattr(Root, "is_open_for_writing", lambda self, path: None)
    intent = replaces(disk)
    outcome = disk.carry_out(intent)
    assert disk.contents() == EXPECTED[replaces]
    kept = [
        (disk.path / stage).read_text() for stage in outcome.lingering if not (disk.path / stage).is_symlink()
    ]
    assert kept == ["old top"]


def test_what_a_crash_leaves_in_the_stage_is_swept(disk: Disk) -> None:
    """Half-fetched content goes, a person's own comes back, what lingers stays."""
    for name in ("1.in", "2.out", "3.move", "4.out.17.open", "5.out.18.open"):
        disk.write(f".hutch/stage/{name}", name)
    keep = ".hutch/stage/5.out.18.open"
    returned = place.sweep(disk.root, [keep], "recovered", "laptop", DATE)
    assert sorted(disk.contents()[path] for path in returned) == ["2.out", "3.move", "4.out.17.open"]
    assert disk.stage() == ["5.out.18.open"]


def test_a_read_only_directory_is_opened_for_a_moment(disk: Disk, monkeypatch) -> None:
    """As one who is not root would meet it."""
    intent = deletes(disk)
    (disk.path / "a").chmod(0o555)
    original = Root.rename

    def guarded(root: Root, source: str, target: str) -> None:
        if source.startswith("a/") and not (disk.path / "a").stat().st_mode & 0o200:
            raise PermissionError(13, "Permission denied")
        original(root, source, target)

    monkeypatch.setattr(Root, "rename", guarded)
    outcome = disk.carry_out(intent)
    assert outcome.look_again == set()
    assert disk.contents() == EXPECTED[deletes]


def test_a_directory_that_takes_nothing_is_told(disk: Disk, monkeypatch) -> None:
    intent = deletes(disk)
    before = disk.contents()
    original = Root.rename

    def refuse(root: Root, source: str, target: str) -> None:
        if source.startswith("a/"):
            raise PermissionError(13, "Permission denied")
        original(root, source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "rename", refuse)
        outcome = disk.carry_out(intent)
    assert outcome.refused is not None
    directory, reason = outcome.refused
    assert directory.partition("/")[0] == "a"
    assert reason == "Permission denied"
    assert {path for path in before if path.startswith("a/")} <= disk.contents().keys()


def test_a_full_disk_stops_all_and_is_tried_again(disk: Disk, monkeypatch) -> None:
    intent = creates(disk)
    with pytest.MonkeyPatch.context() as patch:

        def full(root: Root, path: str, mode: int = 0o700) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Root, "make_directory", full)
        with pytest.raises(OSError, match="No space"):
            disk.carry_out(intent)
    outcome = disk.carry_out(intent)
    disk.settle(intent, outcome)
    assert disk.contents() == EXPECTED[creates]
    assert is_clean(disk)


@pytest.mark.parametrize("is_new", [True, False])
def test_what_was_staged_anew_meanwhile_is_not_put_in_place_half_written(disk: Disk, is_new: bool) -> None:
    top = disk.node("top")
    after = file_at(ROOT, "fresh", "whole") if is_new else rewritten(top, "whole")
    intent = disk.intend([Change(None if is_new else top, after)], {after.node_id: "whole"})
    stage = disk.path / f".hutch/stage/{after.node_id.hex}.in"
    stage.rename(stage.with_suffix(".aside"))
    stage.write_bytes(bytes(5))
    outcome = disk.carry_out(intent)
    assert outcome.placed == {}
    assert disk.contents().get("fresh") is None
    assert disk.contents()["top"] == "old top"


# --- extended attributes


def tags(**values: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple((f"user.{name}", value) for name, value in sorted(values.items()))


def tagged(base: Path) -> Disk:
    """The same folder, with extended attributes on some of it."""
    disk = prepared(base)
    try:
        for path in ("a", "top", "a/two"):
            disk.tag(path, old=b"1", kept=b"2", changed=b"3")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has none: {error}")
    disk.look()
    return disk


AFTER = tags(changed=b"4", kept=b"2", new=b"5")


def tags_all(disk: Disk) -> Intent:
    """A file in its place, one that moves and gets another mode, a directory, a new directory, new content, and none left."""
    a, top, two, one = (disk.node(path) for path in ("a", "top", "a/two", "a/one"))
    made, file = replace(directory_at(ROOT, "made", NEW[1]), xattrs=AFTER), rewritten(one, "fresh")
    changes = [
        Change(a, replace(a, xattrs=AFTER)),
        Change(top, replace(top, xattrs=())),
        Change(two, replace(two, parent_id=ROOT, name="moved", mode=0o444, xattrs=AFTER)),
        Change(None, made),
        Change(one, replace(file, name="other", xattrs=tags(alone=b"6"))),
    ]
    return disk.intend(changes, {file.node_id: "fresh"})


TAGGED = {"a": AFTER, "top": (), "moved": AFTER, "made": AFTER, "a/other": tags(alone=b"6")}


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
def test_extended_attributes_are_set_whatever_call_a_crash_comes_at(tmp_path: Path, exchanges: bool) -> None:
    at, crashed = 0, True
    while crashed:
        for after in (False, True):
            base = tmp_path / f"{at}-{after}"
            base.mkdir()
            disk = tagged(base)
            intent = tags_all(disk)
            with pytest.MonkeyPatch.context() as patch:
                if not exchanges:
                    patch.setattr(filesystem, "_rename_at", lambda *arguments: False)
                with pytest.MonkeyPatch.context() as faulty:
                    Faults(faulty, at, after)
                    try:
                        disk.carry_out(intent)
                        crashed = at == 0
                    except Crash:
                        crashed = True
                disk.reopen()
                outcome = disk.carry_out(intent)
            disk.settle(intent, outcome)
            assert {path: disk.tags(path) for path in TAGGED} == TAGGED
            assert outcome.disputed == set()
            assert all(lacking == () for lacking in outcome.lacking.values())
            assert (disk.path / "moved").stat().st_mode & 0o777 == 0o444
            assert is_clean(disk)
        at += 1
    assert at > 12


def test_extended_attributes_that_somebody_has_just_changed_are_left_and_looked_at(tmp_path: Path) -> None:
    disk = tagged(tmp_path)
    a, top = disk.node("a"), disk.node("top")
    intent = disk.intend([Change(node, replace(node, xattrs=AFTER)) for node in (a, top)])
    disk.tag("a", changed=b"late")
    disk.tag("top", kept=b"late", more=b"late")
    outcome = disk.carry_out(intent)
    assert (outcome.disputed, set(outcome.placed), outcome.look_again) == ({a.node_id}, {top.node_id}, {""})
    assert disk.tags("a") == tags(changed=b"late", kept=b"2", old=b"1")
    assert disk.tags("top") == tags(changed=b"4", kept=b"late", more=b"late", new=b"5")


def test_extended_attributes_that_the_disk_does_not_take_count_as_placed(tmp_path: Path, monkeypatch) -> None:
    disk = tagged(tmp_path)
    top = disk.node("top")

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "not here")

    intent = disk.intend([Change(top, replace(top, xattrs=AFTER))])
    for name in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.setattr(os, name, refuse)
    outcome = disk.carry_out(intent)
    assert outcome.lacking == {top.node_id: ("user.changed", "user.new")}
    assert set(outcome.placed) == {top.node_id}
