"""The table `items`: titles, categories, and which items may be shown, from a source of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import ConfigurationError, SourceError
from recsys.ingest import sources
from recsys.ingest.staging import DUCKDB, as_schema, explained, id_type, rows_in
from recsys.ingest.text_files import csv_dialect, csv_relation
from recsys.lake.engine import column_types, open_duckdb, type_family
from recsys.temporary import temporary_folder
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import ItemSource, Settings


def ingest_items(lake: Lake, settings: Settings, items: ItemSource | None = None) -> int:
    """Make `items` equal to a source, in one commit, or none where it is so already.

    Args:
        lake: where to; it has interactions already, whose item ids these are.
        settings: the S3 endpoint, the memory that DuckDB may hold.
        items: where from; the configured item source when not given.

    Returns:
        How many items there are.

    Raises:
        ConfigurationError: no item source is given or configured.
        SourceError: the source can't be read, lacks item_id, or has one that is null or repeated.
        LakeError: the lake can't be read or written, or has no tables yet.
    """
    items = items or settings.items
    if items is None:
        raise ConfigurationError(
            "no source of items: give one, or set RECSYS_ITEMS__URI, or write an [items] table "
            "with a uri into recsys.toml"
        )
    schema = lake.schema(columns.ITEMS)
    with temporary_folder() as folder, open_duckdb(settings) as con:
        found = sources.find(items, settings.s3)
        paths = sources.fetch(found, folder / "objects", settings.s3)
        held = DUCKDB[schema.field(columns.ITEM_ID).type]
        _pull(con, items, paths, held)
        for without_id, repeated, example in con.execute(load("ingest/bad_items")).fetchall():
            raise SourceError(
                f"{sources.identity(items)}: {without_id:,} items have no item_id, and "
                f"{repeated:,} ids come more than once, {example!r} for one; `items` was left as "
                "it is. Give each item one row"
            )
        lake.view(con, columns.ITEMS)
        count = rows_in(con, "new_items")
        if not count:
            raise SourceError(f"{sources.identity(items)} holds no item; `items` was left as it is")
        if con.execute(load("ingest/changed_items")).fetchall()[0][0]:
            lake.replace(columns.ITEMS, as_schema(schema, con.sql("select * from new_items")))
        return count


def _pull(
    con: duckdb.DuckDBPyConnection, source: ItemSource, paths: Sequence[Path], held: str
) -> None:
    """Fill ``new_items`` (see sql/ingest/items.sql) with ids of the lake's type.

    Raises:
        SourceError: the source can't be read, or lacks item_id, or has one of another type.
    """
    kind, where = sources.kind_of(source), sources.identity(source)
    with explained(where):
        if kind == "duckdb":
            with sources.attached(con, source, paths[0]) as relation:
                con.execute(f"create or replace temp table given as select * from {relation}")  # noqa: S608 - names are quoted
        else:
            readers: dict[str, Callable[[Path], str]] = {
                "parquet": _parquet_items,
                "csv": _csv_items,
                "jsonl": partial(_json_items, con),
            }
            read = readers[kind]
            every = " union all by name ".join(f"select * from {read(path)}" for path in paths)  # noqa: S608 - names are quoted
            con.execute(f"create or replace temp table given as {every}")
        kinds = column_types(con, "given")
        names = {ours: source.columns.get(ours, ours) for ours in columns.OF_ITEMS}
        for ours, theirs in names.items():
            if theirs not in kinds and (ours == columns.ITEM_ID or ours in source.columns):
                raise SourceError(
                    f"{where} has no column {theirs!r}; it has {', '.join(kinds)}; "
                    f"map it: {ours}=<one of them>"
                )
        given = id_type(columns.ITEM_ID, names[columns.ITEM_ID], kinds[names[columns.ITEM_ID]])
        if kind != "csv" and given != held:
            raise SourceError(
                f"item_id of {where} holds {type_family(kinds[names['item_id']])}, but that "
                f"of the lake's interactions {'integers' if held == 'BIGINT' else 'text'}; cast it"
            )
        taken = ", ".join(
            f"{quote(names[ours]) if names[ours] in kinds else 'null'} as {ours}"
            for ours in columns.OF_ITEMS
        )
        others = [name for name in kinds if name not in names.values()]
        packed = ", ".join(f"{literal(name)}, {quote(name)}" for name in others)
        extra = f"cast(json_object({packed}) as varchar)" if others else "null::varchar"
        con.execute(
            f"create or replace temp view catalogue as select {taken}, {extra} as extra from given"  # noqa: S608 - names are quoted
        )
        con.execute(f"create or replace temp macro as_item(given) as cast(given as {held})")
        con.execute(load("ingest/items"))


def _parquet_items(path: Path) -> str:
    return sources.parquet([path])


def _csv_items(path: Path) -> str:
    delimiter, there = csv_dialect(path, path.name)
    if len({name.lower() for name in there}) < len(there):
        raise SourceError(f"{path.name} has two columns of the same name; rename one")
    return csv_relation(path, delimiter, there)


def _json_items(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    read = f"read_json({file_literal(str(path))}, format = 'newline_delimited', sample_size = -1"
    # A text that looks like a UUID or a date is a text all the same, and keeps its letters.
    kinds = ((name, _json_type(kind)) for name, kind in column_types(con, f"{read})").items())
    typed = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in kinds)
    return f"{read}, columns = {{{typed}}})"


def _json_type(kind: str) -> str:
    if kind in ("BOOLEAN", "VARCHAR", "JSON") or type_family(kind) in ("integers", "real numbers"):
        return kind
    return "JSON" if kind.startswith(("STRUCT", "MAP")) or kind.endswith("[]") else "VARCHAR"
