"""What has begun is finished, whoever cancels meanwhile: a thread cannot be stopped, and a half-done step must not be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def finish(work: Awaitable[T]) -> T:
    """Await `work` to its end. A cancellation that comes meanwhile is raised only then."""

    async def whole() -> T:
        return await work

    task = asyncio.create_task(whole(), name="finish")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run blocking `work` in a thread, and wait for its end even when cancelled."""
    return await finish(asyncio.to_thread(work, *arguments))
