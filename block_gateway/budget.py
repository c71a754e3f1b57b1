"""A budget of bytes in memory: who wants more than is left waits its turn. Back-pressure instead of errors."""

import asyncio
from collections import deque


class Budget:
    """A semaphore that counts bytes, first come, first served.

    To stay free of deadlock, hold nothing that only a later turn would free while you wait.

    Args:
        size: Bytes in all. A single claim beyond it counts as all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes claimed now."""
        return self._size - self._left

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits: whoever can do with less should release some."""
        return bool(self._waiting)

    def try_claim(self, size: int) -> bool:
        """Claim at once or not at all. Never overtakes those who wait."""
        size = min(size, self._size)
        if self._waiting or size > self._left:
            return False
        self._left -= size
        return True

    async def claim(self, size: int) -> None:
        """Claim, waiting for it as long as it takes. A cancelled wait claims nothing."""
        if self.try_claim(size):
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (min(size, self._size), turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(entry[0])
            else:
                self._waiting.remove(entry)
                self._serve()
            raise

    def release(self, size: int) -> None:
        """Give back what was claimed."""
        self._left += min(size, self._size)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= size
                turn.set_result(None)
