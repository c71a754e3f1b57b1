"""Where the SQL lives: files of named queries beside this module, read once when a program starts.

A file is a sequence of queries. Each begins with a line `-- name --`, then says in comments what it does.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final

_TITLE: Final = re.compile(r"^-- ([a-z][a-z0-9_]*) --\s*$", re.MULTILINE)


@cache
def load(file: str) -> dict[str, str]:
    """Read the named queries of `metadata/sql/<file>` (such as `queries.sql`).

    Returns:
        Query by name, its comments included. Read once per process; do not change it.

    Raises:
        ValueError: When a name stands twice in the file.
    """
    return parse(read(file))


def read(file: str) -> str:
    """The whole text of `metadata/sql/<file>`."""
    return files("metadata").joinpath("sql", file).read_text("utf-8")


def parse(text: str) -> dict[str, str]:
    """Take a file's text apart into its named queries. Raises ValueError for a name that stands twice."""
    _, *pieces = _TITLE.split(text)
    queries: dict[str, str] = {}
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        if name in queries:
            raise ValueError(f"two queries are named {name}")
        queries[name] = body.strip().removesuffix(";")
    return queries
