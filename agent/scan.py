"""What is on disk: look at a folder, and tell which node each object is, and which nodes have gone.

A look reads names and `stat` only, never contents; and extended attributes of directories that have changed since the
last look. Identity is the inode and its birth time; a file that was
exchanged at its old path (as most programs save) keeps its node. Blocks: call it in a thread, while nothing else
changes the local tree or places files.
"""

import os
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct

from agent.filesystem import Root, birth_ns, kind_of, print_of
from agent.ignore import Rules
from agent.index import Print, Prints
from agent.marker import MARKER
from agent.trees import UNHASHED, Node, Tree, replace
from agent.xattrs import see_at
from broker.errors import Retryable
from broker.model import MODE_MASK, ROOT, Kind, name_problem, target_problem

OWN_NAME: Final = ".hutch"

UNREADABLE: Final = "unreadable"
"""The code of the problem of what may not, or cannot, be read."""

_TRIES: Final = 4
"""How often to look again at once when something moved meanwhile."""


class RootGone(Retryable):
    """The folder is not there any more, or is another one: unmounted, moved or replaced. Nothing was deleted."""

    code = "folder_gone"
    exit_code = 31


class Unsteady(Retryable):
    """Directories were moved about for as long as they were looked at: what was seen is of no one moment."""

    code = "unsteady"


class Problem(Struct, frozen=True):
    """One path that cannot be synced, and why. `path` is escaped: it can be shown as it is."""

    path: str
    code: str
    message: str


class Sight(Struct, frozen=True):
    """What one scan saw. `local` and `prints` hold what differs from before: None for what has gone.

    `aliases` holds nodes that bear another alias than before; None: none any more. `ignored` holds those that the rules
    have begun (True) or ceased (False) to ignore; `freed` those of the latter that did not go with their directory.
    `problems` are by path, as it is; `looked` are the directories whose listing is whole. `fresh` says whose extended
    attributes are to be read at the next look too (True), and whose no more; `unsettled` are directories in which there are
    such of the former, with how long to leave them alone, in seconds. `oversized` says of those that were read whether they
    are more than is synced, `regained` which of them the disk lacked before.
    """

    local: dict[UUID, Node | None]
    prints: dict[UUID, Print | None]
    problems: dict[str, Problem]
    looked: set[str]
    aliases: dict[UUID, str | None]
    ignored: dict[UUID, bool]
    freed: set[UUID]
    fresh: dict[UUID, bool]
    unsettled: dict[str, float]
    oversized: dict[UUID, bool]
    regained: dict[UUID, tuple[str, ...]]


class Marks(Struct, frozen=True):
    """What is known of extended attributes.

    Attributes:
        lacking: Names that this disk has not taken.
        fresh: Nodes whose attributes are to be read though they look as before.
        rest_s: How much longer a change would not show in what has this print, in seconds.
    """

    lacking: Mapping[UUID, Collection[str]] = {}
    fresh: Collection[UUID] = ()
    rest_s: Callable[[Print], float] = lambda look: 0.0


class Sieve(Struct, frozen=True):
    """What is not to be looked at.

    Attributes:
        rules: By which names are ignored.
        is_new: Whether they differ from those of the last look: then what is known is asked for as well.
        ignored: Known nodes that were ignored at the last look.
        is_told: Whether others know a node: it is kept as it was known then; of all else nothing is known any more.
        is_wanted: Whether others know another node by a name in a directory: what has that name here is seen.
        resting: Files that change all the time, and are taken to be as they were for a while.
    """

    rules: Rules
    is_new: bool = False
    ignored: Collection[UUID] = frozenset()
    is_told: Callable[[UUID], bool] = lambda node_id: True
    is_wanted: Callable[[UUID, str], bool] = lambda parent_id, name: False
    resting: Collection[UUID] = frozenset()


class _Object(Struct):
    """One thing in a directory. `parent` is the object of its directory, None in the root.

    `name` is the node's own, the last one of `path` what the disk calls it: an alias is told to nobody.
    """

    parent: "_Object | None"
    name: str
    path: str
    kind: Kind
    print: Print
    target: str = ""
    node_id: UUID | None = None

    @property
    def name_on_disk(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent_id(self) -> UUID:
        if self.parent is None:
            return ROOT
        assert self.parent.node_id is not None  # directories are known before what is in them
        return self.parent.node_id


def scan(
    root: Root,
    local: Tree,
    prints: Prints,
    where: Mapping[str, bool],
    new_id: Callable[[], UUID],
    sieve: Sieve | None = None,
    marks: Marks | None = None,
) -> Sight:
    """Look at some directories, or at all.

    Args:
        root: The folder.
        local: What was seen before. Is not changed.
        prints: How each node of `local` looked then.
        where: Directories by path, with whether to go into known sub-directories too; `{"": True}` is everything.
            Unknown and moved sub-directories are always entered.
        new_id: Makes ids for what has none.
        sieve: What not to look at; None: nothing but what no folder should hold.
        marks: What is known of extended attributes; None: nothing is.

    Returns:
        What differs. Files whose bytes may have changed come with the digest `UNHASHED`.

    Raises:
        RootGone: When the folder is not (or is no more) in its place; nothing that was seen counts then.
        Unsteady: When things moved whenever they were looked at.
    """
    _check_root(root)
    look = _walk(root, local, prints, where, new_id, sieve or Sieve(Rules()), marks or Marks())
    look.identify()
    sight = look.compare()
    _check_root(root)
    return sight


def is_in_place(root: Root) -> bool:
    """Whether the folder stands where it should, with its mark. Blocks."""
    return root.is_in_place() and root.look(f"{OWN_NAME}/{MARKER}") is not None


def _check_root(root: Root) -> None:
    if not is_in_place(root):
        raise RootGone(
            "the folder is not in its place (moved, unmounted or replaced): nothing is synced until it is"
        )


def _walk(
    root: Root,
    local: Tree,
    prints: Prints,
    where: Mapping[str, bool],
    new_id: Callable[[], UUID],
    sieve: Sieve,
    marks: Marks,
) -> "_Look":
    known = _known_directories(local, where)
    for _ in range(_TRIES):
        look = _Look(root, local, prints, new_id, sieve, marks)
        for path in sorted(known, key=lambda path: path.count("/") if path else -1):
            look.enter(path, known[path])
        if look.is_steady():
            return look
    raise Unsteady("the folder changes faster than it can be looked at")


def _known_directories(local: Tree, where: Mapping[str, bool]) -> dict[str, bool]:
    """For a directory that nobody knows, the nearest one above it that is known."""
    known: dict[str, bool] = {}
    for path, deep in where.items():
        at, node_id = "", ROOT
        for name in path.split("/") if path else ():
            node = local.child_on_disk(node_id, name)
            if node is None or node.kind is not Kind.DIRECTORY:
                deep = False
                break
            at, node_id = f"{at}/{name}" if at else name, node.node_id
        known[at] = known.get(at, False) or deep
    return known


class _Look:
    def __init__(
        self,
        root: Root,
        local: Tree,
        prints: Prints,
        new_id: Callable[[], UUID],
        sieve: Sieve,
        marks: Marks,
    ) -> None:
        self.root = root
        self.local = local
        self.prints = prints
        self.new_id = new_id
        self.sieve = sieve
        self.marks = marks
        self.fresh: dict[UUID, bool] = {}
        self.unsettled: dict[str, float] = {}
        self.oversized: dict[UUID, bool] = {}
        self.regained: dict[UUID, tuple[str, ...]] = {}
        self.ignored: dict[UUID, bool] = {}
        self.freed: set[UUID] = set()
        self.problems: dict[str, Problem] = {}
        self.objects: list[_Object] = []
        self.complete: dict[str, _Object | None] = {}  # directories whose listing is whole
        self.kept: set[UUID] = set()  # nodes that are there, but cannot be looked at
        self.taken: set[UUID] = set()
        self.whole: set[UUID | None] = set()  # directories of which all that was known is there
        self.listed: dict[tuple[int, int], str] = {}
        self.steady = True

    # --- walking

    def enter(self, path: str, deep: bool) -> None:
        """Look into a known directory."""
        while (parent := self._chain(path)) is None and path:
            path, deep = path.rpartition("/")[0], False  # another one has its name: that is seen from above
        stack = [(path, parent)]
        while stack:
            at, parent = stack.pop()
            if at in self.complete:
                continue
            stack.extend(
                (item.path, item) for item in self._list(at, parent) if deep or not self._is_known(item)
            )

    def _chain(self, path: str) -> _Object | None:
        """The object of a known directory, made from what is known of it, with those above it; None: it has gone."""
        parent: _Object | None = None
        at, node_id = "", ROOT
        for name in path.split("/") if path else ():
            at = f"{at}/{name}" if at else name
            node = self.local.child_on_disk(node_id, name)
            if node is None or node.node_id not in self.prints or self._is_closed(node, at):
                return None
            node_id = node.node_id
            parent = _Object(parent, node.name, at, node.kind, self.prints[node_id], node_id=node_id)
        if parent is not None and not self._is_at(at, (parent.print.dev, parent.print.ino)):
            return None
        return parent

    def _is_known(self, item: _Object) -> bool:
        node = self.local.find(item.path)
        if node is None or node.kind is not Kind.DIRECTORY:
            return False
        before = self.prints.get(node.node_id)
        return before is not None and (before.dev, before.ino) == (item.print.dev, item.print.ino)

    def _list(self, path: str, parent: _Object | None) -> list[_Object]:
        """Look into one directory. Returns the directories in it."""
        found: list[_Object] = []
        same: list[UUID] = []
        directories: list[_Object] = []
        try:
            with self.root.directory(path) as fd, os.scandir(fd) as entries:
                if not self._is_first(fd, path, parent):
                    return []
                spelled = self._spellings(parent)
                known = self._known_names(parent)
                for entry in entries:
                    node_id = known.get(entry.name)
                    if node_id is not None and self._is_as_seen(node_id, entry, path, parent, directories):
                        same.append(node_id)
                        continue
                    item = self._object(fd, entry, path, parent, spelled)
                    if item is None:
                        continue
                    found.append(item)
                    if node_id is not None and self._is_same_directory(node_id, item):
                        item.node_id = node_id
                        same.append(node_id)
        except (FileNotFoundError, NotADirectoryError):
            return []  # gone since: its parent's listing tells
        except OSError as error:
            self._unreadable(path, error)
            return []
        self.complete[path] = parent
        self.taken.update(same)
        if known and len(same) == len(known):
            self.whole.add(ROOT if parent is None else parent.node_id)
        self.objects.extend(found)
        directories.extend(item for item in found if item.kind is Kind.DIRECTORY)
        return directories

    def _known_names(self, parent: _Object | None) -> Mapping[str, UUID]:
        """The names of a directory of which it is known which node it is. Where some bear aliases, each is looked at closely."""
        parent_id = ROOT if parent is None else parent.node_id
        if parent_id is None or self.sieve.is_new or self.local.aliases:
            return {}
        return self.local.names(parent_id)

    def _is_as_seen(
        self,
        node_id: UUID,
        entry: "os.DirEntry[str]",
        path: str,
        parent: _Object | None,
        directories: list[_Object],
    ) -> bool:
        """Whether what has a known name is what had it at the last look, unchanged: nothing else has to be asked of it then.

        Nearly everything is like that, nearly always. Where it is a directory, it is added to `directories`.
        """
        if node_id in self.sieve.ignored or node_id in self.marks.fresh:
            return False
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return False
        node, mode = self.local.nodes[node_id], status.st_mode
        if (
            not self.prints.is_as_seen(node_id, status, mode & MODE_MASK)
            or kind_of(mode) is not node.kind
            or status.st_dev != self.root.device
            or not self.prints.is_only(node_id, status.st_dev, status.st_ino)
        ):
            return False
        if node.kind is Kind.DIRECTORY:
            where = f"{path}/{node.name}" if path else node.name
            look = self.prints[node_id]
            directories.append(_Object(parent, node.name, where, node.kind, look, node_id=node_id))
        return True

    def _is_same_directory(self, node_id: UUID, item: _Object) -> bool:
        """Whether a directory of a known name is the one that had it, with other entries: what is in it need not wait for `identify`."""
        return (
            item.kind is Kind.DIRECTORY is self.local.nodes[node_id].kind
            and node_id not in self.taken
            and self.prints.is_only(node_id, item.print.dev, item.print.ino)
        )

    def _spellings(self, parent: _Object | None) -> dict[str, str]:
        """How the known names of a directory are spelled, where this file system tells no spellings apart.

        To it a name of another spelling is no other name: nobody has renamed anything.
        """
        if not self.root.folding.spelling:
            return {}
        parent_id = self._known_id(parent)
        known = self.local.children(parent_id) if parent_id is not None else ()
        names = (self.local.name_on_disk(child) for child in known)
        return {unicodedata.normalize("NFD", name): name for name in names}

    def _known_id(self, parent: _Object | None) -> UUID | None:
        return ROOT if parent is None else parent.node_id or self._owner(parent)

    def _own_name(self, parent: _Object | None, name: str) -> str:
        """What a node is called elsewhere that bears an alias here."""
        if not self.local.aliases:
            return name
        parent_id = self._known_id(parent)
        node = None if parent_id is None else self.local.child_on_disk(parent_id, name)
        return name if node is None else node.name

    def _spelled(self, name: str, spelled: Mapping[str, str]) -> str:
        if not self.root.folding.spelling:
            return name
        new = unicodedata.normalize("NFC", name) if self.root.respells else name
        return spelled.get(unicodedata.normalize("NFD", name), new)

    def _is_first(self, fd: int, path: str, parent: _Object | None) -> bool:
        """Whether this is the directory that was meant, and was not listed under another name just now."""
        status = os.fstat(fd)
        inode = (status.st_dev, status.st_ino)
        if parent is not None and inode != (parent.print.dev, parent.print.ino):
            self.steady = False
            return False
        other = self.listed.setdefault(inode, path)
        if other == path:
            return True
        if self._is_at(other, inode) and self._is_at(path, inode):
            self._problem(path, "mount", "this directory stands in two places: only one of them is synced")
        else:
            self.steady = False
        return False

    def is_steady(self) -> bool:
        """Whether nothing was seen under two names that has only one."""
        first: dict[tuple[int, int], str] = {}
        for item in self.objects:
            inode = (item.print.dev, item.print.ino)
            owner = self.prints.owner(*inode)
            if owner in self.taken:  # what is as it was seen before is among no objects
                other = first.setdefault(inode, self.local.path(owner) or "")
            else:
                other = first.setdefault(inode, item.path)
            if other != item.path and not (self._is_at(other, inode) and self._is_at(item.path, inode)):
                return False
        return self.steady

    def _is_at(self, path: str, inode: tuple[int, int]) -> bool:
        try:
            now = self.root.look(path)
        except OSError:
            return False
        return now is not None and (now.dev, now.ino) == inode

    def _object(
        self,
        fd: int,
        entry: "os.DirEntry[str]",
        path: str,
        parent: _Object | None,
        spelled: Mapping[str, str],
    ) -> _Object | None:
        name = self._spelled(entry.name, spelled)
        if name == OWN_NAME and not path:
            return None
        where = f"{path}/{name}" if path else name
        if (problem := name_problem(name)) is not None:
            self._problem(where, "bad_name", problem)
            return None
        try:
            status = entry.stat(follow_symlinks=False)
            kind = kind_of(status.st_mode)
            if kind is None:
                self._problem(where, "special", "pipes, sockets and devices are not synced")
                return None
            if status.st_dev != self.root.device:
                self._keep(where)
                self._problem(where, "mount", "another file system is mounted here: it is not synced")
                return None
            own_name = self._own_name(parent, name)
            if self._is_ignored(parent, own_name, where, kind):
                return None
            target = os.readlink(name, dir_fd=fd) if kind is Kind.SYMLINK else ""
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unreadable(where, error)
            return None
        if kind is Kind.SYMLINK and (problem := target_problem(target)) is not None:
            self._problem(where, "bad_name", problem)
            return None
        return _Object(parent, own_name, where, kind, print_of(status, 0), target)

    # --- what is not to be looked at

    def _is_ignored(self, parent: _Object | None, name: str, path: str, kind: Kind) -> bool:
        parent_id = self._known_id(parent)
        known = None if parent_id is None else self.local.child(parent_id, name)
        if known is not None and not self.sieve.is_new and known.node_id not in self.sieve.ignored:
            return False
        if not self.sieve.rules.ignores(path, is_directory=kind is Kind.DIRECTORY):
            return False
        if known is not None and self._is_told(known):
            self._set_aside(known)
            return True
        return parent_id is None or not self.sieve.is_wanted(parent_id, name)

    def _is_closed(self, directory: Node, path: str) -> bool:
        """Whether a known directory is ignored, with all that is in it."""
        if not (self.sieve.is_new or directory.node_id in self.sieve.ignored):
            return False
        return self.sieve.rules.ignores(path, is_directory=True)

    def _is_told(self, node: Node) -> bool:
        """Whether others know a node, or one below it."""
        is_told = self.sieve.is_told
        return is_told(node.node_id) or any(
            is_told(below.node_id) for below in self.local.below(node.node_id)
        )

    def _set_aside(self, node: Node) -> None:
        """Keep what is known of a node, and of all below it, as it is."""
        for each in (node, *self.local.below(node.node_id)):
            self.kept.add(each.node_id)
            if each.node_id not in self.sieve.ignored:
                self.ignored[each.node_id] = True

    def _is_gone_unseen(self, node: Node) -> bool:
        """Whether a node that no listing shows is one of which nobody looks whether it is there."""
        was = node.node_id in self.sieve.ignored
        if not (was or self.sieve.is_new):
            return False
        path = self.local.path(node.node_id)
        if path is None or not self._is_told(node):
            return False
        return self.sieve.rules.ignores(path, is_directory=node.kind is Kind.DIRECTORY)

    def _problem(self, path: str, code: str, message: str) -> None:
        self.problems[path] = Problem(printable(path), code, message)

    def _unreadable(self, path: str, error: OSError) -> None:
        """Unreadable is not deleted: what was known there stays known."""
        self._problem(path, UNREADABLE, error.strerror or str(error))
        self._keep(path)

    def _keep(self, path: str) -> None:
        node = self.local.find(path)
        if node is not None:
            self.kept.add(node.node_id)
            self.kept.update(below.node_id for below in self.local.below(node.node_id))

    # --- who is who

    def identify(self) -> None:
        """Give every object its node's id: directories from the top down first, then what is in them."""
        seen = {(item.print.dev, item.print.ino) for item in self.objects if item.kind is Kind.DIRECTORY}
        directories = [item for item in self.objects if item.kind is Kind.DIRECTORY]
        directories.sort(key=lambda item: item.path.count("/"))
        for item in directories:
            if item.node_id is None:
                self._identify_directory(item, seen)
        others = [item for item in self.objects if item.kind is not Kind.DIRECTORY]
        for rule in (self._same_inode_here, self._saved_anew, self._moved_here, self._same_name):
            for item in others:
                if item.node_id is None:
                    node_id = rule(item)
                    if node_id is not None:
                        self._take(item, node_id)
        for item in others:
            if item.node_id is None:
                self._take(item, self.new_id())

    def _take(self, item: _Object, node_id: UUID) -> None:
        item.node_id = node_id
        self.taken.add(node_id)
        alias, fold = self.local.aliases.get(node_id), self.root.folding.fold
        if alias is not None and fold(alias) == fold(item.name):
            self._keep_own_name(item, self.local.nodes[node_id].name)

    def _keep_own_name(self, item: _Object, name: str) -> None:
        """What was moved under its alias keeps its own name, if nothing has that where it is now."""
        others = (other.name for other in self.objects if other.parent is item.parent)
        if self.local.child(item.parent_id, name) is None and name not in others:
            item.name = name

    def _identify_directory(self, item: _Object, seen: set[tuple[int, int]]) -> None:
        node_id = self._same_inode_here(item) or self._moved_here(item)
        if node_id is None:
            candidate = self._same_name(item)
            before = self.prints.get(candidate) if candidate is not None else None
            # A directory that now stands elsewhere has left this name to another one.
            if before is not None and (before.dev, before.ino) not in seen:
                node_id = candidate
        self._take(item, node_id or self.new_id())

    def _known_here(self, item: _Object) -> Node | None:
        """The free node of this kind that was known under this name."""
        node = self.local.child(item.parent_id, item.name)
        if node is None or node.kind is not item.kind or node.node_id in self.taken:
            return None
        return node

    def _same_inode_here(self, item: _Object) -> UUID | None:
        node = self._known_here(item)
        before = self.prints.get(node.node_id) if node else None
        if node is None or before is None or (before.dev, before.ino) != (item.print.dev, item.print.ino):
            return None
        return node.node_id

    def _saved_anew(self, item: _Object) -> UUID | None:
        """An unknown inode at a known name: saved by way of a rename."""
        node = self._known_here(item)
        return node.node_id if node is not None and self._owner(item) is None else None

    def _moved_here(self, item: _Object) -> UUID | None:
        node_id = self._owner(item)
        if node_id is None or node_id in self.taken or node_id in self.kept:
            return None
        node = self.local.get(node_id)
        if node is None or node.kind is not item.kind or self._is_still_there(node, item):
            return None
        born = self._birth(item)
        known = self.prints[node_id].birth_ns
        return node_id if not born or not known or born == known else None

    def _same_name(self, item: _Object) -> UUID | None:
        node = self._known_here(item)
        return node.node_id if node is not None else None

    def _owner(self, item: _Object) -> UUID | None:
        """Whose inode this is, by what was seen before."""
        return self.prints.owner(item.print.dev, item.print.ino)

    def _is_still_there(self, node: Node, item: _Object) -> bool:
        """A hard link: the same inode under its old name as well."""
        path = self.local.path(node.node_id)
        if path is None or path == item.path:
            return False
        if self.root.folding.any and not self._is_listed(path):
            return False  # another case of the name would find it too
        try:
            now = self.root.look(path)
        except OSError:
            return True
        return now is not None and (now.dev, now.ino) == (item.print.dev, item.print.ino)

    def _is_listed(self, path: str) -> bool:
        try:
            return self.root.is_named(path)
        except OSError:
            return False

    def _birth(self, item: _Object) -> int:
        try:
            with self.root.parent(item.path) as (fd, name):
                return birth_ns(fd, name)
        except OSError:
            return 0

    # --- against what was known

    def compare(self) -> Sight:
        """What is new, different or gone."""
        changes: dict[UUID, Node | None] = {}
        prints: dict[UUID, Print | None] = {}
        aliases: dict[UUID, str | None] = {}
        for item in self.objects:
            assert item.node_id is not None
            self._compare(item, item.node_id, changes, prints)
            alias = item.name_on_disk if item.name_on_disk != item.name else None
            if alias != self.local.aliases.get(item.node_id):
                aliases[item.node_id] = alias
        gone = self._vanished()
        for node_id in gone:
            changes[node_id] = None
            prints[node_id] = None
        for node_id in self.sieve.ignored:
            if node_id in gone or node_id in self.taken:
                self.ignored[node_id] = False
            if node_id in self.taken:
                self.freed.add(node_id)
        return Sight(
            local=changes,
            prints=prints,
            problems=self.problems,
            looked=set(self.complete),
            aliases=aliases,
            ignored=self.ignored,
            freed=self.freed,
            fresh=self.fresh,
            unsettled=self.unsettled,
            oversized=self.oversized,
            regained=self.regained,
        )

    def _compare(
        self, item: _Object, node_id: UUID, changes: dict[UUID, Node | None], prints: dict[UUID, Print | None]
    ) -> None:
        before, known = self.prints.get(node_id), self.local.get(node_id)
        if (
            node_id in self.sieve.resting
            and known is not None
            and before is not None
            and not known.is_unhashed
        ):
            item.print = before
        node = self._with_xattrs(item, self._node(item, node_id, known, before), before)
        if node != known:
            changes[node_id] = node
        look = item.print
        if before is None or not before.same_content(look) or before.mode != look.mode:
            birth = before.birth_ns if before is not None and before.ino == look.ino else self._birth(item)
            prints[node_id] = Print(
                look.dev, look.ino, birth, look.ctime_ns, look.mtime_ns, look.size, look.mode
            )

    def _node(self, item: _Object, node_id: UUID, known: Node | None, before: Print | None) -> Node:
        look, is_file = item.print, item.kind is Kind.FILE
        if (
            known is not None
            and before is not None
            and before.same_content(look)
            and before.mode == look.mode
        ):
            # As placed, not as read back: a file system of coarse times would make an edit of every placing.
            return replace(known, parent_id=item.parent_id, name=item.name)
        digest = (
            known.digest
            if is_file and known is not None and before is not None and before.same_content(look)
            else UNHASHED
        )
        return Node(
            node_id=node_id,
            parent_id=item.parent_id,
            name=item.name,
            kind=item.kind,
            mode=0 if item.kind is Kind.SYMLINK else look.mode,
            mtime_ns=0 if item.kind is Kind.DIRECTORY else look.mtime_ns,
            size=look.size if is_file else 0,
            digest=digest,
            target=item.target,
            xattrs=() if known is None else known.xattrs,
        )

    def _with_xattrs(self, item: _Object, node: Node, before: Print | None) -> Node:
        """With the extended attributes that it has now. A file that looks otherwise than before is read later, with its bytes."""
        is_fresh = node.node_id in self.marks.fresh
        if item.kind is Kind.SYMLINK or (item.kind is Kind.FILE and not is_fresh):
            return node
        is_changed = before is None or not before.same_content(item.print)
        if is_changed if item.kind is Kind.FILE else not (is_changed or is_fresh):
            return node
        rest_s = self.marks.rest_s(item.print)  # asked before they are read
        lacking = self.marks.lacking.get(node.node_id, ())
        seen = see_at(self.root, item.path, item.kind, item.print, node.xattrs, lacking)
        self.fresh[node.node_id] = seen is None or (rest_s > 0 and seen.had)
        if self.fresh[node.node_id]:
            head = item.path.rpartition("/")[0]
            self.unsettled[head] = max(rest_s, self.unsettled.get(head, 0.0))
        if seen is None:
            return node
        self.oversized[node.node_id] = seen.oversized
        if seen.regained:
            self.regained[node.node_id] = seen.regained
        return replace(node, xattrs=seen.xattrs)

    def _vanished(self) -> set[UUID]:
        gone: set[UUID] = set()
        parents = {ROOT if parent is None else parent.node_id for parent in self.complete.values()}
        known = [
            node
            for parent_id in parents - self.whole
            if parent_id is not None
            for node in self.local.children(parent_id)
        ]
        # Whose name was given to another one while it could not be moved itself: no listing shows it there any more.
        known += [
            node
            for node_id in self.local.shadowed
            if (node := self.local.nodes[node_id]).parent_id in parents
        ]
        for node in known:
            if node.node_id not in self.taken and node.node_id not in self.kept and node.node_id not in gone:
                if self._is_gone_unseen(node):
                    self._set_aside(node)
                    continue
                with_it = {node.node_id, *(inner.node_id for inner in self.local.below(node.node_id))}
                gone |= with_it - self.taken
                if node.node_id in self.sieve.ignored:
                    self.freed |= with_it
        return gone - self.kept


def printable(path: str) -> str:
    """A path that can be shown on any terminal and sent in any message: what is not printable is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
