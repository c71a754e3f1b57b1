"""A budget of bytes: first come, first served, and never more than there is."""

import asyncio

import pytest

from block_gateway.budget import Budget


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_claims_up_to_its_size_and_waits_above() -> None:
    budget = Budget(100)
    assert budget.try_claim(60)
    assert not budget.try_claim(41)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(budget.claim(41), name="waiting")
        await settle()
        assert not waiting.done()
        assert budget.is_contended
        budget.release(60)
    assert budget.used == 41


async def test_nobody_overtakes_a_large_claim() -> None:
    budget = Budget(100)
    await budget.claim(60)
    async with asyncio.TaskGroup() as group:
        large = group.create_task(budget.claim(80), name="large")
        await settle()
        assert not budget.try_claim(10), "it would make the large one wait for ever"
        budget.release(60)
        await large
    assert budget.try_claim(20)


async def test_claim_beyond_the_size_takes_all() -> None:
    budget = Budget(100)
    await budget.claim(1_000)
    assert budget.used == 100
    budget.release(1_000)
    assert budget.used == 0


async def test_cancelled_wait_claims_nothing_and_lets_the_next_in() -> None:
    budget = Budget(100)
    await budget.claim(60)
    large = asyncio.create_task(budget.claim(80), name="large")
    small = asyncio.create_task(budget.claim(40), name="small")
    await settle()
    large.cancel()
    await small
    with pytest.raises(asyncio.CancelledError):
        await large
    assert budget.used == 100


async def test_wait_cancelled_after_it_was_served_gives_back() -> None:
    budget = Budget(100)
    await budget.claim(100)
    waiting = asyncio.create_task(budget.claim(50), name="waiting")
    await settle()
    budget.release(100)  # serves it, but it has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used == 0
