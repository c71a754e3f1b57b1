"""A real folder with what is known of it: scanned into a tree, and changed by steps as the agent changes it."""

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from uuid import UUID

import msgspec

from agent import place
from agent.filesystem import STAGE, Root
from agent.index import Prints
from agent.marker import Marker, write_marker
from agent.place import Intent, Outcome, Staged
from agent.plan import Change, overlay
from agent.scan import Marks, Sight, scan
from agent.trees import Node, Tree, replace
from broker.messages import encode
from broker.model import Kind, Xattrs

DATE = "2026-11-22"


class Disk:
    """A folder below `base`, its local tree and its prints."""

    def __init__(self, base: Path) -> None:
        self.path = base / "folder"
        (self.path / STAGE).mkdir(parents=True)
        write_marker(self.path, Marker(workspace_id=UUID(int=1), device_id=UUID(int=2)))
        self.root = Root(self.path)
        self.tree = Tree()
        self.prints = Prints()
        self.marks = Marks()
        self._ids = itertools.count(1)

    def reopen(self) -> None:
        """As a restarted agent does."""
        self.root.close()
        self.root = Root(self.path)

    # --- a person's hands

    def write(self, path: str, content: str, mtime_ns: int = 1_000_000_000, mode: int = 0o644) -> None:
        """Save a file in place, with the directories that it needs."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)
        os.utime(target, ns=(mtime_ns, mtime_ns))

    def tag(self, path: str, **values: bytes | None) -> None:
        """Set extended attributes, or (None) remove them."""
        for name, value in values.items():
            if value is None:
                os.removexattr(self.path / path, f"user.{name}")
            else:
                os.setxattr(self.path / path, f"user.{name}", value)

    def tags(self, path: str) -> Xattrs:
        """The extended attributes that stand on the disk."""
        try:
            names = sorted(os.listxattr(self.path / path))
        except OSError:
            return ()
        return tuple((n, os.getxattr(self.path / path, n)) for n in names if n.startswith("user."))

    def rename(self, source: str, target: str) -> None:
        """Rename, over whatever is there."""
        os.rename(self.path / source, self.path / target)

    # --- looking

    def look(self, where: Mapping[str, bool] | None = None) -> Sight:
        """Scan, and take over what was seen. Files get their content as digest, as if they had been hashed."""
        sight = scan(
            self.root,
            self.tree,
            self.prints,
            where or {"": True},
            lambda: UUID(int=next(self._ids)),
            marks=self.marks,
        )
        self.take(sight)
        return sight

    def take(self, sight: Sight) -> None:
        """Take over what a scan saw."""
        self.tree.update(sight.local)
        hashed: dict[UUID, Node | None] = {}
        for node_id, node in sight.local.items():
            path = self.tree.path(node_id)
            if node is not None and node.is_unhashed and path is not None:
                digest = (self.path / path).read_bytes() or b"empty"
                hashed[node_id] = replace(node, digest=digest, xattrs=self.tags(path))
        self.tree.update(hashed)
        for node_id, look in sight.prints.items():
            if look is None:
                self.prints.pop(node_id, None)
            else:
                self.prints[node_id] = look

    def id_at(self, path: str) -> UUID:
        """The node known at a path."""
        node = self.tree.find(path)
        assert node is not None, path
        return node.node_id

    def node(self, path: str) -> Node:
        """The node known at a path."""
        return self.tree.nodes[self.id_at(path)]

    def contents(self) -> dict[str, str]:
        """What stands on the disk: files by content, links by target, directories as `/`."""
        found = {}
        for directory, names, files in os.walk(self.path):
            here = Path(directory)
            if here == self.path:
                names.remove(".hutch")
            for name in [*names, *files]:
                found[str((here / name).relative_to(self.path))] = describe(here / name)
        return found

    def stage(self) -> list[str]:
        """What lies in the stage."""
        return sorted(os.listdir(self.path / STAGE))

    # --- the agent's hands

    def stage_content(self, node: Node, content: str) -> Staged:
        """New content of a node, as `stage` leaves it."""
        path = f"{STAGE}/{node.node_id.hex}.in"
        target = self.path / path
        if node.kind is Kind.SYMLINK:
            target.symlink_to(content)
        else:
            target.write_text(content)
            for name, value in node.xattrs:
                os.setxattr(target, name, value)
            os.utime(target, ns=(node.mtime_ns, node.mtime_ns))
            target.chmod(node.mode)
        look = self.root.look(path)
        assert look is not None
        return Staged(path, look)

    def intend(self, changes: Iterable[Change], contents: Mapping[UUID, str] | None = None) -> Intent:
        """Stage what the changes need, and prepare them."""
        changes, contents = list(changes), contents or {}
        staged = {
            change.node_id: self.stage_content(change.after, contents[change.node_id])
            for change in changes
            if change.after is not None and change.node_id in contents
        }
        return place.prepare(
            changes,
            path_before=self.tree.path,
            path_after=overlay(self.tree, changes, {}),
            prints=self.prints.get,
            staged=staged.get,
            remote=lambda node_id: None,
            device="laptop",
            date=DATE,
        )

    def carry_out(self, intent: Intent) -> Outcome:
        """Do it, as after a restart: from what was written down."""
        return place.carry_out(self.root, msgspec.msgpack.decode(encode(intent), type=Intent))

    def settle(self, intent: Intent, outcome: Outcome) -> None:
        """Take over how everything stands, clear the stage, and look where that was asked for."""
        for step in intent.steps:
            node_id = step.node.node_id
            if node_id in outcome.placed:
                look = outcome.placed[node_id]
                self.tree.update({node_id: None if look is None else step.after})
                if look is None:
                    self.prints.pop(node_id, None)
                else:
                    self.prints[node_id] = look
            if step.staged is not None:
                left = self.root.look(step.staged.path)
                if left is not None and left.ino == step.staged.ino:
                    self.root.remove_file(step.staged.path)


def describe(path: Path) -> str:
    """One path, as a short word."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"-> {os.readlink(path)}"
    return "/" if stat.S_ISDIR(status.st_mode) else path.read_text()


class Crash(BaseException):
    """The machine stops."""


class Faults:
    """Counts the system calls that change the disk, and stops the machine before or after one of them."""

    CALLS = (
        "link", "unlink", "rmdir", "mkdir", "rename", "utime", "fchmod", "chmod", "symlink", "setxattr", "removexattr",
    )  # fmt: skip

    def __init__(self, monkeypatch, at: int, after: bool) -> None:
        self.count, self.at, self.after = 0, at, after
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        from agent import filesystem

        monkeypatch.setattr(filesystem, "_rename_at", self._counted(filesystem._rename_at))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.count += 1
            if self.count == self.at and not self.after:
                raise Crash
            result = call(*arguments, **options)
            if self.count == self.at and self.after:
                raise Crash
            return result

        return counted
