"""What the demo tells of two folders."""

from __future__ import annotations

import pytest

from deploy.follow import Change, Follower, Seen, Tree, changes, is_equal


def file(inode: int, size: int = 1, mtime: int = 1_000) -> Seen:
    return Seen(is_folder=False, size_bytes=size, mtime_ns=mtime, inode=inode)


def folder(inode: int) -> Seen:
    return Seen(is_folder=True, size_bytes=4096, mtime_ns=1_000, inode=inode)


@pytest.mark.parametrize(
    ("case", "before", "after", "told"),
    [
        ("nothing", {"a": file(1)}, {"a": file(1)}, []),
        ("a new file", {}, {"a": file(1)}, ["saved a"]),
        ("an edit", {"a": file(1)}, {"a": file(1, size=2)}, ["saved a"]),
        ("an atomic save", {"a": file(1)}, {"a": file(2)}, ["saved a"]),
        ("a delete", {"a": file(1)}, {}, ["deleted a"]),
        ("a new folder", {}, {"d": folder(1)}, ["made folder d"]),
        ("a move", {"a": file(1)}, {"b": file(1)}, ["moved a → b"]),
        (
            "a folder's move is told once",
            {"d": folder(1), "d/a": file(2)},
            {"e": folder(1), "e/a": file(2)},
            ["moved d → e"],
        ),
        ("a folder's delete is told once", {"d": folder(1), "d/a": file(2)}, {}, ["deleted d"]),
        ("a folder's own time is no change", {"d": folder(1)}, {"d": folder(1)}, []),
    ],
)
def test_changes(case: str, before: Tree, after: Tree, told: list[str]) -> None:
    assert [str(change) for change in changes(before, after)] == told, case


def test_a_change_is_told_when_it_arrives_and_not_twice() -> None:
    follower = Follower(sides=("A", "B"))
    follower.begin({"A": {}, "B": {}})
    assert follower.see({"A": {"a": file(1)}, "B": {}}, 10.0) == []
    (arrival,) = follower.see({"A": {"a": file(1)}, "B": {"a": file(7)}}, 10.5)
    assert (arrival.change, arrival.origin, arrival.took_s) == (Change(verb="saved", path="a"), "A", 0.5)
    assert follower.see({"A": {"a": file(1)}, "B": {"a": file(7)}}, 11.0) == []


def test_what_was_made_and_has_arrived_between_two_looks_is_told_once() -> None:
    follower = Follower(sides=("A", "B"))
    follower.begin({"A": {}, "B": {}})
    (arrival,) = follower.see({"A": {"a": file(1)}, "B": {"a": file(7)}}, 10.0)
    assert (arrival.change, arrival.took_s) == (Change(verb="saved", path="a"), 0.0)
    assert follower.see({"A": {"a": file(1)}, "B": {"a": file(7)}}, 11.0) == []


def test_what_vanishes_before_it_arrives_is_not_told() -> None:
    follower = Follower(sides=("A", "B"))
    follower.begin({"A": {}, "B": {}})
    follower.see({"A": {"swap": file(1)}, "B": {}}, 1.0)
    arrivals = follower.see({"A": {}, "B": {}}, 2.0)
    assert arrivals == []


def test_equal_trees_may_have_other_inodes() -> None:
    assert is_equal({"a": file(1), "d": folder(2)}, {"a": file(8), "d": folder(9)})
    assert not is_equal({"a": file(1)}, {"a": file(1, size=2)})
    assert not is_equal({"a": file(1)}, {})
