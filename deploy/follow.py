"""See what happens in two folders that follow each other, and how long it takes to arrive. Pure, but for `look`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_OWN = ".hutch"  # the agent's folder in each workspace; never synced


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What stands at a path. The inode follows a file through a move."""

    is_folder: bool
    size_bytes: int
    mtime_ns: int
    inode: int

    def is_like(self, other: Seen | None) -> bool:
        """Whether the other device's copy is the same, as far as its metadata tell."""
        if other is None or self.is_folder != other.is_folder:
            return False
        return self.is_folder or (
            self.size_bytes == other.size_bytes and self.mtime_ns // 1000 == other.mtime_ns // 1000
        )


Tree = Mapping[str, Seen]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a person did."""

    verb: str
    path: str
    moved_from: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.verb} {self.path}"
            if self.moved_from is None
            else f"moved {self.moved_from} → {self.path}"
        )


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A change that is on both sides now."""

    change: Change
    origin: str
    took_s: float


def look(folder: Path) -> Tree:
    """What is in a folder now."""
    return dict(_walk(folder, ""))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Seen]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # removed while we look
    for entry in entries:
        if entry.name == _OWN:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        yield (
            prefix + entry.name,
            Seen(
                is_folder=is_folder,
                size_bytes=status.st_size,
                mtime_ns=status.st_mtime_ns,
                inode=status.st_ino,
            ),
        )
        if is_folder:
            yield from _walk(Path(entry.path), prefix + entry.name + "/")


def changes(before: Tree, after: Tree) -> list[Change]:
    """What was done between two looks. Below a folder that was moved or deleted nothing more is told."""
    gone = {path: seen for path, seen in before.items() if path not in after}
    came = {path: seen for path, seen in after.items() if path not in before}
    gone_by_inode = {seen.inode: path for path, seen in gone.items()}
    told: list[Change] = []
    moved: list[tuple[str, str]] = []
    for path, seen in sorted(came.items()):
        origin = gone_by_inode.get(seen.inode)
        if origin is not None and gone[origin].is_folder == seen.is_folder:
            if not any(path.startswith(new + "/") and origin.startswith(old + "/") for old, new in moved):
                told.append(Change(verb="moved", path=path, moved_from=origin))
                moved.append((origin, path))
            gone.pop(origin)
        else:
            told.append(Change(verb="made folder" if seen.is_folder else "saved", path=path))
    for path in sorted(gone):
        if not any(path.startswith(parent + "/") for parent in gone):
            told.append(Change(verb="deleted", path=path))
    for path, seen in sorted(after.items()):
        old = before.get(path)
        if old is not None and not seen.is_folder and not (old.is_like(seen) and old.inode == seen.inode):
            told.append(Change(verb="saved", path=path))
    return told


@dataclass
class Follower:
    """Pairs each change with its arrival on the other side."""

    sides: tuple[str, str]
    _trees: dict[str, Tree] = field(default_factory=dict)
    _waiting: dict[str, tuple[Change, str, float]] = field(default_factory=dict)

    def begin(self, trees: Mapping[str, Tree]) -> None:
        """What was there before counts as no change."""
        self._trees = dict(trees)

    def see(self, trees: Mapping[str, Tree], now_s: float) -> list[Arrival]:
        """Take a new look at both sides.

        Args:
            trees: What is in each side's folder.
            now_s: The time, of any clock that only goes forward.

        Returns:
            The changes that have arrived since the last look.
        """
        arrivals: list[Arrival] = []
        for side in self.sides:
            for change in changes(self._trees[side], trees[side]):
                known = self._waiting.get(change.path)
                if known is not None and known[1] != side:
                    continue  # this is the change arriving
                # What was done before at this path no longer counts; gone again before it arrived, it is not told.
                self._waiting.pop(change.path, None)
                if not _has_arrived(change, trees[self._other(side)], trees[side]):
                    self._waiting[change.path] = (change, side, now_s)
                elif not (
                    _has_arrived(change, self._trees[self._other(side)], trees[side])
                    or any(change.path == told.change.path for told in arrivals)
                ):
                    # It was made and has arrived between two looks. Where is not known: the first side is said.
                    arrivals.append(Arrival(change=change, origin=side, took_s=0.0))
        self._trees = dict(trees)
        for path, (change, origin, began_s) in list(self._waiting.items()):
            if _has_arrived(change, trees[self._other(origin)], trees[origin]):
                del self._waiting[path]
                arrivals.append(Arrival(change=change, origin=origin, took_s=now_s - began_s))
        return arrivals

    def _other(self, side: str) -> str:
        return self.sides[1] if side == self.sides[0] else self.sides[0]


def is_equal(first: Tree, second: Tree) -> bool:
    """Whether both sides hold the same, as far as metadata tell."""
    return first.keys() == second.keys() and all(seen.is_like(second[path]) for path, seen in first.items())


def _has_arrived(change: Change, there: Tree, here: Tree) -> bool:
    if change.moved_from is not None and change.moved_from in there and change.moved_from not in here:
        return False
    wanted = here.get(change.path)
    return change.path not in there if wanted is None else wanted.is_like(there.get(change.path))
