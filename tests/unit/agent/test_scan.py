"""Looking at real folders: which node each thing is, what has gone, and what is only out of sight."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from agent import scan as room
from agent.filesystem import Root
from agent.index import Prints
from agent.scan import Marks, RootGone, Sight
from agent.trees import UNHASHED, replace
from broker.model import Kind
from tests.unit.agent.disk import Disk

DEEP = 1_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """a/ with one and two; b/ with sub/ with three; top."""
    made = Disk(tmp_path)
    for path in ("a/one", "a/two", "b/sub/three", "top"):
        made.write(path, f"old {path}")
    made.look()
    yield made
    made.root.close()


def paths(disk: Disk) -> dict[str, int]:
    """All known paths, by the number of their node."""
    found = {disk.tree.path(node_id): node_id.int for node_id in disk.tree.nodes}
    assert None not in found
    return {str(path): number for path, number in found.items()}


def codes(sight: Sight) -> dict[str, str]:
    """What is wrong with which path, as it is shown."""
    return {problem.path: problem.code for problem in sight.problems.values()}


def test_a_second_look_sees_nothing_new_and_reads_no_file(disk: Disk, monkeypatch) -> None:
    monkeypatch.setattr(Root, "open", lambda *arguments: pytest.fail("a look reads no contents"))
    sight = disk.look()
    assert (sight.local, sight.prints, sight.problems) == ({}, {}, {})


def test_the_first_look_sees_all_with_its_attributes(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.write("d/f", "12345", mtime_ns=1_234_567_890_123, mode=0o640)
    (disk.path / "d/l").symlink_to("../outside")
    (disk.path / "d").chmod(0o750)
    sight = disk.look()
    nodes = {disk.tree.path(node_id): node for node_id, node in disk.tree.nodes.items()}
    assert {path: (n.kind, n.mode, n.mtime_ns, n.size, n.target) for path, n in nodes.items()} == {
        "d": (Kind.DIRECTORY, 0o750, 0, 0, ""),
        "d/f": (Kind.FILE, 0o640, 1_234_567_890_123, 5, ""),
        "d/l": (Kind.SYMLINK, 0, nodes["d/l"].mtime_ns, 0, "../outside"),
    }
    unread = [node for node in sight.local.values() if node is not None and node.kind is Kind.FILE]
    assert [node.digest for node in unread] == [UNHASHED]


# --- who is who


def changed(disk: Disk) -> dict[str, int]:
    """Look again; which number each path has, where that is new."""
    before = paths(disk)
    disk.look()
    return {path: number for path, number in paths(disk).items() if before.get(path) != number}


def gone(disk: Disk, before: dict[str, int]) -> set[str]:
    """Which paths of nodes are not known any more."""
    left = set(paths(disk).values())
    return {path for path, number in before.items() if number not in left}


def test_a_written_file_is_unread_again(disk: Disk) -> None:
    disk.write("top", "newer", mtime_ns=9)
    sight = disk.look()
    node = sight.local[disk.id_at("top")]
    assert node is not None
    assert (node.digest, node.size, node.mtime_ns) == (UNHASHED, 5, 9)
    assert len(sight.local) == 1


def test_same_size_and_same_time_is_still_seen(disk: Disk) -> None:
    disk.write("top", "OLD TOP")
    (node,) = disk.look().local.values()
    assert node is not None
    assert node.digest == UNHASHED


def test_a_change_of_mode_alone_comes_with_the_mode(disk: Disk) -> None:
    (disk.path / "top").chmod(0o600)
    (node,) = disk.look().local.values()
    assert node is not None
    assert node.mode == 0o600


def test_a_file_saved_by_renaming_keeps_its_node(disk: Disk) -> None:
    number = paths(disk)["top"]
    disk.write("top~", "newer")
    disk.rename("top~", "top")
    assert changed(disk) == {}
    assert paths(disk)["top"] == number


def test_a_backup_moved_aside_is_the_new_file(disk: Disk) -> None:
    """Mv f f~, then a new f: people go on in f."""
    before = paths(disk)
    disk.rename("top", "top~")
    disk.write("top", "newer")
    new = changed(disk)
    assert set(new) == {"top~"}
    assert new["top~"] not in before.values()


def test_a_moved_file_keeps_its_node(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("top", "a/moved")
    assert changed(disk) == {"a/moved": before["top"]}
    assert gone(disk, before) == set()


def test_a_moved_and_written_file_keeps_its_node(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("top", "a/moved")
    disk.write("a/moved", "newer", mtime_ns=9)
    assert changed(disk) == {"a/moved": before["top"]}


def test_swapped_files_keep_their_nodes(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("a/one", "x")
    disk.rename("top", "a/one")
    disk.rename("x", "top")
    assert changed(disk) == {"top": before["a/one"], "a/one": before["top"]}


def test_rotated_names_of_directories_and_files_keep_their_nodes(disk: Disk) -> None:
    before = paths(disk)
    for source, target in (("a", "x"), ("b", "a"), ("top", "b"), ("x", "top")):
        disk.rename(source, target)
    changed(disk)
    after = paths(disk)
    assert after == {
        "a": before["b"], "a/sub": before["b/sub"], "a/sub/three": before["b/sub/three"],
        "b": before["top"], "top": before["a"], "top/one": before["a/one"], "top/two": before["a/two"],
    }  # fmt: skip


def test_a_directory_that_moves_into_its_child_keeps_both(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("b/sub", "sub")
    disk.rename("b", "sub/b")
    disk.look()
    after = paths(disk)
    assert (after["sub"], after["sub/b"], after["sub/three"]) == (
        before["b/sub"],
        before["b"],
        before["b/sub/three"],
    )


def test_a_moved_directory_with_changes_inside_is_one_move(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("b", "c")
    disk.write("c/sub/three", "newer", mtime_ns=9)
    disk.write("c/sub/four", "new")
    (disk.path / "c/empty").mkdir()
    new = changed(disk)
    assert {path: new[path] for path in ("c", "c/sub", "c/sub/three")} == {
        "c": before["b"], "c/sub": before["b/sub"], "c/sub/three": before["b/sub/three"],
    }  # fmt: skip
    assert gone(disk, before) == set()


def test_a_hard_link_is_another_node(disk: Disk) -> None:
    before = paths(disk)
    os.link(disk.path / "top", disk.path / "a/linked")
    new = changed(disk)
    assert set(new) == {"a/linked"}
    assert new["a/linked"] not in before.values()
    assert changed(disk) == {}


def test_one_name_of_a_hard_link_goes_and_the_other_stays(disk: Disk) -> None:
    os.link(disk.path / "top", disk.path / "a/linked")
    disk.look()
    before = paths(disk)
    (disk.path / "top").unlink()
    disk.look()
    assert paths(disk)["a/linked"] == before["a/linked"]
    assert "top" not in paths(disk)


def test_a_reused_inode_is_no_move(disk: Disk, monkeypatch) -> None:
    """A new file with the inode number of one that went, told apart by when it was made."""
    node_id = disk.id_at("top")
    disk.write("new", "new")
    look = disk.root.look("new")
    assert look is not None
    if not look.birth_ns:
        pytest.fail("the tests need a file system that tells when an inode was made")
    (disk.path / "top").unlink()
    disk.prints[node_id] = type(look)(look.dev, look.ino, look.birth_ns - 1, 1, 1, 1, 0o644)
    before = paths(disk)
    new = changed(disk)
    assert set(new) == {"new"}
    assert new["new"] not in before.values()
    assert "top" not in paths(disk)


def test_a_replaced_directory_leaves_its_name_to_the_new_one(disk: Disk) -> None:
    """The old one stands elsewhere now."""
    before = paths(disk)
    disk.rename("a", "old a")
    disk.write("a/one", "another")
    new = changed(disk)
    assert (new["old a"], new["old a/one"]) == (before["a"], before["a/one"])
    assert new["a"] not in before.values()


def test_a_directory_that_is_made_again_keeps_its_node(disk: Disk) -> None:
    before = paths(disk)
    for name in ("one", "two"):
        (disk.path / "a" / name).unlink()
    (disk.path / "a").rmdir()
    disk.write("a/one", "again")
    disk.look()
    assert paths(disk) == {path: number for path, number in before.items() if path != "a/two"}


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_another_kind_under_the_name_is_another_node(disk: Disk, kind: str) -> None:
    before = paths(disk)
    disk.rename("a" if kind == "file" else "top", "../away")
    path = "a" if kind == "file" else "top"
    if kind == "file":
        disk.write(path, "a file")
    elif kind == "directory":
        (disk.path / path).mkdir()
    else:
        (disk.path / path).symlink_to("b")
    disk.look()
    assert paths(disk)[path] not in before.values()
    assert path in gone(disk, before)


def test_deleted_directories_go_with_all_below(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("b", "../away")
    disk.look()
    assert gone(disk, before) == {"b", "b/sub", "b/sub/three"}


def test_what_moves_out_of_a_deleted_directory_is_kept(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("b/sub/three", "three")
    disk.rename("b", "../away")
    disk.look()
    assert gone(disk, before) == {"b", "b/sub"}
    assert paths(disk)["three"] == before["b/sub/three"]


# --- looking at some directories only


def test_only_what_is_asked_for_is_looked_at(disk: Disk) -> None:
    before = paths(disk)
    disk.write("a/new", "new")
    disk.write("b/new", "new")
    disk.look({"a": False})
    assert set(paths(disk)) - set(before) == {"a/new"}


def test_unknown_directories_are_always_entered(disk: Disk) -> None:
    disk.write("a/deep/er/new", "new")
    disk.look({"a": False})
    assert "a/deep/er/new" in paths(disk)


def test_a_hint_into_an_unknown_directory_looks_from_the_nearest_known_one(disk: Disk) -> None:
    disk.write("a/deep/er/new", "new")
    disk.look({"a/deep/er": False})
    assert "a/deep/er/new" in paths(disk)


def test_a_move_between_two_directories_is_seen_from_its_end(disk: Disk) -> None:
    before = paths(disk)
    disk.rename("a/one", "b/one")
    disk.look({"b": False})
    assert paths(disk)["b/one"] == before["a/one"]
    assert "a/one" not in paths(disk)


# --- out of sight is not gone


def test_an_unreadable_directory_is_not_deleted(disk: Disk, monkeypatch) -> None:
    before = paths(disk)
    original = Root.directory

    def guarded(root: Root, path: str):
        if path == "b/sub":
            raise PermissionError(13, "Permission denied")
        return original(root, path)

    with monkeypatch.context() as patch:
        patch.setattr(Root, "directory", guarded)
        sight = disk.look()
    assert paths(disk) == before
    assert codes(sight) == {"b/sub": "unreadable"}
    assert disk.look().local == {}


def test_a_listing_that_breaks_off_deletes_nothing(disk: Disk, monkeypatch) -> None:
    before = paths(disk)
    real = os.scandir

    class Broken:
        def __init__(self, fd: int) -> None:
            self.entries = real(fd)

        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __iter__(self):
            yield next(self.entries)
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Broken)
        sight = disk.look()
    assert paths(disk) == before
    assert set(codes(sight).values()) == {"unreadable"}


def test_a_file_whose_look_fails_is_not_deleted(disk: Disk, monkeypatch) -> None:
    (disk.path / "link").symlink_to("x")
    disk.look()
    before = paths(disk)
    os.utime(disk.path / "link", ns=(1, 1), follow_symlinks=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", _failing)
        sight = disk.look()
    assert paths(disk) == before
    assert codes(sight) == {"link": "unreadable"}


def _failing(*arguments: object, **options: object) -> str:
    raise OSError(5, "Input/output error")


def test_one_who_is_not_root_meets_no_deletions_either(disk: Disk) -> None:
    """In a process of another user, to whom the directory is closed."""
    (disk.path / "b").chmod(0)
    script = (
        "import os, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "from pathlib import Path\n"
        "from uuid import uuid4\n"
        "from agent.filesystem import Root\n"
        "from agent.index import Prints\n"
        "from agent.scan import scan\n"
        "from agent.trees import Tree\n"
        "root = Root(Path(sys.argv[1]))\n"
        "sight = scan(root, Tree(), Prints(), {'': True}, uuid4)\n"
        "print(sorted(n.name for n in sight.local.values()), [(p.path, p.code) for p in sight.problems.values()])\n"
    )
    for parent in disk.path.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o005 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (disk.path / ".hutch").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, str(disk.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['a', 'b', 'one', 'top', 'two'] [('b', 'unreadable')]"


def in_own_mounts(body: str, folder: Path) -> str:
    """Run a script in a mount namespace of its own."""
    prelude = (
        "import ctypes, os, subprocess, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"assert libc.unshare({CLONE_NEWNS}) == 0, ctypes.get_errno()\n"
        f"assert libc.mount(b'none', b'/', None, {MS_PRIVATE_ALL}, None) == 0, ctypes.get_errno()\n"
        "from pathlib import Path\n"
        "from tests.unit.agent.disk import Disk\n"
        "folder = Path(sys.argv[1])\n"
        "def mount(path):\n"
        "    assert libc.mount(b'tmpfs', os.fsencode(path), b'tmpfs', 0, None) == 0, ctypes.get_errno()\n"
        "def paths(disk):\n"
        "    return sorted(disk.tree.path(node_id) for node_id in disk.tree.nodes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + body, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CLONE_NEWNS = 0x00020000
MS_PRIVATE_ALL = (1 << 18) | 0x4000


needs_mounts = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or ctypes.CDLL(None).unshare(0) != 0,
    reason="only root may make mount namespaces",
)


@needs_mounts
def test_a_file_system_mounted_below_is_not_crossed_and_hides_nothing_for_good(tmp_path: Path) -> None:
    said = in_own_mounts(
        "disk = Disk(folder)\n"
        "disk.write('a/one', 'one'); disk.write('top', 'top'); disk.look()\n"
        "mount(folder / 'folder/a')\n"
        "disk.write('a/foreign', 'foreign')\n"
        "sight = disk.look()\n"
        "print(sight.local, [p.code for p in sight.problems.values()], paths(disk))\n",
        tmp_path,
    )
    assert said == "{} ['mount'] ['a', 'a/one', 'top']"


@needs_mounts
def test_a_root_that_is_mounted_over_deletes_nothing(tmp_path: Path) -> None:
    said = in_own_mounts(
        "from agent.scan import RootGone\n"
        "disk = Disk(folder)\n"
        "disk.write('top', 'top'); disk.look()\n"
        "mount(folder / 'folder')\n"
        "try:\n"
        "    disk.look()\n"
        "except RootGone:\n"
        "    print('gone', paths(disk))\n",
        tmp_path,
    )
    assert said == "gone ['top']"


@pytest.mark.parametrize("how", ["away", "replaced", "marker"])
def test_a_root_that_is_gone_deletes_nothing(disk: Disk, how: str) -> None:
    if how == "marker":
        (disk.path / ".hutch/marker.json").unlink()
    else:
        disk.path.rename(disk.path.with_name("elsewhere"))
    if how == "replaced":
        (disk.path / ".hutch").mkdir(parents=True)
    with pytest.raises(RootGone):
        disk.look()


def test_a_root_that_goes_while_it_is_looked_at_deletes_nothing(disk: Disk, monkeypatch) -> None:
    original = room._Look.identify

    def late(look: room._Look) -> None:
        disk.path.rename(disk.path.with_name("elsewhere"))
        original(look)

    monkeypatch.setattr(room._Look, "identify", late)
    with pytest.raises(RootGone):
        disk.look()


def test_a_directory_that_goes_while_it_is_looked_at_is_no_error(disk: Disk, monkeypatch) -> None:
    original = Root.directory

    def late(root: Root, path: str):
        if path == "b" and (disk.path / "b").exists():
            disk.rename("b", "../away")
        return original(root, path)

    monkeypatch.setattr(Root, "directory", late)
    disk.look()
    assert "a/one" in paths(disk)
    monkeypatch.undo()
    disk.look()
    assert not any(path.startswith("b") for path in paths(disk))


# --- what is not synced


def test_pipes_sockets_and_names_that_not_all_can_have_are_told_of(disk: Disk) -> None:
    os.mkfifo(disk.path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(disk.path / "socket"))
    for name in (b"raw \xff\xfe", b".HUTCH", b".hutch ", ".hu\u200btch".encode()):
        with open(os.fsencode(disk.path) + b"/a/" + name, "wb"):
            pass
    os.symlink(b"\xff", os.fsencode(disk.path) + b"/bad target")
    sight = disk.look()
    assert codes(sight) == {
        "pipe": "special",
        "socket": "special",
        "a/raw \\udcff\\udcfe": "bad_name",
        "a/.HUTCH": "bad_name",
        "a/.hutch ": "bad_name",
        "a/.hu\\u200btch": "bad_name",
        "bad target": "bad_name",
    }
    assert sight.local == {}


def test_our_own_folder_is_ours_at_the_top_alone(disk: Disk) -> None:
    disk.write(".hutch/stage/x", "ours")
    disk.write("a/.hutch/x", "a person's, but no device can tell it apart")
    sight = disk.look()
    assert sight.local == {}
    assert codes(sight) == {"a/.hutch": "bad_name"}


def test_names_may_hold_lines_and_tabs_and_any_letters(disk: Disk) -> None:
    names = ["two\nlines", "tab\t", "\u00e9", "e\u0301", "名前", " ", "-rf", "a" * 255, "CON", "x."]
    for name in names:
        disk.write(name, name)
    assert codes(disk.look()) == {}
    assert set(names) <= set(paths(disk))


def test_a_link_is_itself_and_never_what_it_leads_to(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (disk.path / "to outside").symlink_to(tmp_path / "outside")
    (disk.path / "to itself").symlink_to("to itself")
    disk.look()
    assert {path for path in paths(disk) if path.startswith("to ")} == {"to outside", "to itself"}
    assert disk.node("to outside").kind is Kind.SYMLINK


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Disk]:
    """A thousand levels, deeper than any path that the kernel takes, with a file at the bottom."""
    disk = Disk(tmp_path)
    fd = os.open(disk.path, os.O_RDONLY)
    try:
        for _ in range(DEEP):
            os.mkdir("deeper", dir_fd=fd)
            child = os.open("deeper", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = child
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        yield disk
    finally:
        # Not for pytest to clear: its own way down has an end.
        subprocess.run(["rm", "-rf", disk.path / "deeper"], check=True, timeout=60)


def test_a_thousand_levels_deep(deep: Disk) -> None:
    sight = room.scan(deep.root, deep.tree, Prints(), {"": True}, _numbers().__next__)
    assert len(sight.local) == DEEP + 1
    deep.tree.update(sight.local)
    deep.prints.update({node_id: look for node_id, look in sight.prints.items() if look is not None})
    bottom = next(node for node in deep.tree.nodes.values() if node.kind is Kind.FILE)
    assert deep.tree.path(bottom.node_id) == "deeper/" * DEEP + "bottom"
    again = room.scan(deep.root, deep.tree, deep.prints, {"": True}, _numbers().__next__)
    assert again.local == {}


def _numbers() -> Iterator[UUID]:
    number = 0
    while True:
        number += 1
        yield UUID(int=number)


def test_what_has_gone_is_seen_to_have_gone_also_when_another_node_has_its_name(disk: Disk) -> None:
    """A person deletes a directory while its name is given to another node: the placing cannot move it any more."""
    gone, top = disk.id_at("b"), disk.node("top")
    for path in ("b/sub/three", "top"):
        (disk.path / path).unlink()
    (disk.path / "b/sub").rmdir()
    (disk.path / "b").rmdir()
    disk.write("b", "old top")
    look = disk.root.look("b")
    assert look is not None
    disk.tree.update({top.node_id: replace(top, name="b")})
    disk.prints[top.node_id] = look
    sight = disk.look()
    assert sight.local[gone] is None
    assert set(paths(disk)) == {"a", "a/one", "a/two", "b"}


# --- extended attributes


@pytest.fixture
def tagged(disk: Disk) -> Disk:
    """The same, on a disk that has extended attributes."""
    try:
        disk.tag("b", a=b"1")
    except OSError as error:
        pytest.skip(f"the directory for temporary files has none: {error}")
    disk.look()
    return disk


def xattrs_of(sight: Sight, disk: Disk) -> dict[str, object]:
    """Extended attributes of what differs, by path."""
    return {disk.tree.path(k) or "": n.xattrs for k, n in sight.local.items() if n is not None}


def test_a_directorys_extended_attributes_are_seen_when_it_has_changed(tagged: Disk) -> None:
    assert tagged.node("b").xattrs == (("user.a", b"1"),)
    tagged.tag("b", a=None, c=b"3")
    assert xattrs_of(tagged.look(), tagged) == {"b": (("user.c", b"3"),)}
    tagged.rename("b", "renamed")
    assert xattrs_of(tagged.look(), tagged) == {"renamed": (("user.c", b"3"),)}


def test_a_file_whose_extended_attributes_have_changed_is_read_again(tagged: Disk) -> None:
    tagged.tag("top", a=b"1")
    (node,) = tagged.look().local.values()
    assert node is not None
    assert (node.digest, node.xattrs) == (UNHASHED, ())
    assert tagged.node("top").xattrs == (("user.a", b"1"),)
    tagged.write("top", "newer")
    (node,) = tagged.look().local.values()
    assert node is not None
    assert (node.digest, node.xattrs) == (UNHASHED, (("user.a", b"1"),)), "as was known, until it is read"


def test_what_has_not_changed_is_asked_for_nothing(tagged: Disk, monkeypatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda *arguments: pytest.fail("nothing has changed"))
    assert tagged.look().local == {}


def test_what_was_read_too_early_is_read_again_until_it_has_rested(tagged: Disk) -> None:
    """A change within one tick of the inodes' clock does not show in the print."""
    top, b = tagged.id_at("top"), tagged.id_at("b")
    rest_s = {"b": 0.5}
    tagged.marks = Marks(
        fresh={top, b}, rest_s=lambda look: rest_s["b"] if look.ino == tagged.prints[b].ino else 0
    )
    sight = tagged.look()
    assert (sight.fresh, sight.unsettled) == ({top: False, b: True}, {"": 0.5})
    for path in ("top", "b"):
        tagged.tag(path, a=b"late")
        look = tagged.root.look(path)
        assert look is not None
        tagged.prints[tagged.id_at(path)] = look  # as if the clock had not ticked
    sight = tagged.look()
    assert xattrs_of(sight, tagged) == dict.fromkeys(("top", "b"), (("user.a", b"late"),))
    assert tagged.node("top").digest != UNHASHED, "its bytes are as they were"
    rest_s["b"] = 0.0
    assert tagged.look().fresh == {top: False, b: False}


def test_what_the_disk_has_not_taken_is_not_removed(tagged: Disk) -> None:
    b = tagged.id_at("b")
    tagged.marks = Marks(lacking={b: ("user.a",)})
    tagged.tag("b", a=None, c=b"3")
    assert xattrs_of(tagged.look(), tagged) == {"b": (("user.a", b"1"), ("user.c", b"3"))}


def test_more_than_are_synced_are_left_out_and_said_so(tagged: Disk) -> None:
    tagged.tag("b", **{f"n{number}": b"" for number in range(64)})
    sight = tagged.look()
    assert (xattrs_of(sight, tagged), sight.oversized) == ({}, {tagged.id_at("b"): True})
    assert tagged.node("b").xattrs == (("user.a", b"1"),)
    tagged.tag("b", n63=None)
    sight = tagged.look()
    assert sight.oversized == {tagged.id_at("b"): False}
    assert len(tagged.node("b").xattrs) == 64
