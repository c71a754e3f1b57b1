"""Put staged changes in place on disk: all of them after a restart, or none. The only room that writes among a person's files.

Everything is staged under `.hutch/stage` first, checked against what was planned, and written down as an intent;
from then on it only goes forward, also after a crash: every step can see whether it was done before. What a person
changes in the last moment is never overwritten: the old object is exchanged out of its place, looked at, and kept
beside the new one when it is not what was planned against. Nothing is ever removed recursively.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from agent.errors import is_not_writable
from agent.filesystem import STAGE, Root
from agent.index import Print
from agent.names import Folding, conflict_name
from agent.plan import Change
from agent.trees import Node
from agent.xattrs import write_at
from broker.model import Kind, fold_name


class Staged(Struct, frozen=True, array_like=True):
    """New content that lies ready: its path below the root, and how it looks there, attributes and all.

    `lacking` names the extended attributes that the disk did not take.
    """

    path: str
    look: Print
    lacking: tuple[str, ...] = ()

    @property
    def ino(self) -> int:
        """Its inode."""
        return self.look.ino


class Step(Struct, frozen=True, array_like=True):
    """One node's way from what it was to what it shall be. Paths are relative to the root.

    Attributes:
        source: Where it stands now; None for a new node.
        target: Where it shall stand; None for one that goes.
        seen: How it looked when this was planned; None for a new node.
        staged: Its new content, where it gets any.
        parked: It goes by way of the stage, since names are exchanged or directories move into each other.
        remote: What the journal said of it when this was planned: that, and nothing newer, is what is agreed on then.
        landing: The path at which `target` can be looked at before the directories above it are moved; None where
            there is no target.
    """

    before: Node | None
    after: Node | None
    source: str | None
    target: str | None
    seen: Print | None
    staged: Staged | None
    parked: bool
    remote: Node | None = None
    landing: str | None = None

    @property
    def node(self) -> Node:
        """The node, as it shall be or as it was."""
        node = self.after or self.before
        assert node is not None
        return node

    @property
    def moves(self) -> bool:
        """Whether it stands elsewhere afterwards: in another directory, or under another name on disk."""
        if self.source is None or self.target is None or self.before is None or self.after is None:
            return False
        return self.before.parent_id != self.after.parent_id or _name(self.source) != _name(self.target)


class Intent(Struct, frozen=True, array_like=True):
    """What is to be done, written down before the first step. `device` and `date` name conflict copies."""

    steps: tuple[Step, ...]
    device: str
    date: str


def decode_intent(data: bytes) -> Intent:
    """An intent, as it was written down."""
    return msgspec.msgpack.decode(data, type=Intent)


class Outcome(Struct):
    """What was done.

    Attributes:
        placed: How each node stands now; None: it is gone. A node that is missing here was left as it was.
        stayed: Directories that were to go and are not empty.
        look_again: Directories in which something was not as planned.
        lingering: Old content that a program still has open for writing: stage path to (place it had, look).
        late: How many late edits were kept as conflict copies.
        refused: The directory of one of those that nobody may write to, and what the operating system says; None: none.
        lacking: For each node whose extended attributes were set, the names of those that the disk did not take.
        disputed: Nodes whose extended attributes somebody has changed in the last moment. They were left as they were.
    """

    placed: dict[UUID, Print | None]
    stayed: set[UUID]
    look_again: set[str]
    lingering: dict[str, tuple[str, Print]]
    late: int = 0
    refused: tuple[str, str] | None = None
    lacking: dict[UUID, tuple[str, ...]] = {}
    disputed: set[UUID] = set()


def prepare(
    changes: Iterable[Change],
    *,
    path_before: Callable[[UUID], str | None],
    path_after: Callable[[UUID], str | None],
    prints: Callable[[UUID], Print | None],
    staged: Callable[[UUID], Staged | None],
    remote: Callable[[UUID], Node | None],
    device: str,
    date: str,
) -> Intent:
    """Turn changes of the local tree into steps. Pure."""
    changes = list(changes)
    by_id = {change.node_id: change for change in changes}
    steps = []
    for change in changes:
        target = None if change.after is None else path_after(change.node_id)
        steps.append(
            Step(
                before=change.before,
                after=change.after,
                source=None if change.before is None else path_before(change.node_id),
                target=target,
                seen=prints(change.node_id),
                staged=staged(change.node_id),
                parked=False,
                remote=remote(change.node_id),
                landing=_landing(change.after, target, path_before, by_id),
            )
        )
    return Intent(tuple(_with_parking(steps)), device, date)


def _with_parking(steps: list[Step]) -> Iterator[Step]:
    """Those that move and cannot in one step, since names, or directories, have to be free or there first."""
    movers = sum(step.moves for step in steps)
    freed = {
        _place_before(step)
        for step in steps
        if step.source is not None and (step.after is None or step.moves)
    }
    taken = {
        _place_after(step)
        for step in steps
        if step.target is not None and (step.before is None or step.moves)
    }
    made = {step.node.node_id for step in steps if step.before is None}
    gone = {step.node.node_id for step in steps if step.after is None}
    for step in steps:
        if step.moves:
            assert step.before is not None
            assert step.after is not None
            crossed = _place_after(step) in freed or _place_before(step) in taken
            parents = (
                step.after.parent_id in made or step.before.parent_id in gone
            )  # which must be there, or empty
            if movers > 1 or crossed or parents:
                step = structs.replace(step, parked=True)
        yield step


def _place_before(step: Step) -> tuple[UUID, str]:
    """Directory, and name on disk: names that some file system takes for one count as one."""
    assert step.before is not None
    assert step.source is not None
    return step.before.parent_id, fold_name(_name(step.source))


def _place_after(step: Step) -> tuple[UUID, str]:
    assert step.after is not None
    assert step.target is not None
    return step.after.parent_id, fold_name(_name(step.target))


def _landing(
    node: Node | None,
    target: str | None,
    path_before: Callable[[UUID], str | None],
    by_id: Mapping[UUID, Change],
) -> str | None:
    """Where a target is before the directories above it move: below the nearest one of them that is there already."""
    if target is None:
        return None
    names, new = target.split("/"), 1
    while node is not None and (head := path_before(node.parent_id)) is None and new < len(names):
        change = by_id.get(node.parent_id)
        node, new = None if change is None else change.after, new + 1
    return None if node is None or head is None else "/".join(([head] if head else []) + names[-new:])


def check(root: Root, intent: Intent) -> set[str]:
    """Compare the disk with what was planned against. Blocks.

    Returns:
        Directories in which something is not as it was: look there, and plan again. Empty: go ahead.
    """
    wrong: set[str] = set()
    freed = {
        root.folding.fold(step.source)
        for step in intent.steps
        if step.source is not None and (step.after is None or step.moves)
    }
    made = {step.node.node_id: step for step in intent.steps if step.before is None}
    for step in intent.steps:
        if step.after is not None and step.target is None:
            wrong.add("")  # it would be cut off from the folder, and its old place be empty
        if step.source is not None:
            now = root.look(step.source)
            if step.seen is None or now is None or not _is_as_seen(step, now, step.seen):
                wrong.add(_parent(step.source))
        if step.landing is not None and (step.source is None or step.moves):
            is_free = _is_free(step, made, freed, root.folding)
            if not is_free and _is_in_the_way(root, step, step.landing):
                wrong.add(_parent(step.landing))
    return wrong


def _is_free(step: Step, made: Mapping[UUID, Step], freed: Collection[str], folding: Folding) -> bool:
    """Whether what stands at a step's landing, or at that of a new directory around it, goes from there."""
    at: Step | None = step
    while at is not None and at.after is not None and at.landing is not None:
        if folding.fold(at.landing) in freed:
            return True
        at = made.get(at.after.parent_id)
    return False


def _is_as_seen(step: Step, now: Print, seen: Print) -> bool:
    if step.node.kind is Kind.DIRECTORY:
        return (now.dev, now.ino) == (seen.dev, seen.ino)
    return now.same_content(seen)


def _is_in_the_way(root: Root, step: Step, target: str) -> bool:
    now = root.look(target)
    if now is None or (step.node.kind is Kind.DIRECTORY and step.source is None):
        return False
    # Its own old name may be the new one too, to a file system that folds.
    return not (root.folding.any and step.moves and _is_same_inode(now, step.seen))


def carry_out(root: Root, intent: Intent) -> Outcome:
    """Do all steps, or what is left of them after a crash. Blocks; only one at a time in a folder.

    The caller has written the intent down durably, and forgets it after having stored the outcome.
    """
    return _Placing(root, intent).run()


class _Placing:
    def __init__(self, root: Root, intent: Intent) -> None:
        self.root = root
        self.intent = intent
        self.outcome = Outcome(placed={}, stayed=set(), look_again=set(), lingering={})
        self.failed: set[UUID] = set()
        fold = root.folding.fold
        self.by_target = {fold(step.target): step for step in intent.steps if step.target is not None}
        self.touched: set[str] = {STAGE}

    def run(self) -> Outcome:
        steps = self.intent.steps
        for step in sorted(steps, key=lambda step: -_depth(step.source)):
            self._guarded(step, self._detach)
        for step in sorted(steps, key=lambda step: _depth(step.target)):
            if step.target is not None and step.node.node_id not in self.failed:
                self._guarded(step, self._attach)
        for step in sorted(steps, key=lambda step: -_depth(step.target)):
            if step.target is not None and step.node.node_id not in self.failed:
                self._guarded(step, self._finish)
        for step in steps:
            if step.node.node_id in self.failed:
                self._bring_back(step)
        self.root.sync(self.touched)
        return self.outcome

    def _bring_back(self, step: Step) -> None:
        """Nothing of a person's stays in the stage for a step that failed."""
        place = step.target or step.source
        for suffix in ("in", "out", "move"):
            aside = f"{STAGE}/{step.node.node_id.hex}.{suffix}"
            now = self.root.look(aside)
            if place is None or now is None or (step.staged is not None and now.ino == step.staged.ino):
                continue
            if suffix == "in" and self._drop(step, aside, place):
                continue  # it was replaced, and what replaced it has gone since
            self._keep_beside(step, aside, place)

    def _guarded(self, step: Step, action: Callable[[Step], None]) -> None:
        """What one path refuses stops that path alone: it is looked at again, and planned again."""
        try:
            try:
                action(step)
            except PermissionError:
                with self._writable(step):
                    action(step)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                raise
            if is_not_writable(error):
                self.outcome.refused = (
                    _parent(step.target or step.source or ""),
                    error.strerror or str(error),
                )
            self._give_up(step)

    @contextlib.contextmanager
    def _writable(self, step: Step) -> Iterator[None]:
        """Open up read-only directories of the person's own for as long as one step takes."""
        opened: list[tuple[str, int]] = []
        try:
            for path in {_parent(path) for path in (step.source, step.target) if path is not None}:
                now = self.root.look(path) if path else None
                if now is not None and not now.mode & 0o200:
                    self.root.set_attributes(path, Kind.DIRECTORY, now.mode | 0o700, None)
                    opened.append((path, now.mode))
            yield
        finally:
            for path, mode in opened:
                with contextlib.suppress(FileNotFoundError):
                    self.root.set_attributes(path, Kind.DIRECTORY, mode, None)

    def _give_up(self, step: Step) -> None:
        self.failed.add(step.node.node_id)
        for path in (step.source, step.target):
            if path is not None:
                self.outcome.look_again.add(_parent(path))

    def _touch(self, path: str) -> None:
        self.touched.add(_parent(path))

    # --- what goes, or has to make room

    def _detach(self, step: Step) -> None:
        if step.source is None:
            return
        if step.after is None:
            if step.node.kind is Kind.DIRECTORY:
                self._remove_directory(step, step.source)
            else:
                self._remove(step, step.source)
        elif step.parked:
            self._park(step, step.source)

    def _remove_directory(self, step: Step, path: str) -> None:
        now = self.root.look(path)
        if now is not None and not self._is_ours(step, path, now):
            if not _is_same_inode(now, step.seen):
                self._give_up(step)
                return
            try:
                self.root.remove_directory(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self.outcome.stayed.add(step.node.node_id)
                return
        self._touch(path)
        self.outcome.placed[step.node.node_id] = None

    def _remove(self, step: Step, path: str) -> None:
        aside, now = f"{STAGE}/{step.node.node_id.hex}.out", self.root.look(path)
        if now is None or not self._is_ours(step, path, now):
            self._take_away(path, aside)
        self._drop_or_return(step, aside, path)
        if step.node.node_id not in self.failed:
            self.outcome.placed[step.node.node_id] = None

    def _is_ours(self, leaving: Step, path: str, now: Print) -> bool:
        """Whether it is not what shall leave this path, but what another step has put there before a crash."""
        comes = self.by_target.get(self.root.folding.fold(path))
        if comes is None or _is_same_inode(now, leaving.seen):
            return False
        if comes.source is None and comes.staged is None:
            return self._is_directory(path)
        return self._is_put(comes, path) or (comes.moves and self._is_there(comes, path))

    def _is_directory(self, path: str) -> bool:
        with contextlib.suppress(OSError), self.root.directory(path):
            return True
        return False

    def _take_away(self, path: str, aside: str) -> None:
        """Rename into the stage, unless that was done before."""
        here, there = self.root.look(path), self.root.look(aside)
        if here is not None and there is None:
            self.root.rename(path, aside)
        elif here is not None and there is not None and here.ino == there.ino:
            self.root.remove_file(path)  # a rename by link and unlink was cut short
        self._touch(path)

    def _drop_or_return(self, step: Step, aside: str, path: str) -> None:
        if self._drop(step, aside, path):
            return
        try:
            self.root.rename(aside, path)
        except FileExistsError:
            self._keep_beside(step, aside, path)
        self._give_up(step)

    def _park(self, step: Step, path: str) -> None:
        aside = f"{STAGE}/{step.node.node_id.hex}.move"
        now, there = self.root.look(path), self.root.look(aside)
        if there is not None and now is not None and there.ino == now.ino:
            self.root.remove_file(path)  # a rename by link and unlink was cut short
        done = self._is_there(step, step.target) or self._is_put(step, step.target)
        if there is not None or done or self._is_half_put(step):
            return
        if not _is_same_inode(now, step.seen):
            self._give_up(step)
            return
        self.root.rename(path, aside)
        self._touch(path)

    def _is_there(self, step: Step, path: str | None) -> bool:
        if path is None or not _is_same_inode(self.root.look(path), step.seen):
            return False
        return not step.moves or self.root.is_named(path)

    # --- what comes

    def _attach(self, step: Step) -> None:
        assert step.target is not None
        if step.after is not None and step.after.parent_id in self.failed:
            self._refuse_child(step)
            return
        if step.moves and not self._is_put(step, step.target) and not self._is_half_put(step):
            self._move_in(step, step.target)
            if step.node.node_id in self.failed:
                return
        if step.staged is not None:
            self._put(step, step.staged, step.target)
        elif step.source is None:
            self._make_directory(step, step.target)

    def _is_put(self, step: Step, target: str | None) -> bool:
        """Whether the new content stands in its place since before a crash."""
        now = None if target is None else self.root.look(target)
        return step.staged is not None and now is not None and now.ino == step.staged.ino

    def _lies_ready(self, staged: Staged) -> bool:
        """Whether what was staged is still what lies there."""
        now = self.root.look(staged.path)
        return now is not None and now.ino == staged.ino

    def _is_half_put(self, step: Step) -> bool:
        """Whether the old content was taken away by `_put_in_two_steps` before a crash."""
        return step.staged is not None and self._is_there(step, f"{STAGE}/{step.node.node_id.hex}.out")

    def _refuse_child(self, step: Step) -> None:
        """Its directory is not there, or is another one of that name."""
        parked = f"{STAGE}/{step.node.node_id.hex}.move"
        if step.parked and self.root.look(parked) is not None:
            self._return_parked(step, parked)
        self._give_up(step)

    def _move_in(self, step: Step, target: str) -> None:
        if self._is_there(step, target):
            self._drop_half_rename(step, target)
            return
        parked = f"{STAGE}/{step.node.node_id.hex}.move"
        at = parked if step.parked and self.root.look(parked) is not None else step.source
        assert at is not None
        try:
            self.root.rename(at, target)
        except OSError:
            if at == parked:
                self._return_parked(step, parked)
            self._give_up(step)
            return
        self._touch(at)
        self._touch(target)

    def _drop_half_rename(self, step: Step, target: str) -> None:
        """Where nothing renames without overwriting, a file is linked, then unlinked: a crash leaves two names."""
        if step.node.kind is Kind.DIRECTORY:
            return
        fold = self.root.folding.fold
        for path in (f"{STAGE}/{step.node.node_id.hex}.move", step.source):
            # Another spelling of the target's name is no second name of the file, but the only one that it has.
            if path is not None and fold(path) != fold(target) and self._is_there(step, path):
                self.root.remove_file(path)

    def _return_parked(self, step: Step, parked: str) -> None:
        assert step.source is not None
        try:
            self.root.rename(parked, step.source)
        except OSError:
            self._keep_beside(step, parked, step.node.name)

    def _make_directory(self, step: Step, target: str) -> None:
        try:
            self.root.make_directory(target)
        except FileExistsError:
            if any(s.source == target and s.node.node_id in self.outcome.stayed for s in self.intent.steps):
                raise  # that one had to stay: who is who is for the next plan to say
            # A directory of that name is as good; anything else is in the way.
            with self.root.directory(target):
                pass
        self._touch(target)

    def _put(self, step: Step, staged: Staged, target: str) -> None:
        aside = f"{STAGE}/{step.node.node_id.hex}.out"
        self._touch(target)
        if self._is_put(step, target):
            pass  # done before the crash; the old one may still lie in the stage
        elif not self._is_half_put(step) and not self._lies_ready(staged):
            raise FileNotFoundError(errno.ENOENT, "what was staged is not there any more", staged.path)
        elif step.source is None:
            self.root.rename(staged.path, target)
        elif self.root.look(aside) is not None or not self.root.exchange(staged.path, target):
            self._put_in_two_steps(staged, target, aside)
        for path in (staged.path, aside):
            self._settle_old(step, staged, path, target)

    def _put_in_two_steps(self, staged: Staged, target: str, aside: str) -> None:
        """Where nothing exchanges: the name is free for an instant, and nothing is ever overwritten."""
        self._take_away(target, aside)
        try:
            self.root.rename(staged.path, target)
        except OSError:
            with contextlib.suppress(OSError):
                self.root.rename(aside, target)
            raise

    def _settle_old(self, step: Step, staged: Staged, aside: str, target: str) -> None:
        """What was exchanged out of its place goes, unless somebody has written to it since this was planned."""
        old = self.root.look(aside)
        if old is not None and old.ino == staged.ino:
            self.root.remove_file(aside)  # a rename by link and unlink was cut short
        elif not self._drop(step, aside, target):
            self._keep_beside(step, aside, target)

    def _drop(self, step: Step, aside: str, place: str) -> bool:
        """Drop a replaced or deleted object; False when it is not what was planned against, and must be kept.

        First whether it is open, then how it looks: the other way round, a last write before the closing is lost.
        """
        is_open = self.root.is_open_for_writing(aside)
        look = self.root.look(aside)
        if look is None:
            return True
        if step.seen is None or not look.same_file(step.seen):
            return False
        if is_open is not False:
            keep = f"{aside}.{look.ino}.open"
            self.root.rename(aside, keep)
            self.outcome.lingering[keep] = (place, look)
        else:
            self.root.remove_file(aside)
        return True

    def _keep_beside(self, step: Step, aside: str, place: str) -> None:
        """A late edit: it gets a name of its own where it was made."""
        keep_beside(self.root, aside, _parent(place), step.node.name, self.intent.device, self.intent.date)
        self._touch(place)
        self.outcome.look_again.add(_parent(place))
        self.outcome.late += 1

    # --- how it stands

    def _finish(self, step: Step) -> None:
        """Note how the node stands. Who comes later must see what a person has done to it meanwhile."""
        assert step.target is not None
        assert step.after is not None
        node, now = step.after, self.root.look(step.target)
        if now is None or not self._is_placed(step, node, now):
            self._give_up(step)
            return
        if step.staged is not None:
            self.outcome.lacking[node.node_id] = step.staged.lacking
        elif self._differs_in_xattrs(step, node):
            if not self._set_xattrs(step, node, step.target):
                self._give_up(step)
                return
            now = self.root.look(step.target) or now
        if node.kind is not Kind.SYMLINK and step.staged is None and not self._has(now, node):
            # The time is left alone where only the mode differs: setting it would hide a write in this very moment.
            other_time = node.kind is Kind.FILE and now.mtime_ns != node.mtime_ns
            self.root.set_attributes(step.target, node.kind, node.mode, node.mtime_ns if other_time else None)
            size_bytes, now = now.size, self.root.look(step.target)
            if now is None or not self._has(now, node) or (node.kind is Kind.FILE and now.size != size_bytes):
                self._give_up(step)
                return
        if step.staged is not None and not now.same_file(step.staged.look):
            # An edit of what was just placed, perhaps while the machine was down: no later look shall match this one.
            now = step.staged.look
            self.outcome.look_again.add(_parent(step.target))
        self.outcome.placed[node.node_id] = now

    @staticmethod
    def _differs_in_xattrs(step: Step, node: Node) -> bool:
        before = () if step.before is None else step.before.xattrs
        return node.kind is not Kind.SYMLINK and before != node.xattrs

    def _set_xattrs(self, step: Step, node: Node, path: str) -> bool:
        """Give it other extended attributes. False when somebody else has, in the last moment."""
        before = () if step.before is None else step.before.xattrs
        try:
            lacking = write_at(self.root, path, node.kind, before, node.xattrs)
        except PermissionError:  # unreadable to its owner: its mode is put right afterwards
            self.root.set_attributes(path, node.kind, node.mode | 0o700, None)
            lacking = write_at(self.root, path, node.kind, before, node.xattrs)
        if lacking is None:
            self.outcome.disputed.add(node.node_id)
            return False
        self.outcome.lacking[node.node_id] = lacking
        return True

    def _is_placed(self, step: Step, node: Node, now: Print) -> bool:
        if step.staged is not None:
            return now.ino == step.staged.ino
        if step.seen is None or node.kind is Kind.DIRECTORY:
            return True
        attributed = (now.dev, now.ino, now.size) == (step.seen.dev, step.seen.ino, step.seen.size)
        return now.same_file(step.seen) or (attributed and self._has(now, node))

    @staticmethod
    def _has(now: Print, node: Node) -> bool:
        return now.mode == node.mode and (node.kind is not Kind.FILE or now.mtime_ns == node.mtime_ns)


def keep_beside(root: Root, aside: str, head: str, name: str, device: str, date: str) -> str:
    """Give a staged object the conflict name of `name` in the directory `head` (or at the top, when that is gone).

    Returns:
        The path that it got. Blocks.
    """
    try:
        with root.directory(head):
            pass
    except OSError:
        head = ""
    prefix = f"{head}/" if head else ""
    while True:
        free = conflict_name(name, device, date, lambda candidate: root.look(prefix + candidate) is None)
        with contextlib.suppress(FileExistsError):
            root.rename(aside, prefix + free)
            return prefix + free


def sweep(root: Root, keep: Iterable[str], name_back: str, device: str, date: str) -> list[str]:
    """Clear the stage of what a crash has left: half-fetched content goes, a person's own objects come back.

    Args:
        root: The folder.
        keep: Stage paths that somebody still needs.
        name_back: The name that what comes back is given, as a conflict copy at the top of the folder.
        device: For that name.
        date: For that name.

    Returns:
        Paths of what came back. Blocks.
    """
    kept = set(keep)
    returned: list[str] = []
    with root.directory(STAGE) as fd:
        names = os.listdir(fd)
    for name in names:
        path = f"{STAGE}/{name}"
        if path in kept:
            continue
        if name.endswith(".in"):
            root.remove_file(path)
        else:
            returned.append(keep_beside(root, path, "", name_back, device, date))
    return returned


def _is_same_inode(now: Print | None, seen: Print | None) -> bool:
    """Whether two looks are of one inode; its number alone may have been used again since."""
    if now is None or seen is None or (now.dev, now.ino) != (seen.dev, seen.ino):
        return False
    return now.birth_ns == seen.birth_ns or not now.birth_ns or not seen.birth_ns


def _depth(path: str | None) -> int:
    return -1 if path is None else path.count("/")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
