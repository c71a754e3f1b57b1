"""`hutch resume`: go on after `hutch pause`."""

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option
from agent.control import call


@click.command("resume")
@json_option
@pass_context
def command(context: Context) -> None:
    """Go on after a pause."""
    context.home.linked()
    context.run(call(context.home.socket_path, "resume"))
    emit(context, {"paused": False}, "going on")
