"""catalog.duckdb: one small file of views over the lake, and the newest lists themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.catalog.query import CATALOG_FILE
from recsys.catalog.views import VIEWS
from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.engine import first_line, open_duckdb, select_files
from recsys.lake.schemas import TABLES
from recsys.settings import Scale
from recsys.temporary import replace_file, temporary_folder
from sql import literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltalake import DeltaTable

    from recsys.lake.s3_files import EmptyFiles
    from recsys.lake.tables import Lake


_NEWEST = "latest_recommendations"
_COPIED_ROWS: int = Scale.model_fields["catalog_rows"].default


def publish_catalog(lake: Lake, copied_rows: int = _COPIED_ROWS) -> str:
    """Build the catalog over the newest versions and put it in place in one step.

    A reader that has the previous file open goes on with it; the next one to open it sees the
    new one; nobody sees half of either. It needs no extension and no network where the lake is
    local. On S3 the views need DuckDB's httpfs; `latest_recommendations` is a table in the file
    itself and needs nothing, as long as the newest lists have no more rows than ``copied_rows``.

    Returns:
        Where the catalog lies.

    Raises:
        LakeError: the lake is empty, another run writes by now, or the catalog can't be written.
    """
    lake.require_lock()  # an older version than one that a reader has seen must not come back
    try:
        publish = _replace if lake.is_local else _upload
        return publish(lake, copied_rows)
    except (duckdb.Error, OSError) as error:
        raise LakeError(
            f"could not publish {lake.uri(CATALOG_FILE)}: {first_line(error)}. The previous "
            "catalog stays in place; check that the lake may be written and that the disk has room"
        ) from error


def _build(lake: Lake, path: Path, copied_rows: int) -> None:
    """Make the views and the newest lists in a new file, each with its meaning as a comment."""
    kinds = {view.name: "table" if view.is_table else "view" for view in VIEWS.values()}
    with open_duckdb(lake.limits, path) as con:
        files = lake.let_view(con)
        con.execute(load("views/tables"))
        for table in TABLES.values():
            opened = lake.open(table.name)
            shown = [table.name, opened.version(), lake.root]
            con.execute("insert into tables values (?, ?, now(), ?)", shown)
            if files:
                files.empty(opened)
            selected = select_files(con, opened)
            if table.name == columns.RECOMMENDATIONS:  # `editions`, made before, says what counts
                con.execute(f"create macro stored_recommendations() as table {selected}")
                con.execute(load("views/recommendation_editions"))
                con.execute(load("views/recommendations"))
                rows = _show_newest_lists(con, lake, opened, files)
                if rows > copied_rows:
                    kinds[_NEWEST] = "view"
            else:
                con.execute(f"create view {quote(table.name)} as {selected}")
            stored = pa.schema(opened.schema()).names  # an older lake may lack a column
            meanings = {name: text for name, text in table.meanings().items() if name in stored}
            _describe(con, "view", table.name, table.meaning, meanings)
        for view in VIEWS.values():
            if view.name == _NEWEST:
                con.execute(f"create {kinds[_NEWEST]} {_NEWEST} as {load(f'views/{_NEWEST}')}")
            elif view.name not in ("tables", "recommendation_editions"):
                con.execute(load(f"views/{view.name}"))
            _describe(con, kinds[view.name], view.name, view.meaning, view.columns)
        con.execute("checkpoint")  # closing would do it too, but say nothing where the disk is full


def _show_newest_lists(
    con: duckdb.DuckDBPyConnection, lake: Lake, opened: DeltaTable, files: EmptyFiles | None
) -> int:
    """Make the macro newest_lists(), which reads the newest lists' files; return their rows."""
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    editions = lake.rows(columns.EDITIONS, ["run_date", "edition", "status", "rows"])
    is_shown = (pc.field("status") == "current") & (pc.field("run_date") <= tomorrow)
    newest = editions.filter(is_shown).sort_by([("run_date", "descending")]).slice(0, 1).to_pylist()
    row: dict[str, Any] = newest[0] if newest else {"run_date": tomorrow, "edition": 0}
    of_day = f"run_date = {literal(row['run_date'].isoformat())}"
    uris = opened.file_uris(file_pruning_predicate=of_day)
    if files:
        files.show(uris)
    con.execute(
        f"create macro newest_lists() as table from ({lake.select(con, opened, uris)}) "
        f"where {of_day} and coalesce(edition, 1) = {row['edition']}"
    )
    return row.get("rows") or 0


def _describe(
    con: duckdb.DuckDBPyConnection,
    kind: str,
    name: str,
    meaning: str,
    meanings: Mapping[str, str],
) -> None:
    """Give a ``kind`` ("table" or "view") and each of its columns its meaning as a comment."""
    comments = [f"comment on {kind} {quote(name)} is {literal(meaning)}"]
    for column, text in meanings.items():
        comments.append(f"comment on column {quote(name)}.{quote(column)} is {literal(text)}")
    con.execute(";".join(["begin", *comments, "commit"]))  # a commit each would take longer


def _replace(lake: Lake, copied_rows: int) -> str:
    """Build beside the previous catalog, so that one rename puts the new one in place."""
    target = Path(lake.uri(CATALOG_FILE))
    with replace_file(target) as building:
        _build(lake, building, copied_rows)
    # Of somebody who wrote to the previous catalog: beside this one it would stop all readers.
    target.with_name(f"{CATALOG_FILE}.wal").unlink(missing_ok=True)
    return str(target)


def _upload(lake: Lake, copied_rows: int) -> str:
    with temporary_folder() as folder:
        building = folder / CATALOG_FILE
        _build(lake, building, copied_rows)
        object_store.upload(building, lake.uri(CATALOG_FILE), lake.storage)
    return lake.uri(CATALOG_FILE)
