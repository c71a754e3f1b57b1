"""When deletions may be told of. What vanishes with a folder that is just being removed is none.

Who removes the folder itself reaches its mark in the end, and that stops everything; until then one file goes after the
other, however slowly. So nothing is told of while things go on vanishing, and the more have gone, the longer it must have
been quiet. What was told already counts with the rest: twenty and twenty again are many.
"""

from typing import Final

FEW_DELETIONS: Final = 20
FEW_QUIET_S: Final = 0.25
MANY_QUIET_S: Final = 2.0
MOST_QUIET_S: Final = 10.0
"""How long nothing must have vanished before any, more than `FEW_DELETIONS`, or most of the folder, are told of."""


class Caution:
    """Counts the deletions of one run: of all that follow each other without a pause of `MOST_QUIET_S`."""

    def __init__(self) -> None:
        self._told = 0

    def tell(self, deletions: int) -> None:
        """So many have been told of."""
        self._told += deletions

    def wait_s(self, deletions: int, live: int, quiet_s: float) -> float:
        """How much longer to wait, in seconds; 0 or less: no longer.

        Args:
            deletions: How many are to be told of.
            live: How many nodes the journal has.
            quiet_s: How long ago something was last seen to have gone.
        """
        if quiet_s >= MOST_QUIET_S:
            self._told = 0
            return 0.0
        run = self._told + deletions
        if run <= FEW_DELETIONS:
            return FEW_QUIET_S - quiet_s
        is_most = run * 2 >= live + self._told
        return (MOST_QUIET_S if is_most else MANY_QUIET_S) - quiet_s
