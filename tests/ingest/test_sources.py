from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from recsys.errors import ConfigurationError, SourceError
from recsys.ingest import ids, sources
from recsys.lake.engine import open_duckdb
from recsys.settings import Source
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recsys.settings import Settings

TIMESTAMP = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp\n"


@pytest.fixture
def con(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb(settings) as connection:
        yield connection


class Staging:
    def __init__(self, con: duckdb.DuckDBPyConnection, settings: Settings, folder: Path) -> None:
        self.con, self.settings, self.folder = con, settings, folder

    def __call__(self, uri: object, **options: Any) -> list[tuple[Any, ...]]:
        """Return the staged rows of a source as (user, item, timestamp, source_row, fault).

        Most tests write times as small numbers.
        """
        source = Source(uri=str(uri), **{"timestamp_unit": "s", **options})
        objects = sources.find(source, self.settings.s3)
        paths = sources.fetch(objects, self.folder, self.settings.s3)
        sources.stage(self.con, source, objects, paths)
        return self.con.execute(
            "select user_id, item_id, timestamp, source_row, fault from staged_rows order by rowid"
        ).fetchall()

    def reasons(self) -> dict[int, list[str]]:
        nobody = {"blanks": ids.BLANKS, "drop_null_users": False}
        self.con.execute(load("ingest/create_anonymous_rows"), nobody)
        rules = {"blanks": ids.BLANKS, "max_id_bytes": 1024, "latest": datetime.now(UTC)}
        self.con.execute(load("ingest/create_faulty_rows"), rules)
        rows = self.con.execute(
            "select staged_rows.source_row, reasons from faulty_rows "
            "join staged_rows on seq = staged_rows.rowid"
        )
        return dict(rows.fetchall())


@pytest.fixture
def stage(con: duckdb.DuckDBPyConnection, settings: Settings, tmp_path: Path) -> Staging:
    return Staging(con, settings, tmp_path / "fetched")


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def duck(path: Path, statement: str) -> Path:
    with duckdb.connect(str(path)) as con:
        con.execute(statement)
    return path


# --- timestamps


@pytest.mark.parametrize(
    "value",
    [
        "timestamp '2026-01-02 03:04:05'",
        "timestamp_s '2026-01-02 03:04:05'",
        "timestamp_ms '2026-01-02 03:04:05'",
        "timestamp_ns '2026-01-02 03:04:05'",
        "timestamptz '2026-01-02 05:04:05+02'",
        "1767323045::integer",
        "1767323045::double",
        "1767323045.0::decimal(18, 3)",
        "1767323045000",
        "1767323045000000",
        "1767323045000000000",
        "1767323045::hugeint",
        "'2026-01-02 03:04:05'",
        "'2026-01-02T03:04:05Z'",
        "'2026-01-02T05:04:05+02:00'",
        "' 2026-01-02 03:04:05 '",
        "'1767323045'",
        "'1767323045000'",
        "'1767323045.0'",
    ],
)
def test_every_form_of_a_timestamp_is_the_same_time(
    stage: Staging, tmp_path: Path, value: str
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        f"create table t as select 1 as user_id, 2 as item_id, {value} as timestamp",
    )
    assert stage(file, table="t", timestamp_unit=None) == [(1, 2, TIMESTAMP, None, None)]


def test_dates_and_fractions_of_a_second(stage: Staging, tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", HEADER + "1,2,2026-01-02\n1,2,1767323045.25\n1,2,-1\n1,2,0\n")
    assert [row[2] for row in stage(file)] == [
        datetime(2026, 1, 2, tzinfo=UTC),
        TIMESTAMP + timedelta(milliseconds=250),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    "value", ["20240229", "20240229::double", "20240229.0::decimal(12, 1)", "' 20240229 '"]
)
def test_eight_digits_are_a_date(stage: Staging, tmp_path: Path, value: str) -> None:
    made = f"create table t as select 1 as user_id, 2 as item_id, {value} as timestamp"
    file = duck(tmp_path / "s.duckdb", made)
    assert stage(file, table="t", timestamp_unit=None)[0][2] == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["bigint", "varchar"])
def test_eight_digits_that_are_not_a_date_are_not_the_summer_of_1970(
    stage: Staging, tmp_path: Path, kind: str
) -> None:
    numbers = [19710101, 20240229, 20260101, 86400, 20230229, 20241301]
    rows = ", ".join(f"(1, 2, {number}::{kind})" for number in numbers)
    made = f"create table t as from (values {rows}) t(user_id, item_id, timestamp)"
    file = duck(tmp_path / "s.duckdb", made)
    assert [row[2] for row in stage(file, table="t", timestamp_unit=None)] == [
        datetime(1971, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        None,
        None,
        None,
    ]
    stage.con.execute("update staged_rows set source_row = rowid + 1")
    assert stage.reasons() == {row: ["timestamp is unparsable"] for row in (4, 5, 6)}


DAY = 20_000  # 2024-10-04, counted from 1970
UNITS = {
    "s": DAY * 86400,
    "ms": DAY * 86400 * 1000,
    "us": DAY * 86400 * 10**6,
    "ns": DAY * 86400 * 10**9,
    "ticks": (DAY * 86400 + 62135596800) * 10**7,
    "yyyymmdd": 20241004,
    "days": DAY,
    "excel_days": DAY + 25569,
}


@pytest.mark.parametrize("form", ["bigint", "double", "csv", "jsonl"])
@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_numbers_is_told_by_the_whole_column_or_set(
    stage: Staging, tmp_path: Path, unit: str, form: str
) -> None:
    number = UNITS[unit]
    if form == "csv":
        where: dict[str, Any] = {}
        file = text(tmp_path / "a.csv", HEADER + f"1,2,{number}\n")
    elif form == "jsonl":
        where = {}
        row = {"user_id": 1, "item_id": 2, "timestamp": number}
        file = text(tmp_path / "a.jsonl", json.dumps(row))
    else:
        made = f"create table t as select 1 as user_id, 2 as item_id, {number}::{form} as timestamp"
        file, where = duck(tmp_path / "s.duckdb", made), {"table": "t"}
    expected = datetime(2024, 10, 4, tzinfo=UTC)
    assert stage(file, timestamp_unit=unit, **where)[0][2] == expected
    if unit in ("days", "excel_days"):
        hint = f'timestamp_unit = "{unit}" .* makes {number} 2024-10-04'
        with pytest.raises(SourceError, match=hint):
            stage(file, timestamp_unit=None, **where)
    else:
        assert stage(file, timestamp_unit=None, **where)[0][2] == expected


@pytest.mark.parametrize("numbers", [[2023, 2024], [0, 1, 2, 3], [-5.0, 1e30], [7 * 10**20]])
def test_numbers_that_are_plausible_in_no_unit_are_refused_with_examples(
    stage: Staging, tmp_path: Path, numbers: list[float]
) -> None:
    lines = [json.dumps({"user_id": 1, "item_id": 2, "timestamp": n}) for n in numbers]
    file = text(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(SourceError, match=r"such as .* are not plausible times") as refusal:
        stage(file, timestamp_unit=None)
    assert f"{float(numbers[0]):.16g}" in str(refusal.value)
    assert [row[2] is None for row in stage(file)] == [abs(n) > 1e12 for n in numbers]


def test_a_few_numbers_among_times_are_rejected_and_not_guessed(
    stage: Staging, tmp_path: Path
) -> None:
    lines = [f"1,{n},2026-01-02\n" for n in range(8)]
    stage(
        text(tmp_path / "a.csv", HEADER + "".join(lines) + "1,2,0\n1,3,45000\n"),
        timestamp_unit=None,
    )
    assert stage.reasons() == {row: ["timestamp is unparsable"] for row in (10, 11)}
    lines = [f"1,{n},{1767323045 + n}\n" for n in range(8)]
    stage(
        text(tmp_path / "b.csv", HEADER + "".join(lines) + "1,2,0\n1,3,2026\n"), timestamp_unit=None
    )
    assert stage.reasons() == {row: ["timestamp is unparsable"] for row in (10, 11)}


def test_what_is_not_a_timestamp_is_unparsable_and_not_null(stage: Staging, tmp_path: Path) -> None:
    wrong = ["soon", "2026-13-01", "infinity", "nan", "1e300", "2026-01-02 25:00:00", ""]
    lines = [json.dumps({"user_id": 1, "item_id": 2, "timestamp": value}) for value in wrong]
    lines += ['{"user_id": 1, "item_id": 2, "timestamp": null}', '{"user_id": 1, "item_id": 2}']
    stage(text(tmp_path / "a.jsonl", "\n".join(lines)))
    assert stage.reasons() == {
        **{row: ["timestamp is unparsable"] for row in range(1, 8)},
        8: ["timestamp is null"],
        9: ["timestamp is null"],
    }


def test_infinite_timestamps_of_a_table_are_unparsable(stage: Staging, tmp_path: Path) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select 1 as user_id, 2 as item_id, timestamp 'infinity' as timestamp",
    )
    stage(file, table="t")
    assert list(stage.reasons().values()) == [["timestamp is unparsable"]]


# --- files


@pytest.mark.parametrize("zero", ["1970-01-01 00:00:00", "0001-01-01", "1900-01-01T00:00:00Z"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "duckdb"])
def test_the_zero_of_a_program_is_no_time(
    stage: Staging, tmp_path: Path, kind: str, zero: str
) -> None:
    times = [zero, "1970-01-01 00:00:01", "2026-01-02"]
    if kind == "csv":
        file = text(tmp_path / "a.csv", HEADER + "".join(f"1,1,{time}\n" for time in times))
    elif kind == "jsonl":
        lines = [json.dumps({"user_id": 1, "item_id": 1, "timestamp": time}) for time in times]
        file = text(tmp_path / "a.jsonl", "\n".join(lines))
    else:
        made = f"select 1 as user_id, 1 as item_id, unnest({times}::timestamp[]) as timestamp"
        file = duck(tmp_path / "s.duckdb", f"create table t as {made}")
        if kind == "parquet":
            duckdb.sql(f"copy ({made}) to '{tmp_path}/a.parquet'")
            file = tmp_path / "a.parquet"
    rows = stage(file, **({"table": "t"} if kind == "duckdb" else {}))
    assert [row[2] is None for row in rows] == [True, False, False]
    raw = stage.con.execute("select timestamp_text from staged_rows order by rowid").fetchall()
    assert raw[0][0], "it is unparsable, and not null"


def test_bytes_are_read_as_the_text_that_they_are(stage: Staging, tmp_path: Path) -> None:
    """Hive and Impala write text without saying that it is text."""
    table = {"user_id": [b"ann", b"bob"], "item_id": [b"1", b"2"], "event": [b"view", b"\xff"]}
    table["timestamp"] = [b"2026-01-02", b"\xff"]
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    rows = stage(tmp_path / "a.parquet")
    assert [row[:2] for row in rows] == [("ann", "1"), ("bob", "2")]
    assert [str(row[2]) for row in rows] == ["2026-01-02 00:00:00+00:00", "None"]
    events = stage.con.execute("select event from staged_rows order by rowid").fetchall()
    assert events == [("view",), ("\\xFF",)]


def test_csv_rows_with_a_wrong_number_of_fields_get_a_fault(stage: Staging, tmp_path: Path) -> None:
    lines = ["1,2,10", "3,4", "5,6,30", "7,8,40,9", "9,10,50", '11,"1"2,60', "13,14,70"]
    for name in ("a.csv", "a.csv.gz"):
        content = (HEADER + "".join(f"{line}\n" for line in lines)).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        rows = stage(tmp_path / name)
        assert [(row[0], row[3], row[4]) for row in rows] == [
            (1, 2, None),
            (None, 3, "wrong number of fields"),
            (5, 4, None),
            (None, 5, "wrong number of fields"),
            (9, 6, None),
            (None, 7, "line is not CSV"),
            (13, 8, None),
        ]
        raw_rows = stage.con.execute(
            "select raw_row from staged_rows where fault is not null"
        ).fetchall()
        assert [json.loads(row) for (row,) in raw_rows] == ["3,4", "7,8,40,9", '11,"1"2,60']


def test_a_quote_that_is_never_closed_is_refused(stage: Staging, tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", HEADER + '1,2,3\n4,"5,6\n' + "7,8,9\n" * 1000)
    with pytest.raises(SourceError, match=r"a\.csv, line 3: a quote is opened and not closed"):
        stage(file)


def test_mixed_line_ends_are_refused(stage: Staging, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        HEADER.replace("\n", "\r\n").encode() + b"1,2,3\r\n4,5,6\n7,8,9\r\n"
    )
    with pytest.raises(SourceError, match="some end in CR LF and some in LF"):
        stage(tmp_path / "a.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_may_use_other_delimiters_a_bom_and_crlf(
    stage: Staging, tmp_path: Path, delimiter: str
) -> None:
    content = (HEADER + "1,x,2026-01-02T03:04:05Z\n").replace(",", delimiter)
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert stage(tmp_path / "a.csv") == [(1, "x", TIMESTAMP, 2, None)]


def test_csv_columns_may_have_any_order_and_number(stage: Staging, tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", 'A,"the, item",a,ts\n9,"x,y",1,1767323045\n')
    mapping = {"user_id": "a", "item_id": "the, item", "timestamp": "ts"}
    assert stage(file, columns=mapping) == [(1, "x,y", TIMESTAMP, 2, None)]


def test_json_lines_that_are_not_objects_get_a_fault(stage: Staging, tmp_path: Path) -> None:
    good = '{"user_id": "a", "item_id": 1, "timestamp": 1767323045, "more": {"x": [1]}}'
    lines = [good, "{bad", "[1, 2]", "", '"text"', good, good.replace("1,", "[1],", 1)]
    content = "\n".join(lines).encode() + b"\n" + good.replace('"a"', '"\xff"').encode("latin-1")
    (tmp_path / "a.jsonl").write_bytes(content)
    assert [(row[0], row[3], row[4]) for row in stage(tmp_path / "a.jsonl")] == [
        ("a", 1, None),
        (None, 2, "line is not JSON"),
        (None, 3, "line is not a JSON object"),
        (None, 5, "line is not a JSON object"),
        ("a", 6, None),
        ("a", 7, "item_id is not an id"),
        (None, 8, "line is not UTF-8"),
    ]
    ((raw_row,),) = stage.con.execute(
        "select raw_row from staged_rows where source_row = 2"
    ).fetchall()
    assert json.loads(raw_row) == "{bad"


def test_a_byte_order_mark_is_not_part_of_the_first_json_line(
    stage: Staging, tmp_path: Path
) -> None:
    file = tmp_path / "s.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"user_id": 1, "item_id": 2, "timestamp": 3}\n')
    ((user, item, *_, fault),) = stage(file)
    assert (user, item, fault) == (1, 2, None)


def test_json_lines_longer_than_a_chunk_are_whole(
    stage: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.ingest.text_files.CHUNK", 50)
    rows = [{"user_id": f"{n:0{n + 1}d}", "item_id": n, "timestamp": n} for n in range(60)]
    file = text(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [row[0] for row in stage(file)] == [row["user_id"] for row in rows]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_mixed_ids_are_text(stage: Staging, tmp_path: Path, kind: str) -> None:
    rows = [{"user_id": user, "item_id": 5, "timestamp": 7} for user in (1, "b")]
    made = "\n".join(map(json.dumps, rows)) if kind == "jsonl" else HEADER + "1,5,7\nb,5,7\n"
    assert [row[:2] for row in stage(text(tmp_path / f"a.{kind}", made))] == [("1", 5), ("b", 5)]


@pytest.mark.parametrize(
    ("first", "user_id"),
    [("007", "007"), ("7", 7), ("+7", "+7"), ("7.0", 7), ("1e2", "1e2"), ("7.5", "7.5")],
)
def test_csv_ids_are_integers_only_where_nothing_is_lost(
    stage: Staging, tmp_path: Path, first: str, user_id: object
) -> None:
    assert stage(text(tmp_path / "a.csv", f"{HEADER}{first},2,0\n"))[0][0] == user_id


def test_json_ids_beyond_64_bits_are_text(stage: Staging, tmp_path: Path) -> None:
    lines = [
        f'{{"user_id": {2**63}, "item_id": 5, "timestamp": 0}}',
        '{"user_id": 1, "item_id": 6, "timestamp": 0}',
    ]
    rows = stage(text(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [row[:2] for row in rows] == [(str(2**63), 5), ("1", 6)]


def test_blank_and_null_ids_do_not_make_integers_text(stage: Staging, tmp_path: Path) -> None:
    rows = stage(text(tmp_path / "a.csv", HEADER + '1,2,0\n,3,0\n"",4,0\n" ",5,0\n2,6,0\n'))
    assert [row[0] for row in rows] == [1, None, None, None, 2]
    empty = ["user_id is empty"]
    assert stage.reasons() == {3: ["user_id is null"], 4: empty, 5: empty}


def test_values_that_are_not_numbers_are_rejected(stage: Staging, tmp_path: Path) -> None:
    stage(
        text(tmp_path / "a.csv", "user_id,item_id,timestamp,value\n1,2,0,4.5\n1,3,0,five\n1,4,0,\n")
    )
    assert stage.reasons() == {3: ["value is unparsable"]}


def test_several_files_are_read_in_the_order_of_their_names(stage: Staging, tmp_path: Path) -> None:
    for name, user in {"b": 2, "c": 3, "a": 1}.items():
        pq.write_table(
            pa.table({"user_id": [user], "item_id": [1], "timestamp": [TIMESTAMP]}),
            tmp_path / f"{name}.parquet",
        )
    assert [row[0] for row in stage(tmp_path / "*.parquet")] == [1, 2, 3]


# --- DuckDB


def test_a_table_a_view_and_a_query_with_a_schema(stage: Staging, tmp_path: Path) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create schema shop; create table shop.orders as select 1 as u, 2 as i, "
        "timestamptz '2026-01-02 03:04:05Z' as t; "
        "create view seen as select u as user_id, i as item_id, t as timestamp from shop.orders",
    )
    expected = [(1, 2, TIMESTAMP, None, None)]
    mapping = {"user_id": "u", "item_id": "i", "timestamp": "t"}
    assert stage(file, table="shop.orders", columns=mapping) == expected
    assert stage(file, table="seen") == expected
    assert stage(file, query="select * from seen; -- that is all") == expected
    assert stage(file, query="with a as (from shop.orders) from a", columns=mapping) == expected


@pytest.mark.parametrize(
    "query",
    ["drop table t", "insert into t values (1, 2, 3)", "select 1; drop table t", "", "attach 'x'"],
)
def test_a_query_is_one_select_and_nothing_else(stage: Staging, tmp_path: Path, query: str) -> None:
    made = "create table t as select 1 as user_id, 2 as item_id, 3 as timestamp"
    file = duck(tmp_path / "s.duckdb", made)
    before = file.read_bytes()
    with pytest.raises(SourceError, match="one single SELECT"):
        stage(file, query=query)
    assert file.read_bytes() == before


def test_a_query_that_is_not_sql_is_refused(stage: Staging, tmp_path: Path) -> None:
    file = duck(tmp_path / "s.duckdb", "create table t as select 1 as user_id")
    with pytest.raises(SourceError, match="not SQL"):
        stage(file, query="select 1) x; drop table t; --")
    with pytest.raises(SourceError, match="nothing"):
        stage(file, query="select * from nothing")


# --- what is refused


def test_an_error_names_what_is_missing(stage: Staging, tmp_path: Path) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table ratings (u int); create schema x; create table x.y (z int)",
    )
    with pytest.raises(SourceError, match=r"no such file: .*none\.duckdb"):
        stage(tmp_path / "none.duckdb", table="t")
    with pytest.raises(SourceError, match=r"no such file: .*none\.csv"):
        stage(tmp_path / "none.csv")
    with pytest.raises(SourceError, match=r"nothing matches .*\*\.csv"):
        stage(tmp_path / "*.csv")
    with pytest.raises(SourceError, match=r"has no table 't'; it has ratings, x\.y"):
        stage(file, table="t")
    with pytest.raises(SourceError, match="has no column 'user_id'; it has u; map it"):
        stage(file, table="ratings")
    with pytest.raises(SourceError, match="the mapping says user_id=nope"):
        stage(file, table="ratings", columns={"user_id": "nope"})
    for name, content in {
        "a.csv": "u,i\n1,2\n",
        "a.jsonl": '{"u": 1, "i": 2}\n',
    }.items():
        with pytest.raises(SourceError, match=rf"{name} has no column 'user_id'; it has"):
            stage(text(tmp_path / name, content))
    pq.write_table(pa.table({"u": [1], "i": [2]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet has no column 'user_id'; it has u, i"):
        stage(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "name", ["t; drop table t", 't" ; drop table t; --', "t' or 1=1", "main.t; drop table t"]
)
def test_names_that_try_injection_are_just_names(stage: Staging, tmp_path: Path, name: str) -> None:
    made = "create table t as select 1 as user_id, 2 as item_id, 3 as timestamp"
    file = duck(tmp_path / "s.duckdb", made)
    with pytest.raises(SourceError, match="has no table"):
        stage(file, table=name)
    with pytest.raises(SourceError, match="has no column"):
        stage(file, table="t", columns={"user_id": name})
    assert stage(file, table="t")[0][0] == 1


def test_a_table_may_have_any_name(stage: Staging, tmp_path: Path) -> None:
    made = (
        """create table "t""; drop table x; --" as """
        """select 1 as "u'""s", 2 as item_id, 3 as timestamp"""
    )
    file = duck(tmp_path / "s'x.duckdb", made)
    mapping = {"user_id": "u'\"s"}
    assert stage(file, table='t"; drop table x; --', columns=mapping)[0][:2] == (1, 2)


def test_a_mapping_names_each_column_once_and_only_ours() -> None:
    with pytest.raises(ValidationError, match="names column 'u' twice"):
        Source(uri="a.csv", columns={"user_id": "u", "item_id": "u"})
    with pytest.raises(ValidationError, match="the mapping names 'user'"):
        Source(uri="a.csv", columns={"user": "u"})


def test_two_csv_columns_of_one_name_are_refused(stage: Staging, tmp_path: Path) -> None:
    file = text(tmp_path / "a.csv", "user_id,item_id,user_id,timestamp\n1,2,3,4\n")
    with pytest.raises(SourceError, match="two columns named 'user_id'"):
        stage(file)


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("user_id", "boolean", "holds BOOLEAN; an id is an integer or text: cast"),
        ("user_id", "varchar[]", r"holds VARCHAR\[\]; an id is an integer or text: cast"),
        ("item_id", "date", "holds DATE; an id is an integer or text: cast"),
        (
            "timestamp",
            "boolean",
            "holds BOOLEAN; it has to be a timestamp.*cast it in a query",
        ),
        ("timestamp", "time", "holds TIME; it has to be a timestamp.*or write the files with such"),
    ],
)
def test_a_column_of_the_wrong_type_says_to_cast_it(
    stage: Staging, tmp_path: Path, column: str, kind: str, message: str
) -> None:
    kinds = {"user_id": "int", "item_id": "int", "timestamp": "timestamp", column: kind}
    made = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    with pytest.raises(SourceError, match=message):
        stage(duck(tmp_path / "s.duckdb", f"create table t ({made})"), table="t")


def test_integers_beyond_64_bits_are_rejected_and_not_changed(
    stage: Staging, tmp_path: Path
) -> None:
    made = (
        "create table t as select unnest([7, 18446744073709551615]::ubigint[]) as user_id, "
        "2 as item_id, 3 as timestamp"
    )
    rows = stage(duck(tmp_path / "s.duckdb", made), table="t")
    assert [(user, fault) for user, *_, fault in rows] == [
        (7, None),
        (None, "user_id is beyond 64 bits"),
    ]
    ((raw_row,),) = stage.con.execute(
        "select raw_row from staged_rows where fault is not null"
    ).fetchall()
    assert '"user_id":18446744073709551615' in raw_row


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_parquet_timestamps_of_every_unit_are_read(
    stage: Staging, tmp_path: Path, unit: str, zone: str | None
) -> None:
    timestamps = pa.array([TIMESTAMP.replace(tzinfo=None)], pa.timestamp(unit)).cast(
        pa.timestamp(unit, zone)
    )
    table = pa.table({"user_id": [1], "item_id": [2], "timestamp": timestamps})
    pq.write_table(table, tmp_path / "a.parquet")
    ((_, _, timestamp, *_),) = stage(tmp_path / "a.parquet")
    assert timestamp == TIMESTAMP


def test_parquet_files_may_lack_optional_columns_and_write_timestamps_differently(
    stage: Staging, tmp_path: Path
) -> None:
    timestamp = TIMESTAMP.replace(tzinfo=None)
    bare = pa.table({"user_id": [1], "item_id": [2]})
    for name, kind, value in (("a", "us", None), ("b", "ns", 2.5), ("c", "us", None)):
        timestamps = pa.array([timestamp], pa.timestamp(kind)).cast(
            pa.timestamp(kind, "UTC" if name == "c" else None)
        )
        table = bare.append_column("timestamp", timestamps)
        if value:
            table = table.append_column("value", pa.array([value]))
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert [row[2] for row in stage(tmp_path / "*.parquet")] == [TIMESTAMP] * 3
    values = stage.con.execute("select value from staged_rows order by rowid").fetchall()
    assert values == [(None,), (2.5,), (None,)]


def test_an_error_names_the_damaged_file(stage: Staging, tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    table = pa.table({"user_id": range(9999), "item_id": range(9999), "timestamp": range(9999)})
    pq.write_table(table, whole)
    content = whole.read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"b\.parquet can't be read"):
        stage(tmp_path / "*.parquet")
    (tmp_path / "b.parquet").write_bytes(content[:500] + b"\0" * 20_000 + content[20_500:])
    with pytest.raises(SourceError, match=r"b\.parquet"):
        stage(tmp_path / "*.parquet")
    (tmp_path / "c.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match=r"c\.parquet"):
        stage(tmp_path / "c.parquet")
    (tmp_path / "s.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(SourceError, match=r"s\.duckdb can't be opened as a DuckDB file"):
        stage(tmp_path / "s.duckdb", table="t")
    for name in ("a.jsonl.gz", "a.csv.gz"):
        zipped = gzip.compress((HEADER + "1,2,3\n" * 9999).encode())
        (tmp_path / name).write_bytes(zipped[: len(zipped) // 2])
        with pytest.raises(SourceError, match=name):
            stage(tmp_path / name)


def test_a_zipped_file_that_was_damaged_in_one_bit_is_refused(
    stage: Staging, tmp_path: Path
) -> None:
    lines = "".join(f"{n * 7919 % 99991},{n},1767225600\n" for n in range(3000))
    zipped = bytearray(gzip.compress((HEADER + lines).encode()))
    zipped[len(zipped) // 2] ^= 1
    (tmp_path / "a.csv.gz").write_bytes(zipped)
    (tmp_path / "b.csv.gz").write_text(HEADER)
    (tmp_path / "c.jsonl.gz").write_bytes(zipped)
    for name in ("a.csv.gz", "b.csv.gz", "c.jsonl.gz"):
        with pytest.raises(SourceError, match=f"{name} is truncated or damaged"):
            stage(tmp_path / name)


def test_a_name_in_capitals_is_the_same_ending(stage: Staging, tmp_path: Path) -> None:
    (tmp_path / "A.CSV.GZ").write_bytes(gzip.compress((HEADER + "1,2,1767225600\n").encode()))
    assert len(stage(tmp_path / "A.CSV.GZ")) == 1


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz", "jsonl"])
def test_a_name_with_wildcards_is_that_file(stage: Staging, tmp_path: Path, ending: str) -> None:
    for user, name in enumerate(("events1", "events[1]", "events*", "events?")):
        file, row = tmp_path / f"{name}.{ending}", {"user_id": user, "item_id": 1, "timestamp": 1}
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), file)
        elif ending == "jsonl":
            text(file, json.dumps(row))
        else:
            content = (HEADER + f"{user},1,1\n").encode()
            file.write_bytes(gzip.compress(content) if ending == "csv.gz" else content)
    assert [user for user, *_ in stage(tmp_path / f"*.{ending}")] == [2, 0, 3, 1]
    assert [user for user, *_ in stage(tmp_path / f"events[1].{ending}")] == [1]


def test_parquet_files_are_read_in_types_that_hold_them_all(stage: Staging, tmp_path: Path) -> None:
    narrow = pa.table(
        {"user_id": pa.array([7], "int32"), "timestamp": pa.array([1.5e9], "float32")}
    )
    wide = pa.table({"user_id": [2**40], "timestamp": [1500000000.5]})
    for name, table in {"a": narrow, "b": wide}.items():
        pq.write_table(table.append_column("item_id", [[1]]), tmp_path / f"{name}.parquet")
    first, (user, _, timestamp, *_) = stage(tmp_path / "*.parquet")
    assert (first[0], user, timestamp.timestamp()) == (7, 2**40, 1500000000.5)


def test_a_damaged_duckdb_file_is_not_taken_for_a_locked_one(
    stage: Staging, tmp_path: Path
) -> None:
    file = duck(tmp_path / "clock.duckdb", "create table t as select 1 as user_id")
    content = bytearray(file.read_bytes())
    content[4096 + 100] ^= 1
    file.write_bytes(content)
    with pytest.raises(SourceError, match="can't be opened as a DuckDB file") as refusal:
        stage(file, table="t")
    assert not refusal.value.transient
    assert "another process" not in str(refusal.value)


def test_a_source_may_use_our_names(stage: Staging, tmp_path: Path) -> None:
    row = "select 1 as user_id, 2 as item_id, timestamp '2026-01-01' as timestamp"
    file = duck(
        tmp_path / "s.duckdb",
        f"create schema memory; create table staged_rows as {row}; "
        "create view v as from staged_rows",
    )
    assert len(stage(file, table="v")) == 1
    assert len(stage(file, query="from staged_rows")) == 1


def test_files_that_differ_in_types_are_refused(stage: Staging, tmp_path: Path) -> None:
    for name, user in {"a": 1, "b": "x"}.items():
        table = pa.table({"user_id": [user], "item_id": [1], "timestamp": [TIMESTAMP]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: column 'user_id' holds text, but numbers"):
        stage(tmp_path / "*.parquet")


def test_empty_sources_are_refused(settings: Settings, tmp_path: Path) -> None:
    from recsys.ingest.batch import ingest
    from recsys.lake.tables import Lake

    lake = Lake.from_settings(settings)
    empty = pa.table(
        {
            "user_id": pa.array([], "int64"),
            "item_id": pa.array([], "int64"),
            "timestamp": pa.array([], "int64"),
        }
    )
    pq.write_table(empty, tmp_path / "a.parquet")
    duck(tmp_path / "s.duckdb", "create table t (user_id int, item_id int, timestamp timestamp)")
    text(tmp_path / "a.csv", HEADER)
    text(tmp_path / "b.csv", "")
    text(tmp_path / "a.jsonl", "\n")
    for name in ("a.parquet", "s.duckdb", "a.csv", "b.csv", "a.jsonl"):
        table = "t" if name.endswith("duckdb") else None
        with pytest.raises(SourceError, match="is empty"):
            ingest(lake, settings, Source(uri=str(tmp_path / name), table=table))
    assert not lake.exists("interactions"), "nothing was created for nothing"


def test_a_source_of_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(ConfigurationError, match=r"\.csv\.gz"):
        sources.kind_of(Source(uri="events.xlsx"))
    with pytest.raises(ConfigurationError, match="name a table or a query"):
        sources.kind_of(Source(uri="events.duckdb"))
    with pytest.raises(ConfigurationError, match="local file"):
        sources.kind_of(Source(uri="s3://bucket/a.duckdb", table="t"))
