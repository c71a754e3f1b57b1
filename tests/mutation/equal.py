"""Mutants that nothing can notice, or that nothing need notice, and why."""

from typing import Final

from msgspec import Struct

from tests.mutation.mutate import Mutant


class Excuse(Struct, frozen=True):
    """Why the mutants that make `new` of `old` in a function may live. Texts are compared without line breaks."""

    file: str
    function: str
    old: str
    new: str
    why: str


EXCUSES: Final[tuple[Excuse, ...]] = (
    Excuse(
        "agent/plan.py",
        "_Merge._last_seen",
        "parent_id in tree",
        "(parent_id not in tree)",
        "equal: a tree that has a node has its parent, and a parent that is to be revived is in one of the two trees alone,"
        " so that the line below finds the same",
    ),
    Excuse(
        "agent/plan.py",
        "overlay.path",
        "len(names) > 100_000",
        "(len(names) >= 100000)",
        "a guard against a ring that never ends: no path has a hundred thousand names",
    ),
    Excuse(
        "agent/place.py",
        "_Placing._is_ours",
        "comes.moves and self._is_there(comes, path)",
        "self._is_there(comes, path)",
        "equal: what does not move stands at its target already, and nothing else can leave that path",
    ),
)


def excuse_of(mutant: Mutant) -> str | None:
    """Why this mutant may live; None when it may not."""
    for excuse in EXCUSES:
        old, new = (" ".join(text.split()) for text in (mutant.old, mutant.new))
        if (excuse.file, excuse.function, excuse.old, excuse.new) == (mutant.file, mutant.function, old, new):
            return excuse.why
    return None
