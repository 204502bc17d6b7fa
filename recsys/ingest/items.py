"""The table `items`: titles, categories and eligibility of items, from a source of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import ConfigurationError, SourceError
from recsys.ingest import sources
from recsys.ingest.column_map import ColumnMap, resolve
from recsys.ingest.csv_files import csv_dialect, csv_relation
from recsys.ingest.ids import (
    DUCKDB_TYPES,
    ODD_SHARE,
    TYPE_WORDS,
    cast_id,
    natural_id_type,
)
from recsys.ingest.staging import as_schema, count_rows, explained
from recsys.lake.engine import column_types, open_duckdb, type_family
from recsys.temporary import temporary_folder
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import ItemSource, Settings


@dataclass(frozen=True)
class ItemsResult:
    """The outcome of an ingest of items.

    Attributes:
        rows: items that the source has.
        changed: whether `items` was written.
        understood: a sentence on the source's columns, for people.
    """

    rows: int
    changed: bool
    understood: str


def ingest_items(lake: Lake, settings: Settings, items: ItemSource | None = None) -> ItemsResult:
    """Make `items` equal to a source, in one commit, or in none where nothing has changed.

    Args:
        lake: where to; it has interactions, whose item ids these are.
        settings: the S3 endpoint, the memory limit of DuckDB.
        items: where from; the configured item source when not given.

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
        sources.confine_source(con, lake, items)
        objects = sources.find(items, settings.s3)
        paths = sources.fetch(objects, folder / "objects", settings.s3)
        column_map = _stage(con, items, paths, DUCKDB_TYPES[schema.field(columns.ITEM_ID).type])
        name = sources.identity(items)
        for without_id, repeated, example in con.execute(load("ingest/bad_items")).fetchall():
            raise SourceError(
                f"{name}: {without_id:,} items have no item_id, and {repeated:,} ids come more "
                f"than once, for example {example!r}; `items` was not changed. Give each item one "
                "row"
            )
        lake.view(con, columns.ITEMS)
        count = count_rows(con, "new_items")
        if not count:
            raise SourceError(f"{name} holds no item; `items` was not changed")
        changed = bool(con.execute(load("ingest/changed_items")).fetchall()[0][0])
        if changed:
            lake.replace(columns.ITEMS, as_schema(schema, con.sql("select * from new_items")))
        understood = column_map.explain(columns.ITEMS, count, columns.OF_ITEMS)
        return ItemsResult(count, changed, understood)


def _stage(
    con: duckdb.DuckDBPyConnection, source: ItemSource, paths: Sequence[Path], lake_type: str
) -> ColumnMap:
    """Fill ``new_items`` (see sql/ingest/create_new_items.sql) with ids of the lake's type.

    Returns:
        Which columns of the source it took; the others are in ``extra``.

    Raises:
        SourceError: the source can't be read, or lacks item_id, or has one of another type.
    """
    kind, name = sources.kind_of(source), sources.identity(source)
    with explained(name):
        _read(con, source, kind, paths)
        types = column_types(con, "source_items")
        column_map = resolve(
            source.columns, list(types), name, columns.OF_ITEMS, required=[columns.ITEM_ID]
        )
        names = column_map.names
        id_column = names[columns.ITEM_ID]
        source_type = natural_id_type(columns.ITEM_ID, id_column, types[id_column])
        if kind != "csv" and source_type == "VARCHAR" and lake_type == "BIGINT":
            raise SourceError(
                f"item_id of {name} holds text, but that of the lake's interactions integers; "
                "cast it"
            )
        cast = cast_id(columns.ITEM_ID, "input", types[id_column], lake_type)
        con.execute(load("ingest/create_integer_of_text"))
        con.execute(f"create or replace temp macro as_item(input) as {cast.value}")
        con.execute(f"create or replace temp macro is_lost_item(input) as {cast.is_lost}")
        # Without a column that says so, every item of the source may be shown.
        absent = {**dict.fromkeys(columns.OF_ITEMS, "null"), "eligible": "true"}
        selected = ", ".join(
            f"{quote(names[ours]) if ours in names else absent[ours]} as {ours}"
            for ours in columns.OF_ITEMS
        )
        pairs = ", ".join(f"{literal(column)}, {quote(column)}" for column in column_map.unused)
        extra = f"cast(json_object({pairs}) as varchar)" if pairs else "null::varchar"
        con.execute(
            f"create or replace temp view catalogue as select {selected}, {extra} as extra "  # noqa: S608 - names are quoted
            "from source_items"
        )
        con.execute(load("ingest/create_new_items"))
        ((lost, items, example),) = con.execute(load("ingest/lost_items")).fetchall()
    if not lost:
        return column_map.noted({columns.ITEM_ID: TYPE_WORDS[lake_type]})
    left_out = f"{lost:,} of {items:,} ids are not {TYPE_WORDS[lake_type]}, for example {example!r}"
    if lost > ODD_SHARE * items:
        raise SourceError(
            f"{name}: {left_out}; the lake's interactions hold {TYPE_WORDS[lake_type]}. `items` "
            "was not changed; write the ids as the interactions have them"
        )
    return column_map.noted({columns.ITEM_ID: f"{left_out}: left out"})


def _read(
    con: duckdb.DuckDBPyConnection, source: ItemSource, kind: sources.Kind, paths: Sequence[Path]
) -> None:
    """Make ``source_items``: the source's rows in its own columns."""
    create = "create or replace temp table source_items as"
    if kind == "duckdb":
        with sources.attached(con, source, paths[0]) as relation:
            con.execute(f"{create} select * from {relation}")  # noqa: S608 - names are quoted
        return
    readers: dict[str, Callable[[Path], str]] = {
        "parquet": _parquet_items,
        "delta": _parquet_items,
        "csv": _csv_items,
        "jsonl": partial(_json_items, con),
    }
    reader = readers[kind]
    con.execute(
        f"{create} {' union all by name '.join(f'select * from {reader(path)}' for path in paths)}"  # noqa: S608 - names are quoted
    )


def _parquet_items(path: Path) -> str:
    return sources.parquet([path])


def _csv_items(path: Path) -> str:
    dialect = csv_dialect(path, path.name)
    names = dialect.names
    if len({name.lower() for name in names}) < len(names):
        raise SourceError(f"{path.name} has two columns of the same name; rename one")
    return csv_relation(path, dialect, names)


def _json_items(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    read = f"read_json({file_literal(str(path))}, format = 'newline_delimited', sample_size = -1"
    # A text that looks like a UUID or a date stays a text, letter for letter.
    types = ((name, _json_type(kind)) for name, kind in column_types(con, f"{read})").items())
    typed = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in types)
    return f"{read}, columns = {{{typed}}})"


def _json_type(kind: str) -> str:
    if kind in ("BOOLEAN", "VARCHAR", "JSON") or type_family(kind) in ("integers", "real numbers"):
        return kind
    return "JSON" if kind.startswith(("STRUCT", "MAP")) or kind.endswith("[]") else "VARCHAR"
