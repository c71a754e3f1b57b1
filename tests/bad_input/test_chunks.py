"""Chunks that are not what they say, and chunks of others: the gateway believes bytes, never names."""

from __future__ import annotations

import hashlib
import io
import os
from uuid import uuid4

import pytest

from block_gateway.wire import Codec, Frame, Header, absent, make_frame
from broker.model import ROOT, Chunk, ConflictCode, FullContent, Put
from tests.bad_input.wire import Wire, link
from tests.machines.stack import Service


def a_chunk() -> tuple[bytes, bytes]:
    """Random bytes with their hash."""
    raw = os.urandom(5_000)
    return hashlib.sha256(raw).digest(), raw


async def upload(wire: Wire, body: bytes) -> tuple[int, bytes]:
    return await wire.gateway.call(
        "POST", f"/v1/workspaces/{wire.workspace_id}/chunks", data=io.BytesIO(body)
    )


async def read(wire: Wire, chunk_hash: bytes) -> bytes:
    path = f"/v1/workspaces/{wire.workspace_id}/chunks/read"
    status, body = await wire.gateway.call("POST", path, data=chunk_hash)
    assert status == 200
    return body


def a_put(chunk_hash: bytes, size: int) -> Put:
    content = FullContent(cut=12, chunks=(Chunk(chunk_hash, size),))
    return Put(node_id=uuid4(), parent_id=ROOT, name=f"{uuid4()}", mode=0o644, mtime_ns=0, content=content)


@pytest.mark.parametrize("lie", ["other bytes", "another size", "no zstd frame"])
async def test_a_chunk_that_does_not_match_its_hash_is_refused(wire: Wire, lie: str):
    good_hash, good = a_chunk()
    told_hash, _ = a_chunk()
    frames = {
        "other bytes": make_frame(told_hash, good),
        "another size": Frame(Header(told_hash, Codec.RAW, len(good) - 1, len(good) - 1), good[:-1]),
        "no zstd frame": Frame(Header(told_hash, Codec.ZSTD, 5_000, 100), b"z" * 100),
    }
    body = make_frame(good_hash, good).encode() + frames[lie].encode()
    status, answer = await upload(wire, body)
    assert (status, b'"corrupt"' in answer) == (422, True)
    assert await read(wire, told_hash) == absent(told_hash).encode()
    assert await wire.commit(a_put(told_hash, 5_000)) is ConflictCode.MISSING_CHUNKS
    assert await wire.commit(a_put(good_hash, 5_000)) is None, "what came before the lie is kept"


@pytest.mark.parametrize("body", [b"", b"noise", bytes(range(256)) * 100, bytes(41)])
async def test_bytes_that_are_no_frames_are_refused_or_are_nothing(wire: Wire, body: bytes):
    status, answer = await upload(wire, body)
    if body:
        assert (status, b'"corrupt"' in answer) == (422, True)
    else:
        assert status == 200
    await wire.commit_good()


async def test_a_list_of_half_a_hash_is_refused(wire: Wire):
    for call in ("chunks/missing", "chunks/read"):
        path = f"/v1/workspaces/{wire.workspace_id}/{call}"
        assert (await wire.gateway.code("POST", path, data=bytes(31)))[0] in (400, 422)


async def test_a_bare_hash_fetches_nothing(service: Service, wire: Wire):
    known_hash, known = a_chunk()
    assert (await upload(wire, make_frame(known_hash, known).encode()))[0] == 200
    assert await wire.commit(a_put(known_hash, len(known))) is None
    assert known_hash in await read(wire, known_hash)
    async with await link(service.told["metadata_url"], service.add_person()) as thief:
        # Not to be read, nor told of, nor made one's own by a commit.
        assert await read(thief, known_hash) == absent(known_hash).encode()
        path = f"/v1/workspaces/{thief.workspace_id}/chunks/missing"
        assert (await thief.gateway.call("POST", path, data=known_hash)) == (200, known_hash)
        assert await thief.commit(a_put(known_hash, len(known))) is ConflictCode.MISSING_CHUNKS
        assert await read(thief, known_hash) == absent(known_hash).encode()
        # Nor by way of the workspace that has it.
        path = f"/v1/workspaces/{wire.workspace_id}/chunks/read"
        assert await thief.gateway.code("POST", path, data=known_hash) == (404, "not_found")
        # Whoever has the bytes has them: only then they are.
        assert (await upload(thief, make_frame(known_hash, known).encode()))[0] == 200
        assert await thief.commit(a_put(known_hash, len(known))) is None
        assert known_hash in await read(thief, known_hash)


async def test_nothing_is_answered_without_a_credential(service: Service, wire: Wire):
    wrong = type(wire.gateway)(service.told["gateway_url"], f"{wire.device_id}.wrong")
    async with wrong as stranger:
        for call in ("chunks", "chunks/missing", "chunks/read"):
            path = f"/v1/workspaces/{wire.workspace_id}/{call}"
            assert await stranger.code("POST", path, data=bytes(32)) == (401, "forbidden")
