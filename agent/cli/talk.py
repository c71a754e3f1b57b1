"""Data to stdout, talk to stderr; nothing that came from elsewhere reaches a terminal raw."""

import json
import sys
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from agent.cli.context import Context

Command = TypeVar("Command", bound=Callable[..., Any])


def say(text: str) -> None:
    """A line for a person, on stderr."""
    click.echo(text, err=True)


def emit(context: Context, data: Mapping[str, Any], text: str) -> None:
    """A command's outcome: `data` as one line of JSON on stdout with --json, else `text` (on stdout too)."""
    click.echo(json.dumps(data, ensure_ascii=True) if context.json else text)


def json_option(command: Command) -> Command:
    """Give a command the option --json."""

    def keep(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        invocation = context.find_object(Context)
        if invocation is not None:
            invocation.json = value

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=keep, help="Print one JSON object on stdout."
    )(command)


def printable(text: str) -> str:
    """A name without what could steer a terminal or mislead a reader: such characters are written as escapes."""
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def size(size_bytes: int) -> str:
    """A number of bytes, for people."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def ask_password(context: Context, from_stdin: bool) -> str:
    """The account's password: one line of stdin, or asked for on the terminal."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif context.interactive:
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError("There is no terminal to ask for the password: use --password-stdin.")
    if not password:
        raise click.UsageError("The password is empty.")
    return password
