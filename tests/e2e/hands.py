"""A person's hands: a seeded script that edits, moves and deletes in a folder, as people and their programs do."""

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.trees import OWN, digest_of

EDITS, MOVES, DELETES = 200, 50, 100
SHARED = 20


def pick_shared(folder: Path, seed: str) -> list[str]:
    """Some files for both sides to touch, by path."""
    return sorted(random.Random(seed).sample(_all(folder, files=True), SHARED))


@dataclass
class Hands:
    """Works in one folder while nobody syncs it.

    Args:
        folder: Where.
        seed: The same seed does the same to the same folder.

    Attributes:
        done: How many edits, moves and deletes were made.
        written: Every file that was written last by these hands, as far as it is still there: digest by path.
    """

    folder: Path
    seed: str
    done: dict[str, int] = field(default_factory=lambda: {"edit": 0, "move": 0, "delete": 0})
    _edited: dict[int, int] = field(default_factory=dict)
    _known: dict[bool, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def work(self, shared: list[str]) -> None:
        """Make all changes: first those to the paths that the other side touches too, then others."""
        for path in shared:
            self._do(self._chance.choice(["edit", "edit", "move", "delete"]), self.folder / path)
        left = [
            action
            for action, total in (("edit", EDITS), ("move", MOVES), ("delete", DELETES))
            for _ in range(total - self.done[action])
        ]
        self._chance.shuffle(left)
        for action in left:
            self._do(action, None)

    @property
    def written(self) -> dict[str, str]:
        found = {}
        for path in _all(self.folder, files=True):
            status = (self.folder / path).lstat()
            if self._edited.get(status.st_ino) == status.st_mtime_ns:
                found[path] = digest_of(self.folder / path)
        return found

    def _do(self, action: str, path: Path | None) -> None:
        getattr(self, f"_{action}")(path)
        self.done[action] += 1

    def _edit(self, path: Path | None) -> None:
        way = self._chance.choice([self._overwrite, self._append, self._save_anew])
        if path is None and self._chance.random() < 0.15:
            path, way = self._any_directory() / f"new {self._mark()}.txt", self._overwrite
            self._known.pop(True, None)
        path = path or self._any_file()
        way(path)
        status = path.lstat()
        self._edited[status.st_ino] = status.st_mtime_ns

    def _overwrite(self, path: Path) -> None:
        path.write_text(f"{self._mark()}\n" * self._chance.choice([1, 20, 5_000]))

    def _append(self, path: Path) -> None:
        with path.open("a") as file:
            file.write(f"# {self._mark()}\n")

    def _save_anew(self, path: Path) -> None:
        """As editors do: aside, then renamed over."""
        aside = path.with_name(f"{path.name}.new")
        self._overwrite(aside)
        os.replace(aside, path)

    def _move(self, path: Path | None) -> None:
        """A file, or one time in three a directory with all in it, to another directory and another name."""
        if path is None and self._chance.random() < 0.33:
            path = self._any_directory()
        path = path or self._any_file()
        others = [self.folder / each for each in self._all(files=False)]
        others = [each for each in others if each != path and path not in each.parents]
        path.rename(self._chance.choice([self.folder, *others]) / f"moved {self._mark()}{path.suffix}")
        self._known.clear()

    def _delete(self, path: Path | None) -> None:
        """A file, or one time in ten a small directory with all in it."""
        if path is None and self._chance.random() < 0.1:
            directories = [self.folder / each for each in self._all(files=False)]
            small = [each for each in directories if len(list(each.rglob("*"))) < 15]
            if small:
                shutil.rmtree(self._chance.choice(small))
                self._known.clear()
                return
        files = self._all(files=True)
        path = path or self._any_file()
        path.unlink()
        files.remove(os.path.relpath(path, self.folder))

    def _any_file(self) -> Path:
        return self.folder / self._chance.choice(self._all(files=True))

    def _any_directory(self) -> Path:
        return self.folder / self._chance.choice(self._all(files=False))

    def _all(self, *, files: bool) -> list[str]:
        if files not in self._known:
            self._known[files] = _all(self.folder, files=files)
        return self._known[files]

    def _mark(self) -> str:
        return f"{self.seed} {self._chance.getrandbits(64):016x}"


def _all(folder: Path, *, files: bool) -> list[str]:
    """The regular files, or the directories, of a folder, sorted."""
    found: list[str] = []
    for directory, names, here in os.walk(folder):
        names[:] = [n for n in names if n != OWN and not Path(directory, n).is_symlink()]
        chosen = [n for n in here if not Path(directory, n).is_symlink()] if files else names
        found += [os.path.relpath(Path(directory, name), folder) for name in chosen]
    return sorted(found)
