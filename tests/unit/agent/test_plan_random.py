"""The planner on any three trees: it never raises, it loses nothing, and both sides become equal."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.agent.twosided import ACTIONS, Person, Run, act_elsewhere, act_here

number = st.integers(0, 11)
numbers = st.tuples(number, number, number)
change = st.tuples(st.sampled_from(["here", "elsewhere"]), st.sampled_from(ACTIONS), numbers)
step = st.tuples(
    st.just("agent"), st.sampled_from(["hash", "receive", "identify", "agree", "send", "place"]), numbers
)


SCENE = [
    ("elsewhere", "create", (0, 0, 0)),  # a/
    ("elsewhere", "create", (1, 1, 0)),  # a/b/
    ("elsewhere", "create", (2, 2, 4)),  # a/b/c, a file
    ("elsewhere", "create", (0, 1, 0)),  # b/
    ("elsewhere", "create", (3, 0, 5)),  # b/a, a file
    ("elsewhere", "create", (0, 2, 7)),  # c, a file
]
"""Deep enough for rings, and full enough for clashes of names."""


def play(run: Run, person: Person, script: list[tuple[str, str, tuple[int, int, int]]]) -> None:
    """Play one script."""
    for who, what, three in script:
        if who == "here":
            act_here(run, person, what, three)
        elif who == "elsewhere":
            act_elsewhere(run, person, what, three)
        else:
            step_of_agent(run, what, three)


def step_of_agent(run: Run, what: str, three: tuple[int, int, int]) -> None:
    planned = run.plan()
    run.check_plan(planned)
    if what == "hash":
        run.hash_all()
    elif what == "receive":
        run.receive()
    elif what == "identify":
        run.identify(planned)
    elif what == "agree":
        run.agree_on(planned)
    elif what == "send":
        run.send(planned, limit=three[0] + 1)
    else:
        run.place(planned, stays=lambda node: three[0] == 11)


quick = settings(deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(st.lists(change, max_size=5), st.lists(change, max_size=10))
# What moves out of a deleted directory takes along even what is deleted below it.
@example([], [("here", "swap", (1, 3, 0)), ("here", "delete", (2, 0, 0)), ("here", "delete", (0, 0, 0))])
# For a while the merge base has two nodes of one name.
@example([], [("here", "delete", (0, 0, 0)), ("elsewhere", "swap", (1, 5, 0)), ("here", "edit", (1, 0, 0))])
def test_two_perturbed_trees_become_equal(base, script) -> None:
    """A tree that both had, then changes on both sides, then everything that the plans say."""
    run = Run()
    person = Person(run)
    play(run, person, SCENE + base)
    run.settle()
    play(run, person, script)
    run.settle()
    assert run.plan().is_empty


@quick
@given(st.booleans(), st.lists(change | step, max_size=40))
# A deleted directory has to stay, and a new directory, or a link, wants its name.
@example(
    True,
    [("elsewhere", "replace", (0, 0, 0)), ("agent", "receive", (0, 0, 0)), ("agent", "place", (11, 0, 0))],
)
@example(
    True,
    [("elsewhere", "replace", (0, 0, 3)), ("agent", "receive", (0, 0, 0)), ("agent", "place", (11, 0, 0))],
)
# What holds a directory that had to stay has to stay too, and is told of to nobody.
@example(
    True,
    [
        ("elsewhere", "delete", (0, 0, 0)),
        ("agent", "receive", (0, 0, 0)),
        ("here", "create", (1, 0, 0)),
        ("agent", "send", (1, 0, 0)),
        ("agent", "place", (11, 0, 0)),
        ("elsewhere", "delete", (0, 0, 0)),
    ],
)
def test_any_interleaving_becomes_equal(begun, script) -> None:
    """People and the agent's own steps in any order: as after crashes, late answers and half-done plans."""
    run = Run()
    person = Person(run)
    if begun:
        play(run, person, SCENE)
        run.settle()
    play(run, person, script)
    run.settle()
