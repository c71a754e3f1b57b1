"""The names that Hutch gives to files itself, conflict copies; and which names are one to a file system."""

import itertools
import re
import unicodedata
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from broker.model import MAX_NAME_SIZE_BYTES

CONFLICT_MARK: Final = " (conflicted copy of "
MAX_SUFFIX_SIZE_BYTES: Final = 32
MAX_DEVICE_SIZE_BYTES: Final = 80


_CONFLICT: Final = re.compile(
    r"(?s)(?P<stem>.*) \(conflicted copy of (?P<device>.+) (?P<date>\d{4}-\d{2}-\d{2})(?: (?P<count>\d+))?\)(?P<suffix>\.[^/]*)?"
)


class ConflictName(Struct, frozen=True):
    """What a conflict copy's name says. `original` is the name that it lost; the stem of a very long one was cut."""

    original: str
    device: str
    date: str


class Folding(Struct, frozen=True):
    """Which names are one to a file system: those that differ in case alone, or in how Unicode spells a letter."""

    case: bool = False
    spelling: bool = False

    @property
    def any(self) -> bool:
        """Whether two names can be one at all."""
        return self.case or self.spelling

    def fold(self, name: str) -> str:
        """What is equal for names that are one."""
        if self.spelling:
            name = unicodedata.normalize("NFD", name)
        if self.case:
            name = name.casefold()
        return unicodedata.normalize("NFD", name) if self.spelling else name


def conflict_name(name: str, device: str, date: str, is_free: Callable[[str], bool]) -> str:
    """`report.txt` as `report (conflicted copy of DEVICE DATE).txt`, with a counter where that is taken.

    Args:
        name: The name that was lost. A copy of a copy keeps its stem.
        device: Whose content the copy holds. Characters that a name cannot have are replaced.
        date: As it shall be shown, such as `2026-11-22`.
        is_free: Says whether a name can be had.

    Returns:
        A name of at most 255 bytes; the stem is cut where it must be.
    """
    return _marked(name, f"{_opening(device)}{date}", is_free)


def alias_name(name: str, is_free: Callable[[str], bool]) -> str:
    """`Readme.md` as `Readme (other spelling).md`, with a counter where that is taken.

    Args:
        name: What a file system takes for the name of another node.
        is_free: Says whether a name can be had there.

    Returns:
        A name of at most 255 bytes; the stem is cut where it must be.
    """
    return _marked(name, " (other spelling", is_free)


def _marked(name: str, opening: str, is_free: Callable[[str], bool]) -> str:
    """The first free one of the names with a mark before their suffix, counted from the second on."""
    stem, suffix = _split(name)
    ends = (f"{opening}{'' if count == 1 else f' {count}'}){suffix}" for count in itertools.count(1))
    names = (_cut(stem, MAX_NAME_SIZE_BYTES - len(end.encode())) + end for end in ends)
    return next(filter(is_free, names))


def is_conflict_name(name: str, device: str) -> bool:
    """Whether a name is one that `conflict_name` gives to what this device has lost."""
    return _opening(device) in name


def read_conflict_name(name: str) -> ConflictName | None:
    """What `conflict_name` has put into a name; None for an ordinary one. Of a copy of a copy the last loss counts."""
    found = _CONFLICT.fullmatch(name)
    if found is None:
        return None
    return ConflictName(found["stem"] + (found["suffix"] or ""), found["device"], found["date"])


def free_name(name: str, is_free: Callable[[str], bool]) -> str:
    """`report.txt` as `report 2.txt`, with the first number from 2 on that can be had.

    Returns:
        A name of at most 255 bytes; the stem is cut where it must be.
    """
    stem, suffix = _split(name)
    counter = 2
    while True:
        mark = f" {counter}"
        candidate = _cut(stem, MAX_NAME_SIZE_BYTES - len((mark + suffix).encode())) + mark + suffix
        if is_free(candidate):
            return candidate
        counter += 1


def _opening(device: str) -> str:
    owner = "".join("-" if c in "/\0" or not c.isprintable() else c for c in device)
    return f"{CONFLICT_MARK}{_cut(owner, MAX_DEVICE_SIZE_BYTES) or 'device'} "


def _split(name: str) -> tuple[str, str]:
    at = name.rfind(".")
    if at <= 0 or len(name[at:].encode()) > MAX_SUFFIX_SIZE_BYTES:
        return name, ""
    return name[:at], name[at:]


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore")
