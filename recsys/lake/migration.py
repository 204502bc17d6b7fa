"""From one release to the next: an older lake is given the columns and tables that this code adds.

A lake carries the version of its schemas as a property of `batches`. A run that writes compares it
with :data:`recsys.lake.schemas.SCHEMA_VERSION` first. Where the lake is older, each table that
lacks columns gets them in one commit, null in the rows that are there, and each table that is
missing is made, once the types of its ids are known. Then the lake gets the new version. A run that
is killed in between leaves a lake without it, so that the next run goes on. Columns are never
removed, renamed or given another type.

Version 2 brought `editions`: earlier lists are the first edition of their run_date. Version 3
brought `popular_items`, `explanations`, `live_metrics`, `drift` and `replays`, and removes the
pages under `data_docs/`: those under `checks/` take their place and show no row.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.errors import LakeError, MissingError
from recsys.lake import object_store
from recsys.lake.schemas import SCHEMA_VERSION, VERSION_PROPERTY, schemas

if TYPE_CHECKING:
    from datetime import date

    from recsys.lake.tables import Lake

_log = logging.getLogger(__name__)


def migrate(lake: Lake) -> None:
    """Give an older lake the columns and tables that it lacks; refuse a newer lake.

    A lake of this version, or without tables, is left as it is.

    Raises:
        LakeError: a newer release wrote the lake, a table lacks a column that can't be added, or
            the lake can't be read or written.
    """
    version = _schema_version(lake)
    if version is None or version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise LakeError(
            f"{lake.root} was written by a newer recsys: its tables have schema version {version}, "
            f"and this code knows versions up to {SCHEMA_VERSION}. Nothing was changed; install "
            "the newer recsys, or use another lake"
        )
    knows_ids = lake.exists(columns.INTERACTIONS)
    for name, schema in schemas(*_id_types(lake)).items():
        if lake.exists(name):
            _add_columns(lake, name, schema, version)
        elif knows_ids or not {columns.USER_ID, columns.ITEM_ID} & set(schema.names):
            lake.create_table(name, schema)  # others come with the first ingest, in its types
    if lake.exists(columns.RECOMMENDATIONS):
        _write_first_editions(lake)
    _remove_data_docs(lake)
    if lake.exists(columns.BATCHES):
        lake.set_property(columns.BATCHES, VERSION_PROPERTY, str(SCHEMA_VERSION))


def _schema_version(lake: Lake) -> int | None:
    """Return the version of a lake's schemas, 0 where it has none yet; None without a lake."""
    try:
        return int(lake.properties(columns.BATCHES).get(VERSION_PROPERTY, 0))
    except MissingError:
        # In a lake that was copied or made by hand one table may be missing.
        return 0 if lake.exists(columns.INTERACTIONS) else None


def _id_types(lake: Lake) -> list[pa.DataType]:
    """Return the types of user_id and item_id, from the first table that has them.

    A first ingest that was killed leaves a lake without `interactions`, which is made last. An id
    that no table has may have any type: no table is given a column of it, and the next ingest makes
    the tables that are missing in its own.
    """
    names = (columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS)
    tables = [lake.schema(name) for name in names if lake.exists(name)]
    return [
        next((schema.field(name).type for schema in tables if name in schema.names), pa.int64())
        for name in (columns.USER_ID, columns.ITEM_ID)
    ]


def _add_columns(lake: Lake, name: str, schema: pa.Schema, version: int) -> None:
    present = set(lake.schema(name).names)
    missing = [field for field in schema if field.name not in present]
    required = [field.name for field in missing if not field.nullable]
    if required:
        raise LakeError(
            f"{lake.uri(name)} lacks the column {', '.join(required)}, which every release has: it "
            "is not a table of recsys, or it was changed by hand. Restore a version that has it"
        )
    if missing:
        added = [field.name for field in missing]
        note = {"migration": {"from": version, "to": SCHEMA_VERSION, "added": added}}
        lake.add_columns(name, pa.schema(missing), note=note)
        _log.info("%s has new columns: %s", lake.uri(name), ", ".join(added))


def _remove_data_docs(lake: Lake) -> None:
    folder = lake.uri("data_docs")
    if not lake.is_local:
        pages = object_store.find(f"{folder}/**", lake.storage)
        object_store.delete((page.key for page in pages), lake.storage)
    elif Path(folder).is_dir():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise LakeError(f"could not delete {folder}: {error}") from error


def _write_first_editions(lake: Lake) -> None:
    """Write a row of `editions` for each run_date whose lists were published before it existed.

    All of it stands in the log of `recommendations`: no list is read.
    """
    files = pa.table(lake.open(columns.RECOMMENDATIONS).get_add_actions(flatten=True)).to_pylist()
    known = set(lake.rows(columns.EDITIONS, ["run_date"])["run_date"].to_pylist())
    editions: dict[date, dict[str, Any]] = {}
    for file in files:  # older ones may lack statistics
        run_date = file["partition.run_date"]
        rows = editions.get(run_date, {"rows": 0})["rows"] + (file["num_records"] or 0)
        editions[run_date] = {
            "run_date": run_date,
            "edition": 1,
            "status": "current",
            **{name: file.get(f"max.{name}") for name in ("run_id", "model_id")},
            "interactions_version": file.get("max.interactions_version"),
            "rows": rows,
            "published_at": file.get("max.generated_at"),
        }
    new = [row for run_date, row in sorted(editions.items()) if run_date not in known]
    if new:
        table = pa.Table.from_pylist(new, schema=lake.schema(columns.EDITIONS))
        lake.append(columns.EDITIONS, table)
