"""The journal in PostgreSQL: gap-free, chained, and one entry a request."""

from collections import Counter

import asyncpg

from broker.messages import decode_entry
from broker.model import extend_chain, first_chain
from tests.e2e.stack import Stack


async def head_of(stack: Stack, email: str) -> int:
    """The sequence that the journal of an account's one workspace has reached."""
    return int((await workspace_of(stack, email))["head_seq"])


async def workspace_of(stack: Stack, email: str) -> asyncpg.Record:
    """The row of an account's one workspace."""
    query = "SELECT w.* FROM workspaces w JOIN users u ON u.user_id = w.owner_id WHERE u.email = $1"
    (workspace,) = await stack.fetch(query, email)
    return workspace


async def check_journal(stack: Stack, email: str) -> int:
    """Hold a workspace's journal to what it promises, and return its head's sequence."""
    workspace = await workspace_of(stack, email)
    workspace_id = workspace["workspace_id"]
    rows = await stack.fetch(
        "SELECT seq, chain, entry FROM journal WHERE workspace_id = $1 ORDER BY seq", workspace_id
    )
    chain = first_chain(workspace_id)
    authors: Counter[tuple[object, ...]] = Counter()
    for expected, row in enumerate(rows, start=1):
        entry = decode_entry(row["entry"])
        chain = extend_chain(chain, row["entry"])
        assert (row["seq"], entry.seq) == (expected, expected), "the journal has a gap"
        assert row["chain"] == chain, "the journal's chain is broken"
        authors[(entry.device_id, entry.incarnation, entry.number)] += 1
    assert (workspace["head_seq"], workspace["head_chain"]) == (len(rows), chain)
    assert [author for author, times in authors.items() if times > 1] == [], "a request was applied twice"
    requests = await stack.fetch("SELECT * FROM requests WHERE workspace_id = $1", workspace_id)
    for request in requests:
        if request["seq"] is not None:
            entry = decode_entry(rows[request["seq"] - 1]["entry"])
            asked = (request["device_id"], request["incarnation"], request["number"])
            assert (entry.device_id, entry.incarnation, entry.number) == asked
    return len(rows)
