"""Packs as objects in an S3 bucket. The bucket is made when it is missing."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.exceptions import HTTPClientError as TransportError

from block_gateway.stores.contract import Store, StoreFull
from broker.errors import Corrupt, Misconfigured, NotFound, Unavailable

_PREFIX: Final = "packs/"
_CONFIG: Final = AioConfig(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=64,
    s3={"addressing_style": "path"},
)
_CALL_TIMEOUT_S: Final = 150  # over the client's own attempts: a call never waits for ever
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_NO_ROOM: Final = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLargeForQuota"}
)
_NOT_OURS: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "InvalidBucketName"}
)
_BUCKET_IS_THERE: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Where the packs lie, and with whose rights. `endpoint` None: Amazon's own."""

    name: str
    endpoint: str | None
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


class S3Store(Store):
    """Packs in a bucket of any S3 server that checks SHA-256."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._exits = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        try:
            self._client = await self._exits.enter_async_context(
                get_session().create_client(
                    "s3",
                    endpoint_url=self._bucket.endpoint,
                    aws_access_key_id=self._bucket.access_key,
                    aws_secret_access_key=self._bucket.secret_key,
                    region_name=self._bucket.region,
                    config=_CONFIG,
                )
            )
            await self._make_bucket()
        except ValueError as error:
            raise Misconfigured(f"HUTCH_GATEWAY_S3_ENDPOINT: {error}") from error
        except BaseException:
            await self._exits.aclose()
            raise

    async def close(self) -> None:
        await self._exits.aclose()

    async def put(self, pack_id: UUID, data: bytes) -> None:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        await self._call(
            "put_object",
            Key=_key(pack_id),
            Body=data,
            ChecksumSHA256=base64.b64encode(digest).decode("ascii"),
        )

    async def get_range(self, pack_id: UUID, offset: int, length: int) -> bytes:
        bounds = f"bytes={offset}-{offset + length - 1}"
        with _translated(pack_id):
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                answer = await self._client.get_object(
                    Bucket=self._bucket.name, Key=_key(pack_id), Range=bounds
                )
                async with answer["Body"] as body:
                    data: bytes = await body.read()
        if len(data) != length:
            raise Corrupt(f"pack {pack_id} is shorter than its index says")
        return data

    async def delete(self, pack_id: UUID) -> None:
        await self._call("delete_object", Key=_key(pack_id))

    async def exists(self, pack_id: UUID) -> bool:
        try:
            await self._call("head_object", Key=_key(pack_id))
        except NotFound:
            return False
        return True

    async def list_packs(self) -> AsyncIterator[UUID]:
        after: dict[str, str] = {}
        while True:
            page = await self._call("list_objects_v2", Prefix=_PREFIX, **after)
            for entry in page.get("Contents", ()):
                yield UUID(entry["Key"].removeprefix(_PREFIX))
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    async def _make_bucket(self) -> None:
        try:
            await self._call("head_bucket")
            return
        except NotFound:
            pass
        place = {} if self._bucket.region == "us-east-1" else {"LocationConstraint": self._bucket.region}
        options = {"CreateBucketConfiguration": place} if place else {}
        try:
            await self._call("create_bucket", **options)
        except _BucketIsThere:
            pass  # another gateway was quicker

    async def _call(self, method: str, **arguments: Any) -> Any:
        with _translated(arguments.get("Key")):
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                return await getattr(self._client, method)(Bucket=self._bucket.name, **arguments)


class _BucketIsThere(Unavailable):
    pass


def _key(pack_id: UUID) -> str:
    return _PREFIX + str(pack_id)


@contextmanager
def _translated(what: object) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _meaning(error, what) from error
    except ParamValidationError as error:
        raise Misconfigured("HUTCH_GATEWAY_STORE names no bucket that S3 allows") from error
    except (BotoCoreError, TransportError, OSError) as error:  # TimeoutError is an OSError
        raise Unavailable(f"the S3 server does not answer: {type(error).__name__}") from error


def _meaning(error: ClientError, what: object) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "InvalidRange":
        return Corrupt(f"pack {what} is shorter than its index says")
    if code in _NO_ROOM or status == 507:
        return StoreFull("the S3 store is full")
    if code in _BUCKET_IS_THERE:
        return _BucketIsThere(code)
    if code in _GONE:
        return NotFound(f"S3 has no {what or 'such bucket'}")
    if code in _NOT_OURS:
        return Misconfigured(
            f"HUTCH_GATEWAY_S3_ACCESS_KEY, _SECRET_KEY or the bucket's name: S3 answers {code}"
        )
    return Unavailable(f"the S3 server answers {code or status}")
