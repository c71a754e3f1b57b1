"""A person who never stops working in a synced folder while its agent runs, and the record of what must not be lost.

All that is replaced or deleted was read through the same open file before, so that the record knows what went, whatever
the agent puts at that path in the same moment. Files `*.rec` come by renaming alone and grow by whole pages: nobody may
ever see half of one. Files `*.wip` are written in place, in pieces: there a reader may meet the beginning of a content.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.pages import PAGE_BYTES, Content, HalfError, appended, describe, parse, render, saved
from tests.e2e.trees import OWN

WHOLE: Final = ".rec"
IN_PLACE: Final = ".wip"
DRAFT: Final = ".#draft"
"""A draft beside the file that it becomes, under a name that is ignored by default."""

DIRECTORIES: Final = ("letters", "plans", "Möbel")
STEMS: Final = ("one", "two", "three", "four", "five", "six and a half")
LINKS: Final = ("link", "other link")
MANY_FILES: Final = 70
MOST_MARKS: Final = 40
DEEPEST: Final = 3

_SIZES: Final = (1, 1, 1, 2, 3, 10, 40, 300)


class Record:
    """What was written, by whomever. Safe from several threads.

    Attributes:
        living: Contents that nobody who had them before their eyes has replaced or deleted since.
        written: How many there were.
    """

    def __init__(self) -> None:
        self.living: set[Content] = set()
        self.written = 0
        self._lock = threading.Lock()

    def writes(self, content: Content) -> int:
        """Somebody is about to write it: told before anybody can see it."""
        with self._lock:
            self.living.add(content)
            self.written += 1
            return self.written

    def lets_go(self, content: Content) -> None:
        """Who had it before their eyes has replaced or deleted it; or it was not written after all."""
        with self._lock:
            self.living.discard(content)


@dataclass
class Typist:
    """Works in one folder, in a thread of its own, from `start` to `stop`; may be started again.

    Args:
        name: Who.
        folder: Where.
        drafts: A directory on the same file system, outside of the folder.
        record: What all write.
        seed: What they choose to do.
        pause_s: The longest pause between two things.

    Attributes:
        done: How often each thing was done.
        torn: What they met that was no whole content.
        blind: How often something was replaced that had come to its path after it had been looked at.
        log: What they did, line by line, to be read when something is wrong.
    """

    name: str
    folder: Path
    drafts: Path
    record: Record
    seed: str
    pause_s: float = 0.08
    done: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)
    blind: int = 0
    log: list[str] = field(default_factory=list)
    _number: int = 0
    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._ending = threading.Event()
        self.drafts.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Begin to work."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._work, name=self.name)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is in hand, and rest.

        Raises:
            BaseException: What has ended the work before.
        """
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._ending.wait(self._chance.uniform(0, self.pause_s)):
                self.act()
        except BaseException as error:
            self._failure = error

    def act(self) -> None:
        """Do one thing, if it can be done: the agent may have moved what it needs."""
        weights = list(_WEIGHTS)
        if len(self._files()) > MANY_FILES:
            weights = [weight * (6 if action in _REMOVING else 1) for action, weight in _CHOICES]
        action = self._chance.choices(_ACTIONS, weights)[0]
        with contextlib.suppress(OSError):
            if action(self):
                self.done[action.__name__] += 1

    def _say(self, what: str, *paths: Path, before: Content = (), after: Content = ()) -> None:
        """Note what is about to be done."""
        at_s = time.monotonic()
        where = " to ".join(os.fspath(path.relative_to(self.folder)) for path in paths)
        self.log.append(f"{at_s:.4f} {what} {where}: {describe(before)} -> {describe(after)}")

    # --- looking around

    def _files(self) -> list[Path]:
        return [
            path for path in walk(self.folder) if path.suffix in (WHOLE, IN_PLACE) and not path.is_symlink()
        ]

    def _directories(self) -> list[Path]:
        return [path for path in walk(self.folder) if path.is_dir() and not path.is_symlink()]

    def _some(self, suffix: str | None = None) -> Path | None:
        files = [path for path in self._files() if suffix in (None, path.suffix)]
        return self._chance.choice(files) if files else None

    def _somewhere(self) -> Path:
        return self._chance.choice([self.folder, *self._directories()])

    def _new(self, pages: int | None = None) -> Content:
        self._number += 1
        return saved(self.name, self._number, pages or self._chance.choice(_SIZES))

    @contextlib.contextmanager
    def _held(self, path: Path) -> Iterator[tuple[int, Content]]:
        """A file, opened to be written, and what it holds."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield fd, self._read(fd, path)
        finally:
            os.close(fd)

    def _read(self, fd: int, path: Path) -> Content:
        try:
            return parse(read_all(fd), may_be_cut=path.suffix == IN_PLACE)
        except HalfError as error:
            self.torn.append(f"{self.name} met {path}: {error}")
            raise OSError("no whole content") from error

    def _stand_by(self, fd: int, path: Path) -> None:
        """Only what is before one's eyes is replaced: not what the agent has put there while it was read."""
        if os.lstat(path).st_ino != os.fstat(fd).st_ino:
            raise OSError("another file stands there now")

    def _has_gone(self, fd: int, content: Content) -> None:
        """What was at the path is replaced or deleted. It was this file, unless the agent was faster just now."""
        place = os.readlink(f"/proc/self/fd/{fd}")
        if place.endswith(" (deleted)") and f"/{OWN}/" not in place:
            self.record.lets_go(content)
        else:
            self.blind += 1

    # --- what they do

    def save(self) -> bool:
        """As editors do: a draft, renamed over what was there; or over nothing, then it is new."""
        stem = self._chance.choice(STEMS)
        path = self._chance.choice([self._some(WHOLE), self._somewhere() / f"{stem}{WHOLE}"])
        if path is None:
            return False
        content = self._new()
        beside = self._chance.random() < 0.5
        draft = (path.parent if beside else self.drafts) / f"{DRAFT} {self.name} {self._number}"
        self.record.writes(content)
        self._say("save", path, after=content)
        try:
            draft.write_bytes(render(content))
            draft.chmod(0o644)
            self._replace(draft, path)
        except OSError:
            self.record.lets_go(content)
            for path in [draft, *walk(self.folder)]:  # the agent may have moved the directory around it
                if path.name == draft.name:
                    path.unlink(missing_ok=True)
            raise
        return True

    def _replace(self, source: Path, target: Path) -> None:
        try:
            fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            os.rename(source, target)
            return
        try:
            before = self._read(fd, target)
            self._say("replace", target, before=before)
            self._stand_by(fd, target)
            os.replace(source, target)
            self._has_gone(fd, before)
        finally:
            os.close(fd)

    def append(self) -> bool:
        path = self._some(WHOLE)
        if path is None:
            return False
        with self._held(path) as (fd, before):
            if len(before) > MOST_MARKS:
                return False
            self._number += 1
            content = appended(before, self.name, self._number)
            self.record.writes(content)
            self._say("append", path, before=before, after=content)
            os.pwrite(fd, render(content)[-PAGE_BYTES:], len(render(before)))
            self.record.lets_go(before)
        return True

    def save_in_place(self) -> bool:
        """Emptied and written anew, in one piece or in some, with the file kept open; or a new file, written so."""
        path = self._chance.choice([self._some(IN_PLACE), None])
        if path is None:
            path = self._somewhere() / f"{self._chance.choice(STEMS)}{IN_PLACE}"
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        with self._held(path) as (fd, before):
            content = self._new()
            data = render(content)
            pieces = self._chance.choice([1, 1, 2, 4])
            step = -(-len(data) // PAGE_BYTES // pieces) * PAGE_BYTES
            self.record.writes(content)
            self._say("save in place", path, before=before, after=content)
            os.ftruncate(fd, 0)
            self.record.lets_go(before)
            for at in range(0, len(data), step):
                os.pwrite(fd, data[at : at + step], at)
                if pieces > 1:
                    self._ending.wait(self._chance.uniform(0, 0.04))
        return True

    def move(self) -> bool:
        source = self._some()
        if source is None:
            return False
        target = self._somewhere() / f"{self._chance.choice(STEMS)}{source.suffix}"
        if os.path.lexists(target):
            return False
        self._say("move", source, target)
        os.rename(source, target)
        return True

    def move_over(self) -> bool:
        source = self._some()
        target = self._some(None if source is None else source.suffix)
        if source is None or target is None or source == target:
            return False
        self._say("move over", source, target)
        self._replace(source, target)
        return True

    def move_directory(self) -> bool:
        source = self._somewhere()
        target = self._somewhere() / self._chance.choice(DIRECTORIES)
        if source == self.folder or target.is_relative_to(source) or os.path.lexists(target):
            return False
        if len(target.relative_to(self.folder).parts) > DEEPEST:
            return False
        self._say("move directory", source, target)
        os.rename(source, target)
        return True

    def delete(self) -> bool:
        path = self._some()
        if path is None:
            return False
        self._unlink(path)
        return True

    def _unlink(self, path: Path) -> None:
        with self._held(path) as (fd, content):
            self._say("delete", path, before=content)
            self._stand_by(fd, path)
            os.unlink(path)
            self._has_gone(fd, content)

    def delete_directory(self) -> bool:
        """With all that was seen in it; what comes meanwhile keeps it."""
        top = self._somewhere()
        if top == self.folder:
            return False
        for path in [*reversed(list(walk(top))), top]:
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                self._say("delete directory", path)
                path.rmdir()
            else:
                self._unlink(path)
        return True

    def make_directory(self) -> bool:
        path = self._somewhere() / self._chance.choice(DIRECTORIES)
        if len(path.relative_to(self.folder).parts) > DEEPEST:
            return False
        path.mkdir()
        return True

    def link(self) -> bool:
        path = self._somewhere() / self._chance.choice(LINKS)
        if path.is_symlink():
            path.unlink()
        path.symlink_to(self._chance.choice([*STEMS, "../nowhere", "letters"]))
        return True

    def change_mode(self) -> bool:
        path = self._chance.choice([self._some(), self._somewhere()])
        if path is None or path == self.folder:
            return False
        modes = (0o755, 0o700) if path.is_dir() else (0o644, 0o600, 0o755)
        path.chmod(self._chance.choice(modes))
        return True

    def touch(self) -> bool:
        path = self._some()
        if path is None:
            return False
        os.utime(path, ns=(0, 1_500_000_000_000_000_000 + self._chance.randrange(10**15)))
        return True


_CHOICES: Final = (
    (Typist.save, 14),
    (Typist.append, 6),
    (Typist.save_in_place, 8),
    (Typist.move, 6),
    (Typist.move_over, 2),
    (Typist.move_directory, 3),
    (Typist.delete, 5),
    (Typist.delete_directory, 1),
    (Typist.make_directory, 3),
    (Typist.link, 1),
    (Typist.change_mode, 2),
    (Typist.touch, 1),
)
_ACTIONS: Final = [action for action, _ in _CHOICES]
_WEIGHTS: Final = [weight for _, weight in _CHOICES]
_REMOVING: Final = (Typist.delete, Typist.delete_directory)


@dataclass
class Reader:
    """Reads all files of a folder, over and over, in a thread of its own; notes what is no whole content.

    Attributes:
        passes: How often it has read everything.
        files: How many files that were.
        cut: How many of those were in the middle of being written in place.
        half: What it saw that nobody may ever see.
    """

    name: str
    folder: Path
    passes: int = 0
    files: int = 0
    cut: int = 0
    half: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"{self.name} reader")

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._ending.wait(0.02):
                self.read_all()
        except BaseException as error:  # who does not read any more has seen nothing
            self.half.append(f"{self.name} has stopped to read: {error!r}")

    def read_all(self) -> None:
        """Read every file once."""
        for path in walk(self.folder):
            if path.suffix in (WHOLE, IN_PLACE):
                with contextlib.suppress(OSError):
                    self._read(path)
        self.passes += 1

    def _read(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            data = read_all(fd)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if path.suffix == IN_PLACE and _looks(before) != _looks(after):
            return  # it was written to while it was read
        self.files += 1
        try:
            content = parse(data, may_be_cut=path.suffix == IN_PLACE)
        except HalfError as error:
            self.half.append(f"{self.name} saw {path.relative_to(self.folder)}: {error}")
        else:
            self.cut += not content or content[0].there < content[0].pages


def walk(folder: Path) -> Iterator[Path]:
    """Everything in a folder but what is the agent's own, a directory before what is in it; in the order of names."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name == OWN:
            continue
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))


def read_all(fd: int) -> bytes:
    """A whole file, from its beginning."""
    pieces = []
    at = 0
    while piece := os.pread(fd, 1 << 20, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def strays(folder: Path) -> list[str]:
    """What is in a folder under a name that no person has given to it, conflict copies apart."""
    found = []
    for path in walk(folder):
        name = path.name.partition(" (conflicted copy of ")[0]
        stem, suffix = os.path.splitext(name)
        is_file = stem in STEMS and (suffix or path.suffix) in (WHOLE, IN_PLACE)
        if not is_file and name not in DIRECTORIES + LINKS:
            found.append(os.fspath(path.relative_to(folder)))
    return found
