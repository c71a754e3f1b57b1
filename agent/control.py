"""How a command speaks to the running agent: one line of JSON there, one back, over a Unix socket.

    {"v": 1, "command": "status", "arguments": {}}
    {"v": 1, "result": {...}}   or   {"v": 1, "error": {"code": "...", "message": "...", "exit_code": 11}}

A connection carries one command. When the asking side hangs up, what it asked for is cancelled. Only the same person
(or root) is listened to: the socket is of mode 0600, and the kernel is asked who is at the other end, where it tells.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
import structlog

from agent.errors import NotRunning
from agent.sockets import check_owner, check_peer, listen_privately
from broker.errors import Corrupt, HutchError, Refused, Retryable

MAX_LINE_SIZE_BYTES: Final = 16 * 1024 * 1024
MAX_CONNECTIONS: Final = 32
CONNECT_TIMEOUT_S: Final = 5.0
LINE_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

T = TypeVar("T")

log = structlog.get_logger()


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    v: Literal[1] = 1
    command: str
    arguments: dict[str, Any] = {}


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    exit_code: int


class _Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: Literal[1] = 1
    result: dict[str, Any] | None = None
    error: _Error | None = None


class ControlServer:
    """The agent's ear: listens while its block runs. Commands run at the same time as each other.

    Args:
        path: Of the socket; its directory is made for this person alone.
        handlers: A function a command: from its arguments to its result, both of which JSON must be able to say.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to listen.

        Raises:
            AlreadyRunning: When somebody listens at this path.
            Misconfigured: When other people could change the socket's directory.
        """
        listening = await asyncio.to_thread(listen_privately, self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE_SIZE_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("control connection")
        self._running.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError):
            pass  # hung up, silent or talking without end: there is nobody to tell
        finally:
            self._running.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = await self._answer(reader, writer)
        if answer is None:
            return
        writer.write(msgspec.json.encode(answer) + b"\n")
        async with asyncio.timeout(LINE_TIMEOUT_S):
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer | None:
        try:
            check_peer(writer.get_extra_info("socket"))
            if len(self._running) > MAX_CONNECTIONS:
                raise Retryable("the agent is answering too many commands: try again")
            async with asyncio.timeout(LINE_TIMEOUT_S):
                line = await reader.readline()
            return await self._handle(line, reader) if line else None
        except HutchError as error:
            return _Answer(error=_Error(code=error.code, message=str(error), exit_code=error.exit_code))

    async def _handle(self, line: bytes, reader: asyncio.StreamReader) -> _Answer | None:
        """Run a command for as long as somebody waits for its end; None when nobody does any more."""
        question = _decode(line, _Question)
        handler = self._handlers.get(question.command)
        if handler is None:
            raise Refused(
                f"the running agent does not know `{question.command}`: restart it", "unknown_command"
            )
        work = asyncio.create_task(self._run(question, handler), name=f"control {question.command}")
        gone = asyncio.create_task(reader.read(1), name="control hang-up")
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _run(self, question: _Question, handler: Handler) -> _Answer:
        try:
            return _Answer(result=await handler(question.arguments))
        except HutchError:
            raise
        except Exception as error:
            # A defect in one command must not end the agent; the log has the rest.
            log.exception("control.failed", command=question.command)
            raise HutchError(
                f"the agent failed at `{question.command}`: {type(error).__name__}: {error}"
            ) from error


async def call(
    path: Path, command: str, *, answer_timeout_s: float | None = ANSWER_TIMEOUT_S, **arguments: Any
) -> dict[str, Any]:
    """Have the running agent do something, and return its result.

    Args:
        path: Of the agent's socket.
        command: One of `agent.steering`.
        answer_timeout_s: How long to wait for the answer; None for as long as the agent lives.
        arguments: The command's own, such as JSON can say.

    Raises:
        NotRunning: No agent listens, or it ended before it answered.
        Retryable: It did not answer in time.
        HutchError: As the agent answered, with its code and exit code.
    """
    reader, writer = await _connect(path)
    try:
        writer.write(msgspec.json.encode(_Question(command=command, arguments=arguments)) + b"\n")
        async with asyncio.timeout(answer_timeout_s):
            line = await reader.readline()
    except TimeoutError as error:
        raise Retryable(f"the agent did not answer within {answer_timeout_s:g} seconds") from error
    except (OSError, ValueError) as error:
        raise NotRunning("the agent ended before it answered") from error
    finally:
        writer.close()
    if not line:
        raise NotRunning("the agent ended before it answered")
    return _result(_decode(line, _Answer))


def _result(answer: _Answer) -> dict[str, Any]:
    if answer.error is not None:
        raise _AgentError(answer.error)
    return answer.result or {}


class _AgentError(HutchError):
    """An error that the agent told of, with the agent's own code and exit code."""

    def __init__(self, error: _Error) -> None:
        super().__init__(error.message)
        self.code = error.code  # type: ignore[misc]  # an instance is as exact as what it repeats
        self.exit_code = error.exit_code  # type: ignore[misc]


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        check_owner(path)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await asyncio.open_unix_connection(str(path), limit=MAX_LINE_SIZE_BYTES)
    except (OSError, TimeoutError) as error:
        raise NotRunning("the agent is not running: start it with `hutch run`") from error


def _decode(line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"what came over the agent's socket is not understood: {error}") from error
