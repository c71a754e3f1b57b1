"""How often a file that changes all the time is read: a save goes at once, a log or a database ever more rarely.

Pure, but for the times that it is given. Times are of the event loop's clock, in seconds.
"""

from typing import Final
from uuid import UUID

from msgspec import Struct

FREE_READS: Final = 4
"""How many reads in a row nobody has to wait for."""

FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = 60.0
FORGET_S: Final = 10.0
"""How long after its rest a file must be left alone to begin anew."""

READING_SHARE: Final = 10
"""A file is read for at most one tenth of the time."""


class _Run(Struct):
    """A file's reads that followed each other: how many, and until when it rests after the last one."""

    reads: int
    rests_until: float


class Pace:
    """Counts how often files were read since they last were quiet."""

    def __init__(self) -> None:
        self._runs: dict[UUID, _Run] = {}

    def note(self, node_id: UUID, now: float, took_s: float) -> float:
        """A file was read that others knew before: it had changed again.

        Args:
            node_id: Which.
            now: When.
            took_s: How long its reading took.

        Returns:
            For how long it is left alone; 0: not at all.
        """
        run = self._runs.get(node_id)
        reads = 1 if run is None or now > run.rests_until + FORGET_S else run.reads + 1
        rest_s = 0.0
        if reads > FREE_READS:
            rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(reads - FREE_READS - 1, 20))
            rest_s = max(rest_s, READING_SHARE * took_s)
        self._runs[node_id] = _Run(reads, now + rest_s)
        return rest_s

    def resting(self, now: float) -> frozenset[UUID]:
        """The files that are left alone now: a look takes them to be as they were."""
        over = [node_id for node_id, run in self._runs.items() if now > run.rests_until + FORGET_S]
        for node_id in over:
            del self._runs[node_id]
        return frozenset(node_id for node_id, run in self._runs.items() if now < run.rests_until)

    def end_rests(self) -> None:
        """Somebody asks for what there is now."""
        self._runs.clear()
