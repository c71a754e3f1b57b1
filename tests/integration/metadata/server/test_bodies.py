"""Staged bodies: whole and as named, or not at all; bounded; dropped when their time or their device is over."""

import hashlib
import uuid

import metadata.registry
from broker.messages import MAX_BODY_SIZE_BYTES
from tests.integration.metadata.server.house import sql


def name_of(body):
    return f"/v1/bodies/{hashlib.sha256(body).hexdigest()}"


async def staged(house, device):
    rows = await sql(house, "SELECT body FROM staged_bodies WHERE device_id = $1", uuid.UUID(device.id))
    return {row["body"] for row in rows}


async def test_a_body_is_kept_for_its_device(house):
    device, other = await house.link(await house.person()), await house.link(await house.person())
    large = bytes(3 * 1024 * 1024) + b"large"
    for body in (b"first", large, b"first"):
        assert (await house.call("PUT", name_of(body), device, data=body)).status == 204
    assert await staged(house, device) == {b"first", large}
    assert await staged(house, other) == set()


async def test_a_body_that_does_not_match_its_hash_is_refused(house):
    device = await house.link(await house.person())
    answer = await house.call("PUT", name_of(b"said"), device, data=b"sent")
    assert (answer.status, answer.code) == (422, "corrupt")
    assert await staged(house, device) == set()


async def test_a_name_that_is_no_hash_is_refused(house):
    device = await house.link(await house.person())
    for name in ("x", "A" * 64, "0" * 63):
        answer = await house.call("PUT", f"/v1/bodies/{name}", device, data=b"")
        assert (answer.status, answer.code) == (400, "bad_request")


async def test_a_body_may_be_as_large_as_said_and_no_larger(house):
    device = await house.link(await house.person())
    body = bytes(MAX_BODY_SIZE_BYTES)
    assert (await house.call("PUT", name_of(body), device, data=body)).status == 204

    async def stream():
        for _ in range(MAX_BODY_SIZE_BYTES // (1 << 20)):
            yield bytes(1 << 20)
        yield b"one more"

    answer = await house.call("PUT", name_of(body), device, data=stream())
    assert (answer.status, answer.code) == (413, "too_large")


async def test_a_device_stages_so_much_and_no_more(house, monkeypatch):
    monkeypatch.setattr(metadata.registry, "MAX_STAGED_BYTES_PER_DEVICE", 10)
    device = await house.link(await house.person())
    assert (await house.call("PUT", name_of(b"eight by"), device, data=b"eight by")).status == 204
    assert (await house.call("PUT", name_of(b"eight by"), device, data=b"eight by")).status == 204
    answer = await house.call("PUT", name_of(b"three"), device, data=b"three")
    assert (answer.status, answer.code) == (413, "over_limit")
    assert await staged(house, device) == {b"eight by"}


async def test_what_is_past_its_time_is_swept(own_house):
    house = own_house
    device = await house.link(await house.person())
    for body in (b"old", b"new"):
        await house.call("PUT", name_of(body), device, data=body)
    await sql(
        house, "UPDATE staged_bodies SET staged_at = now() - interval '25 hours' WHERE body = $1", b"old"
    )
    user_id = uuid.UUID(device.session["user_id"])
    for age in ("1 hour", "-1 hour"):
        await sql(house, "INSERT INTO chunk_proofs VALUES ($1, $2, now() - $3::text::interval)",
                  user_id, hashlib.sha256(age.encode()).digest(), age)  # fmt: skip
    assert await house.services.registry.sweep() == (1, 1)
    assert await staged(house, device) == {b"new"}
    assert await house.services.registry.sweep() == (0, 0)


async def test_the_bodies_go_with_the_device(house):
    device = await house.link(await house.person())
    await house.call("PUT", name_of(b"body"), device, data=b"body")
    await house.call("DELETE", f"/v1/devices/{device.id}", device)
    assert await staged(house, device) == set()
