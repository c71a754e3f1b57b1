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


EXCUSES: Final[tuple[Excuse, ...]] = ()


def excuse_of(mutant: Mutant) -> str | None:
    """Why this mutant may live; None when it may not."""
    for excuse in EXCUSES:
        old, new = (" ".join(text.split()) for text in (mutant.old, mutant.new))
        if (excuse.file, excuse.function, excuse.old, excuse.new) == (mutant.file, mutant.function, old, new):
            return excuse.why
    return None
