"""Counts wrong passwords, so that nobody can try many. Pure but for its own memory: the time comes in."""

from collections import OrderedDict, deque


class Tries:
    """How often a password may be tried for one account. For one event loop; each process counts its own.

    A try counts from its beginning, or many at once would all begin before the first has failed; success takes it back.

    Args:
        limit: Failures in a window.
        window_s: The window's length, in seconds.
        max_accounts: How many accounts are remembered; the one tried longest ago is forgotten first.
    """

    def __init__(self, limit: int = 10, window_s: float = 60, max_accounts: int = 100_000) -> None:
        self._limit = limit
        self._window_s = window_s
        self._max_accounts = max_accounts
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, account: str, now_s: float) -> bool:
        """Count a try, and say whether it may go on."""
        times = self._tries.setdefault(account, deque())
        self._tries.move_to_end(account)
        while len(self._tries) > self._max_accounts:
            self._tries.popitem(last=False)
        while times and times[0] <= now_s - self._window_s:
            times.popleft()
        if len(times) >= self._limit:
            return False
        times.append(now_s)
        return True

    def succeed(self, account: str, began_s: float) -> None:
        """The try that began then was right: it does not count."""
        times = self._tries.get(account)
        if times and began_s in times:
            times.remove(began_s)
