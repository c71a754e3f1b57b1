"""The names that Hutch gives to files itself: conflict copies."""

from collections.abc import Callable
from typing import Final

from broker.model import MAX_NAME_SIZE_BYTES

MAX_SUFFIX_CHARACTERS: Final = 16


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
    stem, suffix = _split(name)
    owner = "".join("-" if c in "/\0" or not c.isprintable() else c for c in device)[:60] or "device"
    counter = 1
    while True:
        mark = f" (conflicted copy of {owner} {date}{'' if counter == 1 else f' {counter}'})"
        candidate = _cut(stem, MAX_NAME_SIZE_BYTES - len((mark + suffix).encode())) + mark + suffix
        if is_free(candidate):
            return candidate
        counter += 1


def _split(name: str) -> tuple[str, str]:
    at = name.rfind(".")
    if at <= 0 or len(name) - at > MAX_SUFFIX_CHARACTERS:
        return name, ""
    return name[:at], name[at:]


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[: max(size_bytes, 0)].decode(errors="ignore")
