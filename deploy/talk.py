"""What we say to the person at the terminal, and how we give up."""

from __future__ import annotations

import sys


class DeployError(Exception):
    """Something that the person must see to. The message says in a line what, and what to do."""


def say(text: str = "") -> None:
    """Print a line of talk. Data goes to stdout, so talk goes to stderr."""
    print(text, file=sys.stderr, flush=True)
