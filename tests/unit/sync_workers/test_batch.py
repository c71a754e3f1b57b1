"""Deliveries into jobs, jobs into batches, outcomes into messages."""

from uuid import uuid4

import pytest

from broker.delivery import Delivery
from broker.messages import (
    MAX_MESSAGE_SIZE_BYTES,
    ChangeNotice,
    CommitAccepted,
    CommitRefused,
    CommitRequest,
    StagedCommitRequest,
    decode_inbox,
    encode,
)
from broker.model import Cursor, Delete
from broker.topology import CHANGES, DELIVERY_LIMIT
from metadata.state import Accepted, BatchResult, Dead, Refused, Replayed
from sync_workers.batch import Job, Misfit, admit, halve, make_notices, make_posts, split

WORKSPACE, DEVICE, INCARNATION = uuid4(), uuid4(), uuid4()
START = Cursor(1, 0, bytes(32))


def request(number=1, on_behalf_of=None):
    operations = (Delete(node_id=uuid4(), base_version=1),)
    return CommitRequest(
        workspace_id=WORKSPACE,
        incarnation=INCARNATION,
        number=number,
        cursor=START,
        operations=operations,
        on_behalf_of=on_behalf_of,
    )


def staged():
    return StagedCommitRequest(workspace_id=WORKSPACE, incarnation=INCARNATION, number=1, body=bytes(32))


async def settle(*, taken, requeue):
    raise AssertionError("nothing here settles a delivery")


def delivery(body=None, user_id=str(DEVICE), **values):
    body = encode(request()) if body is None else body
    return Delivery(body=body, user_id=user_id, settle=settle, **values)


def job(**values):
    admitted = admit(delivery(**values), "relay")
    assert isinstance(admitted, Job)
    return admitted


def test_a_request_is_its_verified_senders():
    assert job().submission.device_id == DEVICE


@pytest.mark.parametrize(
    ("sentence", "values", "reason"),
    [
        ("who does not say who it is, is nobody", {"user_id": None}, "missing_user_id"),
        ("junk is no request", {"body": b"junk"}, "corrupt"),
        ("an empty message is no request", {"body": b""}, "corrupt"),
        ("an unknown version is none", {"body": b"\x82\xa4type\xa6commit\xa1v\x02"}, "corrupt"),
        ("an unknown type is none", {"body": b"\x82\xa4type\xa4song\xa1v\x01"}, "corrupt"),
        ("a user that is no device has none", {"user_id": "somebody"}, "foreign_user_id"),
        ("a device speaks for no other", {"body": encode(request(on_behalf_of=uuid4()))}, "foreign_user_id"),
        ("the relay speaks for somebody", {"user_id": "relay"}, "foreign_user_id"),
    ],
)
def test_no_request(sentence, values, reason):
    admitted = admit(delivery(**values), "relay")
    assert isinstance(admitted, Misfit), sentence
    assert admitted.reason == reason


def test_the_relay_speaks_for_a_device():
    body = encode(request(on_behalf_of=DEVICE))
    assert job(body=body, user_id="relay").submission.device_id == DEVICE


def test_what_may_break_a_worker_is_alone():
    a, b, c = job(), job(), job()
    again, large = job(redelivered=True), job(body=encode(staged()))
    assert split([a, b, again, c, large]) == [[a, b], [again], [c], [large]]
    assert split([]) == []


def test_halves_are_all():
    a, b, c = job(), job(), job()
    assert halve([a, b, c]) == ([a], [b, c])


def test_the_last_delivery_is_known():
    assert not job(delivery_count=DELIVERY_LIMIT - 1).last_chance
    assert job(delivery_count=DELIVERY_LIMIT).last_chance


def entries(*sizes):
    return [(Cursor(1, seq, bytes(32)), bytes([seq]) * size) for seq, size in enumerate(sizes, 1)]


def test_entries_share_a_notice():
    [notice] = make_notices(WORKSPACE, entries(10, 20, 30))
    assert notice == ChangeNotice(
        workspace_id=WORKSPACE, head=Cursor(1, 3, bytes(32)), entries=(b"\1" * 10, b"\2" * 20, b"\3" * 30)
    )


def test_notices_fit_a_message():
    large = MAX_MESSAGE_SIZE_BYTES // 3
    notices = make_notices(WORKSPACE, entries(large, large, large, 5, MAX_MESSAGE_SIZE_BYTES, 5))
    assert [(notice.head.seq, len(notice.entries)) for notice in notices] == [(2, 2), (4, 2), (5, 0), (6, 1)]
    assert all(len(encode(notice)) <= MAX_MESSAGE_SIZE_BYTES for notice in notices)


def test_many_small_entries_fit_too():
    notices = make_notices(WORKSPACE, [(START, b"x" * 3)] * 60_000)
    assert len(notices) == 2
    assert all(len(encode(notice)) <= MAX_MESSAGE_SIZE_BYTES for notice in notices)


def posts(outcome, retried=False, **values):
    made = job(**values)
    result = BatchResult(
        outcomes=[outcome], queues={DEVICE: "device.queue"}, heads={WORKSPACE: Cursor(1, 9, bytes(32))}
    )
    return [
        (post.exchange, post.routing_key, decode_inbox(post.body))
        for post in make_posts([made], result, retried=retried)
    ]


def refusal():
    return CommitRefused(workspace_id=WORKSPACE, incarnation=INCARNATION, number=1, head=START, conflicts=())


NOTICE = (
    CHANGES,
    str(WORKSPACE),
    ChangeNotice(workspace_id=WORKSPACE, head=Cursor(1, 3, bytes(32)), entries=(b"entry",)),
)
ACCEPTED = (
    "",
    "device.queue",
    CommitAccepted(
        workspace_id=WORKSPACE, incarnation=INCARNATION, number=1, seq=3, head=Cursor(1, 9, bytes(32))
    ),
)
REPLAY = Replayed(at=Cursor(1, 3, bytes(32)), entry=b"entry")


def test_an_accepted_commit_is_told_to_all_at_once():
    assert posts(Accepted(head=Cursor(1, 3, bytes(32)), entry=b"entry")) == [NOTICE]


def test_a_refusal_is_told_to_its_author():
    assert posts(Refused(refusal=refusal())) == [("", "device.queue", refusal())]
    assert posts(Replayed(refusal=encode(refusal()))) == [("", "device.queue", refusal())]


def test_a_replay_is_told_to_its_author_and_again_to_all_when_it_may_not_have_been():
    assert posts(REPLAY) == [ACCEPTED]
    assert posts(REPLAY, redelivered=True) == [NOTICE, ACCEPTED]
    assert posts(REPLAY, retried=True) == [NOTICE, ACCEPTED]


def test_the_dead_are_told_nothing():
    assert posts(Dead(reason="revoked_device")) == []


def test_who_has_no_queue_is_told_nothing():
    result = BatchResult(outcomes=[Refused(refusal=refusal())], queues={}, heads={})
    assert make_posts([job()], result, retried=False) == []
