"""The scheduler: an event loop with a clock of its own, threads that take turns, and programs that can be cut off.

Nothing waits in truth: when nobody can go on, the clock jumps to the next timer. Work for threads runs in the loop's
one thread, after a delay drawn from the seed, so that a run is the same each time.
"""

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, NamedTuple

BEGINNING_NS: Final = 1_700_000_000_000_000_000
"""The wall clock when a run begins, nanoseconds since 1970."""

MOST_CALLBACKS: Final = 2_000_000
"""A run of sixty steps takes some ten thousand."""

LIFE: contextvars.ContextVar["Life | None"] = contextvars.ContextVar("life", default=None)


class Site(NamedTuple):
    """A place in the engine where a task waits: the module's file name, and the line of the `await`."""

    file: str
    line: int


class Killed(BaseException):
    """The program was killed within a system call. Nothing of it ever runs again."""


class StuckError(AssertionError):
    """Nobody will ever do anything again."""


class Life:
    """One start of one program: from its first step until it ends, or is cut off."""

    def __init__(self, name: str, on_end: Callable[[], None]) -> None:
        self.name = name
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._all: set[asyncio.Task[Any]] = set()

    def end(self) -> None:
        """Cut it off: nothing of it ever runs again."""
        if not self.dead:
            self.dead = True
            self._all = asyncio.all_tasks(
                self._loop
            )  # they stay as they are: their clean-up must not run either
            self._on_end()


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop on a simulated clock. Use for one run."""

    def __init__(self, chance: random.Random, engine: str) -> None:
        """`engine`: the folder whose `await`s count as places to be cut off at.

        `traps` says where whoever comes there first is cut off, and how often that place is passed before.
        """
        super().__init__()
        self._now = 0.0
        self._chance = chance
        self._engine = engine
        self._selector = _Jump(self)
        self.traps: dict[Site, int] = {}
        self.is_over = False
        self.callbacks = 0
        self.clock_ahead_s = 0.0
        self.set_exception_handler(lambda *_: None)

    # --- the clock

    def time(self) -> float:
        """Seconds since the run began."""
        return self._now

    def wall_ns(self) -> int:
        """The wall clock of all devices."""
        return BEGINNING_NS + int((self._now + self.clock_ahead_s) * 1e9)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def _process_events(self, event_list: object) -> None:
        """There are none: nothing outside the run exists."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    # --- who may run

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """As ever; what belongs to a life ends with it."""
        if self.is_over:
            return asyncio.Handle(callback, args, self, context)
        context = context if context is not None else contextvars.copy_context()
        return super().call_soon(self._guard(callback, context), *args, context=context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """As ever; what belongs to a life ends with it."""
        if self.is_over:
            return asyncio.TimerHandle(when, callback, args, self, context)
        context = context if context is not None else contextvars.copy_context()
        return super().call_at(when, self._guard(callback, context), *args, context=context)

    def _guard(self, callback: Any, context: contextvars.Context) -> Any:
        life = context.get(LIFE)
        return callback if life is None else partial(self._go_on, life, callback)

    def _go_on(self, life: Life, callback: Any, *args: Any) -> None:
        self.callbacks += 1
        if self.callbacks > MOST_CALLBACKS:
            raise StuckError("the engine runs in circles")
        if life.dead:
            return
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task):
            life.tasks[task] = None
            if self.traps and self._springs(find_sites(task, self._engine)):
                life.end()
                return
        callback(*args)

    def end(self) -> None:
        """Let go of everything where it stands. Nothing runs any more."""
        self.is_over = True
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()

    def sites_of(self, life: Life) -> set[Site]:
        """All places in the engine where a program's tasks wait."""
        return {site for task in life.tasks if not task.done() for site in find_sites(task, self._engine)}

    def _springs(self, sites: list[Site]) -> bool:
        """Whether a task that goes on from these places has come to a trap."""
        for site in sites:
            if site in self.traps:
                self.traps[site] -= 1
                if self.traps[site] < 0:
                    del self.traps[site]
                    return True
        return False

    # --- threads

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` a moment later, in one piece: threads take turns."""
        future = self.create_future()
        delay_s = self._chance.expovariate(500) if executor is None else 0.0002
        self.call_later(delay_s, self._work, future, partial(func, *args))
        return future

    def _work(self, future: asyncio.Future[Any], func: Callable[[], Any]) -> None:
        life = LIFE.get()
        try:
            result = func()
        except Killed:
            return
        except Exception as error:  # a thread hands over whatever it raised
            if not future.done():
                future.set_exception(error)
            return
        if not future.done() and not (life is not None and life.dead):
            future.set_result(result)


def find_sites(task: "asyncio.Task[Any]", engine: str) -> list[Site]:
    """Where in the engine a suspended task waits: the `await` of each function that it is in, outermost first."""
    found: list[Site] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is None:
            break
        folder, _, file = frame.f_code.co_filename.rpartition("/")
        if folder == engine and frame.f_lasti > 0:
            found.append(Site(file, frame.f_lineno))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return found


class _Jump:
    """The loop's selector: instead of waiting, it moves the clock."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise StuckError("nobody will ever do anything again")
        if timeout > 0:
            self._loop.advance(timeout)
        return []

    def close(self) -> None:
        return
