"""Names of conflict copies: always possible, never taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.names import ConflictName, conflict_name, free_name, read_conflict_name
from broker.model import name_problem

DATE = "2026-11-22"


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("report.txt", "report (conflicted copy of laptop 2026-11-22).txt"),
        ("report", "report (conflicted copy of laptop 2026-11-22)"),
        (".profile", ".profile (conflicted copy of laptop 2026-11-22)"),
        ("a.b.gz", "a.b (conflicted copy of laptop 2026-11-22).gz"),
        ("no. this is a sentence, not a suffix at all", None),
    ],
)
def test_the_mark_comes_before_the_suffix(name: str, copy: str | None) -> None:
    made = conflict_name(name, "laptop", DATE, lambda candidate: True)
    assert made == (copy or f"{name} (conflicted copy of laptop {DATE})")


def test_a_taken_name_gets_a_counter() -> None:
    taken: set[str] = set()
    for _ in range(3):
        taken.add(conflict_name("a.txt", "laptop", DATE, lambda candidate: candidate not in taken))
    assert sorted(taken) == [
        f"a (conflicted copy of laptop {DATE} 2).txt",
        f"a (conflicted copy of laptop {DATE} 3).txt",
        f"a (conflicted copy of laptop {DATE}).txt",
    ]


def test_what_no_name_can_have_is_replaced_in_the_device() -> None:
    made = conflict_name("a", "my/\0\nbox", DATE, lambda candidate: True)
    assert made == f"a (conflicted copy of my---box {DATE})"
    assert "copy of device " in conflict_name("a", "", DATE, lambda candidate: True)


names = st.text(min_size=1, max_size=255).filter(lambda name: name_problem(name) is None)


@given(names, st.text(max_size=300), st.integers(0, 3))
def test_any_device_makes_a_name_that_every_disk_can_have(name: str, device: str, taken: int) -> None:
    seen: list[str] = []

    def is_free(candidate: str) -> bool:
        seen.append(candidate)
        return len(seen) > taken

    made = conflict_name(name, device, DATE, is_free)
    assert name_problem(made) is None
    assert len(set(seen)) == taken + 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("report.txt", None),
        ("report (conflicted copy of laptop).txt", None),
        ("a (conflicted copy of laptop 2026-11-22).txt", ConflictName("a.txt", "laptop", DATE)),
        ("a (conflicted copy of laptop 2026-11-22 3).txt", ConflictName("a.txt", "laptop", DATE)),
        ("a (conflicted copy of my old box 2026-11-22)", ConflictName("a", "my old box", DATE)),
        (
            "a (conflicted copy of laptop 2026-11-22) (conflicted copy of desk 2026-11-22).b",
            ConflictName("a (conflicted copy of laptop 2026-11-22).b", "desk", DATE),
        ),
        ("a (conflicted copy of laptop 2026-11-22) and more", None),
    ],
)
def test_a_name_says_whose_copy_of_what_it_is(name: str, says: ConflictName | None) -> None:
    assert read_conflict_name(name) == says


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=20), st.integers(1, 3))
def test_what_a_name_was_given_can_be_read_from_it(name: str, device: str, taken: int) -> None:
    refused = 0

    def is_free(candidate: str) -> bool:
        nonlocal refused
        refused += 1
        return refused >= taken

    says = read_conflict_name(conflict_name(name, device, DATE, is_free))
    assert says is not None
    assert (says.original, says.date) == (name, DATE)


def test_the_first_free_number_makes_an_ordinary_name() -> None:
    taken = {"a 2.txt", "a 3.txt"}
    assert free_name("a.txt", lambda name: name not in taken) == "a 4.txt"
    assert len(free_name("x" * 255, lambda name: True).encode()) <= 255
