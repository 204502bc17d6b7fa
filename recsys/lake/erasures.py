"""Users who were erased: the table `erasures`, and how their ids are known again without them.

A row holds a hash of the id and the lake's salt, not the id. The salt keeps hashes of two lakes
apart. It does not hide a small integer: whoever can read the table can hash every number up to a
million in a second and see which ones were erased. Nothing else is told by it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from sql import load

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

    from recsys.lake.tables import Lake


@dataclass(frozen=True)
class Erasure:
    """A row of `erasures`; the data dictionary (`recsys.lake.schemas`) says what it means."""

    user_hash: str
    salt: str
    erased_at: datetime
    who: str
    why: str


def record_erasure(lake: Lake, user: str, now: datetime, who: str, why: str) -> Erasure:
    """Write that a user is erased; one who was erased before keeps the first row.

    Raises:
        LakeError: the table can't be read or written.
    """
    rows = [Erasure(**row) for row in lake.rows(columns.ERASURES).to_pylist()]
    salt = rows[0].salt if rows else secrets.token_hex(16)
    erasure = Erasure(hash_of(user, salt), salt, now, who, why)
    for row in rows:
        if row.user_hash == erasure.user_hash:
            return row
    table = pa.Table.from_pylist([asdict(erasure)], schema=lake.schema(columns.ERASURES))
    lake.append(columns.ERASURES, table)
    return erasure


def hash_of(user: str, salt: str) -> str:
    """Return the hash of an id, as sql/ingest/insert_erased_rows.sql does."""
    return hashlib.sha256(f"{salt}:{user}".encode()).hexdigest()


def view_erasures(con: duckdb.DuckDBPyConnection, lake: Lake) -> bool:
    """Give ``con`` a view `erasures`; say whether anybody has been erased."""
    if not lake.exists(columns.ERASURES) or not lake.open(columns.ERASURES).file_uris():
        return False
    lake.view(con, columns.ERASURES)
    con.execute(load("ingest/create_words_of"))
    return True
