"""What every command is given: the environment as it was at the start, the home, and ways to wait and to talk."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.home import Home

T = TypeVar("T")


@dataclass
class Context:
    """One invocation of `hutch`.

    Attributes:
        environ: The environment, read once by `main`.
        json: Whether data (errors among it) goes to stdout as JSON; the option `--json` of a command sets it.
        debug: Whether a defect shows its traceback.
    """

    environ: Mapping[str, str]
    json: bool = False
    debug: bool = False

    @cached_property
    def home(self) -> Home:
        """HUTCH_HOME. Raises `Misconfigured` when it cannot be trusted."""
        return Home.open(self.environ)

    @property
    def person(self) -> Path:
        """The person's home directory."""
        return Path(self.environ.get("HOME") or "~").expanduser()

    @property
    def interactive(self) -> bool:
        """Whether there is a person to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something asynchronous."""
        return asyncio.run(work)


pass_context = click.make_pass_decorator(Context)
