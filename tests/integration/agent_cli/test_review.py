"""`hutch review`: what is held is shown, and accepted or undone as the person says."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from agent.cli.context import Context
from tests.integration.agent_cli.conftest import Shell
from tests.integration.agent_cli.fake_service import PASSWORD, FakeService


def hold(service: FakeService, name: str = "Documents", **fields: Any) -> dict[str, Any]:
    """Something that is held, in a workspace of that name."""
    made = {
        "hold_id": str(uuid4()),
        "workspace_id": str(service.workspaces.setdefault(name, uuid4())),
        "device_id": str(uuid4()),
        "device_name": "Desktop",
        "current": False,
        "verdict": "held",
        "held_at": "2026-11-22T10:11:12Z",
        "deleted": 61,
        "rewritten": 2,
        "to_follow": 5,
        "recent": 4,
        "deleted_paths": ["letters", "a\x1b[2Jb"],
        "rewritten_paths": ["notes.txt", "list.txt"],
        **fields,
    }
    service.holds.append(made)
    return made


@pytest.fixture
def linked(hutch: Shell, service: FakeService) -> Shell:
    assert hutch.link(service.url).code == 0
    service.passwords.clear()
    return hutch


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Has a person sit at the terminal, who answers so."""

    def sit(answers: list[str]) -> None:
        waiting = iter(answers)
        monkeypatch.setattr(Context, "interactive", property(lambda self: True))
        monkeypatch.setattr("click.prompt", lambda *_, **__: next(waiting))

    return sit


def test_nothing_is_held(linked: Shell):
    assert linked("review").out == "nothing waits for you\n"
    assert linked("review", "--json").data == {"holds": []}
    assert linked("review", "--accept").out == "nothing was decided\n"


def test_what_is_held_is_shown_and_left_alone_without_a_terminal(linked: Shell, service: FakeService):
    held = hold(service)
    outcome = linked("review")
    assert outcome.code == 0
    assert outcome.out.startswith(
        "Documents: Desktop would make 61 deletions and 2 changes, with 5 more to follow, after 4 lately;"
        " it waits for you\n  delete letters\n  delete a\\x1b[2Jb\n  delete … 61 in all\n  change  notes.txt\n"
    )
    assert "hutch review --undo" in outcome.out
    assert linked("review", "--json").data == {"holds": [{**held, "workspace": "Documents"}]}
    assert held["verdict"] == "held"


def test_another_devices_is_accepted_without_a_password(linked: Shell, service: FakeService):
    held = hold(service)
    outcome = linked("review", "--accept", "--json")
    assert (outcome.code, [each["verdict"] for each in outcome.data["holds"]]) == (0, ["accepted"])
    assert held["verdict"] == "accepted"
    assert service.passwords == [None]


def test_its_own_is_accepted_with_the_password_alone(linked: Shell, service: FakeService):
    held = hold(service, current=True)
    assert linked("review", "--accept").code == 2  # nobody to ask for it
    wrong = linked("review", "--accept", "--password-stdin", "--json", stdin="a guess\n")
    assert (wrong.code, wrong.data["error"]["code"], held["verdict"]) == (20, "wrong_password", "held")
    right = linked("review", "--accept", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (right.code, held["verdict"]) == (0, "accepted")
    assert "it happens everywhere" in right.out
    assert PASSWORD not in right.out + right.err


def test_undoing_needs_no_password(linked: Shell, service: FakeService):
    held = hold(service, current=True)
    outcome = linked("review", "--undo")
    assert (outcome.code, held["verdict"], service.passwords) == (0, "undone", [])
    assert "the files come back" in outcome.out


def test_both_at_once_is_a_mistake(linked: Shell):
    assert linked("review", "--accept", "--undo").code == 2


def test_a_folder_chooses_its_workspace(linked: Shell, service: FakeService, tmp_path):
    assert linked("add", tmp_path / "anna" / "Documents").code == 0
    here, elsewhere = hold(service), hold(service, "Music")
    assert linked("review", tmp_path / "anna" / "Documents", "--undo").code == 0
    assert (here["verdict"], elsewhere["verdict"]) == ("undone", "held")
    assert linked("review", tmp_path, "--undo").code == 13


def test_a_person_is_asked_for_each(linked: Shell, service: FakeService, terminal):
    first, second, third = hold(service), hold(service, current=True), hold(service)
    terminal(["undo", "accept", "later", PASSWORD])
    outcome = linked("review")
    assert outcome.code == 0
    assert [each["verdict"] for each in (first, second, third)] == ["undone", "accepted", "held"]
    assert outcome.err.count("it waits for you") == 3
    assert service.passwords == [PASSWORD]


def test_what_was_decided_already_is_not_asked_for(linked: Shell, service: FakeService, terminal):
    hold(service, verdict="accepted")
    hold(service, verdict="undone")
    terminal([])
    outcome = linked("review")
    assert "it was accepted" in outcome.out
    assert "it is to be undone" in outcome.out


def test_what_has_changed_since_it_was_shown_is_not_decided(linked: Shell, service: FakeService, terminal):
    held = hold(service)

    def replaced(*_: object, **__: object) -> str:
        held["hold_id"] = str(uuid4())
        return "accept"

    terminal([])
    linked.monkeypatch.setattr("click.prompt", replaced)
    assert linked("review").code == 13
    assert held["verdict"] == "held"
