"""Names that are not allowed: refused by the service, whoever asks; reported and left alone by the agent."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.messages import encode
from broker.model import ROOT, ConflictCode, MakeSymlink, Move
from tests.bad_input.wire import DeadLetters, Wire, a_directory
from tests.machines.stack import Device, Service, wait_for

BAD_NAMES = {
    "none": "",
    "itself": ".",
    "the parent": "..",
    "a slash": "a/b",
    "an absolute path": "/etc/passwd",
    "a way out": "../../outside",
    "NUL": "a\0b",
    "256 bytes": "x" * 256,
    "256 bytes in 128 characters": "é" * 128,
    "our own": ".hutch",
    "our own in capitals": ".HUTCH",
    "our own with an invisible character": ".hut\u200bch",
    "our own with a dot behind": ".hutch.",
    "our own in wide letters": ".ｈｕｔｃｈ",
}
BAD_TARGETS = {"none": "", "NUL": "a\0b", "4,096 bytes": "x" * 4096}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
async def test_the_service_refuses_a_bad_name(wire: Wire, name: str):
    assert await wire.commit(a_directory(name)) is ConflictCode.BAD_NAME
    await wire.commit_good()


async def test_the_service_refuses_a_move_to_a_bad_name(wire: Wire):
    made = a_directory("to be moved")
    assert await wire.commit(made) is None
    version = wire.cursor.seq
    for name in BAD_NAMES.values():
        move = Move(node_id=made.node_id, base_version=version, parent_id=ROOT, name=name)
        assert await wire.commit(move) is ConflictCode.BAD_NAME


@pytest.mark.parametrize("target", BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
async def test_the_service_refuses_a_bad_link(wire: Wire, target: str):
    made = MakeSymlink(node_id=uuid4(), parent_id=ROOT, name="link", target=target, mtime_ns=0)
    assert await wire.commit(made) is ConflictCode.BAD_NAME


async def test_one_bad_name_refuses_the_whole_commit(wire: Wire):
    good, bad = a_directory("innocent"), a_directory("..")
    assert await wire.commit(good, bad) is ConflictCode.BAD_NAME
    assert await wire.commit(good) is None, "nothing of the first may have been done"


async def test_a_name_that_is_no_utf8_never_reaches_the_journal(wire: Wire, dead: DeadLetters):
    body = encode(wire.request(a_directory("caf!"))).replace(b"caf!", b"caf\xe9")
    await wire.publish(body)
    assert await dead.reason(body, of=wire.device_id) == "corrupt"
    assert await wire.commit(a_directory("café")) is None


# --- on a device's disk


def make_bad_things(folder: Path) -> dict[str, str]:
    """Put all that cannot be synced into a folder. Returns the paths as they are shown, with the codes expected."""
    raw = os.fsencode(folder)
    for name in (b"caf\xe9.txt", b"\xff\xfe"):
        with open(raw + b"/" + name, "w") as file:
            file.write("This name is no UTF-8.\n")
    os.mkdir(raw + b"/d\xedr")
    (Path(os.fsdecode(raw + b"/d\xedr")) / "below.txt").write_text("My folder's name is none.\n")
    for folds in (".HUTCH", "sub/.hutch", ".hutch."):
        (folder / folds).mkdir(parents=True)
        (folder / folds / "inside.txt").write_text("Not Hutch's own.\n")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path is short
        one.bind("socket")
        os.chdir(here)
    os.symlink(b"\xe9", raw + b"/to nowhere")
    expected = {
        "caf\\udce9.txt": "bad_name",
        "\\udcff\\udcfe": "bad_name",
        "d\\udcedr": "bad_name",
        ".HUTCH": "bad_name",
        "sub/.hutch": "bad_name",
        ".hutch.": "bad_name",
        "pipe": "special",
        "socket": "special",
        "to nowhere": "bad_name",
    }
    if os.geteuid() == 0 and make_device(folder / "device"):
        expected["device"] = "special"
    return expected


def make_device(path: Path) -> bool:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:  # root of a container
        return False
    return True


def names(folder: Path) -> set[str]:
    """All paths in a folder but Hutch's own."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] != ".hutch"
    }


def test_the_agent_reports_them_and_syncs_the_rest(
    service: Service, email: str, devices: Callable[[str], Device]
):
    one, two = devices("one"), devices("two")
    expected = make_bad_things(one.folder)
    good = {
        "plain.txt",
        "line\nbreak.txt",
        "x" * 255,
        "sub",
        "sub/good.txt",
        "back\\slash",
        "café",
        ".hutchinson",
    }
    for name in good - {"sub"}:
        (one.folder / name).write_text("All of this is allowed.\n")
    for device in (one, two):
        device.join(service, email)
        device.start()
    one.do("wait", "--timeout", "60")
    two.do("wait", "--timeout", "60")
    assert names(two.folder) == good
    assert one.errors() == expected
    assert one.status()["state"] == "idle"
    shown = one.do("status").out
    assert all(path in shown for path in expected)
    assert "\udce9" not in shown

    # Nothing of it was touched, and what gets a good name is synced at last.
    assert (one.folder / ".HUTCH" / "inside.txt").exists()
    os.rename(os.fsencode(one.folder) + b"/d\xedr", one.folder / "dir")
    (one.folder / "pipe").unlink()
    wait_for(lambda: (two.folder / "dir" / "below.txt").exists(), "the renamed folder arrives", two)
    one.do("wait", "--timeout", "60")
    gone = {"d\\udcedr", "pipe"}
    assert one.errors() == {path: code for path, code in expected.items() if path not in gone}

    # From a good name to a bad one it is reported too, and still there.
    os.rename(one.folder / "plain.txt", os.fsencode(one.folder) + b"/pl\xe4in.txt")
    wait_for(lambda: one.errors().get("pl\\udce4in.txt") == "bad_name", "the new name is reported", one)
    assert os.path.exists(os.fsencode(one.folder) + b"/pl\xe4in.txt")
    assert (one.stop(), two.stop()) == (0, 0)


async def test_a_journal_that_was_tampered_with_reaches_nothing_outside_the_folder(
    service: Service, email: str, devices: Callable[[str], Device], tmp_path: Path
):
    one, two = devices("one"), devices("two")
    (one.folder / "harmless").write_text("Mine.\n")
    (one.folder / "other.txt").write_text("Good.\n")
    one.join(service, email)
    one.do("sync", "--timeout", "60")
    database = await asyncpg.connect(service.told["postgres_dsn"])
    try:
        query = "UPDATE nodes SET name = $1 WHERE name = 'harmless' AND workspace_id = $2"
        changed = await database.execute(query, "../outside", UUID(workspace_of(one)))
        assert changed == "UPDATE 1"
    finally:
        await database.close()
    two.join(service, email)
    two.start()
    wait_for(lambda: two.errors() == {"": "corrupt"}, "it is reported", two)
    assert not (two.root / "outside").exists()
    assert names(two.folder) <= {"other.txt"}
    assert two.stop() == 0


def workspace_of(device: Device) -> str:
    """The id of a device's one workspace."""
    (workspace,) = device.status()["workspaces"]
    return str(workspace["workspace_id"])
