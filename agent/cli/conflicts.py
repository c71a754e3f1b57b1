"""`hutch conflicts`: list conflict copies, show one, keep a side or both, or merge the two."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from agent.cli.context import Context, pass_context
from agent.cli.reach import reach
from agent.cli.talk import emit, json_option, printable, say, size
from agent.cli.where import ask, chosen_folders, locate
from agent.home import FolderRecord, Home
from broker.errors import NotFound, Refused
from broker.model import Chunk

_CHOICES = ("mine", "theirs", "both")


class _ListByDefault(click.Group):
    """What is no command of its own is the folder to be listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("conflicts", cls=_ListByDefault)
def command() -> None:
    """List conflict copies ([FOLDER]), show one, keep a side or both, or merge the two.

    Without a command: `hutch conflicts [FOLDER]` lists. A copy is named by its path, as any file.
    """


@command.command("list")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@json_option
@pass_context
def list_(context: Context, folder: Path | None) -> None:
    """List the conflict copies of all folders, or of FOLDER."""
    home = context.home
    home.linked()
    copies = context.run(_copies(home, chosen_folders(home, folder)))
    text = "\n".join(_line(copy) for copy in copies)
    emit(context, {"conflicts": [_shown(copy) for copy in copies]}, text or "there is no conflict copy")


async def _copies(home: Home, records: list[FolderRecord]) -> list[dict[str, Any]]:
    return [copy for record in records for copy in (await ask(home, "conflicts", record.folder))["conflicts"]]


def _shown(copy: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "folder",
        "path",
        "original",
        "device",
        "date",
        "kind",
        "size_bytes",
        "mtime_ns",
        "synced",
        "version",
    )
    return {key: copy[key] for key in keys}


def _line(copy: dict[str, Any]) -> str:
    original = f"of {copy['original']}" if copy["original"] else "whose original is gone"
    late = "" if copy["synced"] else "; not synced yet"
    kept = f"{size(copy['size_bytes'])}, kept by {copy['device']} on {copy['date']}, {original}{late}"
    return f"{printable(copy['folder'])}/{printable(copy['path'])}\n  {printable(kept)}"


@command.command("show")
@click.argument("copy", type=click.Path(path_type=Path))
@json_option
@pass_context
def show(context: Context, copy: Path) -> None:
    """Show how COPY differs from its original: sizes, times and, of texts, the lines."""
    home = context.home
    home.linked()
    record, inside = locate(home, copy)
    told = context.run(ask(home, "conflict", record.folder, inside=inside))
    diff = None if told["original"] is None else _difference(record, told)
    sides = [_side(record, told["path"]), *([_side(record, told["original"])] if told["original"] else [])]
    data = {**_shown(told), "sides": sides, "diff": diff}
    emit(context, data, _describe(told, sides, diff))


def _side(record: FolderRecord, path: str) -> dict[str, Any]:
    try:
        status = (Path(record.folder) / path).lstat()
    except FileNotFoundError as error:
        raise NotFound(f"{path} is gone from the disk") from error
    return {"path": path, "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _difference(record: FolderRecord, told: dict[str, Any]) -> str | None:
    """A unified diff from the original to the copy; None where there are no lines to be compared."""
    from agent.merging import read_text

    if told["kind"] != "file":
        return None
    folder = Path(record.folder)
    original, copy = read_text(folder, told["original"]), read_text(folder, told["path"])
    if original is None or copy is None:
        return None
    return _diff(original, copy, told["original"], told["path"])


def _diff(before: str, after: str, name_before: str, name_after: str) -> str:
    from agent.merging import lines_of

    lines = unified_diff(lines_of(before), lines_of(after), name_before, name_after)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _describe(told: dict[str, Any], sides: Sequence[dict[str, Any]], diff: str | None) -> str:
    lines = [f"{told['path']}: kept by {told['device']} on {told['date']}"]
    for words, side in zip(("the copy", "the original"), sides, strict=False):
        when = datetime.fromtimestamp(side["mtime_ns"] / 1e9, UTC).astimezone()
        lines.append(f"  {words}: {side['path']}, {size(side['size_bytes'])}, saved {when:%Y-%m-%d %H:%M:%S}")
    if told["original"] is None:
        lines.append("  its original is gone")
    elif diff is None:
        lines.append("  no texts: they are not compared line by line")
    elif not diff:
        lines.append("  the two are equal")
    head = [printable(line) for line in lines]
    return "\n".join([*head, *_harmless(diff or "")])


def _harmless(diff: str) -> list[str]:
    """A diff's lines, with what could steer a terminal escaped; tabs are what they are."""
    return ["\t".join(printable(part) for part in line.split("\t")) for line in diff.splitlines()]


@command.command("keep")
@click.argument("choice", type=click.Choice(_CHOICES))
@click.argument("copy", type=click.Path(path_type=Path))
@json_option
@pass_context
def keep(context: Context, choice: str, copy: Path) -> None:
    """Decide on COPY: it takes the original's place (mine), it goes (theirs), or it gets a name of its own (both).

    What gives way stays in the history. Nothing is done to what is not synced yet, or open in a program.
    """
    home = context.home
    home.linked()
    record, inside = locate(home, copy)
    done = context.run(ask(home, "resolve", record.folder, inside=inside, choice=choice))
    text = {
        "mine": f"{done['path']} has the content of the copy, which is gone",
        "theirs": f"{done['path']} stays as it is; the copy is gone",
        "both": f"the copy is {done['path']} now",
    }[choice]
    data = {"folder": record.folder, "kept": choice, **done}
    emit(context, data, printable(text))


@command.command("merge")
@click.argument("copy", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Write the merged text without asking.")
@json_option
@pass_context
def merge(context: Context, copy: Path, yes: bool) -> None:
    """Merge the text COPY with its original, where the two sides changed different lines.

    Shows what would become of the original, and asks on a terminal; without one nothing is written but with --yes. The
    copy goes then. Where both changed the same lines, that is said (11), and nothing is changed.
    """
    home = context.home
    home.linked()
    record, inside = locate(home, copy)
    told = context.run(ask(home, "conflict", record.folder, inside=inside))
    before, merged = context.run(_merged(home, record, told))
    diff = _diff(before, merged, told["original"], f"{told['original']} (merged)")
    if not context.json:
        click.echo("\n".join(_harmless(diff)) or "the original holds both sides already")
    is_wanted = yes or (context.interactive and click.confirm("Write this, and let the copy go?", err=True))
    data = {
        "folder": record.folder,
        "path": told["original"],
        "copy": inside,
        "merged": is_wanted,
        "diff": diff,
    }
    if is_wanted:
        expected = [told["digest"], told["original_digest"]]
        resolve = ask(
            home, "resolve", record.folder, inside=inside, choice="merged", expected=expected, content=merged
        )
        context.run(resolve)
    elif not context.interactive:
        say("nothing was changed: --yes writes it")
    text = f"{told['original']} holds both sides; the copy is gone" if is_wanted else "nothing was changed"
    emit(context, data, printable(text))


async def _merged(home: Home, record: FolderRecord, told: dict[str, Any]) -> tuple[str, str]:
    """The original's text, and what it would be."""
    from agent import merging

    if told["original"] is None:
        raise NotFound(f"{told['path']} has no original here any more: there is nothing to merge it with")
    folder = Path(record.folder)
    texts = [
        await asyncio.to_thread(merging.read_text, folder, path) if told["kind"] == "file" else None
        for path in (told["original"], told["path"])
    ]
    base = merging.as_text(await _base(home, record, told)) if None not in texts else None
    original, copy = texts
    if original is None or copy is None or base is None:
        raise Refused(
            "only texts of up to 1 MiB can be merged: `hutch conflicts keep` takes one side", "no_text"
        )
    return original, merging.merge_texts(base, original, copy)


async def _base(home: Home, record: FolderRecord, told: dict[str, Any]) -> bytes:
    """What both sides came from: its chunks as this device remembers them, or by the service's history."""
    from agent import merging
    from agent.transfer import Transfer

    credential = home.linked()
    if told["base"] is not None:
        chunks = tuple(Chunk(bytes.fromhex(hash_), size_bytes) for hash_, size_bytes in told["base"])
    else:
        async with reach(home) as service:
            ids = UUID(told["node_id"]), UUID(told["original_id"])
            chunks = await merging.find_base(service, record.workspace_id, *ids)
    async with Transfer(credential.gateway_url, credential.bearer, home.cafile) as transfer:
        return await merging.fetch(transfer, record.workspace_id, chunks)
