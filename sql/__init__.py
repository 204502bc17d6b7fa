"""Every SQL statement longer than a line, one file each, with named parameters."""

import glob
from functools import cache
from importlib.resources import files


@cache
def load(name: str) -> str:
    """Return the text of ``sql/<name>.sql``, e.g. ``load("queries/catalogue_coverage")``.

    Raises:
        FileNotFoundError: no such statement is shipped.
    """
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def quote(identifier: str) -> str:
    """Return ``identifier`` as a quoted SQL identifier, whatever characters it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def file_literal(path: str) -> str:
    """Return a path as a literal by which DuckDB reads that file, not those that it matches."""
    return literal(glob.escape(path))


def literal(text: str) -> str:
    """Return ``text`` as a SQL string literal, for the places that take no bound value."""
    return "'" + text.replace("'", "''") + "'"
