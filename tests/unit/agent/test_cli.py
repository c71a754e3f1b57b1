"""The command line's outside: its help, its exit codes, and what becomes of an error."""

import errno
import json
import re
import sqlite3
from pathlib import Path

import click
import pytest

from agent import errors
from agent.cli.context import Context
from agent.cli.edge import explain, first_cause
from agent.cli.main import SECTIONS, hutch, invoke
from agent.cli.status import describe
from agent.cli.talk import printable, size
from agent.errors import EXIT_CODES
from broker import errors as broker_errors
from broker.errors import Corrupt, Forbidden, HutchError, Unavailable

COMMANDS = [name for _, names in SECTIONS for name in names]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(environ={"HUTCH_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


def test_help_is_for_newcomers(context: Context, capsys: pytest.CaptureFixture[str]):
    assert invoke(["--help"], context) == 0
    text = capsys.readouterr().out
    assert text.index("1. hutch link") < text.index("2. hutch add") < text.index("3. hutch run")
    assert "HUTCH_HOME" in text
    for code, meaning in EXIT_CODES:
        assert f"{code:>3}  {meaning}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(context: Context, capsys: pytest.CaptureFixture[str], command: str):
    assert invoke([command, "--help"], context) == 0
    assert f"hutch {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "add /f",
        "remove /f",
        "list",
        "status",
        "wait",
        "sync",
        "pause",
        "resume",
        "devices",
        "unlink",
        "run",
        "plan",
        "explain /f",
        "conflicts",
        "conflicts show /f",
        "conflicts keep both /f",
        "conflicts merge /f",
    ],
)
def test_before_linking_every_command_says_what_comes_first(
    context: Context, capsys: pytest.CaptureFixture[str], command: str
):
    assert invoke(command.split(), context) == errors.NotLinked.exit_code
    captured = capsys.readouterr()
    assert captured.err.startswith("hutch: this device is not linked yet: run `hutch link")
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not context.home.root.exists()


def test_no_two_kinds_of_failure_share_an_exit_code():
    kinds = [
        kind
        for module in (errors, broker_errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, HutchError) and "exit_code" in vars(kind)
    ]
    codes = [kind.exit_code for kind in set(kinds)]
    assert len(codes) == len(set(codes))
    assert set(codes) <= {code for code, _ in EXIT_CODES}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("away"), 10),
        (Forbidden("no"), 12),
        (OSError(errno.ENOSPC, "No space left on device"), 27),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 27),
        (PermissionError(errno.EACCES, "Permission denied", "/f"), 31),
        (ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("more", [Corrupt("damaged")])]), 15),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("what?"), 2),
        (ZeroDivisionError("a defect"), 70),
    ],
)
def test_every_error_has_its_code_and_no_traceback(
    context: Context, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
):
    assert explain(error, context) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_full_database_is_a_full_disk(context: Context):
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    assert explain(error, context) == errors.DiskFull.exit_code


def test_an_error_is_data_for_scripts(context: Context, capsys: pytest.CaptureFixture[str]):
    context.json = True
    explain(Unavailable("first\nsecond \x1b[31m"), context)
    captured = capsys.readouterr()
    told = {"code": "unavailable", "message": "first second \\x1b[31m", "exit_code": 10}
    assert json.loads(captured.out) == {"error": told}
    assert captured.err == "hutch: first second \\x1b[31m\n"


def test_debugging_shows_the_defect(context: Context, capsys: pytest.CaptureFixture[str]):
    context.debug = True
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError as error:
        explain(error, context)
    assert "Traceback" in capsys.readouterr().err


def test_a_group_without_ours_gives_its_first():
    first = ValueError("first")
    assert first_cause(BaseExceptionGroup("tasks", [first, ValueError("second")])) is first


def test_the_version_is_told(context: Context, capsys: pytest.CaptureFixture[str]):
    assert invoke(["--version"], context) == 0
    assert capsys.readouterr().out.startswith("hutch ")


def test_an_unknown_command_is_a_usage_error(context: Context, capsys: pytest.CaptureFixture[str]):
    assert invoke(["dance"], context) == 2
    assert "No such command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2 * 10**9, "2.0 GB"), (10**15, "1000.0 TB")],
)
def test_sizes_are_for_people(count: int, text: str):
    assert size(count) == text


def test_names_do_not_steer_the_terminal():
    assert printable("naïve 文.txt") == "naïve 文.txt"
    assert printable("a\x1b[2Jb\u202ec\n") == "a\\x1b[2Jb\\u202ec\\n"


def test_a_quiet_status_is_short():
    docs = {
        "name": "docs",
        "folder": "/f",
        "cursor": 3,
        "head": 3,
        "pending_up": 0,
        "pending_down": 0,
        "conflicts": 0,
        "errors": [],
    }
    status = {"state": "idle", "workspaces": [docs], "bytes_up": 0, "bytes_down": 0}
    assert describe(status, running=True) == "idle, 0 B sent, 0 B received\ndocs: up to date\n  /f"
    assert "hutch add" in describe({**status, "workspaces": []}, running=True)


@pytest.mark.parametrize(
    ("count", "last"), [(1, "  conflict copy: a 0"), (10, "  conflict copy: a 9"), (12, "  and 2 more")]
)
def test_conflict_copies_are_listed(count: int, last: str):
    paths = [f"a {number}" for number in range(count)]
    docs = {"name": "docs", "folder": "/f", "errors": [], "conflicts": count, "conflict_paths": paths}
    status = {"state": "idle", "workspaces": [docs], "bytes_up": 0, "bytes_down": 0}
    lines = describe(status, running=True).splitlines()
    assert lines[1:4] == [f"docs: {count} in conflict", "  /f", "  conflict copy: a 0"]
    assert lines[-1] == last
    assert len(lines) == 3 + min(count, 10) + (count > 10)


def test_the_page_of_commands_says_what_there_is():
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    own = page[page.index("## hutch\n") : page.index("## hutch-admin\n")]
    rows = [line for line in own.splitlines() if re.match(r"\| \d+ \|", line)]
    assert rows == [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES]
    for command in COMMANDS:
        assert f"`hutch {command}" in own


def test_the_page_of_commands_names_every_option():
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        command = hutch.get_command(click.Context(hutch), name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert any(option in page for option in parameter.opts), f"hutch {name} {parameter.opts}"
