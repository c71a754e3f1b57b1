"""Named queries: how a file is taken apart."""

import pytest

from metadata.migrate import migrations
from metadata.sql import load, parse


def test_each_title_begins_a_query():
    text = "-- of the file\n\n-- one --\n-- What it does.\nSELECT 1;\n\n-- two --\nSELECT 2\n"
    assert parse(text) == {"one": "-- What it does.\nSELECT 1", "two": "SELECT 2"}


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="one"):
        parse("-- one --\nSELECT 1\n-- one --\nSELECT 2\n")


def test_the_migrations_are_numbered_without_a_gap():
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_loading_reads_a_file_once():
    assert load("queries.sql") is load("queries.sql")
