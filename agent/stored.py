"""What the last agent left of a folder, for questions when none runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agent.answers import ANSWERS, Asked, Memory
from agent.fetch import Fetcher
from agent.filesystem import Root
from agent.folder import open_replica
from agent.home import FolderRecord, Home
from agent.ignore import Rules
from agent.index import Index
from agent.resolve import Resolver
from agent.rules import RulesFile
from agent.service import Service
from agent.transfer import Transfer
from broker.errors import NotFound, Refused


async def ask_stored(home: Home, command: str, folder: str, **arguments: Any) -> dict[str, Any]:
    """Answer a question of `agent.answers` about a folder without an agent.

    Raises:
        NotFound: The folder is not synced.
        RootGone: It is not in its place.
        AlreadyRunning: Something is to be changed, and an agent is just beginning, or ending.
        HutchError: As the answer says.
    """
    record = next((record for record in home.folders() if record.folder == folder), None)
    if record is None:
        raise NotFound(f"{folder} is not synced: `hutch list` shows what is")
    changes = command == "resolve"
    with home.lock() if changes else contextlib.nullcontext():
        async with _stored(home, record, is_to_change=changes) as asked:
            return await ANSWERS[command](asked, arguments)


@contextlib.asynccontextmanager
async def _stored(home: Home, record: FolderRecord, *, is_to_change: bool) -> AsyncIterator[Asked]:
    credential = home.linked()
    home.make()
    async with contextlib.AsyncExitStack() as stack:
        index = await asyncio.to_thread(Index, home.index_path)
        stack.push_async_callback(index.close)
        replica, marker = await open_replica(record, credential, index)
        stack.callback(replica.root.close)
        if is_to_change and (replica.generation < marker.generation or replica.unclaimed):
            raise Refused(
                f"{record.folder} was synced by another database since: hutch run first", "not_synced"
            )
        replica.looked = True  # by the last agent: as it left it
        transfer = Transfer(credential.gateway_url, credential.bearer, home.cafile)
        service = Service(credential.metadata_url, credential.bearer, home.cafile)
        stack.push_async_callback(transfer.close)
        stack.push_async_callback(service.close)
        fetcher = Fetcher(replica, transfer, service, _no_hint, asyncio.Event())
        yield Asked(
            replica=replica,
            memory=Memory(),
            resolver=Resolver(replica, fetcher, transfer, _no_hint),
            rules=lambda: _rules(replica.root),
            is_running=False,
        )


def _rules(root: Root) -> Rules:
    """The rules as the file has them now. Blocks."""
    file = RulesFile(root)
    file.read(0.0)
    return file.rules


def _no_hint(path: str) -> None:
    """The next agent looks at everything when it begins."""
