"""Linking: whom the server lets in, what a device is told, and what that is good for at the broker."""

import asyncio
import json
from dataclasses import replace

import aiormq
import pytest
import structlog

from broker.errors import Unavailable
from broker.management import Management
from metadata.server.follower import Follower
from tests.integration.metadata.server.house import (
    PASSWORD,
    connect,
    consume,
    has_ended,
    serving,
    wait_message,
    wait_until,
)


def link_body(email, password=PASSWORD, name="laptop"):
    return {"email": email, "password": password, "device_name": name, "platform": "linux"}


async def test_a_linked_device_consumes_changes_with_what_it_was_told(house):
    device = await house.link(await house.person())
    workspace_id = await house.workspace(device)
    async with await connect(device) as connection:
        arrived = await consume(connection, device.queue)
        await house.publish_change(workspace_id, b"news")
        assert await wait_message(arrived) == b"news"


async def test_a_session_says_all_that_the_protocol_names(house):
    email = await house.person()
    first = await house.link(email.upper(), "first")
    workspace_id = await house.workspace(first, "photos")
    second = await house.link(email, "second")
    session = second.session
    assert session.keys() == {
        "device_id", "user_id", "email", "gateway_url", "amqp_url", "queue", "workspaces",
        "device_secret", "amqp_password", "device_name",
    }  # fmt: skip
    assert session["email"] == email
    assert "@" not in session["amqp_url"]
    assert session["amqp_url"].endswith(house.vhost)
    assert session["queue"].startswith("device.")
    assert len(session["queue"]) == 39
    [workspace] = session["workspaces"]
    assert workspace.keys() == {"workspace_id", "name", "role", "owner", "epoch", "seq", "chain"}
    assert (workspace["name"], workspace["role"], workspace["owner"]) == ("photos", "owner", email)
    assert await house.keys(second.queue) == {str(workspace_id)}


async def test_devices_of_one_account_have_names_of_their_own(house):
    email = await house.person()
    answers = await asyncio.gather(
        *(house.call("POST", "/v1/link", json=link_body(email, name="Laptop")) for _ in range(3))
    )
    assert sorted(answer.json["device_name"] for answer in answers) == ["Laptop", "Laptop 2", "Laptop 3"]
    first = await house.link(email, "Desktop")
    listed = await house.call("GET", "/v1/devices", first)
    assert [device["name"] for device in listed.json["devices"]].count("Laptop") == 1
    await house.call("DELETE", f"/v1/devices/{first.id}", first)
    assert (await house.link(email, "Desktop")).session["device_name"] == "Desktop"
    assert (await house.link(await house.person(), "Laptop")).session["device_name"] == "Laptop"


async def test_a_device_may_do_no_more_at_the_broker_than_its_own_things(house):
    device, other = await house.link(await house.person()), await house.link(await house.person())
    attempts = [
        lambda channel: channel.declare_queue("mine"),
        lambda channel: channel.declare_exchange("mine"),
        lambda channel: consume_other(channel, other.queue),
        lambda channel: bind_own(channel, device.queue),
    ]
    async with await connect(device) as connection:
        for attempt in attempts:
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await attempt(channel)


async def consume_other(channel, queue):
    found = await channel.get_queue(queue, ensure=False)
    await found.get(fail=False)


async def bind_own(channel, queue):
    found = await channel.get_queue(queue, ensure=False)
    await found.bind("hutch.changes", "some workspace")


async def test_a_wrong_password_and_an_unknown_account_look_the_same(house):
    email = await house.person()
    wrong = await house.call("POST", "/v1/link", json=link_body(email, "not the password"))
    unknown = await house.call("POST", "/v1/link", json=link_body("nobody@example.org", "not the password"))
    assert wrong.status == unknown.status == 403
    assert wrong.body == unknown.body
    assert wrong.code == "wrong_password"


@pytest.mark.parametrize("email", ["", "no address", "nul\0@example.org", "a@" + "b" * 500])
async def test_an_address_that_nobody_can_have_is_an_unknown_account(house, email):
    answer = await house.call("POST", "/v1/link", json=link_body(email))
    assert (answer.status, answer.code) == (403, "wrong_password")


@pytest.mark.parametrize("known", [True, False])
async def test_ten_failures_close_an_account_for_a_while_whether_it_exists_or_not(house, known):
    email = await house.person() if known else "stranger@example.org"
    for _ in range(10):
        answer = await house.call("POST", "/v1/link", json=link_body(email, "guess"))
        assert answer.status == 403
    answer = await house.call("POST", "/v1/link", json=link_body(email))
    assert (answer.status, answer.code) == (429, "too_many_tries")
    assert "Retry-After" in answer.headers
    await house.link(await house.person())


async def test_right_passwords_are_no_failures(house):
    email = await house.person()
    for _ in range(9):
        await house.call("POST", "/v1/link", json=link_body(email, "guess"))
    await house.link(email)
    await house.link(email)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b'{"email": 1, "password": "x", "device_name": "x"}', 400, "bad_request"),
        (b'{"email": "x@y", "device_name": "x"}', 400, "bad_request"),
        (json.dumps(link_body("x@y", name="")).encode(), 400, "bad_name"),
        (json.dumps(link_body("x@y", name="a\nb")).encode(), 400, "bad_name"),
        (json.dumps(link_body("x@y", name="n" * 101)).encode(), 400, "bad_name"),
        (json.dumps(link_body("x@y", "p" * 100_000)).encode(), 413, "too_large"),
    ],
)
async def test_what_is_no_link_request_is_refused_with_a_code(house, body, status, code):
    answer = await house.call("POST", "/v1/link", data=body)
    assert (answer.status, answer.code) == (status, code)


async def test_a_device_that_the_broker_could_not_take_is_not_left_behind(house):
    email = await house.person()
    async with Management("http://nobody:nothing@127.0.0.1:9", house.vhost) as nowhere:
        cut_off = replace(house.services, follower=Follower(house.services.registry, nowhere))
        async with serving(cut_off) as url:
            there, house.url = house.url, url
            try:
                answer = await house.call("POST", "/v1/link", json=link_body(email))
            finally:
                house.url = there
    assert (answer.status, answer.code) == (503, "unavailable")
    account = await house.services.registry.user_by_email(email)
    assert await house.services.registry.list_devices(account.user_id) == []


async def test_a_session_closes_what_was_open_and_lets_the_device_consume_anew(house):
    device = await house.link(await house.person())
    silent = await connect(device)
    await consume(silent, device.queue)
    answer = await house.call("POST", "/v1/session", device)
    assert answer.status == 200
    assert "device_secret" not in answer.json
    assert "amqp_password" not in answer.json
    await wait_until(lambda: has_ended(silent), "the end of the connection that was cut off silently")
    async with await connect(device) as connection:
        await consume(connection, device.queue)


async def test_asking_where_all_is_closes_nothing(house):
    device = await house.link(await house.person())
    workspace_id = await house.workspace(device)
    async with await connect(device) as connection:
        arrived = await consume(connection, device.queue)
        told = await house.call("GET", "/v1/session", device)
        assert told.status == 200
        secrets = {"device_secret", "amqp_password", "device_name", "workspaces"}
        assert {key: value for key, value in told.json.items() if key != "workspaces"} == {
            key: value for key, value in device.session.items() if key not in secrets
        }
        assert [workspace["workspace_id"] for workspace in told.json["workspaces"]] == [str(workspace_id)]
        await house.publish_change(workspace_id, b"news")
        assert await wait_message(arrived) == b"news"
    assert (await house.call("GET", "/v1/session")).status == 401


async def test_a_session_declares_a_queue_anew_that_has_expired(house):
    device = await house.link(await house.person())
    workspace_id = await house.workspace(device)
    async with Management(house.services.settings.management_url, house.vhost) as management:
        await management.delete_queue(device.queue)
    answer = await house.call("POST", "/v1/session", device)
    assert answer.json["queue"] == device.queue
    async with await connect(device) as connection:
        arrived = await consume(connection, device.queue)
        await house.publish_change(workspace_id, b"news")
        assert await wait_message(arrived) == b"news"


async def test_no_secret_is_ever_logged(house):
    email, planted = await house.person(), "planted-wrong-password"
    with structlog.testing.capture_logs() as logs:
        await house.call("POST", "/v1/link", json=link_body(email, planted))
        device = await house.link(email, "planted-device-name")
        await house.call("POST", "/v1/session", device)
        await house.call("GET", "/v1/heads", headers={"Authorization": f"Bearer {device.id}.planted-secret"})
        await house.workspace(device, "planted-workspace-name")
        await house.call("DELETE", f"/v1/devices/{device.id}", device)
    text = repr(logs)
    assert "device.linked" in text
    for secret in (
        "planted", PASSWORD, email, device.session["device_secret"], device.session["amqp_password"], device.queue,
    ):  # fmt: skip
        assert secret not in text


async def test_an_error_that_nobody_foresaw_tells_neither_caller_nor_log_what_was_sent(house, monkeypatch):
    async def fail(*_):
        raise ValueError("planted-value of somebody")

    monkeypatch.setattr(house.services.registry, "user_by_email", fail)
    with structlog.testing.capture_logs() as logs:
        answer = await house.call("POST", "/v1/link", json=link_body("somebody@example.org"))
    assert (answer.status, answer.code) == (500, "error")
    assert "planted" not in repr(logs) + answer.body.decode()
    assert any(entry.get("error") == "ValueError" for entry in logs)


async def test_a_failing_database_is_told_as_a_time_to_wait(house, monkeypatch):
    async def fail(*_):
        raise Unavailable("inner-address:5432 is away")

    monkeypatch.setattr(house.services.registry, "user_by_email", fail)
    answer = await house.call("POST", "/v1/link", json=link_body("somebody@example.org"))
    assert (answer.status, answer.code) == (503, "unavailable")
    assert b"inner-address" not in answer.body
