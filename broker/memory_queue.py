"""One queue of the broker's in-memory twin: order, limits, turns, and the count of deliveries."""

import asyncio
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker.topology import Queue


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A message in a queue. `place` orders it: what is given back returns to its place."""

    place: int
    body: bytes
    user_id: str | None
    headers: Mapping[str, object]
    delivery_count: int = 0
    redelivered: bool = False


@dataclass
class MemoryQueue:
    """A queue: what is ready in it, in order, and who consumes it, the next in turn first."""

    declared: Queue
    ready: list[Stored] = field(default_factory=list)
    consumers: list["Subscription"] = field(default_factory=list)

    def limit(self, name: str) -> int | None:
        """A number among its arguments; None when it is not given."""
        value = self.declared.arguments.get(name)
        return value if isinstance(value, int) else None

    def is_over(self, *, extra: int) -> bool:
        """Whether it would hold too much with `extra` more messages."""
        most, most_bytes = self.limit("x-max-length"), self.limit("x-max-length-bytes")
        if most is not None and len(self.ready) + extra > most:
            return True
        return most_bytes is not None and sum(len(m.body) for m in self.ready) + extra > most_bytes

    def pump(self) -> None:
        """Hand what is ready to the consumers that have room, each in turn."""
        while self.ready:
            free = next((s for s in self.consumers if len(s.in_hand) < s.prefetch), None)
            if free is None:
                return
            message = self.ready.pop(0)
            free.in_hand[message.place] = message
            free.inbox.put_nowait(message)
            self.consumers.remove(free)
            self.consumers.append(free)

    def give_back(self, message: Stored) -> Stored | None:
        """Take back what was not settled, to its place. Returns it instead when it came back too often."""
        counts = self.declared.arguments.get("x-queue-type") == "quorum"
        count = message.delivery_count + (1 if counts else 0)
        returned = replace(message, redelivered=True, delivery_count=count)
        limit = self.limit("x-delivery-limit")
        if limit is not None and count > limit:
            return returned
        insort(self.ready, returned, key=lambda stored: stored.place)
        return None


@dataclass(eq=False)
class Subscription:
    """A consumer at a queue: what it may still take, and what it has in hand."""

    prefetch: int
    exclusive: bool
    user: str
    inbox: asyncio.Queue[Stored | None]
    in_hand: dict[int, Stored] = field(default_factory=dict)

    def end(self) -> None:
        """Hand over nothing any more. What had not been handed over is forgotten here: it went back."""
        while not self.inbox.empty():
            self.inbox.get_nowait()
        self.inbox.put_nowait(None)
