"""Linking a device: find out whom to trust, send the password over that, and keep what comes back."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from agent.errors import NoService, Untrusted, WrongPassword
from agent.home import Credential, Home
from agent.http import no_service
from agent.patience import Patience
from agent.service import LinkedSession, Service
from agent.trust import check_session, find_authority, is_untrusted
from broker.errors import Corrupt, Forbidden, HutchError, NotFound, Unavailable

MAX_NAME_LENGTH: Final = 64
MAX_TOLD_LENGTH: Final = 100
"""What a service may call a device: it numbers a name that the account has already."""

ATTEMPTS: Final = 5
"""How often a service that answers "not now" is asked."""


def is_device_name(name: str, max_length: int = MAX_NAME_LENGTH) -> bool:
    """Whether a device may be called so."""
    return 1 <= len(name) <= max_length and "/" not in name and name.isprintable()


@dataclass(frozen=True, kw_only=True)
class Linking:
    """One attempt. The caller holds the home's lock, and has checked the address.

    Attributes:
        fingerprint: That of the certificate authority, in plain hex, when the person was told it.
        confirm: Shows an unknown authority's fingerprint; False: do not trust it.
        password: Asked for last, when it is known whom it goes to.
    """

    home: Home
    url: str
    email: str
    device_name: str
    fingerprint: str | None
    confirm: Callable[[str], bool]
    password: Callable[[], str]

    async def run(self) -> Credential:
        """Link, and keep the credential in the home. After a failure nothing is kept.

        Raises:
            WrongPassword: The service does not know the account, or not with this password.
            Untrusted: The service's certificate could not be trusted; the password was not sent.
            Unavailable: No service answers there, or (`NoService`) something that is none.
            DiskFull: There is no room for the credential; the new device is revoked again.
        """
        pem = await find_authority(self.url, expected=self.fingerprint, confirm=self.confirm)
        name = self.home.save_ca(pem) if pem is not None else None
        try:
            session = await self._send(self.home.root / name if name else None)
            check_session(self.url, session.gateway_url, session.amqp_url)
            return await self._keep(session, name)
        except BaseException:
            self.home.ca_path.unlink(missing_ok=True)
            raise

    async def _send(self, cafile: Path | None) -> LinkedSession:
        password = self.password()
        patience = Patience()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._ask(password, cafile)
            except Forbidden as error:
                raise WrongPassword("wrong e-mail address or password") from error
            except NoService:
                raise
            except (Corrupt, NotFound) as error:
                raise no_service(self.url, "what came is not understood") from error
            except Unavailable as error:
                if is_untrusted(error):
                    raise Untrusted(
                        f"{self.url} shows a certificate for another name, or one that its own authority did not sign"
                    ) from error
                if isinstance(error.__cause__, aiohttp.ServerDisconnectedError):
                    raise no_service(self.url, "it hung up without an answer") from error
                # It answered, and could not do it just now; nobody there is said at once.
                if error.__cause__ is not None or attempt == ATTEMPTS:
                    raise
            await patience.wait()
        raise AssertionError("unreachable")

    async def _ask(self, password: str, cafile: Path | None) -> LinkedSession:
        async with Service(self.url, None, cafile) as service:
            return await service.link(
                email=self.email,
                password=password,
                device_name=self.device_name,
                platform=platform.system(),
            )

    async def _keep(self, session: LinkedSession, cafile: str | None) -> Credential:
        credential = Credential(
            device_id=session.device_id,
            device_secret=session.device_secret,
            user_id=session.user_id,
            email=session.email,
            device_name=self._name(session.device_name),
            metadata_url=self.url,
            gateway_url=session.gateway_url,
            amqp_url=session.amqp_url,
            amqp_password=session.amqp_password,
            queue=session.queue,
            cafile=cafile,
        )
        try:
            self.home.save_credential(credential)
        except BaseException:
            await self._revoke(credential)
            raise
        return credential

    def _name(self, told: str | None) -> str:
        """As the service calls this device. It goes into the names of conflict copies: what cannot be one is not taken."""
        usable = told is not None and is_device_name(told, MAX_TOLD_LENGTH)
        return told if told is not None and usable else self.device_name

    async def _revoke(self, credential: Credential) -> None:
        """A device that nobody holds the secrets of should not stay in the account's list."""
        try:
            async with Service(
                self.url, credential.bearer, self.home.ca_path if credential.cafile else None
            ) as service:
                await service.revoke(credential.device_id)
        except HutchError:
            pass  # why it could not be kept matters more to the person
