"""Calls to the metadata server as the linked device."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.errors import Untrusted
from agent.home import Home
from agent.service import Service
from agent.trust import is_untrusted
from broker.errors import Unavailable


@asynccontextmanager
async def reach(home: Home) -> AsyncIterator[Service]:
    """The service that this device is linked to.

    Raises:
        NotLinked: When it is linked to none.
        Untrusted: When what answers cannot prove that it is the service.
    """
    credential = home.linked()
    async with connect(credential.metadata_url, credential.bearer, home.cafile) as service:
        yield service


@asynccontextmanager
async def connect(url: str, bearer: str | None, cafile: Path | None) -> AsyncIterator[Service]:
    """A service by its address, trusted by `cafile` (None: by the system's store). Raises `Untrusted`."""
    try:
        async with Service(url, bearer, cafile) as service:
            yield service
    except Unavailable as error:
        if is_untrusted(error):
            raise Untrusted(
                f"{url} shows a certificate that does not come from the authority that this device trusts"
            ) from error
        raise
