"""`hutch status`: what the agent is at, or, when none runs, what it last knew."""

from typing import Any, Final

import click

from agent.cli.ask import agent_status
from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable, size

CONFLICTS_SHOWN: Final = 10

_GONE: Final = "folder_gone"


@click.command("status")
@json_option
@pass_context
def command(context: Context) -> None:
    """Show what is synced, what is on its way, and what is wrong."""
    context.home.linked()
    status = context.run(agent_status(context.home))
    running = status is not None
    if status is None:
        from agent.engine import offline_status

        status = offline_status(context.home)
    emit(context, status, describe(status, running=running))


def describe(status: dict[str, Any], *, running: bool) -> str:
    """A status, for people."""
    state = _state(status, running=running)
    sent, received = size(status.get("bytes_up", 0)), size(status.get("bytes_down", 0))
    lines = [f"{state}, {sent} sent, {received} received"]
    for workspace in status["workspaces"]:
        lines.append(f"{printable(workspace['name'])}: {_progress(workspace)}")
        lines.append(f"  {printable(workspace['folder'])}")
        lines.extend(f"  ! {_problem(problem)}" for problem in _items(workspace.get("errors")))
        lines.extend(f"  {_alias(alias)}" for alias in _items(workspace.get("aliases")))
        lines.extend(f"  {line}" for line in _conflicts(workspace))
    if not status["workspaces"]:
        lines.append("no folder is synced yet: hutch add FOLDER")
    return "\n".join(lines)


def _state(status: dict[str, Any], *, running: bool) -> str:
    if not running:
        return "offline (the agent is not running: hutch run)"
    if status["state"] == "offline":
        return "offline (the service cannot be reached)"
    return str(status["state"])


def _progress(workspace: dict[str, Any]) -> str:
    if any(error["code"] == _GONE for error in _items(workspace.get("errors"))):
        return "the folder is gone"
    if not workspace.get("started", True):
        return "not started yet"
    parts = []
    for key, words in (("pending_up", "to send"), ("pending_down", "to fetch"), ("conflicts", "in conflict")):
        count = _count(workspace.get(key))
        if count:
            parts.append(f"{count} {words}")
    behind = _count(workspace.get("head")) - _count(workspace.get("cursor"))
    if behind > 0:
        parts.append(f"{behind} commits behind")
    return ", ".join(parts) or "up to date"


def _conflicts(workspace: dict[str, Any]) -> list[str]:
    paths, count = _items(workspace.get("conflict_paths")), _count(workspace.get("conflicts"))
    lines = [f"conflict copy: {printable(path)}" for path in paths[:CONFLICTS_SHOWN]]
    if paths and count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    return lines


def _count(value: Any) -> int:
    if isinstance(value, list | tuple):
        return len(value)
    return int(value or 0)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _alias(alias: Any) -> str:
    return printable(
        f"{alias['path']}: is called {alias['name']} on the other devices: here that is another file's name"
    )


def _problem(problem: Any) -> str:
    if isinstance(problem, dict):
        return printable(
            ": ".join(str(problem[key]) for key in ("path", "code", "message") if problem.get(key))
        )
    return printable(str(problem))
