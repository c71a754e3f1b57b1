"""Every error of Hutch, in one tree.

    HutchError
    ├── Retryable       the other side may do better later: hold, wait, try again in place
    │   ├── Unavailable         a server cannot be reached, or says that it is not ready
    │   │   └── Unproven            who answers cannot prove to be the server
    │   └── Blocked             the broker refuses publishes for now (full queue, alarm)
    ├── Refused         the request was understood and will not be done: answer with its code
    │   ├── Forbidden           no (valid) credential, or not a member
    │   ├── NotFound            there is no such thing, or it is not yours to know of
    │   └── CursorUnknown       the journal has no such (epoch, sequence, chain)
    ├── Corrupt         bytes that do not mean what they claim: dead-letter, or drop and report
    └── Misconfigured   this program cannot start as it is told to: exit at once, name the setting

The branch says what the shell around it does; `code` is stable and travels on the wire and in `--json`;
`exit_code` is what the command line ends with. Errors of libraries are translated where they are met.
"""

from typing import ClassVar


class HutchError(Exception):
    """The root. The message tells the reader what to do, and names no secret."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class Retryable(HutchError):
    """Hold what is in hand, wait, and try again in place."""

    code = "retry"
    exit_code = 10


class Unavailable(Retryable):
    """A server cannot be reached, or says that it is not ready."""

    code = "unavailable"


class Unproven(Unavailable):
    """Who answers cannot prove to be the server: an impostor, or a network that wants a login first. Nothing was told."""

    code = "untrusted"


class Blocked(Retryable):
    """The broker takes no publishes for now: its queue is full, or an alarm is on."""

    code = "blocked"


class Refused(HutchError):
    """Understood, and not done. Trying again unchanged gives the same answer.

    Args:
        message: What the reader can do about it.
        code: A more exact stable code than the class's own, where the other side gave one.
    """

    code = "refused"
    exit_code = 11

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more exact than its class


class Forbidden(Refused):
    """No credential, a credential that is not valid (any more), or not a member."""

    code = "forbidden"
    exit_code = 12


class NotFound(Refused):
    """There is no such thing, or it is not this caller's to know of: the two look the same."""

    code = "not_found"
    exit_code = 13


class CursorUnknown(Refused):
    """The journal has no entry of that epoch, sequence and chain: the caller's merge base is untrusted."""

    code = "cursor_unknown"
    exit_code = 14


class Corrupt(HutchError):
    """Bytes that do not mean what they claim: a malformed message, a chunk that does not match its hash."""

    code = "corrupt"
    exit_code = 15


class Misconfigured(HutchError):
    """This program cannot start as it is told to. The message names the setting."""

    code = "misconfigured"
    exit_code = 78
