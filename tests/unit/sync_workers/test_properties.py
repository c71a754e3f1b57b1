"""What holds for whatever is asked: the tree stays a tree, the journal tells it, and a batch is its requests in order."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import ROOT, Kind, Operation
from metadata.memory import MemoryStore
from metadata.state import Accepted, Refused, Submission
from sync_workers.decide import decide
from tests.commits.follow import follow
from tests.commits.words import STANDING, Say, chmod, copy, delete, mkdir, move, put, splice
from tests.commits.world import World, codes

FILES = ["f", "g", "h"]
DIRECTORIES = ["d", "e", "c"]
NODES = FILES + DIRECTORIES
PARENTS = ["/", *DIRECTORIES]
NAMES = ["one", "two", "three", "four", "five"]

BEGINNING = [
    mkdir("d", "one"),
    mkdir("e", "two"),
    mkdir("c", "one", "d"),
    put("f", "three"),
    put("g", "two", "d", "ab"),
    put("h", "one", "e", "ba"),
]

bases = st.sampled_from([STANDING] * 30 + [None, 1, 2])
contents = st.one_of(
    st.text("abc", max_size=3),
    st.builds(copy, st.sampled_from(FILES)),
    st.just(splice(0, 1, "a", "a")),
    st.just(splice(0, 1, "c", "cb")),
)
operations = st.one_of(
    st.builds(put, st.sampled_from(FILES), st.sampled_from(NAMES), st.sampled_from(PARENTS), contents, bases),
    st.builds(mkdir, st.sampled_from(DIRECTORIES), st.sampled_from(NAMES), st.sampled_from(PARENTS), bases),
    st.builds(move, st.sampled_from(NODES), st.sampled_from(NAMES), st.sampled_from(PARENTS), bases),
    st.builds(chmod, st.sampled_from(NODES)),
    st.builds(lambda node, below: (node, below), st.sampled_from(NODES), st.sets(st.sampled_from(NODES))).map(
        lambda pair: lambda world: _delete_knowing(world, *pair)
    ),
)
commits = st.lists(operations, min_size=1, max_size=3)
histories = st.lists(commits, min_size=1, max_size=10)


def _delete_knowing(world: World, node: str, below: set[str]) -> Operation:
    live = {name for name in NODES if not world.nodes[world.id(name)].deleted}
    known = sorted(below & live - {node})
    return delete(node, *known)(world)


async def begin(store: MemoryStore) -> World:
    """The cast, with three directories and three files."""
    world = await World.make(store)
    await world.look()
    [outcome] = await world.submit(world.request([say(world) for say in BEGINNING]))
    assert isinstance(outcome, Accepted)
    await world.look()
    return world


def run(play: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(play())


def check_tree(world: World) -> None:
    """Live names are unique, live parents are live directories, and every way up ends at the root."""
    live = {node_id: node for node_id, node in world.nodes.items() if not node.deleted}
    places = [(node.parent_id, node.name) for node in live.values()]
    assert len(places) == len(set(places))
    for node in live.values():
        at, steps = node, 0
        while at.parent_id != ROOT:
            at, steps = live[at.parent_id], steps + 1
            assert at.kind is Kind.DIRECTORY
            assert steps <= len(live)


@settings(max_examples=300, deadline=None)
@given(histories)
def test_the_tree_stays_a_tree_and_the_journal_tells_it(history: list[list[Say]]) -> None:
    async def play() -> None:
        world = await begin(MemoryStore())
        for says in history:
            before = await world.tree()
            submission = world.request([say(world) for say in says])
            [outcome] = await world.submit(submission)
            after = await world.tree()
            check_tree(world)
            if isinstance(outcome, Refused):
                assert codes(outcome)
                assert after == before
        await follow(world)
        live = [node for node in world.nodes.values() if not node.deleted]
        assert await world.backing.used_bytes(world.id("alice")) == sum(node.size_bytes for node in live)

    run(play)


@settings(max_examples=200, deadline=None)
@given(histories, st.integers(1, 9))
def test_a_batch_is_its_requests_in_order(history: list[list[Say]], cut: int) -> None:
    async def play() -> None:
        store = MemoryStore()
        world = await begin(store)
        for says in history[:cut]:
            await world.submit(world.request([say(world) for say in says]))
            await world.look()
        rest = [
            world.request([say(world) for say in says], device=("alice's", "bob's")[number % 2])
            for number, says in enumerate(history[cut:])
        ]
        if rest:
            await compare(store, world, rest)

    run(play)


async def compare(store: MemoryStore, world: World, rest: list[Submission]) -> None:
    """The same requests in one batch and one by one, from the same state."""
    one_by_one = deepcopy(store)
    together = await world.submit(*rest)
    alone = [await one_by_one.commit_batch([submission], decide) for submission in rest]
    for outcome, result in zip(together, alone, strict=True):
        assert type(outcome) is type(result.outcomes[0])
        if isinstance(outcome, Refused):
            assert codes(outcome) == codes(result.outcomes[0])
        else:
            assert isinstance(outcome, Accepted)
    workspace_id = world.id("home")
    assert await store.list_nodes(workspace_id) == await one_by_one.list_nodes(workspace_id)
