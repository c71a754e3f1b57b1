"""`hutch pause`: let everything rest until `hutch resume`."""

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option
from agent.control import call


@click.command("pause")
@json_option
@pass_context
def command(context: Context) -> None:
    """Stop syncing for now; changes wait on this device."""
    context.home.linked()
    context.run(call(context.home.socket_path, "pause"))
    emit(context, {"paused": True}, "paused: `hutch resume` goes on")
