"""How long a file is left alone that changes again and again."""

from uuid import UUID

from agent.pace import FIRST_REST_S, FORGET_S, FREE_READS, LONGEST_REST_S, READING_SHARE, Pace

LOG, OTHER = UUID(int=1), UUID(int=2)


def test_a_few_saves_in_a_row_wait_for_nothing() -> None:
    pace = Pace()
    assert [pace.note(LOG, float(number), 0.0) for number in range(FREE_READS)] == [0.0] * FREE_READS
    assert pace.resting(float(FREE_READS)) == frozenset()


def test_what_goes_on_changing_is_left_alone_for_ever_longer_and_never_for_good() -> None:
    pace, now, rests = Pace(), 0.0, list[float]()
    for _ in range(FREE_READS + 12):
        rests.append(pace.note(LOG, now, 0.0))
        assert pace.resting(now) == (frozenset({LOG}) if rests[-1] else frozenset())
        now += rests[-1] + 0.01
        assert pace.resting(now) == frozenset()
    assert rests[FREE_READS : FREE_READS + 3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert rests[-1] == LONGEST_REST_S


def test_a_file_that_takes_long_to_read_is_read_for_a_small_share_of_the_time() -> None:
    pace = Pace()
    rests = [pace.note(LOG, 0.0, 30.0) for _ in range(FREE_READS + 1)]
    assert rests[-1] == 30.0 * READING_SHARE


def test_one_that_was_quiet_begins_anew() -> None:
    pace, now = Pace(), 0.0
    for _ in range(FREE_READS + 3):
        now += pace.note(LOG, now, 0.0)
    assert pace.note(LOG, now + FORGET_S + 0.1, 0.0) == 0.0


def test_each_file_for_itself_and_until_somebody_asks() -> None:
    pace = Pace()
    for _ in range(FREE_READS + 1):
        pace.note(LOG, 0.0, 0.0)
    assert pace.note(OTHER, 0.0, 0.0) == 0.0
    assert pace.resting(0.5) == frozenset({LOG})
    pace.end_rests()
    assert pace.resting(0.5) == frozenset()
