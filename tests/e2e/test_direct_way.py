"""The direct way: once linked, devices need the broker and the gateway; the metadata server may be away."""

import asyncio

import pytest

from tests.e2e.device import Device, Pair, wait_until
from tests.e2e.journal import check_journal, head_of
from tests.e2e.stack import Stack
from tests.e2e.trees import differences, tree_of

COMMITS = 100
ARRIVAL_S = 60.0


def wait_alike(laptop: Device, desktop: Device) -> None:
    """Wait until both hold the same, without asking the metadata server, as `hutch wait` would."""

    def unlike() -> list[str]:
        try:
            return differences(tree_of(laptop.folder), tree_of(desktop.folder))
        except FileNotFoundError:
            return ["a file vanished while it was read"]

    wait_until(lambda: not unlike(), ARRIVAL_S, lambda: f"not the same: {unlike()}")


async def wait_committed(running: Stack, email: str, before: int) -> None:
    """Wait until the journal has gone on."""
    async with asyncio.timeout(ARRIVAL_S):
        # The database tells nobody.
        while await head_of(running, email) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def commit_each(running: Stack, email: str, device: Device, count: int) -> None:
    """Save a file at a time, each a commit of its own."""
    for number in range(count):
        before = await head_of(running, email)
        device.write(f"notes/{number % 10}.txt", f"version {number}\n".encode())
        await wait_committed(running, email, before)


async def test_agents_go_on_without_the_metadata_server(running: Stack, pair: Pair) -> None:
    email, laptop, desktop = pair
    laptop.write("first.txt", b"first")
    assert laptop.wait(ARRIVAL_S)
    assert desktop.wait(ARRIVAL_S)
    with running.stopped("metadata"):
        for number in range(20):
            author, reader = (laptop, desktop) if number % 2 else (desktop, laptop)
            author.write(f"in turns/{number}.txt", f"{author.name} {number}\n".encode() * 500)
            wait_alike(author, reader)
        for number in range(200):
            laptop.write(f"together/{number}.txt", f"{number}\n".encode())
        (desktop.folder / "first.txt").rename(desktop.folder / "moved.txt")
        wait_until((laptop.folder / "moved.txt").exists, ARRIVAL_S, lambda: "the move has not arrived")
        (laptop.folder / "in turns" / "3.txt").unlink()
        wait_alike(laptop, desktop)
        assert len(list((desktop.folder / "together").iterdir())) == 200
    assert laptop.wait(ARRIVAL_S)
    await check_journal(running, email)


@pytest.mark.timeout(400)
async def test_a_device_that_was_away_follows_its_own_queue(running: Stack, pair: Pair) -> None:
    email, laptop, desktop = pair
    laptop.write("notes/0.txt", b"before")
    assert laptop.wait(ARRIVAL_S)
    assert desktop.wait(ARRIVAL_S)
    desktop.end()
    before = await head_of(running, email)
    await commit_each(running, email, laptop, COMMITS)
    asked = {call: running.counted(call) for call in ("/changes", "/snapshot", "/heads")}
    desktop.start()
    wait_alike(laptop, desktop)
    assert desktop.wait(ARRIVAL_S)
    assert desktop.status()["workspaces"][0]["cursor"] >= before + COMMITS
    assert {call: running.counted(call) - times for call, times in asked.items() if call != "/heads"} == {
        "/changes": 0,
        "/snapshot": 0,
    }
    await check_journal(running, email)
