"""Merge two texts that come from one: line by line, and only where the two sides have changed different lines. Pure.

Source: diff3 as in Khanna, Kunal and Pierce, "A Formal Investigation of Diff3" (2007), on the matching of `difflib`:
regions of the base that both sides left alone are stable; between two of them one side's lines are taken where only that
side has changed them, or where both have made the same of them.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Overlap(Struct, frozen=True):
    """Lines that both sides have changed, each otherwise: where they stood in the base, as a half-open range from 0."""

    start: int
    end: int


class Merged(Struct, frozen=True):
    """The merged lines; or None, with the overlaps for which there is no one answer."""

    lines: tuple[str, ...] | None
    overlaps: tuple[Overlap, ...] = ()


def merge(base: Sequence[str], one: Sequence[str], other: Sequence[str]) -> Merged:
    """Merge two sides against what both came from.

    Changes that touch count as overlapping: which of two insertions at one place comes first, nobody can say.

    Args:
        base: The lines before both edits.
        one: The lines of the one side.
        other: The lines of the other side.
    """
    lines: list[str] = []
    overlaps: list[Overlap] = []
    at = at_one = at_other = 0
    for start, start_one, start_other, size in _stable(base, one, other):
        was, now_one, now_other = base[at:start], one[at_one:start_one], other[at_other:start_other]
        chosen = _choose(was, now_one, now_other)
        if chosen is None:
            overlaps.append(Overlap(at, start))
        else:
            lines += chosen
        lines += base[start : start + size]
        at, at_one, at_other = start + size, start_one + size, start_other + size
    return Merged(None, tuple(overlaps)) if overlaps else Merged(tuple(lines))


def _choose(was: Sequence[T], one: Sequence[T], other: Sequence[T]) -> Sequence[T] | None:
    if list(one) == list(was):
        return other
    if list(other) == list(was) or list(one) == list(other):
        return one
    return None


def _stable(
    base: Sequence[str], one: Sequence[str], other: Sequence[str]
) -> Iterator[tuple[int, int, int, int]]:
    """Runs of base lines that stand in both sides: where in each, and how many. The last one is empty, at the ends.

    Lines that are everywhere (blank ones) are matched next to others alone, or a long text would take minutes: what
    is matched worse overlaps more, and no less.
    """
    here = SequenceMatcher(None, base, one, autojunk=True).get_matching_blocks()
    there = SequenceMatcher(None, base, other, autojunk=True).get_matching_blocks()
    i = j = 0
    while i < len(here) and j < len(there):
        a, b = here[i], there[j]
        start, end = max(a.a, b.a), min(a.a + a.size, b.a + b.size)
        if start < end:
            yield start, a.b + start - a.a, b.b + start - b.a, end - start
        if a.a + a.size < b.a + b.size:
            i += 1
        else:
            j += 1
    yield len(base), len(one), len(other), 0
