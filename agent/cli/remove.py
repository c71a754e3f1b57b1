"""`hutch remove`: stop syncing a folder. Its files stay."""

import asyncio
from pathlib import Path

import click

from agent.cli.ask import tell_agent
from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable, say
from agent.home import FolderRecord, Home
from broker.errors import NotFound


@click.command("remove")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@pass_context
def command(context: Context, folder: Path) -> None:
    """Stop syncing FOLDER; its files stay, here and elsewhere."""
    from agent.marker import remove_marker

    context.home.linked()
    record = find_record(context.home, folder)
    context.run(_take_off(context.home, record))
    if not remove_marker(Path(record.folder)):
        say(f"{printable(record.folder)}/.hutch stays: it holds files that were kept for you")
    emit(context, {"folder": record.folder}, f"{printable(record.folder)} is synced no more; its files stay")


def find_record(home: Home, folder: Path) -> FolderRecord:
    """By the path as it was kept: the folder itself may be gone by now."""
    path = str(folder.resolve())
    for record in home.folders():
        if record.folder == path:
            return record
    raise NotFound(f"{path} is not synced: `hutch list` shows what is")


async def _take_off(home: Home, record: FolderRecord) -> None:
    if await tell_agent(home, "remove", folder=record.folder):
        home.remove_folder(record.folder)
        return
    with home.lock():
        home.remove_folder(record.folder)
        await _forget(home, record)


async def _forget(home: Home, record: FolderRecord) -> None:
    """Drop what the database knows of a folder: coming back, it is merged afresh, and nothing is taken for deleted."""
    from agent.index import Index

    if not home.index_path.exists():
        return
    index = await asyncio.to_thread(Index, home.index_path)
    try:
        await index.forget(record.workspace_id, record.folder)
    finally:
        await index.close()
