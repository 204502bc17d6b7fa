"""Timestamps that are numbers: in which unit, decided by the whole column and told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from recsys.errors import SourceError
from recsys.ingest.ids import CAST_IT, NO_TYPE
from recsys.lake.engine import type_family
from sql import literal, load

if TYPE_CHECKING:
    import duckdb

    from recsys.settings import TimestampUnit

_UNITS: dict[TimestampUnit, str] = {
    "s": "epoch seconds",
    "ms": "epoch milliseconds",
    "us": "epoch microseconds",
    "ns": "epoch nanoseconds",
    "yyyymmdd": "dates as YYYYMMDD",
    "ticks": "ticks of 100 ns since the year 1",
    "days": "days since 1970",
    "excel_days": "days since 1900, as Excel counts",
}
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _seconds(timestamp: datetime) -> float:
    return (timestamp - _EPOCH).total_seconds()


def _range(per_second: float, shift: float = 0) -> tuple[float, float]:
    """Return the numbers that stand for what is plausible, in a unit."""
    low, high = (_seconds(bound) * per_second + shift for bound in (_FIRST, _LAST))
    return low, high


# No two of them overlap, so that a number is plausible in one unit at most. As nanoseconds, ticks
# would be times of 1990; no program has written those.
_PLAUSIBLE: dict[TimestampUnit, tuple[float, float]] = {
    "s": _range(1),
    "ms": _range(1e3),
    "us": _range(1e6),
    "ns": (_seconds(datetime(2000, 1, 1, tzinfo=UTC)) * 1e9, _range(1e9)[1]),
    "yyyymmdd": (19710101, 21001231),
    "ticks": _range(1e7, 621355968e9),
}
# Numbers as small as these may be a count, or an order: they are never guessed, but suggested.
_SUGGESTED: dict[TimestampUnit, tuple[float, float]] = {
    "days": _range(1 / 86400),
    "excel_days": _range(1 / 86400, 25569),
}


def define_timestamp_macros(
    con: duckdb.DuckDBPyConnection, source_type: str, unit: TimestampUnit | None, name: str
) -> str | None:
    """Define as_timestamp and timestamp_text for what ``recsys_source_rows`` has as timestamp.

    Args:
        con: holds ``recsys_source_rows``.
        source_type: the column's DuckDB type.
        unit: the unit of numbers; decided by the column when not given.
        name: the source's name in an error.

    Returns:
        What the column's numbers were taken for, or None where it has none.

    Raises:
        SourceError: a timestamp can't be of this type, or its numbers are not plausible.
    """
    note = None
    raw_timestamp = "input"
    family = type_family(source_type)
    con.execute(load("ingest/create_is_zero_time"))
    if family == "timestamps":
        # The session's time zone is UTC, so a timestamp without one is read as UTC.
        # DuckDB 2.0 has no isfinite of a TIMESTAMPTZ_NS.
        time = "cast(input as timestamptz)"
        stands = f"isfinite({time}) and not is_zero_time({time})"
        as_timestamp = f"case when {stands} then {time} end"
        raw_timestamp = f"case when not ({stands}) then cast(input as varchar) end"
    elif family in ("integers", "real numbers", "text"):
        note = _define_numbers(con, unit, name)
        as_timestamp = "timestamp_of_number(input)"
        if family == "text":
            con.execute(load("ingest/create_timestamp_of_text"))
            as_timestamp = "timestamp_of_text(cast(input as varchar))"
    elif family == NO_TYPE:
        as_timestamp, raw_timestamp = "null::timestamptz", "null::varchar"
    else:
        raise SourceError(
            f"timestamp comes from a column that holds {source_type}; it has to be a timestamp, a "
            f"date, epoch seconds or milliseconds, or ISO text: {CAST_IT}"
        )
    con.execute(f"create or replace temp macro as_timestamp(input) as {as_timestamp}")
    con.execute(f"create or replace temp macro timestamp_text(input) as {raw_timestamp}")
    return note


def _define_numbers(
    con: duckdb.DuckDBPyConnection, unit: TimestampUnit | None, name: str
) -> str | None:
    """Define timestamp_of_number for the unit of the column's numbers; say which one it is."""
    con.execute(load("ingest/create_number_as_timestamp"))
    if unit is not None:
        body = f"number_as_timestamp(input, {literal(unit)})"
        con.execute(f"create or replace temp macro timestamp_of_number(input) as {body}")
        return f"{_UNITS[unit]}, as set"
    unit = _infer_unit(con, name)
    if unit is None:
        con.execute("create or replace temp macro timestamp_of_number(input) as null::timestamptz")
        return None
    low, high = _PLAUSIBLE[unit]
    con.execute(
        "create or replace temp macro timestamp_of_number(input) as case "
        f"when try_cast(input as double) between {low!r} and {high!r} "
        f"then number_as_timestamp(input, {literal(unit)}) end"
    )
    return _UNITS[unit]


def _infer_unit(con: duckdb.DuckDBPyConnection, name: str) -> TimestampUnit | None:
    """Return the unit in which most numbers are plausible; None where the column has none.

    Raises:
        SourceError: most of the column is numbers, and few of them are plausible in one unit.
    """
    bounds = {
        f"{unit}_{side}": bound
        for unit, pair in _PLAUSIBLE.items()
        for side, bound in zip(("low", "high"), pair, strict=True)
    }
    relation = con.sql(load("ingest/timestamp_units"), params=bounds)
    counts = dict(zip(relation.columns, relation.fetchall()[0], strict=True))
    unit = max(_PLAUSIBLE, key=lambda unit: int(counts[unit]))
    if 2 * counts[unit] >= counts["numbers"] > 0:
        return unit
    if 2 * counts["numbers"] <= counts["filled"]:
        return None  # a few numbers among texts: those rows are rejected, one by one
    examples = [counts[example] for example in ("lowest", "middle", "highest")]
    raise SourceError(_refusal(name, examples))


def _refusal(name: str, examples: list[float]) -> str:
    listed = ", ".join(f"{example:.16g}" for example in dict.fromkeys(examples))
    suggestions = [
        f'timestamp_unit = "{unit}" ({_UNITS[unit]}) makes {examples[1]:.16g} '
        f"{_as_date(examples[1], unit)}"
        for unit, (low, high) in _SUGGESTED.items()
        if low <= examples[1] <= high
    ]
    if 1971 <= examples[1] <= 2100:
        suggestions.append("years alone have no order within a year")
    return (
        f"{name}: its timestamps are numbers, such as {listed}, which are not plausible times from "
        f"{_FIRST.year} to {_LAST.year - 1} in seconds, ms, us, ns, ticks or as YYYYMMDD. "
        + "".join(f"{suggestion}. " for suggestion in suggestions)
        + f'Set `timestamp_unit` of the source, one of {", ".join(_UNITS)}, or "s" to take any '
        "number as seconds"
    )


def _as_date(days: float, unit: TimestampUnit) -> str:
    shift = 25569 if unit == "excel_days" else 0
    return f"{_EPOCH + timedelta(days=days - shift):%Y-%m-%d}"
