"""People's passwords and addresses, and devices' secrets: made, checked, and never kept in the clear.

Argon2id runs in threads, a few at a time: each one takes 64 MiB and some tens of milliseconds.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_PASSWORD_LENGTH: Final = 8
MAX_PASSWORD_LENGTH: Final = 1024
MAX_EMAIL_LENGTH: Final = 254
MAX_NAME_LENGTH: Final = 100

_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_SECRET_BYTES: Final = 32


class Passwords:
    """Hashes and checks passwords.

    Args:
        limit: How many may run at once. The others wait their turn.
        hasher: Argon2's parameters; the library's own by default.
    """

    def __init__(self, limit: int = 2, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(limit)
        # A hash of nobody's password, of the same cost: what a look for an unknown account is spent on.
        self._nobody = self._hasher.hash(secrets.token_hex(_SECRET_BYTES))

    async def hash(self, password: str) -> str:
        """Argon2id in its own text form, salt and parameters included."""
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Say whether `password` is the one that `known` was made of.

        Args:
            known: The account's stored hash; None when there is no such account, which takes as long and says no.
            password: What the caller claims.
        """
        async with self._turns:
            matches = await asyncio.to_thread(self._matches, known or self._nobody, password)
        return matches and known is not None

    def _matches(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False


def make_secret() -> str:
    """256 random bits, as text that is safe in a header, an address or a file."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(secret: str) -> bytes:
    """SHA-256 of a device's secret. The secret is random, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def secret_matches(known_hash: bytes | None, secret: str) -> bool:
    """Compare in constant time. None: there is no such device, which takes as long and says no."""
    matches = hmac.compare_digest(known_hash or bytes(32), hash_secret(secret))
    return matches and known_hash is not None


def fold_email(email: str) -> str:
    """The one form in which an address is stored and looked up."""
    return email.strip().casefold()


def email_problem(email: str) -> str | None:
    """Say why `email`, folded, is no address; None when it may be one. Whether mail arrives is not asked."""
    if len(email) > MAX_EMAIL_LENGTH:
        return f"the address is longer than {MAX_EMAIL_LENGTH} characters"
    if not _EMAIL.fullmatch(email) or not email.isprintable():
        return "that is not an e-mail address"
    return None


def password_problem(password: str) -> str | None:
    """Say why `password` will not do for a new account; None when it will."""
    if len(password) < MIN_PASSWORD_LENGTH:
        return f"the password has fewer than {MIN_PASSWORD_LENGTH} characters"
    if len(password) > MAX_PASSWORD_LENGTH:
        return f"the password has more than {MAX_PASSWORD_LENGTH} characters"
    return None


def free_name(name: str, taken: Iterable[str]) -> str:
    """A device's name, numbered where the account has a device of that name: `Laptop 2`. Case makes no difference."""
    known = {each.casefold() for each in taken}
    found, number = name, 1
    while found.casefold() in known:
        number += 1
        suffix = f" {number}"
        found = name[: MAX_NAME_LENGTH - len(suffix)].rstrip() + suffix
    return found


def label_problem(name: str) -> str | None:
    """Say why a workspace or a device may not be called `name`; None when it may."""
    if not name.strip():
        return "the name is empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"the name is longer than {MAX_NAME_LENGTH} characters"
    if not name.isprintable():
        return "the name has characters that cannot be printed"
    return None
