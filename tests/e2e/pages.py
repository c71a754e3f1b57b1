"""Contents that tell by themselves whether they are whole: pages of 4,096 bytes, each of which says what it is a part of.

A page's bytes follow from its head, so that a page of zeros, a page cut short, and one page of a content among those of
another are all seen at sight, and a content can be made again from its marks alone.
"""

import functools
import hashlib
import struct
from typing import Final, NamedTuple

PAGE_BYTES: Final = 4096

_HEAD: Final = struct.Struct(">5s1s16sIHH")
_MAGIC: Final = b"HUTCH"
_SAVED, _APPENDED = b"S", b"A"


class HalfError(Exception):
    """Bytes that are no whole content; says why."""


class Mark(NamedTuple):
    """What somebody wrote in one go.

    Attributes:
        author: Who.
        number: Which of all that they wrote.
        pages: How many pages it has.
        there: How many of these are there: fewer while a program writes in place.
    """

    author: str
    number: int
    pages: int
    there: int


Content = tuple[Mark, ...]
"""What a file holds: what it was saved with, then what was appended, a page each. Empty: an empty file."""


def saved(author: str, number: int, pages: int) -> Content:
    """A new content."""
    return (Mark(author, number, pages, pages),)


def appended(content: Content, author: str, number: int) -> Content:
    """A content with one page more."""
    return (*content, Mark(author, number, 1, 1))


def render(content: Content) -> bytes:
    """The bytes of a content."""
    return b"".join(_render(mark, is_first=place == 0) for place, mark in enumerate(content))


def describe(content: Content) -> str:
    """A content, as a person reads it."""
    return "+".join(f"{mark.author}#{mark.number}" for mark in content) or "nothing"


def parse(data: bytes, *, may_be_cut: bool = False) -> Content:
    """What bytes hold.

    Args:
        data: A whole file.
        may_be_cut: Whether its saved part may lack its last pages, or be empty: it is written in place.

    Raises:
        HalfError: They are no whole content.
    """
    if len(data) % PAGE_BYTES:
        raise HalfError(f"{len(data)} bytes are no whole pages")
    marks: list[Mark] = []
    at = 0
    while at < len(data):
        kind, mark, index = _head(data, at)
        if kind != (_APPENDED if marks else _SAVED) or index != 0:
            raise HalfError(f"page {index} of {mark} as page {at // PAGE_BYTES} after {marks}")
        there = 1
        while there < mark.pages and _is_next(data, at, mark, there):
            there += 1
        marks.append(mark._replace(there=there))
        at += there * PAGE_BYTES
        if there < mark.pages and not may_be_cut:
            raise HalfError(f"{there} pages of {mark}")
    if not marks and not may_be_cut:
        raise HalfError("nothing")
    content = tuple(marks)
    if render(content) != data:
        raise HalfError(f"pages are not what their heads say: {content}")
    return content


def _is_next(data: bytes, at: int, mark: Mark, index: int) -> bool:
    start = at + index * PAGE_BYTES
    return start < len(data) and _head(data, start) == (_SAVED, mark, index)


def _head(data: bytes, at: int) -> tuple[bytes, Mark, int]:
    magic, kind, author, number, index, pages = _HEAD.unpack_from(data, at)
    if magic != _MAGIC:
        raise HalfError(
            f"page {at // PAGE_BYTES} of {len(data) // PAGE_BYTES} is of nobody: {data[at : at + 16]!r}"
        )
    return kind, Mark(author.rstrip(b"\0").decode(), number, pages, pages), index


@functools.lru_cache(maxsize=4096)
def _render(mark: Mark, *, is_first: bool) -> bytes:
    kind = _SAVED if is_first else _APPENDED
    pages = []
    for index in range(mark.there):
        head = _HEAD.pack(_MAGIC, kind, mark.author.encode(), mark.number, index, mark.pages)
        pages.append(head + hashlib.shake_256(head).digest(PAGE_BYTES - len(head)))
    return b"".join(pages)
