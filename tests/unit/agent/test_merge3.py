"""The merge of texts: what it does, what it leaves to people, and what holds for all texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.merge3 import Overlap, merge

LINES = st.lists(st.sampled_from("abc"), max_size=8)


@pytest.mark.parametrize(
    ("base", "one", "other", "merged"),
    [
        ("abcd", "abcd", "abcd", "abcd"),
        ("abcd", "xbcd", "abcd", "xbcd"),
        ("abcd", "abcd", "abcx", "abcx"),
        ("abcd", "xbcd", "abcy", "xbcy"),
        ("abcd", "bcd", "abcdy", "bcdy"),
        ("abcd", "axbcd", "abcyd", "axbcyd"),
        ("abcd", "xbcd", "xbcd", "xbcd"),
        ("abcd", "xbcd", "xbcy", "xbcy"),
        ("abcd", "", "abcd", ""),
        ("", "ab", "ab", "ab"),
        ("", "ab", "", "ab"),
        ("abcd", "acd", "abc", "ac"),
    ],
)
def test_changes_of_different_lines_are_both_taken(base: str, one: str, other: str, merged: str) -> None:
    assert merge(base, one, other).lines == tuple(merged)


@pytest.mark.parametrize(
    ("base", "one", "other", "overlaps"),
    [
        ("abcd", "xbcd", "ybcd", [(0, 1)]),
        ("abcd", "axd", "ayd", [(1, 3)]),
        ("abcd", "abcdx", "abcdy", [(4, 4)]),
        ("abcd", "acd", "axcd", [(1, 2)]),
        ("abcd", "xbcd", "aycd", [(0, 2)]),
        ("", "x", "y", [(0, 0)]),
        ("abcde", "xbcdx", "ybcdy", [(0, 1), (4, 5)]),
    ],
)
def test_changes_of_the_same_lines_are_for_people(
    base: str, one: str, other: str, overlaps: list[tuple[int, int]]
) -> None:
    merged = merge(base, one, other)
    assert merged.lines is None
    assert merged.overlaps == tuple(Overlap(*overlap) for overlap in overlaps)


@given(LINES, LINES)
def test_one_side_that_has_changed_nothing_gives_way(base: list[str], one: list[str]) -> None:
    assert merge(base, one, base).lines == tuple(one)
    assert merge(base, base, one).lines == tuple(one)


@given(LINES, LINES)
def test_equal_sides_are_merged_into_themselves(base: list[str], one: list[str]) -> None:
    assert merge(base, one, one).lines == tuple(one)


@given(LINES, LINES, LINES)
def test_it_does_not_matter_which_side_is_which(base: list[str], one: list[str], other: list[str]) -> None:
    assert merge(base, one, other) == merge(base, other, one)


@given(LINES, LINES, LINES)
def test_nothing_is_invented_and_no_addition_is_lost(
    base: list[str], one: list[str], other: list[str]
) -> None:
    lines = merge(base, one, other).lines
    if lines is None:
        return
    assert set(lines) <= {*base, *one, *other}
    for side in (one, other):
        assert {line for line in side if line not in base} <= set(lines)


@given(st.lists(st.integers(0, 99), unique=True, min_size=3, max_size=12), st.data())
def test_edits_with_an_untouched_line_between_them_merge(numbers: list[int], data: st.DataObject) -> None:
    base = [str(number) for number in numbers]
    between = data.draw(st.integers(1, len(base) - 2))
    head, tail = data.draw(st.lists(st.sampled_from("xyz"))), data.draw(st.lists(st.sampled_from("xyz")))
    one, other = head + base[between:], base[: between + 1] + tail
    assert merge(base, one, other).lines == (*head, base[between], *tail)
