"""What every call has in common: JSON in and out, errors with stable codes, a time-out, one line in the log."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
import structlog
from aiohttp import hdrs, web

from broker.errors import HutchError, Misconfigured, Refused, Retryable
from metadata.server.services import SERVICES

MAX_REQUEST_SIZE_BYTES: Final = 64 * 1024
CALL_TIMEOUT_S: Final = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DEVICE_ID: Final = web.RequestKey("device_id", str)
"""Set once the caller has proven which device it is."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_STATUS_BY_CODE: Final = {
    "bad_request": 400,
    "bad_name": 400,
    "forbidden": 401,
    "wrong_password": 403,
    "not_found": 404,
    "cursor_unknown": 409,
    "over_limit": 413,
    "too_large": 413,
    "corrupt": 422,
    "too_many_tries": 429,
    "busy": 429,
}
_CODE_BY_STATUS: Final = {404: "not_found", 405: "bad_request", 413: "too_large"}


def bad_request(message: str) -> Refused:
    """The error of a request that is not what the protocol says."""
    return Refused(message, "bad_request")


def json_answer(value: object, status: int = 200) -> web.Response:
    """An answer of JSON. UUIDs, enums and times become strings."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def error_answer(status: int, code: str, message: str) -> web.Response:
    """An error as the protocol says it."""
    answer = json_answer({"code": code, "message": message}, status)
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        answer.headers[hdrs.RETRY_AFTER] = "60" if code == "too_many_tries" else "2"
    return answer


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The request's body, validated. Raises `Refused` (`bad_request`), which repeats nothing of the body."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise bad_request("the body is not the JSON that this call takes") from None


def path_id(request: web.Request, name: str = "id") -> UUID:
    """The UUID in the request's path. Raises `Refused` (`bad_request`)."""
    try:
        return UUID(request.match_info[name])
    except ValueError:
        raise bad_request("the address holds no UUID where it should") from None


def in_time(handler: Handler, timeout_s: float = CALL_TIMEOUT_S) -> Handler:
    """The same handler, given up (503) when it takes too long. Not for streams, which limit themselves."""

    async def limited(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(timeout_s):
            return await handler(request)

    return limited


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an answer, count it, and say so in one line of the log."""
    with request.app[SERVICES].in_hand:
        return await _answer(request, handler)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    extra: dict[str, Any] = {}
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        answer = _http_error(error)
    except (HutchError, TimeoutError) as error:
        answer, extra = _known_error(error)
    except Exception as error:
        answer, extra = _unknown_error(error)
    duration_s = loop.time() - began_s
    _record(request, answer.status, duration_s, extra)
    return answer


def _http_error(error: web.HTTPException) -> web.Response:
    code = _CODE_BY_STATUS.get(error.status, "bad_request" if error.status < 500 else "unavailable")
    answer = error_answer(error.status, code, error.reason)
    if hdrs.ALLOW in error.headers:
        answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return answer


def _known_error(error: HutchError | TimeoutError) -> tuple[web.Response, dict[str, Any]]:
    if isinstance(error, HutchError) and not isinstance(error, Retryable | Misconfigured):
        status = _STATUS_BY_CODE.get(error.code, 400)
        return error_answer(status, error.code, str(error)), {"code": error.code}
    # The whole text is for the log: it may name inner addresses.
    answer = error_answer(503, "unavailable", "the service cannot do this now: try again soon")
    return answer, {"code": "unavailable", "error": str(error) or type(error).__name__}


def _unknown_error(error: Exception) -> tuple[web.Response, dict[str, Any]]:
    # The driver's texts may hold values of people's: the kind and the place are enough to find it.
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((each for each in reversed(frames) if "site-packages" not in each.filename), frames[-1])
    where = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    answer = error_answer(500, "error", "the service has met an error of its own, and logged it")
    return answer, {"code": "error", "error": type(error).__name__, "where": where}


def _record(request: web.Request, status: int, duration_s: float, extra: dict[str, Any]) -> None:
    resource = request.match_info.route.resource
    call = f"{request.method} {resource.canonical}" if resource is not None else "unknown"
    metrics = request.app[SERVICES].metrics
    metrics.requests.labels(call, str(status)).inc()
    metrics.duration_s.labels(call).observe(duration_s)
    if status >= 500:
        log.error("request.failed", call=call, status=status, duration_s=round(duration_s, 4), **extra)
    elif resource is not None and resource.canonical.startswith("/v1/"):
        device_id = request.get(DEVICE_ID)
        if device_id is not None:
            extra["device_id"] = device_id
        log.info("request.answered", call=call, status=status, duration_s=round(duration_s, 4), **extra)
