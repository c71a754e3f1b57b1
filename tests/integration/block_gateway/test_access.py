"""Nobody reads or writes what they are not a member of, and nobody learns what others have."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from block_gateway.wire import Codec, unpack_frame
from tests.integration.block_gateway.cast import Caller, Device, World, frame_of, sha

Callers = Callable[[Device | None], Caller]
CALLS = ["chunks", "chunks/missing", "chunks/read"]


NOBODY = UUID(int=0xDEAD)
"""No device has this id."""


def secret_of(name: str) -> bytes:
    """Bytes that no other test has."""
    return f"{name} {uuid4()}".encode()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("credential", [None, "nonsense", f"{NOBODY}.secret", "wrong secret", "revoked"])
async def test_no_valid_credential_is_401(
    world: World, caller: Callers, call: str, credential: str | None
) -> None:
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    if credential == "revoked":
        await world.revoke(device)
        credential = device.credential
    elif credential == "wrong secret":
        credential = f"{device.device_id}.wrong"
    client = caller(None if credential is None else Device(device.device_id, device.user_id, credential))
    answer = await client.post(workspace_id, call, b"")
    assert (answer.status, answer.code) == (401, "forbidden")


@pytest.mark.parametrize("call", CALLS)
async def test_foreign_workspace_looks_like_none(world: World, caller: Callers, call: str) -> None:
    theirs = await world.workspace(await world.user())
    client = caller(await world.device())
    answers = [await client.post(place, call, b"") for place in (theirs, uuid4(), "no-uuid")]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1


async def test_viewer_reads_and_does_not_upload(world: World, caller: Callers) -> None:
    owner, viewer = await world.device(), await world.device()
    workspace_id = await world.workspace(owner.user_id, viewer=viewer.user_id)
    raw = secret_of("shared")
    assert (await caller(owner).upload(workspace_id, raw)).status == 200
    await world.commit(workspace_id, raw)
    assert [unpack_frame(frame) for frame in await caller(viewer).frames(workspace_id, raw)] == [raw]
    refused = await caller(viewer).upload(workspace_id, secret_of("mine"))
    assert (refused.status, refused.code) == (403, "forbidden")


async def test_bare_hash_fetches_nothing_and_tells_nothing(world: World, caller: Callers) -> None:
    """Another user's chunk and a chunk that nobody has: the same answers, byte by byte but for the hash."""
    alice, mallory = await world.device(), await world.device()
    hers, his = await world.workspace(alice.user_id), await world.workspace(mallory.user_id)
    raw, nobodys = secret_of("diary"), secret_of("nothing")
    await caller(alice).upload(hers, raw)
    await world.commit(hers, raw)

    client = caller(mallory)
    assert await client.missing(his, raw, nobodys) == [sha(raw), sha(nobodys)]
    known, unknown = await client.read(his, raw), await client.read(his, nobodys)
    assert known.status == unknown.status == 200
    assert known.body.replace(sha(raw), b"") == unknown.body.replace(sha(nobodys), b"")
    assert (await client.frames(his, raw))[0].header.codec is Codec.ABSENT


async def test_uploading_what_another_has_looks_and_counts_like_any_upload(
    world: World, caller: Callers
) -> None:
    alice, bob = await world.device(), await world.device()
    hers, his = await world.workspace(alice.user_id), await world.workspace(bob.user_id)
    raw = secret_of("the same song")
    first = await caller(alice).upload(hers, raw)
    packs = await world.pool.fetchval("SELECT count(*) FROM packs")
    second = await caller(bob).upload(his, raw)
    assert first == second
    assert await world.pool.fetchval("SELECT count(*) FROM packs") == packs + 1, (
        "every upload writes its pack"
    )
    assert unpack_frame((await caller(bob).frames(his, raw))[0]) == raw
    assert await caller(bob).missing(his, raw) == []


async def test_proof_ends_with_its_lease(world: World, caller: Callers) -> None:
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    raw, client = secret_of("draft"), caller(device)
    await client.upload(workspace_id, raw)
    await world.expire_proofs(device.user_id)
    assert await client.missing(workspace_id, raw) == [sha(raw)]
    assert (await client.frames(workspace_id, raw))[0].header.codec is Codec.ABSENT


async def test_asking_renews_the_lease(world: World, caller: Callers) -> None:
    device = await world.device()
    workspace_id = await world.workspace(device.user_id)
    raw = secret_of("slow commit")
    await caller(device).upload(workspace_id, raw)
    await world.pool.execute(
        "UPDATE chunk_proofs SET expires_at = now() + interval '1 minute' WHERE hash = $1", sha(raw)
    )
    assert await caller(device).missing(workspace_id, raw, raw) == []
    left = "SELECT expires_at > now() + interval '23 hours' FROM chunk_proofs WHERE hash = $1"
    assert await world.pool.fetchval(left, sha(raw))


async def test_chunk_of_another_own_workspace_need_not_be_sent_and_stays_usable(
    world: World, caller: Callers
) -> None:
    """What was told not to be missing can be used, even when the right that it came from ends a moment later."""
    alice, bob = await world.device(), await world.device()
    shared, own = await world.workspace(alice.user_id, viewer=bob.user_id), await world.workspace(bob.user_id)
    raw = secret_of("shared photo")
    await caller(alice).upload(shared, raw)
    await world.commit(shared, raw)
    assert await caller(bob).missing(own, raw) == []
    await world.remove_member(shared, bob.user_id)
    assert await caller(bob).missing(own, raw) == []
    assert unpack_frame((await caller(bob).frames(own, raw))[0]) == raw


async def test_former_member_reads_nothing_more(world: World, caller: Callers) -> None:
    alice, bob = await world.device(), await world.device()
    shared, own = await world.workspace(alice.user_id, editor=bob.user_id), await world.workspace(bob.user_id)
    raw = secret_of("minutes")
    await caller(alice).upload(shared, raw)
    await world.commit(shared, raw)
    await world.remove_member(shared, bob.user_id)
    assert (await caller(bob).read(shared, raw)).status == 404
    assert await caller(bob).missing(own, raw) == [sha(raw)]
    assert (await caller(bob).frames(own, raw))[0].header.codec is Codec.ABSENT


async def test_asking_for_a_foreign_chunk_leaves_no_proof(world: World, caller: Callers) -> None:
    alice, mallory = await world.device(), await world.device()
    hers, his = await world.workspace(alice.user_id), await world.workspace(mallory.user_id)
    raw = secret_of("hers")
    await caller(alice).send(hers, [frame_of(raw)])
    await caller(mallory).missing(his, raw)
    await caller(mallory).read(his, raw)
    proofs = await world.pool.fetchval("SELECT count(*) FROM chunk_proofs WHERE hash = $1", sha(raw))
    assert proofs == 1, "only hers"
