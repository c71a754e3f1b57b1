"""`hutch add`: sync a folder with a workspace, which is made when there is none of that name."""

from pathlib import Path

import click

from agent.cli.ask import tell_agent
from agent.cli.context import Context, pass_context
from agent.cli.talk import FolderPath, emit, json_option, printable, say
from agent.errors import FolderLinked, WrongFolder
from agent.home import FolderRecord, Home


def check_workspace(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A workspace's name, as an option; None: none was given."""
    if value is not None and not value.strip():
        raise click.BadParameter("it must name a workspace")
    return value


@click.command("add")
@click.argument("folder", type=FolderPath(path_type=Path))
@click.option(
    "--workspace",
    metavar="NAME",
    callback=check_workspace,
    help="Which workspace.  [default: the folder's name]",
)
@click.option("--adopt", is_flag=True, help="Take the folder over from a device that is gone for good.")
@json_option
@pass_context
def command(context: Context, folder: Path, workspace: str | None, adopt: bool) -> None:
    """Sync FOLDER with a workspace, new or joined.

    The folder is made when there is none. What it holds and what the workspace holds are merged: nothing is
    overwritten. Works while the agent runs, and when it does not.
    """
    from agent.candidate import check_folder, make_folder, take_back

    home = context.home
    device_id = home.linked().device_id
    path = check_folder(
        folder,
        person=context.person,
        home=home.root,
        records=home.folders(),
        device_id=device_id,
        adopt=adopt,
    )
    made = make_folder(path)
    try:
        record = context.run(_join(home, path, workspace or path.name))
        is_running = context.run(_begin(home, record))
    except BaseException:
        take_back(made)
        raise
    text = f"{printable(record.folder)} is synced with the workspace {printable(record.name)!r}"
    emit(context, _told(record), text)
    if not is_running:
        say("the agent is not running: hutch run")


async def _join(home: Home, path: Path, name: str) -> FolderRecord:
    from agent.cli.reach import reach

    if not name.strip():
        raise WrongFolder("a workspace must have a name: give one with --workspace")
    async with reach(home) as service:
        workspace = await service.make_workspace(name)
    for other in home.folders():
        if other.workspace_id == workspace.workspace_id:
            raise FolderLinked(f"the workspace {name!r} is synced with {other.folder} on this device already")
    return FolderRecord(folder=str(path), workspace_id=workspace.workspace_id, name=workspace.name)


async def _begin(home: Home, record: FolderRecord) -> bool:
    """Mark the folder, list it, and tell the running agent; if one of these fails, nothing has changed.

    Returns:
        Whether an agent runs.
    """
    from agent.marker import Marker, read_marker, remove_marker, write_marker

    folder = Path(record.folder)
    device_id = home.linked().device_id
    marker = read_marker(folder)
    if marker is None or (marker.workspace_id, marker.device_id) != (record.workspace_id, device_id):
        known = marker is not None and marker.workspace_id == record.workspace_id
        generation = (
            marker.generation if marker is not None and known else 0
        )  # an adopted folder was synced before
        write_marker(
            folder,
            Marker(workspace_id=record.workspace_id, device_id=device_id, generation=generation),
        )
    try:
        home.add_folder(record)
        return await tell_agent(
            home, "add", folder=record.folder, workspace_id=str(record.workspace_id), name=record.name
        )
    except BaseException:
        remove_marker(folder)
        home.remove_folder(record.folder)
        raise


def _told(record: FolderRecord) -> dict[str, str]:
    return {"folder": record.folder, "workspace_id": str(record.workspace_id), "name": record.name}
