"""Addresses, delays, patience, and the broker's words in ours: all without a broker."""

from __future__ import annotations

import itertools

import aiormq
import pytest
from aio_pika import exceptions as amqp

from broker.errors import Blocked, Forbidden, HutchError, Misconfigured, NotFound, Refused, Unavailable
from broker.link import BrokerAddress, Patience, next_delay_s, translate


def test_an_address_gives_up_its_credentials():
    address = BrokerAddress.parse("amqps://us%40er:p%2Fw@host:5671/vhost", cafile="/ca.pem")
    assert (address.url, address.user, address.password) == ("amqps://host:5671/vhost", "us@er", "p/w")
    assert str(address.full_url()) == "amqps://us%40er:p%2Fw@host:5671/vhost"
    assert address.cafile == "/ca.pem"


def test_credentials_given_apart_go_before_those_in_the_url():
    address = BrokerAddress("amqp://old:old@host/", "new", "secret")
    assert str(address.full_url()) == "amqp://new:secret@host/"
    assert str(BrokerAddress("amqp://old:old@host/").full_url()) == "amqp://old:old@host/"


def test_an_address_shows_no_secret():
    shown = repr(BrokerAddress("amqp://old:hidden1@host/", "new", "hidden2"))
    assert "hidden" not in shown


@pytest.mark.parametrize("url", ["http://host", "amqp://", "host:5672", "", "amqp://host:port/"])
def test_what_is_no_broker_is_a_wrong_setting(url: str):
    with pytest.raises(Misconfigured):
        BrokerAddress.parse(url)


def test_delays_grow_to_a_bound_and_never_agree():
    longest = [next_delay_s(attempt, 1.0) for attempt in range(1, 40)]
    assert longest[:4] == [0.4, 0.8, 1.6, 3.2]
    assert all(a <= b for a, b in itertools.pairwise(longest))
    assert longest[-1] == 30.0
    assert next_delay_s(39, 0.0) == 15.0
    assert next_delay_s(1, 0.0) == 0.2


MISSING = NotFound("gone")
FULL = Forbidden("too many", code="not_allowed")


@pytest.mark.parametrize(
    ("seen", "borne"),
    [
        pytest.param([(Unavailable("down"), 0)] * 100, True, id="a broker that is down is waited for"),
        pytest.param([(Forbidden("no"), 0)], False, id="wrong credentials are an answer at once"),
        pytest.param([(Refused("other", code="in_use"), 0)], False, id="so is another consumer"),
        pytest.param([(MISSING, 0)], True, id="a missing queue may be a broker that starts"),
        pytest.param([(MISSING, at) for at in (0, 1, 2, 2.9)], True, id="seen often, but not for long"),
        pytest.param([(MISSING, at) for at in (0, 4, 8)], True, id="seen for long, but not often"),
        pytest.param([(MISSING, at) for at in (0, 1, 2, 3)], False, id="seen often and for long"),
        pytest.param([(FULL, at) for at in (0, 1, 2, 3)], False, id="too many connections, for long"),
        pytest.param(
            [(MISSING, 0), (MISSING, 1), (Unavailable("down"), 2), (MISSING, 3), (MISSING, 4)],
            True,
            id="a broker that went down in between begins anew",
        ),
    ],
)
def test_patience(seen: list[tuple[HutchError, float]], borne: bool):
    patience = Patience()
    assert [patience.bears(error, now) for error, now in seen][-1] is borne


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (amqp.ProbableAuthenticationError("ACCESS_REFUSED - Login was refused"), Forbidden, "forbidden"),
        (
            amqp.ChannelClosed(403, "ACCESS_REFUSED - access to queue 'q' refused for user 'u'"),
            Forbidden,
            "forbidden",
        ),
        (
            amqp.ChannelClosed(403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
            Refused,
            "in_use",
        ),
        (amqp.ChannelClosed(405, "RESOURCE_LOCKED - cannot obtain exclusive access"), Refused, "in_use"),
        (amqp.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost '/'"), NotFound, "not_found"),
        (
            amqp.ChannelNotFoundEntity("NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor"),
            Unavailable,
            "unavailable",
        ),
        (
            amqp.ChannelNotFoundEntity(
                "NOT_FOUND - home node 'n' of durable queue 'q' is down or inaccessible"
            ),
            Unavailable,
            "unavailable",
        ),
        (
            amqp.ChannelPreconditionFailed(
                "PRECONDITION_FAILED - user_id property set to 'a' but user was 'b'"
            ),
            Forbidden,
            "forbidden",
        ),
        (
            amqp.ChannelPreconditionFailed(
                "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"
            ),
            Refused,
            "too_large",
        ),
        (
            amqp.InvalidFrameError("Expected one of ['Connection.OpenOk'], got <Connection.Close object>"),
            Forbidden,
            "not_allowed",
        ),
        (amqp.ConnectionClosed(320, "CONNECTION_FORCED - user 'u' is deleted"), Unavailable, "unavailable"),
        (amqp.AMQPConnectionError(111, "Connect call failed"), Unavailable, "unavailable"),
        (amqp.DeliveryError(None, aiormq.spec.Basic.Nack(delivery_tag=1)), Blocked, "blocked"),
    ],
)
def test_the_brokers_words_become_ours(error: Exception, kind: type[HutchError], code: str):
    translated = translate(error)
    assert type(translated) is kind
    assert translated.code == code
