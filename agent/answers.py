"""What people ask of one folder, answered as JSON can say it: from what a running agent keeps, or what the last one left."""

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from agent.control import Handler
from agent.errors import DiskFull, SystemRefused, is_disk_full
from agent.explain import Item, Outlook, Reason, Seen, View, explain, outlook
from agent.filesystem import Root, birth_ns, kind_of, print_of
from agent.finish import in_thread
from agent.ignore import Rules
from agent.index import Print, Taken
from agent.replica import Replica
from agent.resolve import Choice, Copy, Resolver
from agent.scan import Problem
from broker.errors import Refused
from broker.model import Kind, name_problem

MAX_LISTED: Final = 10_000
"""How many changes of a direction go into one answer: whoever wants all asks page by page."""


class Memory:
    """The last outlook of a folder: a long one is asked for page by page, and made once."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._found = Outlook()

    def outlook(self, view: View) -> Outlook:
        """What would be done in the folder. The caller holds on to nothing of `view` but its values."""
        key = (view.planned, view.behind, view.is_paused, view.in_flight, *view.placing, *view.problems)
        if view.planned is None or not _are_same(key, self._key):
            self._key, self._found = key, outlook(view)
        return self._found


def _are_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two tuples hold the same objects, or equal numbers and paths: plans are not compared by value."""
    return len(one) == len(other) and all(
        a is b or (isinstance(a, str | int | UUID) and a == b) for a, b in zip(one, other, strict=True)
    )


class Asked(Struct, frozen=True, kw_only=True):
    """A folder that is asked about. `rules` blocks."""

    replica: Replica
    memory: Memory
    resolver: Resolver
    rules: Callable[[], Rules]
    is_paused: bool = False
    is_running: bool = True

    @property
    def view(self) -> View:
        """All that is known of it at this moment."""
        replica = self.replica
        return View(
            trees=replica.trees,
            device=replica.device_name,
            date=replica.today(),
            cursor=None if replica.cursor is None else replica.cursor.seq,
            head=0 if replica.head is None else replica.head.seq,
            is_looked=replica.looked,
            is_unclaimed=replica.unclaimed,
            is_paused=self.is_paused,
            is_running=self.is_running,
            in_flight=None if replica.in_flight is None else replica.in_flight.sent,
            placing=replica.placing,
            parked=_reasons(replica.parked),
            broken=_reasons(replica.broken),
            problems=_reasons(replica.problems),
            # With an unknown past the agent's plan leaves out what is to be told: people are told of it as waiting.
            planned=replica.plan() if replica.looked and not replica.unclaimed else None,
        )


class Answering(Protocol):
    """Who has folders to be asked about."""

    def asked(self, folder: Path) -> Asked:
        """A folder by its path. Raises `NotFound`, or `RootGone` when it is not in its place."""


def _reasons(problems: "Mapping[Any, Problem]") -> dict[Any, Reason]:
    return {key: Reason(problem.code, problem.message) for key, problem in problems.items()}


# --- the questions


async def answer_plan(asked: Asked, arguments: dict[str, Any]) -> dict[str, Any]:
    """What would be done: `offset` and `limit` choose of each direction; the counts are of all."""
    offset, limit = int(arguments.get("offset", 0)), min(int(arguments.get("limit", MAX_LISTED)), MAX_LISTED)
    view = asked.view
    found = asked.memory.outlook(view)
    chosen = [
        item for items in (found.up, found.down, found.waits) for item in items[offset : offset + limit]
    ]
    return {
        "name": asked.replica.name,
        "workspace_id": str(asked.replica.workspace_id),
        "folder": str(asked.replica.root.folder),
        "up": _sum(found.up),
        "down": _sum(found.down),
        "waits": {"count": len(found.waits)},
        "behind": view.behind,
        "notes": list(found.notes),
        "changes": [_told(item) for item in chosen],
    }


def _sum(items: tuple[Item, ...]) -> dict[str, int]:
    return {"count": len(items), "size_bytes": sum(item.size_bytes for item in items if item.moves_bytes)}


def _told(item: Item) -> dict[str, Any]:
    return {
        "direction": item.direction,
        "change": item.change,
        "path": item.path,
        "previous": item.previous,
        "size_bytes": item.size_bytes,
        "why": item.why,
        "waits_for": list(item.waits_for),
    }


async def answer_explain(asked: Asked, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the path `inside` is, relative to the folder, and what it waits for."""
    path = str(arguments["inside"])
    replica = asked.replica
    node = replica.trees.local.find(path)
    look = None if node is None else replica.prints.get(node.node_id)
    rules = await in_thread(asked.rules)
    seen = await in_thread(see, replica.root, path, look, rules)
    view = asked.view
    found = explain(view, path, seen, asked.memory.outlook(view))
    seqs = [seq for seq in dict.fromkeys((found.version, found.agreed)) if seq]
    taken = await replica.index.commits(replica.key, seqs)
    told: dict[str, Any] = msgspec.to_builtins(found)
    told["sentences"] = [*found.sentences, *(_when(seq, taken[seq]) for seq in seqs if seq in taken)]
    times = {f"{key}_at": _time(taken.get(told[key] or 0)) for key in ("version", "agreed")}
    return {"folder": str(replica.root.folder), "name": replica.name, **told, **times}


def _when(seq: int, taken: Taken) -> str:
    at = datetime.fromtimestamp(taken.committed_ns // 1_000_000_000, UTC).astimezone()
    whose = "this device" if taken.own else "another device"
    return f"The service took version {seq} on {at:%Y-%m-%d} at {at:%H:%M:%S}, from {whose}."


def _time(taken: Taken | None) -> str | None:
    if taken is None:
        return None
    return datetime.fromtimestamp(taken.committed_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def see(root: Root, path: str, known: Print | None, rules: Rules) -> Seen:
    """Look at what stands at a path. Blocks.

    Args:
        root: The folder.
        path: Relative to it.
        known: How it looked at the last look; None when that saw nothing there.
        rules: What to ignore.
    """
    names = path.split("/") if path else []
    wrong = next((problem for name in names if (problem := name_problem(name)) is not None), None)
    link = next(
        (at for depth in range(1, len(names)) if _is_link(root, at := "/".join(names[:depth]))),
        None,
    )
    if link is not None or not path:
        return Seen(link=link)
    try:
        with root.parent(path) as (fd, name):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            now = print_of(status, birth_ns(fd, name))
    except OSError as error:
        kind = None if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unknown"
        return Seen(kind=kind, rule=rules.rule_for(path, is_directory=False), bad_name=wrong)
    kind_here = kind_of(status.st_mode)
    is_directory = kind_here is Kind.DIRECTORY
    return Seen(
        kind="special" if kind_here is None else str(kind_here),
        is_changed=known is not None and not _is_as_known(now, known, is_directory),
        rule=rules.rule_for(path, is_directory=is_directory),
        bad_name=wrong,
    )


def _is_link(root: Root, path: str) -> bool:
    try:
        with root.parent(path) as (fd, name):
            return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _is_as_known(now: Print, known: Print, is_directory: bool) -> bool:
    """A directory's own times change with what is in it, which is nobody's edit of it."""
    if is_directory:
        return (now.dev, now.ino, now.mode) == (known.dev, known.ino, known.mode)
    return now.same_content(known)


async def answer_conflicts(asked: Asked, arguments: dict[str, Any]) -> dict[str, Any]:
    """All conflict copies of the folder."""
    folder = str(asked.replica.root.folder)
    return {"conflicts": [_told_copy(copy, folder) for copy in asked.resolver.copies()]}


async def answer_conflict(asked: Asked, arguments: dict[str, Any]) -> dict[str, Any]:
    """The conflict copy at `inside`."""
    copy = await asked.resolver.copy(str(arguments["inside"]))
    return _told_copy(copy, str(asked.replica.root.folder))


def _told_copy(copy: Copy, folder: str) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(copy)
    return {"folder": folder, **told}


async def answer_resolve(asked: Asked, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do with the conflict copy at `inside` what `choice` says."""
    choice: Choice = msgspec.convert(arguments["choice"], Choice)
    expected = msgspec.convert(arguments.get("expected"), tuple[str, str] | None)
    content = str(arguments.get("content", "")).encode()
    if asked.replica.intent is not None:
        raise Refused("the agent has something to put in place first: hutch wait", "not_synced")
    try:
        return dict(
            await asked.resolver.resolve(str(arguments["inside"]), choice, expected=expected, content=content)
        )
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull("the disk is full: make room, and try again") from error
        raise SystemRefused(f"{error.filename or arguments['path']}: {error.strerror or error}") from error


ANSWERS: Final[dict[str, Callable[[Asked, dict[str, Any]], Awaitable[dict[str, Any]]]]] = {
    "plan": answer_plan,
    "explain": answer_explain,
    "conflicts": answer_conflicts,
    "conflict": answer_conflict,
    "resolve": answer_resolve,
}
"""Every question about a folder. Its arguments hold the folder's path as `folder`."""


def answers_for(agent: Answering) -> dict[str, Handler]:
    """The questions, as commands that a running agent takes (`agent.control`)."""

    def handler(answer: Callable[[Asked, dict[str, Any]], Awaitable[dict[str, Any]]]) -> Handler:
        async def handle(arguments: dict[str, Any]) -> dict[str, Any]:
            return await answer(agent.asked(Path(arguments["folder"])), arguments)

        return handle

    return {command: handler(answer) for command, answer in ANSWERS.items()}
