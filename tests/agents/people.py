"""Random people at work in folders: what they do, and what they must never lose."""

import os
import random
from pathlib import Path

from tests.agents.world import Device

NAMES = ("a", "b", "c", "d.txt", "e.txt", "f f")


class Person:
    """Works in one device's folder, and remembers every content that was last written to a path and not seen replaced."""

    def __init__(self, device: Device, chance: random.Random) -> None:
        self.device = device
        self.chance = chance
        self.counter = 0

    def act(self) -> str:
        """Do one thing, and say what."""
        action = self.chance.choices(
            [
                self.save,
                self.append,
                self.make_directory,
                self.move,
                self.delete,
                self.save_anew,
                self.chmod,
                self.link,
            ],
            [8, 3, 3, 5, 4, 3, 1, 1],
        )[0]
        try:
            return f"{self.device.name}: {action()}"
        except (FileNotFoundError, NotADirectoryError):
            return "the agent was faster"

    def _paths(self) -> list[Path]:
        return [self.device.path / path for path in sorted(self.device.tree())]

    def _directory(self) -> Path:
        directories = [p for p in self._paths() if p.is_dir() and not p.is_symlink()]
        return self.chance.choice([self.device.path, *directories])

    def _file(self) -> Path | None:
        files = [p for p in self._paths() if p.is_file() and not p.is_symlink()]
        return self.chance.choice(files) if files else None

    def _content(self) -> bytes:
        self.counter += 1
        mark = f"{self.device.name} {self.counter} {self.chance.random()}\n".encode()
        return mark * self.chance.choice([1, 10, 20_000])

    def save(self) -> str:
        path = self._directory() / self.chance.choice(NAMES)
        if path.is_dir() or path.is_symlink():
            return "nothing"
        path.write_bytes(self._content())
        return f"save {path.name}"

    def append(self) -> str:
        path = self._file()
        if path is None:
            return "nothing"
        with path.open("ab") as file:
            file.write(self._content())
        return f"append {path.name}"

    def save_anew(self) -> str:
        """As editors do: aside, then renamed over."""
        path = self._file()
        if path is None:
            return "nothing"
        aside = path.with_name(path.name + "~new")
        aside.write_bytes(self._content())
        os.replace(aside, path)
        return f"save anew {path.name}"

    def make_directory(self) -> str:
        path = self._directory() / self.chance.choice(NAMES)
        if not os.path.lexists(path):
            path.mkdir()
        return f"mkdir {path.name}"

    def move(self) -> str:
        paths = self._paths()
        if not paths:
            return "nothing"
        source = self.chance.choice(paths)
        target = self._directory() / self.chance.choice(NAMES)
        if os.path.lexists(target) or target == source or source in target.parents:
            return "nothing"
        os.rename(source, target)
        return f"move {source.name} {target.name}"

    def delete(self) -> str:
        paths = self._paths()
        if not paths:
            return "nothing"
        path = self.chance.choice(paths)
        remove(path)
        return f"delete {path.name}"

    def chmod(self) -> str:
        path = self._file()
        if path is not None:
            path.chmod(self.chance.choice([0o600, 0o644, 0o755]))
        return "chmod"

    def link(self) -> str:
        path = self._directory() / self.chance.choice(NAMES)
        if not os.path.lexists(path):
            path.symlink_to(self.chance.choice(["nowhere", "../up", "a"]))
        return f"link {path.name}"


def remove(path: Path) -> None:
    """Remove a path and all below it."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink()
