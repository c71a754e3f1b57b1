"""The gateway's SQL, by name; it stands in `queries.sql` beside this."""

from importlib.resources import files
from typing import Final

from metadata.sql import parse

QUERIES: Final = parse(files("block_gateway.sql").joinpath("queries.sql").read_text("utf-8"))
