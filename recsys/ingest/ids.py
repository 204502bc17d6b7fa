"""Ids: what is written is kept, exactly. A value that its type can't hold is told, never rounded.

The type of an id is integer or text, decided once for a lake: by its first ingest, from all values
of the rows that stand, or by the settings `user_id_type` and `item_id_type` of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.errors import SourceError
from recsys.lake.engine import type_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.lake.tables import Lake
    from recsys.settings import Source

# What does not make an id: white space, and marks that show nothing.
BLANKS = " \t\n\r\f\v\u00a0\u2003\u3000\u200b\ufeff"
# How programs write that there is nothing: these say nothing about the type of a column.
NULL_WORDS = ["\\N", "NULL", "null", "None", "NA", "N/A", "#N/A", "<NA>", "nan", "NaN", "-"]
ODD_SHARE = 0.05
"""Up to this share of a text column may be other than integers, and the column be integers."""

IDS = (columns.USER_ID, columns.ITEM_ID)
ARROW_TYPES = {"BIGINT": pa.int64(), "VARCHAR": pa.string()}
DUCKDB_TYPES = {arrow: name for name, arrow in ARROW_TYPES.items()}
# How a batch's profile and a contract name the types of ids.
TYPE_NAMES = {"BIGINT": "integer", "VARCHAR": "text"}
TYPE_WORDS = {"BIGINT": "integers", "VARCHAR": "text"}
CAST_IT = "cast it in a query of a DuckDB source, or write the files with such a column"
NO_TYPE = '"NULL"'
"""DuckDB's type of a Parquet column that never had a value."""
BYTES = "BLOB"
"""DuckDB's type of a Parquet column of bytes, as Hive and Impala write text."""
_OF_SETTING = {name: kind for kind, name in TYPE_NAMES.items()}

_WIDER_THAN_OURS = {"HUGEINT", "UBIGINT", "UHUGEINT"}
# Beyond these, whole numbers of a floating point type stand for their neighbours too.
_EXACT_UP_TO = {"FLOAT": 2**24, "DOUBLE": 2**53}


@dataclass(frozen=True)
class IdTypes:
    """The types of both ids, each BIGINT or VARCHAR: DuckDB's names of what the lake holds."""

    user_id: str
    item_id: str


def lake_id_types(lake: Lake) -> IdTypes | None:
    """Return the types of ids in a lake, or None where no table holds an id yet."""
    if not lake.exists(columns.INTERACTIONS):
        return None
    tables_with_ids = (columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS)
    if not any(lake.open(name).file_uris() for name in tables_with_ids):
        return None
    schema = lake.schema(columns.INTERACTIONS)
    return IdTypes(
        DUCKDB_TYPES[schema.field(columns.USER_ID).type],
        DUCKDB_TYPES[schema.field(columns.ITEM_ID).type],
    )


def set_id_types(source: Source, lake_types: IdTypes | None) -> dict[str, str]:
    """Return id column -> its type, where the lake or the source's setting decides it.

    Raises:
        SourceError: they differ.
    """
    names = {columns.USER_ID: source.user_id_type, columns.ITEM_ID: source.item_id_type}
    types = {ours: _OF_SETTING[name] for ours, name in names.items() if name}
    for ours in IDS if lake_types else ():
        lake_type = getattr(lake_types, ours)
        if types.setdefault(ours, lake_type) != lake_type:
            raise SourceError(
                f"the source's {ours}_type is {TYPE_NAMES[types[ours]]}, but the lake holds "
                f"{TYPE_WORDS[lake_type]}; leave it out, or use another lake"
            )
    return types


@dataclass(frozen=True)
class IdCast:
    """SQL that gives an id of one type: of a column, or of a macro's input.

    Attributes:
        value: the id; null where there is none, and where the type can't hold it.
        is_lost: whether there is an id that the type can't hold.
        fault: what is then wrong with the row.
    """

    value: str
    is_lost: str
    fault: str


def cast_id(ours: str, expression: str, source_type: str, target: str) -> IdCast:
    """Return the SQL that casts an id of a typed source.

    Args:
        ours: our column.
        expression: SQL of what the source has.
        source_type: its DuckDB type.
        target: BIGINT or VARCHAR.
    """
    family, x = type_family(source_type), expression
    if family == NO_TYPE:
        return IdCast(f"cast({x} as {target})", "false", "")
    if family == "text":
        if target == "VARCHAR":
            return IdCast(f"cast({x} as varchar)", "false", "")
        text = f"cast({x} as varchar)"
        lost = f"{x} is not null and integer_of_text({text}) is null"
        return IdCast(f"integer_of_text({text})", lost, f"{ours} is not an integer")
    if family == BYTES:
        text = decoded(x)
        value = text if target == "VARCHAR" else f"integer_of_text({text})"
        kind = "UTF-8 text" if target == "VARCHAR" else "an integer"
        return IdCast(value, f"{x} is not null and {value} is null", f"{ours} is not {kind}")
    if family == "integers":
        if target == "VARCHAR":
            return IdCast(f"cast({x} as varchar)", "false", "")
        if source_type not in _WIDER_THAN_OURS:
            return IdCast(f"cast({x} as bigint)", "false", "")
        lost = f"{x} is not null and try_cast({x} as bigint) is null"
        return IdCast(f"try_cast({x} as bigint)", lost, f"{ours} is beyond 64 bits")
    present, is_whole = f"{x} is not null", f"{x} = trunc({x})"
    if limit := _EXACT_UP_TO.get(source_type):
        present = f"{present} and not isnan({x})"  # pandas writes a missing number as NaN
        is_whole = f"{is_whole} and abs({x}) < {limit}"
    value = f"case when {is_whole} then try_cast({x} as bigint) end"
    lost = f"{present} and {value} is null"
    if target == "VARCHAR":
        value = f"cast({value} as varchar)"
    return IdCast(value, lost, f"{ours} is not an integer")


def decoded(expression: str) -> str:
    """Return SQL that gives the text that bytes are in UTF-8, or null."""
    return f"try(decode({expression}))"


def natural_id_type(ours: str, theirs: str, source_type: str) -> str:
    """Return BIGINT or VARCHAR, what an id of a DuckDB type becomes where nothing else decides.

    Raises:
        SourceError: an id can't be of this type.
    """
    family = type_family(source_type)
    if family in ("integers", "real numbers", NO_TYPE):
        return "BIGINT"
    if family in ("text", BYTES):
        return "VARCHAR"
    raise SourceError(
        f"{ours} comes from column {theirs!r}, which holds {source_type}; an id is an integer or "
        f"text: {CAST_IT}"
    )


def typed_id_types(
    names: Mapping[str, str], types: Mapping[str, str], decided: Mapping[str, str]
) -> IdTypes:
    """Return the types that the ids of a typed source become.

    Args:
        names: our column -> the source's.
        types: our column -> the source's DuckDB type.
        decided: id column -> its type, see :func:`set_id_types`.

    Raises:
        SourceError: a column can't hold ids.
    """
    natural = {ours: natural_id_type(ours, names[ours], types[ours]) for ours in IDS}
    return IdTypes(**{ours: decided.get(ours, natural[ours]) for ours in IDS})


def require_integers(
    ours: str, source_type: str, source: Source, lake_types: IdTypes | None
) -> None:
    """Refuse a typed column of text where the lake holds integers, unless the setting asks for it.

    Raises:
        SourceError: it is refused.
    """
    is_text = type_family(source_type) in ("text", BYTES)
    asked = ours in set_id_types(source, None)
    if lake_types and is_text and getattr(lake_types, ours) == "BIGINT" and not asked:
        raise SourceError(
            f"{ours} of the source holds text, but the lake holds integers; cast it at the source, "
            f'or set {ours}_type = "integer": then rows whose id is not an integer go to '
            "quarantine; or use another lake for it"
        )
