"""Whom to believe before the password is sent: which addresses may be plain, which certificate authority is pinned."""

import binascii
import hashlib
import ipaddress
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from agent.errors import PlainText, Untrusted
from agent.service import Service
from broker.errors import Corrupt, HutchError, Misconfigured, Unavailable, Unproven

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


def check_url(url: str, *, allow_plaintext: bool) -> str:
    """The address of a service, without a trailing slash.

    Raises:
        Misconfigured: When it is no http or https address.
        PlainText: When it is plain http to another computer, and nobody allowed that.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Misconfigured(f"{url} is no address of a service: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.query:
        raise Misconfigured(f"{url} is no address of a service: it looks like https://hutch.example.org")
    if parts.scheme == "http" and not is_loopback(host) and not allow_plaintext:
        raise PlainText(
            f"{url} is plain http: your password and files could be read on the way."
            " Use https (or, on a network of your own, --allow-plaintext)"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is this computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def fingerprint_of(pem: bytes) -> str:
    """SHA-256, in hex, of the one certificate that a PEM file holds. Raises `Corrupt` when it holds none, or more."""
    try:
        text = pem.decode("ascii")
        if text.count(_BEGIN) != 1:
            raise ValueError("it must hold exactly one certificate")
        der = ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) :].strip())
    except (ValueError, binascii.Error) as error:
        raise Corrupt(f"the service's certificate authority cannot be read: {error}") from error
    return hashlib.sha256(der).hexdigest()


def plain_fingerprint(text: str) -> str:
    """A fingerprint as people write it (colons, spaces, capitals, `sha256:`) in 64 hex digits. Raises `Misconfigured`."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise Misconfigured("a fingerprint has 64 hex digits (SHA-256)")
    return digits


async def find_authority(url: str, *, expected: str | None, confirm: Callable[[str], bool]) -> bytes | None:
    """Which certificate authority to pin for a service; None when the system's trust store (or no TLS) will do.

    Nothing secret is sent.

    Args:
        url: As `check_url` returned it.
        expected: The fingerprint that the person was told, in hex; it must match.
        confirm: Asked with the fingerprint of an authority that nobody vouches for; False: not to be trusted.

    Raises:
        Untrusted: When the fingerprint is another one, or was not confirmed, or there is no authority to show.
        Unavailable: When the service cannot be reached.
    """
    if not url.startswith("https:"):
        return None
    if expected is None and await _system_trusts(url):
        return None
    async with Service(url, None, None) as service:
        pem = await service.ca()
    if pem is None:
        raise Untrusted(
            f"{url} shows a certificate that this device does not trust, and has no authority of its own"
        )
    shown = fingerprint_of(pem)
    if expected is not None and shown != expected:
        raise Untrusted(
            f"the service's certificate authority has the fingerprint {shown}, not the expected one"
        )
    if expected is None and not confirm(shown):
        raise Untrusted("the service's certificate authority was not trusted: nothing was sent")
    return pem


async def _system_trusts(url: str) -> bool:
    async with Service(url, None, None) as service:
        try:
            async with service.call("GET", "/health/live"):
                pass
        except Unavailable as error:
            if is_untrusted(error):
                return False
            raise
        except HutchError:
            pass  # whatever it answered, it answered over a verified connection
    return True


def is_untrusted(error: BaseException) -> bool:
    """Whether a call failed since the server's certificate is not trusted."""
    return isinstance(error, Unproven)


def check_session(metadata_url: str, gateway_url: str, amqp_url: str) -> None:
    """See that a service that is reached over TLS does not send its devices on in the clear.

    Raises:
        PlainText: It does, to another computer.
    """
    if not metadata_url.startswith("https:"):
        return
    for url in (gateway_url, amqp_url):
        parts = urlsplit(url)
        if parts.scheme not in ("https", "amqps") and not is_loopback(parts.hostname or ""):
            raise PlainText(
                f"the service sends this device on to {parts.scheme}://{parts.hostname}, where all could be read on"
                " the way: its operator has to give it addresses with https and amqps"
            )
