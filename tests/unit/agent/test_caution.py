"""When deletions may be told of: by table, and over a run of them."""

import pytest

from agent.caution import FEW_DELETIONS, FEW_QUIET_S, MANY_QUIET_S, MOST_QUIET_S, Caution


@pytest.mark.parametrize(
    ("told", "deletions", "live", "needs_s"),
    [
        (0, 1, 1_000, FEW_QUIET_S),
        (0, FEW_DELETIONS, 1_000, FEW_QUIET_S),
        (0, FEW_DELETIONS + 1, 1_000, MANY_QUIET_S),
        (FEW_DELETIONS, 1, 1_000, MANY_QUIET_S),  # twenty and one more are many
        (0, 500, 1_000, MOST_QUIET_S),
        (400, 100, 600, MOST_QUIET_S),  # half of what there was when it began
        (0, 3, 4, FEW_QUIET_S),
    ],
)
def test_the_more_have_gone_the_longer_it_must_be_quiet(
    told: int, deletions: int, live: int, needs_s: float
) -> None:
    caution = Caution()
    caution.tell(told)
    assert caution.wait_s(deletions, live, 0.0) == needs_s
    assert caution.wait_s(deletions, live, needs_s) <= 0


def test_a_pause_ends_a_run() -> None:
    caution = Caution()
    caution.tell(FEW_DELETIONS)
    assert caution.wait_s(1, 1_000, MOST_QUIET_S) <= 0
    assert caution.wait_s(1, 1_000, 0.0) == FEW_QUIET_S
