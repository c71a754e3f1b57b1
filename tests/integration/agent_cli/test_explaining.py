"""`hutch plan`, `hutch explain` and `hutch conflicts`, of a real device: with its agent, and without one."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import pytest
import structlog

from broker.messages import decode_entry
from tests.agents.world import World
from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.desk import Desk, serving_history

TEXT = "one\ntwo\nthree\nfour\nfive\n"
CHANGES = ("direction", "change", "path", "why")


class Two:
    """A laptop and a desktop on one workspace, with command lines."""

    def __init__(self, world: World, laptop: Desk, desktop: Desk) -> None:
        self.world = world
        self.laptop = laptop
        self.desktop = desktop

    async def cut_off(self) -> None:
        for desk in (self.laptop, self.desktop):
            desk.device.online.clear()

    async def lose(self, winner: str, loser: str) -> str:
        """Both save plan.txt, cut off from each other; the path of the desktop's copy."""
        await self.cut_off()
        for desk, text in ((self.laptop, winner), (self.desktop, loser)):
            desk.device.write("plan.txt", text)
            await desk.device.folder.looker.look_at_all()
        for desk in (self.laptop, self.desktop):
            desk.device.online.set()
            await self.world.settle(desk.device)
        await self.world.settle()
        [path] = [path for path in self.desktop.device.tree() if "conflicted copy" in path]
        return path


@pytest.fixture
async def two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Two]:
    world = await World.make(tmp_path)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving_history(world))
        desks = []
        for name in ("laptop", "desktop"):
            device = await world.device(name)
            await device.start()
            stack.push_async_callback(device.stop)
            desks.append(Desk(device, url, tmp_path, capsys))
        desks[0].device.write("plan.txt", TEXT)
        desks[0].device.write("sub/other.txt", "other")
        await world.settle()
        for desk in desks:
            await stack.enter_async_context(desk.answering())
        yield Two(world, *desks)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The agents' logs are not what a command prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


async def asked_both_ways(desk: Desk, *arguments: object) -> AsyncIterator[object]:
    """What a command prints with the agent, and then without."""
    yield (await desk(*arguments, "--json")).data
    await desk.device.stop()
    os.unlink(desk.home.socket_path)
    yield (await desk(*arguments, "--json")).data


# --- plan


async def test_a_plan_lists_what_goes_up_and_down_and_does_nothing(two: Two) -> None:
    desk = two.desktop
    desk.device.may_run.clear()
    two.laptop.device.write("sub/other.txt", "changed there")
    await two.world.settle(two.laptop.device)
    desk.device.write("new.txt", "12345")
    await desk.device.folder.looker.look_at_all()
    await two.world._until(lambda: not desk.device.folder.replica.trees.unread, [desk.device])
    before = desk.device.tree()
    rows = [
        ("up", "new", "new.txt", "new here"),
        ("down", "changed", "sub/other.txt", "changed on another device"),
    ]
    async for told in asked_both_ways(desk, "plan", desk.device.path):
        [plan] = told["workspaces"]  # type: ignore[index]
        assert [tuple(change[key] for key in CHANGES) for change in plan["changes"]] == rows
        assert (plan["up"], plan["down"]) == ({"count": 1, "size_bytes": 5}, {"count": 1, "size_bytes": 13})
    assert desk.device.tree() == before
    shown = await desk("plan")
    assert "home: 1 to send (5 B), 1 to fetch (13 B)" in shown.out
    assert "↓ changed    sub/other.txt (13 B): changed on another device" in shown.out
    assert "no agent runs" in shown.out


async def test_a_long_plan_is_cut_and_its_counts_are_not(two: Two) -> None:
    desk = two.laptop
    desk.device.may_run.clear()
    for number in range(25):
        desk.device.write(f"many/{number:02}", str(number))
    await desk.device.folder.looker.look_at_all()
    await two.world._until(lambda: not desk.device.folder.replica.trees.unread, [desk.device])
    shown = (await desk("plan")).out
    assert "home: 26 to send" in shown
    assert shown.count("↑ new") == 20
    assert "↑ and 6 more (--all lists them)" in shown
    assert "The agent is paused".lower() in shown.lower()
    [plan] = (await desk("plan", "--all", "--json")).data["workspaces"]
    assert (plan["up"]["count"], len(plan["changes"])) == (26, 26)


async def test_a_plan_is_listed_page_by_page(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = two.laptop
    desk.device.may_run.clear()
    for number in range(7):
        desk.device.write(f"many-{number}", str(number))
    await desk.device.folder.looker.look_at_all()
    monkeypatch.setattr("agent.cli.plan._PAGE", 3)
    [plan] = (await desk("plan", "--all", "--json")).data["workspaces"]
    assert [change["path"] for change in plan["changes"]] == [f"many-{number}" for number in range(7)]


async def test_a_plan_of_nothing(two: Two, tmp_path: Path) -> None:
    assert (await two.laptop("plan")).out == f"home: nothing to do\n  {two.laptop.device.path}\n"
    assert (await two.laptop("plan", tmp_path)).code == 13


async def test_a_folder_that_is_gone_hides_no_other(two: Two) -> None:
    desk = two.laptop
    await desk.device.stop()
    os.unlink(desk.home.socket_path)
    os.rename(desk.device.path, desk.device.path.with_name("elsewhere"))
    outcome = await desk("plan", "--json")
    assert outcome.code == 0
    [plan] = outcome.data["workspaces"]
    assert "cannot be opened" in plan["notes"][0]


# --- explain


async def test_a_synced_file_is_explained(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two.laptop.device.path / "sub")
    async for told in asked_both_ways(two.laptop, "explain", "../plan.txt"):
        assert isinstance(told, dict)
        assert (told["path"], told["state"], told["folder"]) == (
            "plan.txt",
            "synced",
            str(two.laptop.device.path),
        )
        assert told["version"] == told["agreed"] > 0
        entry, _ = two.world.store.journal[two.world.workspace_id][told["version"] - 1]
        taken_s = decode_entry(entry).committed_ns // 1_000_000_000
        assert datetime.fromisoformat(told["version_at"]).timestamp() == taken_s
        assert told["version_at"] == told["agreed_at"]
    shown = await two.laptop("explain", "other.txt")
    assert shown.out.startswith("sub/other.txt\n  It is synced: this device and the service have the same.\n")
    assert "from this device" in shown.out
    assert "from another device" in (await two.desktop("explain", two.desktop.path("plan.txt"))).out


async def test_states_of_a_running_device(two: Two, tmp_path: Path) -> None:
    desk = two.laptop
    folder = desk.device.path
    (folder / ".hutchignore").write_text("*.tmp\n")
    desk.device.write("a.tmp", "scratch")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("sub")
    await two.world.settle()
    desk.device.may_run.clear()
    two.desktop.device.write("coming.txt", "from there")
    (two.desktop.device.path / "plan.txt").unlink()
    await two.world.settle(two.desktop.device)
    head = two.world.head
    await two.world._until(lambda: desk.device.folder.replica.cursor == head, [desk.device])
    (folder / "sub" / "other.txt").unlink()
    await desk.device.folder.looker.look_at_all()
    for path, state in (
        ("", "folder"),
        ("a.tmp", "ignored"),
        ("pipe", "special"),
        ("link", "synced"),
        ("link/other.txt", "behind_link"),
        (".hutch/stage", "own"),
        ("coming.txt", "to_fetch"),
        ("plan.txt", "to_fetch"),
        ("sub/other.txt", "to_send"),
        ("never.txt", "absent"),
    ):
        told = (await desk("explain", folder / path, "--json")).data
        assert (told["path"], told["state"]) == (path, state), told
    told = (await desk("explain", folder / "a.tmp", "--json")).data
    assert told["rule"] == "*.tmp"


async def test_an_edit_after_the_last_agent_is_told_of(two: Two) -> None:
    desk = two.laptop
    await desk.device.stop()
    os.unlink(desk.home.socket_path)
    desk.device.write("plan.txt", "later")
    desk.device.write("new.txt", "later")
    for name in ("plan.txt", "new.txt"):
        told = (await desk("explain", desk.path(name), "--json")).data
        assert told["state"] == "unseen"
        assert any("no agent runs" in sentence.lower() for sentence in told["sentences"])


async def test_outside_of_all_folders_nothing_is_explained(two: Two, tmp_path: Path) -> None:
    outcome = await two.laptop("explain", tmp_path / "elsewhere.txt", "--json")
    assert (outcome.code, outcome.data["error"]["code"]) == (23, "wrong_folder")


async def test_the_way_to_a_folder_may_be_a_link(two: Two, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(two.laptop.device.path)
    told = (await two.laptop("explain", tmp_path / "shortcut" / "plan.txt", "--json")).data
    assert (told["path"], told["state"]) == ("plan.txt", "synced")


async def test_a_name_that_json_cannot_say(two: Two) -> None:
    told = (await two.laptop("explain", os.fsdecode(bytes(two.laptop.device.path) + b"/\xff"), "--json")).data
    assert (told["path"], told["state"]) == ("\\udcff", "bad_name")


# --- conflicts


async def test_conflict_copies_are_listed_and_shown(two: Two) -> None:
    path = await two.lose("one\ntwo\n", "one\n\x1b[31mtwo\n")
    desk = two.desktop
    async for told in asked_both_ways(desk, "conflicts"):
        assert isinstance(told, dict)
        [copy] = told["conflicts"]
        assert (copy["path"], copy["original"], copy["device"], copy["synced"]) == (
            path,
            "plan.txt",
            "desktop",
            True,
        )
    listed = await desk("conflicts", desk.device.path)
    assert f"{desk.device.path}/{path}\n" in listed.out
    shown = await desk("conflicts", "show", desk.path(path))
    assert "-two\n+\\x1b[31mtwo" in shown.out
    assert "\x1b" not in shown.out
    assert "+\x1b[31mtwo\n" in (await desk("conflicts", "show", desk.path(path), "--json")).data["diff"]
    assert (await desk("conflicts", "show", desk.path("plan.txt"))).code == 13


async def test_no_conflict_copy(two: Two) -> None:
    assert (await two.laptop("conflicts")).out == "there is no conflict copy\n"
    assert (await two.laptop("conflicts", "--json")).data == {"conflicts": []}


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ("mine", {"plan.txt": "mine"}),
        ("theirs", {"plan.txt": "theirs"}),
        ("both", {"plan.txt": "theirs", "plan 2.txt": "mine"}),
    ],
)
@pytest.mark.parametrize("is_running", [True, False])
async def test_a_side_is_kept(two: Two, choice: str, left: dict[str, str], is_running: bool) -> None:
    desk = two.desktop
    path = await two.lose("theirs", "mine")
    if not is_running:
        await desk.device.stop()
        os.unlink(desk.home.socket_path)
    outcome = await desk("conflicts", "keep", choice, desk.path(path), "--json")
    where = "plan 2.txt" if choice == "both" else "plan.txt"
    folder = str(desk.device.path)
    assert outcome.data == {"folder": folder, "kept": choice, "path": where, "copy": path}
    if not is_running:
        await desk.device.start()
    await two.world.settle()
    for each in (two.laptop, desk):
        names = [name for name, entry in each.device.tree().items() if entry[0] == "file" and "/" not in name]
        assert {name: each.device.read(name).decode() for name in names} == left
        assert each.device.stage() == []


async def test_without_its_agent_nothing_is_kept_under_anothers_hands(two: Two) -> None:
    desk = two.desktop
    path = await two.lose("theirs", "mine")
    await desk.device.stop()
    os.unlink(desk.home.socket_path)
    with desk.home.lock():
        assert (await desk("conflicts", "keep", "mine", desk.path(path))).code == 26
    desk.device.write(path, "edited since")
    assert (await desk("conflicts", "keep", "theirs", desk.path(path), "--json")).code == 11
    assert desk.device.read(path) == b"edited since"


@pytest.mark.parametrize("who", ["desktop", "laptop"])
@pytest.mark.parametrize("is_running", [True, False])
async def test_texts_are_merged_where_different_lines_changed(two: Two, who: str, is_running: bool) -> None:
    """On the device that made the copy by what that remembers, on another by the service's history."""
    path = await two.lose(TEXT.replace("one", "ONE"), TEXT.replace("five", "FIVE"))
    desk: Desk = getattr(two, who)
    if not is_running:
        await desk.device.stop()
        os.unlink(desk.home.socket_path)
    both = TEXT.replace("one", "ONE").replace("five", "FIVE").encode()
    asked = await desk("conflicts", "merge", desk.path(path), "--json")
    assert (asked.code, asked.data["merged"]) == (0, False)
    assert "-five\n+FIVE\n" in asked.data["diff"]
    assert both not in [desk.device.read(name) for name in ("plan.txt", path)]
    done = await desk("conflicts", "merge", desk.path(path), "--yes")
    assert (done.code, "+FIVE" in done.out) == (0, True)
    if not is_running:
        await desk.device.start()
    await two.world.settle()
    for each in (two.laptop, two.desktop):
        assert each.device.read("plan.txt") == both
        assert path not in each.device.tree()


async def test_where_the_same_lines_changed_nothing_is_merged(two: Two) -> None:
    path = await two.lose(TEXT.replace("two", "TWO"), TEXT.replace("two", "2"))
    before = two.desktop.device.tree()
    outcome = await two.desktop("conflicts", "merge", two.desktop.path(path), "--yes", "--json")
    assert (outcome.code, outcome.data["error"]["code"]) == (11, "overlap")
    assert "of the version before: 2)" in outcome.err
    await two.world.settle()
    assert two.desktop.device.tree() == before


async def test_what_is_no_text_is_not_merged(two: Two) -> None:
    path = await two.lose("a\0b", "c\0d")
    outcome = await two.desktop("conflicts", "merge", two.desktop.path(path), "--json")
    assert (outcome.code, outcome.data["error"]["code"]) == (11, "no_text")
    assert "not compared line by line" in (await two.desktop("conflicts", "show", two.desktop.path(path))).out


async def test_two_new_files_of_one_name_came_from_nothing(two: Two) -> None:
    await two.cut_off()
    for desk, text in ((two.laptop, "there\n"), (two.desktop, "here\n")):
        desk.device.write("fresh.txt", text)
        await desk.device.folder.looker.look_at_all()
    for desk in (two.laptop, two.desktop):
        desk.device.online.set()
        await two.world.settle(desk.device)
    await two.world.settle()
    [path] = [path for path in two.desktop.device.tree() if "conflicted copy" in path]
    for desk in (two.laptop, two.desktop):
        outcome = await desk("conflicts", "merge", desk.path(path), "--yes", "--json")
        assert (outcome.code, outcome.data["error"]["code"]) == (13, "not_found")


async def test_the_help_of_conflicts_tells_its_commands(hutch: Shell) -> None:
    shown = hutch("conflicts", "--help").out
    for command in ("keep", "list", "merge", "show"):
        assert f"  {command} " in shown
