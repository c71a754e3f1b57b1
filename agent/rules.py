"""The file of rules of one folder, as it is read from the disk: what to ignore, from when on."""

import os
from typing import Final

from agent.filesystem import Root
from agent.ignore import MAX_RULES_SIZE_BYTES, RULES_NAME, Rules
from agent.index import Print

SETTLE_S: Final = 0.5
"""How long the file must have been as it is. Editors write it in pieces."""

ABSENT_S: Final = 2.0
"""How long it must have been away: many save by moving it aside first."""


class RulesFile:
    """`.hutchignore` of one folder.

    Attributes:
        rules: Those that hold.
        is_new: Whether not everything has been looked at by them yet.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._loaded: Print | None = None
        self._seen: Print | None = None
        self._since: float | None = None
        self._has_read = False
        self.rules = Rules()
        self.is_new = True

    @property
    def is_waiting(self) -> bool:
        """Whether the file has changed, and has not rested yet."""
        return self._since is not None

    def read(self, now_s: float) -> float | None:
        """Look at the file, and take over what it says once it has rested. Blocks.

        Returns:
            How long to wait before it can be taken over, in seconds; None when the rules are those of the file.
        """
        try:
            look = self._root.look(RULES_NAME)
        except OSError:
            look = self._loaded  # it cannot be looked at: what held goes on to hold
        if self._has_read and _is_same(look, self._loaded):
            self._since = None
            return None
        if self._has_read and (self._since is None or not _is_same(look, self._seen)):
            self._seen, self._since = look, now_s
        if self._has_read and self._since is not None:
            rest_s = SETTLE_S if look is not None else ABSENT_S
            if now_s - self._since < rest_s:
                return rest_s - (now_s - self._since)
        try:
            self.rules = Rules() if look is None else self._load()
        except FileNotFoundError:
            return SETTLE_S
        self._loaded, self._since, self._has_read, self.is_new = look, None, True, True
        return None

    def _load(self) -> Rules:
        try:
            with self._root.open(RULES_NAME) as fd:
                return Rules(os.read(fd, MAX_RULES_SIZE_BYTES).decode("utf-8", errors="replace"))
        except FileNotFoundError:
            raise
        except OSError as error:  # no file, or not for this person's eyes
            return Rules(problem=f"it cannot be read ({error.strerror})")


def _is_same(one: Print | None, other: Print | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.same_content(other)
