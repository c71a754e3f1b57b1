"""`hutch list`: the synced folders."""

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable


@click.command("list")
@json_option
@pass_context
def command(context: Context) -> None:
    """List the synced folders and their workspaces."""
    context.home.linked()
    records = context.home.folders()
    data = {
        "folders": [
            {"folder": record.folder, "workspace_id": str(record.workspace_id), "name": record.name}
            for record in records
        ]
    }
    lines = [f"{printable(record.name)}\t{printable(record.folder)}" for record in records]
    emit(context, data, "\n".join(lines) or "no folder is synced yet: hutch add FOLDER")
