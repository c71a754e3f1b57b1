"""Messages that are no requests: put aside with a stable reason, or refused by the broker; the workers live on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from uuid import uuid4

import aiormq
import msgpack
import pytest

from broker.messages import (
    MAX_MESSAGE_SIZE_BYTES,
    ChangeNotice,
    MembershipChanged,
    StagedCommitRequest,
    encode,
)
from broker.model import MAX_OPERATIONS_PER_COMMIT, ConflictCode, Cursor
from tests.bad_input.wire import DeadLetters, Wire, a_directory, link
from tests.machines.stack import Service


@pytest.fixture(scope="module", autouse=True)
def workers_live_on(service: Service):
    """Nothing in this room may end a worker, or any other part of the service."""
    before = service.pids()
    yield
    assert service.pids() == before


def changed(**fields: object) -> Callable[[Wire], bytes]:
    """A good request but for some fields of its map."""

    def make(wire: Wire) -> bytes:
        told = msgpack.unpackb(encode(wire.request(a_directory("good"))))
        return bytes(msgpack.packb({**told, **fields}))

    return make


def without(field: str) -> Callable[[Wire], bytes]:
    """A good request that leaves out a field."""

    def make(wire: Wire) -> bytes:
        told = msgpack.unpackb(encode(wire.request(a_directory("good"))))
        del told[field]
        return bytes(msgpack.packb(told))

    return make


def operation(**fields: object) -> Callable[[Wire], bytes]:
    """A good request but for some fields of its one operation."""

    def make(wire: Wire) -> bytes:
        told = msgpack.unpackb(encode(wire.request(a_directory("good"))))
        told["operations"] = [{**told["operations"][0], **fields}]
        return bytes(msgpack.packb(told))

    return make


MALFORMED: dict[str, Callable[[Wire], bytes]] = {
    "nothing": lambda wire: b"",
    "noise": lambda wire: bytes(range(256)),
    "text": lambda wire: b"hello, I am a commit",
    "another's format": lambda wire: b'{"type": "commit", "v": 1}',
    "half of a good one": lambda wire: encode(wire.request(a_directory("half")))[:60],
    "one and a bit": lambda wire: encode(wire.request(a_directory("more"))) + b"\xc0",
    "a list": lambda wire: bytes(msgpack.packb(["commit", 1])),
    "a hundred thousand lists": lambda wire: b"\x91" * 100_000 + b"\xc0",
    "a map that claims 4 billion": lambda wire: b"\xdf\xff\xff\xff\xff",
    "an unknown type": changed(type="commit_everything"),
    "no type": without("type"),
    "an unknown version": changed(v=2),
    "a notice": lambda wire: encode(ChangeNotice(workspace_id=wire.workspace_id, head=wire.cursor)),
    "a message for devices": lambda wire: encode(MembershipChanged()),
    "no workspace": without("workspace_id"),
    "number 0": changed(number=0),
    "number 2^63": changed(number=2**63),
    "a sequence below 0": changed(cursor=[0, -1, bytes(32)]),
    "a chain of 31 bytes": changed(cursor=[0, 0, bytes(31)]),
    "no operations": changed(operations=[]),
    "an unknown operation": operation(type="format_disk"),
    "more mode than permissions": operation(mode=0o4755),
    "a name of bytes": operation(name=b"binary"),
    "a name that is no UTF-8": lambda wire: encode(wire.request(a_directory("XYZ"))).replace(
        b"XYZ", b"\xff\xfe\xfd"
    ),
    "a name with half of a surrogate pair": lambda wire: encode(wire.request(a_directory("XYZ"))).replace(
        b"XYZ", b"\xed\xa0\x80"
    ),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_request_is_put_aside(wire: Wire, dead: DeadLetters, make: Callable[[Wire], bytes]):
    body = make(wire)
    await wire.publish(body)
    assert await dead.reason(body, of=wire.device_id) == "corrupt"
    await wire.commit_good()


async def test_more_operations_than_one_commit_may_have_are_put_aside(wire: Wire, dead: DeadLetters):
    bare = msgpack.packb({"type": "delete", "node_id": bytes(16), "base_version": 1})
    told = msgpack.unpackb(encode(wire.request(a_directory("good"))))
    told["operations"] = [None]
    head, tail = msgpack.packb(told).split(b"\x91\xc0")
    count = MAX_OPERATIONS_PER_COMMIT + 1
    body = head + b"\xdd" + count.to_bytes(4, "big") + bare * count + tail
    digest = hashlib.sha256(body).digest()
    staged = await wire.metadata.call("PUT", f"/v1/bodies/{digest.hex()}", data=io.BytesIO(body))
    assert staged[0] == 204
    await _ask_staged(wire, digest)
    assert await dead.reason(_staged(wire, digest), of=wire.device_id) == "corrupt_body"


def _staged(wire: Wire, digest: bytes, number: int = 77) -> bytes:
    return encode(
        StagedCommitRequest(
            workspace_id=wire.workspace_id, incarnation=wire.device_id, number=number, body=digest
        )
    )


async def _ask_staged(wire: Wire, digest: bytes, number: int = 77) -> None:
    await wire.publish(_staged(wire, digest, number))


async def test_a_field_that_nobody_knows_yet_is_no_fault(wire: Wire):
    request = wire.request(a_directory("from a newer device"))
    told = msgpack.unpackb(encode(request))
    await wire.publish(bytes(msgpack.packb({**told, "colour": "green"})))
    assert await wire.answer(request.number) is None


async def test_whoever_does_not_say_who_is_put_aside(wire: Wire, dead: DeadLetters):
    body = encode(wire.request(a_directory("anonymous")))
    await wire.publish(body, user_id=None)
    assert await dead.reason(body, of=None) == "missing_user_id"
    await wire.commit_good()


async def test_a_device_does_not_speak_for_another(wire: Wire, dead: DeadLetters):
    body = encode(wire.request(a_directory("for another"), on_behalf_of=uuid4()))
    await wire.publish(body)
    assert await dead.reason(body, of=wire.device_id) == "foreign_user_id"
    await wire.commit_good()


async def test_a_message_that_is_too_large_does_not_pass_the_broker(wire: Wire):
    properties = aiormq.spec.Basic.Properties(delivery_mode=2, user_id=str(wire.device_id))
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="size"):
        await wire.publish_with(bytes(MAX_MESSAGE_SIZE_BYTES + 1), properties)
    await wire.commit_good()


async def test_the_largest_message_that_passes_is_put_aside_too(wire: Wire, dead: DeadLetters):
    body = bytes(MAX_MESSAGE_SIZE_BYTES)
    await wire.publish(body)
    assert await dead.reason(body, of=wire.device_id) == "corrupt"


async def test_headers_that_pretend_an_earlier_life_change_nothing(wire: Wire):
    request = wire.request(a_directory("first time"))
    properties = aiormq.spec.Basic.Properties(
        delivery_mode=2,
        user_id=str(wire.device_id),
        headers={"x-delivery-count": 99, "x-death": "a lie", "x-hutch-reason": "corrupt"},
    )
    await wire.publish_with(encode(request), properties)
    assert await wire.answer(request.number) is None


# --- requests that are good in form, and foreign


async def test_a_workspace_of_others_is_forbidden_as_one_that_is_not(service: Service, wire: Wire):
    async with await link(service.told["metadata_url"], service.add_person()) as other:
        theirs, none = other.workspace_id, uuid4()
    for workspace_id in (theirs, none):
        request = wire.request(a_directory("intruder"), workspace_id=workspace_id)
        await wire.publish(encode(request))
        assert await wire.answer(request.number) is ConflictCode.FORBIDDEN
    await wire.commit_good()


async def test_a_journal_that_never_was_is_said_to_be_unknown(wire: Wire):
    for cursor in (Cursor(0, 5, bytes(32)), Cursor(7, 0, wire.cursor.chain), Cursor(0, 2**62, bytes(32))):
        request = wire.request(a_directory("from elsewhere"), cursor=cursor)
        await wire.publish(encode(request))
        assert await wire.answer(request.number) is ConflictCode.CURSOR_UNKNOWN
    await wire.commit_good()


async def test_a_staged_body_that_nobody_staged_is_told(wire: Wire):
    await _ask_staged(wire, bytes(32), number=5)
    assert await wire.answer(5) is ConflictCode.BASE_GONE


async def test_a_staged_body_of_another_request_is_put_aside(wire: Wire, dead: DeadLetters):
    body = encode(wire.request(a_directory("meant otherwise")))
    digest = hashlib.sha256(body).digest()
    assert (await wire.metadata.call("PUT", f"/v1/bodies/{digest.hex()}", data=body))[0] == 204
    await _ask_staged(wire, digest)
    assert await dead.reason(_staged(wire, digest), of=wire.device_id) == "foreign_body"
    await wire.commit_good()


async def test_a_staged_body_of_another_device_is_not_there(service: Service, wire: Wire):
    async with await link(service.told["metadata_url"], service.add_person()) as other:
        body = encode(other.request(a_directory("theirs")))
        digest = hashlib.sha256(body).digest()
        assert (await other.metadata.call("PUT", f"/v1/bodies/{digest.hex()}", data=body))[0] == 204
    await _ask_staged(wire, digest, number=6)
    assert await wire.answer(6) is ConflictCode.BASE_GONE


async def test_a_body_that_does_not_match_its_hash_is_refused(wire: Wire):
    assert await wire.metadata.code("PUT", f"/v1/bodies/{'ab' * 32}", data=b"other bytes") == (422, "corrupt")
