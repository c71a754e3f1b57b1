"""How many requests are in hand, so that a stop can wait for them.

The library's own graceful stop reads nothing more from its connections: a request whose body was still coming would
wait for it in vain.
"""

import asyncio
from types import TracebackType


class InHand:
    """Counts what is inside its `with` block. For one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> None:
        self._count += 1
        self._empty.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count:
            self._empty.set()

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is in hand, `timeout_s` at most; say whether it came to that."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
