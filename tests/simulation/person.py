"""Random people at work in simulated folders, and the record of what they wrote: what must never be lost."""

import contextlib
import random
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from tests.simulation.disk import Hands, Inode

NAMES: Final = ("a", "b", "B", "c.txt", "d.txt", "e e", "sub", "dir")
MANY_NAMES: Final = (
    *NAMES,
    *(f"{stem}{number}.txt" for stem in ("note", "Plan", "über") for number in range(12)),
)
CASES: Final = ("a", "A", "b", "B", "c.txt", "C.txt", "C.TXT", "sub", "SUB")
"""Names that are few where case is folded."""

TARGETS: Final = ("nowhere", "../outside", "a", "sub")


TAGS: Final = ("user.rating", "user.tags", "user.origin")

ALIAS_MARK: Final = " (other spelling"
"""What a name has that a device gives to what its disk has no name for: nobody is told of it."""

MADE_DURABLE: Final = 0.7
"""How often a program makes durable what it saves."""


class Write(Struct, frozen=True):
    """Who has written a content, under which name, and upon which one: None for a new file."""

    author: str
    name: str
    base: bytes | None


class Record:
    """What was written in a run.

    Attributes:
        living: Contents that somebody wrote, and that nobody who saw them has replaced or deleted since.
        ever: All contents that any file may rightly show.
        writes: Where each content comes from; equal ones may have been made more than once.
        deleted: Which people have deleted, or moved something over, a file of each content.
        retimed: Which people have given a file of each content another time: it looks edited to who replaces it just then.
        touched: Which people have had to do with what bore a name, or with what was below it.
        replaced: Names at which somebody has put another thing than stood there: moved, swapped.
    """

    def __init__(self) -> None:
        self.living: set[bytes] = set()
        self.ever: set[bytes] = {b""}
        self.writes: dict[bytes, list[Write]] = {}
        self.deleted: dict[bytes, set[str]] = {}
        self.retimed: dict[bytes, set[str]] = {}
        self.touched: dict[str, set[str]] = {}
        self.replaced: set[str] = set()
        self._same: dict[str, str] = {}  # names that one thing has borne, as links to one of them

    def join(self, one: str, other: str) -> None:
        """One thing has borne both names."""
        self._same[self._first(one)] = self._first(other)

    def _first(self, name: str) -> str:
        while (link := self._same.get(name, name)) != name:
            name = link
        return name

    def ancestors(self, content: bytes) -> set[bytes]:
        """A content and all that it was made of."""
        found: set[bytes] = set()
        stack = [content]
        while stack:
            at = stack.pop()
            if at not in found:
                found.add(at)
                stack.extend(write.base for write in self.writes.get(at, ()) if write.base is not None)
        return found

    def is_explained(
        self, device: str, name: str, content: bytes | None, below: Iterable[bytes] = ()
    ) -> bool:
        """Whether a conflict copy of a device had to be: both sides had changed it, and neither had seen the other's.

        Args:
            device: Whose copy it is.
            name: The name that was in dispute.
            content: A file's bytes; None for directories and links.
            below: What the files in a directory hold: an edit of one of them keeps the directory.
        """
        group, people = self._with_name(name)
        if content is not None and device in self.retimed.get(content, ()):
            return True
        if device in people and len(people) > 1 and group & self.replaced:
            return True
        if any(
            self._is_disputed_write(inner, write) for inner in below for write in self.writes.get(inner, ())
        ):
            return True
        # The copy may have been edited since it was made: what it held then is in the line.
        line = set() if content is None else self.ancestors(content)
        return any(self._is_disputed(mine, device) for mine in line if self._wrote(device, mine))

    def _with_name(self, name: str) -> tuple[set[str], set[str]]:
        """All names that things of this name have borne, and the people who had to do with any of them."""
        first = self._first(name)
        group = {other for other in self.touched if self._first(other) == first}
        return group, {who for other in group for who in self.touched[other]}

    def _is_disputed_write(self, content: bytes, write: Write) -> bool:
        """What is new to its author may be the next version of what others know by that name: identity is the path's then."""
        is_known_name = write.base is None and len(self._with_name(write.name)[1]) > 1
        return is_known_name or self._is_disputed(content, write.author)

    def _wrote(self, device: str, content: bytes) -> bool:
        return any(write.author == device for write in self.writes.get(content, ()))

    def _is_disputed(self, mine: bytes, device: str) -> bool:
        line = self.ancestors(mine)
        if any(self.deleted.get(earlier, set()) - {device} for earlier in line - {mine}):
            return True
        return any(
            any(write.author != device for write in writes)
            and other not in line
            and mine not in (theirs := self.ancestors(other))
            and not line.isdisjoint(theirs)
            for other, writes in self.writes.items()
        )


class Person:
    """Works in one device's folder. All that is done is noted in the run's record."""

    def __init__(self, name: str, hands: Hands, record: Record, names: Sequence[str] = NAMES) -> None:
        self._name = name
        self._hands = hands
        self._record = record
        self._chance = random.Random(0)
        self._written = 0
        self._names = names
        self._open: list[tuple[Inode, str, bytes]] = []
        self.unsynced: set[bytes] = set()

    def act(self, chance: random.Random) -> str:
        """Do one thing, if it can be done, and say what."""
        self._chance = chance
        action = self._chance.choices(_ACTIONS, _WEIGHTS)[0]
        try:
            said = action(self)
        except OSError as error:
            said = f"{action.__name__}: {error.strerror}"
        return f"{self._name}: {said}"

    # --- looking around

    def _paths(self, *kinds: str) -> list[str]:
        return [path for path, kind in sorted(self._hands.tree().items()) if kind in kinds]

    def _some(self, *kinds: str) -> str | None:
        paths = self._paths(*kinds)
        return self._chance.choice(paths) if paths else None

    def _new_path(self) -> str:
        directory = self._chance.choice(["", *self._paths("directory")])
        name = self._chance.choice(self._names)
        return self._hands.spelled(f"{directory}/{name}" if directory else name)

    def _content(self) -> bytes:
        self._written += 1
        mark = f"{self._chance.getrandbits(64):016x} {self._name} wrote this as number {self._written}\n".encode()
        return mark * self._chance.choice([1, 1, 1, 40, 4_000])

    # --- the record

    def _wrote(self, path: str, data: bytes, base: bytes | None) -> None:
        record = self._record
        record.living.add(data)
        record.ever.add(data)
        record.writes.setdefault(data, []).append(Write(self._name, path.rpartition("/")[2], base))
        self.unsynced.add(data)
        self._touched(path)
        if base is None:
            self._record.replaced.add(path.rpartition("/")[2])
        if self._chance.random() < MADE_DURABLE:
            self._hands.sync(path)
            self.unsynced.discard(data)

    def _touched(self, *paths: str) -> None:
        for path in paths:
            for name in path.split("/"):
                self._record.touched.setdefault(name, set()).add(self._name)

    def _replaced(self, *paths: str) -> None:
        """What stands at these names now, or did before, is one thing."""
        self._touched(*paths)
        names = [path.rpartition("/")[2] for path in paths]
        self._record.replaced.update(names)
        for name in names[1:]:
            self._record.join(names[0], name)

    def _gives_up(self, path: str) -> bytes:
        """The person has this file's content before their eyes, and lets it go."""
        content = self._hands.read(path)
        self._lets_go(content)
        return content

    def _lets_go(self, content: bytes | None) -> None:
        if content is not None:
            self._record.living.discard(content)

    def _deletes(self, path: str) -> None:
        self._record.deleted.setdefault(self._gives_up(path), set()).add(self._name)

    # --- what people do

    def save(self) -> str:
        path = self._new_path()
        kind = self._hands.tree().get(path)
        if kind not in (None, "file"):
            return "nothing"
        data = self._content()
        base = self._hands.read(path) if kind == "file" else None
        self._record.ever.add(data)
        self._hands.write(path, data)
        self._lets_go(base)
        self._wrote(path, data, base)
        return f"save {path}"

    def save_aside(self) -> str:
        """As editors do: written beside, then renamed over."""
        path = self._some("file")
        if path is None:
            return "nothing"
        data = self._content()
        self._record.ever.add(data)
        base = self._hands.read(path)
        self._hands.replace(path, data)
        self._lets_go(base)
        self._wrote(path, data, base)
        return f"save aside {path}"

    def append(self) -> str:
        path = self._some("file")
        if path is None:
            return "nothing"
        more = self._content()
        base = self._hands.read(path)
        whole = base + more
        self._record.ever.add(whole)
        self._hands.append(path, more)
        self._lets_go(base)
        self._wrote(path, whole, base)
        return f"append {path}"

    def truncate(self) -> str:
        path = self._some("file")
        if path is None:
            return "nothing"
        data = self._hands.read(path)
        if len(data) < 40:
            return "nothing"
        rest = data[: self._chance.randrange(30, len(data))]
        self._record.ever.add(rest)
        self._gives_up(path)
        self._hands.truncate(path, len(rest))
        self._wrote(path, rest, data)
        return f"truncate {path}"

    def begin_to_save(self) -> str:
        """A program opens a file, writes some, and keeps it open."""
        path = self._some("file")
        if path is None or len(self._open) > 2:
            return "nothing"
        data = self._content() + self._content()
        half = data[: len(data) // 2]
        self._record.ever |= {data, half}
        base = self._hands.read(path)
        file = self._hands.open(path)
        try:
            self._hands.write_open(file, half)
        except OSError:
            self._hands.close(file)
            raise
        self._lets_go(base)
        self._wrote(path, half, base)
        self._open.append((file, path, data))
        return f"begin to save {path}"

    def end_saving(self) -> str:
        """What was begun is finished, wherever the file is by now, and closed."""
        if not self._open:
            return "nothing"
        file, path, data = self._open.pop(0)
        before = file.data  # with what else this device's programs have written to it meanwhile
        self._hands.close(file)
        self._hands.write_open(file, data)
        self._record.living.discard(before)
        self._record.living.add(data)
        self._record.writes.setdefault(data, []).append(Write(self._name, path.rpartition("/")[2], before))
        self.unsynced.add(data)
        if not self._hands.is_reachable(file):  # somebody has deleted it meanwhile: nobody's any more
            self._record.living.discard(data)
        return f"end saving {path}"

    def end_all_saving(self) -> None:
        """All programs finish."""
        while self._open:
            with contextlib.suppress(OSError):
                self.end_saving()

    def lose_all_programs(self) -> None:
        """The machine went down: nothing is open any more."""
        self._open.clear()

    def move(self) -> str:
        source = self._some("file", "directory", "symlink")
        target = self._new_path()
        if source is None or target in self._hands.tree() or f"{target}/".startswith(f"{source}/"):
            return "nothing"
        self._hands.rename(source, target)
        self._replaced(target, source)
        return f"move {source} {target}"

    def move_over(self) -> str:
        source, target = self._some("file"), self._some("file")
        if source is None or target is None or source == target:
            return "nothing"
        self._deletes(target)
        self._hands.rename(source, target)
        self._replaced(target, source)
        return f"move over {source} {target}"

    def swap(self) -> str:
        one, other = self._some("file", "directory"), self._some("file", "directory")
        if one is None or other is None or one == other:
            return "nothing"
        if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
            return "nothing"
        self._hands.exchange(one, other)
        self._replaced(one, other)
        return f"swap {one} {other}"

    def delete(self) -> str:
        path = self._some("file", "symlink")
        if path is None:
            return "nothing"
        if self._hands.tree()[path] == "file":
            self._deletes(path)
        self._hands.unlink(path)
        return f"delete {path}"

    def delete_tree(self) -> str:
        path = self._some("directory")
        if path is None:
            return "nothing"
        below = {p: kind for p, kind in self._hands.tree().items() if p.startswith(f"{path}/")}
        for inner in sorted(below, reverse=True):
            if below[inner] == "directory":
                self._hands.rmdir(inner)
            else:
                if below[inner] == "file":
                    self._deletes(inner)
                self._hands.unlink(inner)
        self._hands.rmdir(path)
        return f"delete tree {path}"

    def make_directory(self) -> str:
        path = self._new_path()
        self._hands.mkdir(path)
        self._replaced(path)
        return f"mkdir {path}"

    def link(self) -> str:
        path = self._new_path()
        self._hands.symlink(path, self._chance.choice(TARGETS))
        self._replaced(path)
        return f"link {path}"

    def chmod(self) -> str:
        path = self._some("file")
        if path is None:
            return "nothing"
        self._hands.chmod(path, self._chance.choice([0o600, 0o644, 0o755]))
        return f"chmod {path}"

    def touch(self) -> str:
        path = self._some("file")
        if path is None:
            return "nothing"
        self._record.retimed.setdefault(self._hands.read(path), set()).add(self._name)
        self._hands.utime(path, 1_500_000_000_000_000_000 + self._chance.randrange(10**15))
        return f"touch {path}"

    def tag(self) -> str:
        """A rating, a colour, where it was downloaded from: extended attributes."""
        path = self._some("file", "directory")
        if path is None:
            return "nothing"
        name = self._chance.choice(TAGS)
        number = self._chance.randrange(1_000)
        value = self._chance.choice([None, b"", b"%d" % number, b"%1000d" % number])
        self._hands.tag(path, name, value)
        return f"tag {path} {name} {value!r}"

    def change_case(self) -> str:
        path = self._some("file", "directory")
        if path is None:
            return "nothing"
        head, _, name = path.rpartition("/")
        target = f"{head}/{name.swapcase()}" if head else name.swapcase()
        if target in self._hands.tree() or target == path or ALIAS_MARK in path:
            return "nothing"
        between = f"{path}.renamed"  # where case is folded nothing is renamed to itself
        self._hands.rename(path, between)
        self._hands.rename(between, target)
        self._replaced(target, path)
        return f"case {path}"

    def turn_into_directory(self) -> str:
        path = self._some("file")
        if path is None:
            return "nothing"
        self._deletes(path)
        self._hands.unlink(path)
        self._hands.mkdir(path)
        self._replaced(path)
        return f"file to directory {path}"

    def turn_into_file(self) -> str:
        path = self._some("directory")
        if path is None or any(p.startswith(f"{path}/") for p in self._hands.tree()):
            return "nothing"
        data = self._content()
        self._record.ever.add(data)
        self._hands.rmdir(path)
        self._hands.write(path, data)
        self._wrote(path, data, None)
        return f"directory to file {path}"


_CHOICES: Final = (
    (Person.save, 12),
    (Person.save_aside, 5),
    (Person.append, 4),
    (Person.truncate, 1),
    (Person.begin_to_save, 2),
    (Person.end_saving, 3),
    (Person.move, 8),
    (Person.move_over, 2),
    (Person.swap, 2),
    (Person.delete, 4),
    (Person.delete_tree, 2),
    (Person.make_directory, 4),
    (Person.link, 1),
    (Person.chmod, 1),
    (Person.touch, 1),
    (Person.tag, 3),
    (Person.change_case, 1),
    (Person.turn_into_directory, 1),
    (Person.turn_into_file, 1),
)
_ACTIONS: Final = [action for action, _ in _CHOICES]
_WEIGHTS: Final = [weight for _, weight in _CHOICES]
