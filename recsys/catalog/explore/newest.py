"""The newest catalog, kept open from one page to the next."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from recsys.catalog.query import catalog_mark, explain_refusals, open_catalog
from recsys.lake.typed_ids import read_id
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from recsys.lake.tables import Lake

Row = dict[str, Any]
"""A row of a statement of sql/explore, whose header names the columns."""


class Catalog:
    """An open catalog, confined to the lake as `recsys sql` is; runs the statements of a page."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._is_integer = {row["name"]: row["is_integer"] for row in self.all("id_types")}

    def all(self, name: str, **parameters: object) -> list[Row]:
        """Return the rows of a statement of sql/explore, or of another folder of sql."""
        statement = load(name if "/" in name else f"explore/{name}")
        rows: list[Row] = self._con.sql(statement, params=parameters).to_arrow_table().to_pylist()
        return rows

    def one(self, name: str, **parameters: object) -> Row | None:
        """Return the first row, or None."""
        return next(iter(self.all(name, **parameters)), None)

    def read_id(self, name: str, text: str) -> int | str:
        """Return an id of the column ``name`` that a person wrote.

        Raises:
            ConfigurationError: the column holds integers, and this is not one.
        """
        return read_id(name, text, is_integer=self._is_integer[name])


class NewestCatalog:
    """Opens the catalog again where another one has been published since the last page.

    One page at a time reads it: DuckDB uses all threads for each statement anyway.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._mark: object = None
        self._catalog: Catalog | None = None

    @contextmanager
    def read(self) -> Iterator[Catalog]:
        """Give the newest catalog.

        Raises:
            MissingError: there is no catalog yet.
            LakeError: it can't be read, the lake was moved, or DuckDB refused a statement.
        """
        with self._lock:
            mark = catalog_mark(self.lake)
            if self._catalog is None or mark != self._mark:
                self._close()
                con = self._stack.enter_context(open_catalog(self.lake))
                self._catalog, self._mark = Catalog(con), mark
            with explain_refusals(self.lake):
                yield self._catalog

    def close(self) -> None:
        """Let the catalog go."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._catalog = None
        self._stack.close()
