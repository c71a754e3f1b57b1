"""`hutch service`: the agent starts with the person's login."""

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import say


@click.group("service")
def command() -> None:
    """Have the agent start with your login (systemd)."""


@command.command("install")
@click.option("--print", "only_print", is_flag=True, help="Print the unit, and do nothing.")
@pass_context
def install_command(context: Context, only_print: bool) -> None:
    """Install a systemd user unit for this HUTCH_HOME, and start the agent.

    To have it run without anybody logged in: `loginctl enable-linger`.
    """
    from agent.login_service import check_systemd, find_program, install, unit_path, unit_text

    text = unit_text(find_program(), context.home.root)
    if only_print:
        click.echo(text, nl=False)
        return
    context.home.linked()
    check_systemd()
    path = unit_path(context.environ, context.person)
    install(path, text)
    say(f"the agent runs, and starts with your login: {path}")


@command.command("uninstall")
@pass_context
def uninstall_command(context: Context) -> None:
    """Stop the agent, and start it no more with your login."""
    from agent.login_service import check_systemd, uninstall, unit_path
    from broker.errors import NotFound

    path = unit_path(context.environ, context.person)
    if not path.exists():
        raise NotFound(f"no unit is installed at {path}")
    check_systemd()
    uninstall(path)
    say("the agent is stopped, and starts with your login no more")
