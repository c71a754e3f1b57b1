"""`hutch`: keep folders the same on all your devices. One module a command; here they come together."""

import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import click

from agent.cli.context import Context
from agent.cli.edge import explain
from agent.errors import EXIT_CODES

SECTIONS: Final = (
    ("First steps", ("link", "add", "run")),
    ("Every day", ("status", "review", "wait", "sync", "pause", "resume", "list", "remove")),
    ("What is going on", ("plan", "explain", "conflicts")),
    ("This device", ("devices", "unlink", "service")),
)
_MODULES: Final = {"list": "folders"}

FIRST_STEPS: Final = """\
  1. hutch link https://hutch.example.org --email you@example.org
  2. hutch add ~/Documents
  3. hutch run          (or, from now on at each login: hutch service install)

Do the same on another device, and the two folders follow each other. `hutch status` tells how far they are."""

ENVIRONMENT: Final = """\
  HUTCH_HOME   where this device keeps its credentials and database
               (default: ~/.local/share/hutch; macOS: ~/Library/Application Support/Hutch)"""


class Commands(click.Group):
    """The commands in their sections. A command's module is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order in which a newcomer meets them."""
        return [name for _, names in SECTIONS for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None when there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(f"agent.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """First steps, commands, options, exit codes."""
        _write_raw(formatter, "First steps", FIRST_STEPS)
        for title, names in SECTIONS:
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, command.get_short_help_str(90)) for name, command in commands if command]
            with formatter.section("Commands: " + title.lower()):
                formatter.write_dl(rows)
        click.Command.format_options(self, ctx, formatter)
        _write_raw(formatter, "Environment", ENVIRONMENT)
        _write_raw(formatter, "Exit codes", "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES))


def _write_raw(formatter: click.HelpFormatter, title: str, text: str) -> None:
    formatter.write(f"\n{title}:\n{text}\n")


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    try:
        number = version("hutch")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"hutch {number}")
    context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of a defect.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@click.pass_obj
def hutch(context: Context, debug: bool) -> None:
    """Keep folders the same on all your devices, by your own service.

    `hutch COMMAND --help` tells more about a command. Data goes to stdout, talk to stderr; `--json` is for
    scripts, and stays as it is.
    """
    context.debug = debug


def main() -> None:
    """The program `hutch`: run a command, and exit with its code."""
    os.umask(0o077)  # whatever the agent makes is its person's own, until it is given its proper mode
    sys.exit(invoke(sys.argv[1:], Context(environ=dict(os.environ))))


def invoke(arguments: list[str], context: Context) -> int:
    """Run one command line, and return its exit code. Nothing is raised."""
    try:
        outcome = hutch.main(args=arguments, prog_name="hutch", obj=context, standalone_mode=False)
        sys.stdout.flush()  # here a reader that went away is an error that can be told
    except BaseException as error:  # this is where every error ends
        return explain(error, context)
    return outcome if isinstance(outcome, int) else 0
