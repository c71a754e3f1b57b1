"""Every place in the engine where a task may wait, and so may be cut off."""

import ast
import functools
from pathlib import Path
from typing import Final

from tests.simulation.loop import Site

ENGINE: Final = Path(__file__).parents[2] / "agent"

MODULES: Final = (
    "commit.py",
    "fetch.py",
    "finish.py",
    "folder.py",
    "hashing.py",
    "hold.py",
    "index.py",
    "look.py",
    "receive.py",
    "replica.py",
    "stage.py",
    "upload.py",
)
"""The modules of a folder's engine that wait for something. The others are pure, or work in a thread."""


@functools.cache
def list_sites() -> list[Site]:
    """All `await`s, `async for`s and `async with`s, by module and line."""
    found: set[Site] = set()
    for module in MODULES:
        for node in ast.walk(ast.parse((ENGINE / module).read_text())):
            if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
                found.add(Site(module, node.lineno))
    return sorted(found)
