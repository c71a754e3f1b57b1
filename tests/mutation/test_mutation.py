"""The mutator makes the small changes that it should, and the trial tells a mutant that is noticed from one that is not."""

from pathlib import Path

import pytest

from tests.mutation.__main__ import choose
from tests.mutation.equal import EXCUSES
from tests.mutation.mutate import Mutant, list_mutants
from tests.mutation.trial import CHECKOUT, UNIT, Copy

_MODULE = '''
"""A docstring."""
LIMIT = 3


def find(items: list[int], *, strict: bool = True) -> int | None:
    """Another."""
    assert items
    for item in items:
        if item < LIMIT and not strict:
            continue
        items.remove(item)
        return item - 1
    return None
'''


def test_every_kind_of_change_is_made_once() -> None:
    found = {(mutant.operator, mutant.old, mutant.new) for mutant in list_mutants("find.py", _MODULE)}
    assert found == {
        ("constant", "3", "4"),
        ("constant", "True", "False"),
        ("condition", "item < LIMIT and not strict", "(not (item < LIMIT and (not strict)))"),
        ("and, or", "item < LIMIT and not strict", "(item < LIMIT or not strict)"),
        ("term left out", "item < LIMIT and not strict", "(not strict)"),
        ("term left out", "item < LIMIT and not strict", "(item < LIMIT)"),
        ("comparison", "item < LIMIT", "(item <= LIMIT)"),
        ("not", "not strict", "strict"),
        ("break, continue", "continue", "break"),
        ("statement left out", "items.remove(item)", "pass"),
        ("return None", "return item - 1", "return None"),
        ("arithmetic", "item - 1", "(item + 1)"),
        ("constant", "1", "2"),
    }


def test_a_change_is_made_where_it_was_found() -> None:
    text = "# Müßiggang: 1\nGRÖẞE = {'ä': 1}\nWEITE = 1\n"
    changed = [mutant.apply(text) for mutant in list_mutants("sizes.py", text)]
    assert changed == [text.replace("'ä': 1", "'ä': 2"), text.replace("WEITE = 1", "WEITE = 2")]


@pytest.mark.parametrize("file", UNIT)
def test_every_mutant_of_a_module_is_another_program(file: str) -> None:
    text = (CHECKOUT / file).read_text()
    programs = [mutant.apply(text) for mutant in list_mutants(file, text)]
    assert len(programs) > 10
    assert text not in programs
    assert len(set(programs)) == len(programs)


def test_more_mutants_of_a_seed_begin_with_those_of_fewer() -> None:
    assert choose(40, 7)[:25] == choose(25, 7)
    assert choose(40, 7) != choose(40, 8)
    assert {mutant.file for mutant in choose(20, 7, ["agent/plan.py"])} == {"agent/plan.py"}


def test_every_excuse_is_of_a_mutant_that_there_is() -> None:
    there = {
        (mutant.file, mutant.function, " ".join(mutant.old.split()), " ".join(mutant.new.split()))
        for mutant in choose(10**6, 0)
    }
    unknown = [
        excuse for excuse in EXCUSES if (excuse.file, excuse.function, excuse.old, excuse.new) not in there
    ]
    assert unknown == []


@pytest.mark.slow
def test_what_the_tests_notice_is_killed_and_what_they_do_not_lives(tmp_path: Path) -> None:
    file = "sync_workers/decide.py"
    text = (CHECKOUT / file).read_text()
    copy = Copy(tmp_path)
    deaf = next(m for m in list_mutants(file, text) if m.new == "(author is not None)")
    equal = Mutant(
        file, "", 0, "none", "MAX_CONFLICTS = 256", "MAX_CONFLICTS = 255 + 1", text.index("MAX_CONFLICTS")
    )
    killed = copy.try_mutant(deaf, 1, 0, None)
    assert (killed.killed_by, killed.by.partition("::")[0]) == (
        "unit",
        "tests/unit/sync_workers/test_decide.py",
    )
    lives = copy.try_mutant(equal, 1, 1, None)
    assert (lives.killed_by, lives.runs) == (None, 1)
    assert (tmp_path / file).read_text() == text
