"""A Parquet file of interactions as a split that systems are trained and judged on."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, get_args

import duckdb

from recsys import columns
from recsys.benchmark.results import DataInfo
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.evaluation.splits import (
    TESTED_FROM,
    VALIDATED_FROM,
    leave_one_out,
    reindex_by_train_popularity,
    temporal,
)
from recsys.lake.engine import column_types, open_duckdb, type_family
from recsys.lake.packing import interactions_before, pack
from recsys.settings import Splitting
from sql import file_literal

if TYPE_CHECKING:
    from pathlib import Path

    from recsys.evaluation.splits import Split
    from recsys.lake.engine import Limits

DIGEST_DIGITS = 12


def read_split(file: Path, splitting: Splitting, limits: Limits) -> tuple[Split, DataInfo]:
    """Read a file and split its users' histories.

    ``leave-one-out``: each user's last item is the test, the one before validates. ``temporal``:
    the first item after the time at which 90 % of all interactions have been is the test, and 80 %
    for validation; it needs timestamps that are real.

    Raises:
        ConfigurationError: no such way of splitting.
        SourceError: the file can't be read, or lacks a column or some of its values.
        GateError: it has too few interactions to validate and to test.
    """
    if not file.is_file():
        raise SourceError(f"no file {file}")
    if splitting not in get_args(Splitting):
        raise ConfigurationError(
            f"no split {splitting!r}; there are {', '.join(get_args(Splitting))}"
        )
    required = ", ".join(columns.REQUIRED)
    with open_duckdb(limits) as con:
        try:
            con.execute(
                f"create view interactions as select {required}, null::timestamptz as ingested_at, "  # noqa: S608 - constants and a quoted literal
                f"file_row_number as source_row "
                f"from read_parquet({file_literal(str(file))}, file_row_number = true)"
            )
            _require_whole(con, file)
            packed = pack(con)
            if splitting == "temporal":
                before = interactions_before(con, VALIDATED_FROM, TESTED_FROM)
        except duckdb.Error as error:
            raise SourceError(
                f"{file} can't be read as Parquet with the columns {required}: {error}"
            ) from error
    if not len(packed.items):
        raise SourceError(f"{file} holds no interactions")
    divide = leave_one_out
    if splitting == "temporal":
        validation, test = before
        divide = partial(temporal, before_validation=validation, before_test=test)
    packed, split = reindex_by_train_popularity(packed, divide)
    if not len(split.validation) or not len(split.test):
        needed = "three interactions" if splitting == "leave-one-out" else "one at the right time"
        raise GateError(f"{file}: no user has {needed}, so nothing can be judged")
    return split, DataInfo(
        file=file.name,
        digest=file_digest(file)[:DIGEST_DIGITS],
        users=len(packed.histories),
        items=len(packed.items),
        interactions=int(packed.histories.lengths.sum()),
    )


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{file} can't be read: {error.strerror}") from error


def _require_whole(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Refuse rows without an id or a time, and times that are text and so lack an order."""
    nulls = ", ".join(f"count(*) - count({name}) as {name}" for name in columns.REQUIRED)
    (missing,) = con.sql(f"select {nulls} from interactions").to_arrow_table().to_pylist()  # noqa: S608 - constants
    for name, rows in missing.items():
        if rows:
            raise SourceError(f"{file}: {rows:,} rows have no {name}; leave them out")
    if type_family(column_types(con, "interactions")[columns.TIMESTAMP]) == "text":
        raise SourceError(f"{file}: timestamp is text; make it a timestamp or a number")
