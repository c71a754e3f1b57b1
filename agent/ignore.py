"""What is not synced by a person's wish: the rules in `.hutchignore`, in the syntax of gitignore.

The file stands at the top of the folder, and is synced as any other. Rules are about this device's disk alone: what they
name is not looked at. Of what is in the journal already, each device keeps what it has; nothing is deleted anywhere.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from pathspec import GitIgnoreSpec

RULES_NAME: Final = ".hutchignore"
MAX_RULES_SIZE_BYTES: Final = 1024 * 1024

DEFAULTS: Final = (
    ".DS_Store",
    "._*",
    ".Spotlight-V100/",
    ".Trashes/",
    ".Trash-*/",
    ".fseventsd/",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "~$*",  # Microsoft Office's marks of an open document
    ".~lock.*#",  # LibreOffice's
    ".*.sw[a-p]",  # Vim's
    ".#*",  # Emacs's
    ".nfs????????????????????????",  # removed, and still open, on NFS
    ".fuse_hidden????????????????",
)
"""What systems and programs keep for themselves. A line such as `!Thumbs.db` in `.hutchignore` takes one back."""


class Rules:
    """What to ignore. The last rule that matches a path decides; what is in an ignored directory is ignored.

    `digest` is the same for the same rules.
    """

    def __init__(self, text: str = "", problem: str | None = None) -> None:
        good, self.problems = _parse(text.splitlines())
        if problem is not None:
            self.problems.append(problem)
        self._spec = GitIgnoreSpec.from_lines([*DEFAULTS, *good])
        self.digest = hashlib.sha256("\n".join([*DEFAULTS, *good]).encode()).digest()

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Whether an object is ignored. `path` is relative to the folder; that of nothing above it is asked."""
        if path == RULES_NAME:
            return False
        return self._spec.match_file(f"{path}/" if is_directory else path)

    def rule_for(self, path: str, *, is_directory: bool) -> str | None:
        """The rule by which an object, or a directory above it, is ignored; None when none does."""
        names = path.split("/")
        for depth in range(1, len(names) + 1):
            at = "/".join(names[:depth])
            inside = depth < len(names) or is_directory
            if self.ignores(at, is_directory=inside):
                index = self._spec.check_file(f"{at}/" if inside else at).index
                return None if index is None else str(self._spec.patterns[index].pattern)
        return None


def _parse(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """The lines that can be understood, and what is wrong with the others."""
    good: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        else:
            good.append(line)
    return good, problems
