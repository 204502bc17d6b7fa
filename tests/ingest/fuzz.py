"""Small sources of every kind, made at random from a seed: wild values in wild files.

The kinds are text files, Parquet files of every type that pyarrow writes, tables and queries of
DuckDB, and Delta tables; `on_s3` puts the files of one on S3.

`python -m tests.ingest.fuzz COUNT [SEED]` ingests COUNT of them, and prints the seed of each that
breaks a promise; `python -m tests.ingest.fuzz 1 SEED` does that one again.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from time import process_time
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from recsys import columns
from recsys.errors import RecsysError
from recsys.ingest import batch, sources
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import Contract, ObjectStorage, Settings, Source
from tests import servers
from tests.remembered import remember_tables

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Draw = Callable[[random.Random, int], Any]
_DAY = date(2026, 1, 1)
_EPOCH = 1_767_225_600  # 2026-01-01

IDS: dict[str, Draw] = {
    "integers": lambda r, _: r.randrange(40),
    "large integers": lambda r, _: (
        r.choice([2**53 + 1, 2**63 - 1, -(2**63), 2**40]) - r.randrange(2)
    ),
    "beyond 64 bits": lambda r, _: r.choice([2**63, 2**64 - 1, 7]),
    "floats": lambda r, _: float(r.randrange(40)),
    "fractions": lambda r, _: r.choice([1.5, 2.0, 3.0, float("nan")]),
    "text": lambda r, _: f"u{r.randrange(40)}",
    "leading zeros": lambda r, _: f"{r.randrange(40):05d}",
    "odd": lambda r, _: r.choice(["NULL", "\\N", "NA", "nan", " 7", "1e2", "guest", "", " ", None]),
    "wild": lambda r, _: r.choice(
        [
            "a,b",
            'say "x"',
            "two\nlines",
            "t\tab",
            "é",
            "e\u0301",
            "🦆",
            "a;b|c",
            "'",
            "\\",
            "x" * 2000,
        ]
    ),
    "mostly integers": lambda r, _: "guest" if r.random() < 0.03 else r.randrange(40),
    "null": lambda _r, _n: None,
    "booleans": lambda r, _: r.random() < 0.5,
    "decimals": lambda r, _: Decimal(r.randrange(40)),
    "bytes": lambda r, _: r.choice([b"u1", b"u2", "é".encode(), b"\xff"]),
}
TIMES: dict[str, Draw] = {
    "ISO": lambda r, n: f"{_DAY + timedelta(days=n % 50)}T{r.randrange(24):02}:00:00Z",
    "dates": lambda _, n: str(_DAY + timedelta(days=n % 50)),
    "seconds": lambda _, n: _EPOCH + n,
    "milliseconds": lambda _, n: (_EPOCH + n) * 1000,
    "nanoseconds": lambda _, n: (_EPOCH + n) * 10**9,
    "fractions": lambda r, n: _EPOCH + n + r.random(),
    "YYYYMMDD": lambda _, n: int(f"{_DAY + timedelta(days=n % 50):%Y%m%d}"),
    "Excel": lambda _, n: 46_000 + n / 7,
    "years": lambda r, _: r.choice([2024, 2025]),
    "odd": lambda r, _: r.choice(
        ["soon", "", None, "0000-00-00", "infinity", 0, "2026-02-30", 1e300]
    ),
    "timestamps": lambda _, n: datetime(2026, 1, 1) + timedelta(minutes=n),
    "days": lambda _, n: _DAY + timedelta(days=n % 50),
    "future": lambda _r, _n: datetime(2099, 1, 1, tzinfo=UTC),
}
VALUES: dict[str, Draw] = {
    "numbers": lambda r, _: r.random() * 5,
    "text": lambda r, _: r.choice(["4.5", "five", ""]),
    "dates": lambda _r, _n: _DAY,
    "lists": lambda _r, _n: [1, 2],
    "structs": lambda _r, _n: {"a": 1},
    "bytes": lambda _r, _n: b"\x00\xff",
    "null": lambda _r, _n: None,
}
TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
    *(pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.bool8(), pa.null()),
    *(pa.decimal32(5, 1), pa.decimal64(12, 0), pa.decimal128(38, 0), pa.decimal128(20, 4)),
    *(pa.decimal256(50, 2), pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms")),
    *(pa.time64("us"), pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ms", "UTC")),
    *(pa.timestamp("us"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("ns"), pa.duration("s")),
    *(pa.duration("ns"), pa.string(), pa.large_string(), pa.string_view(), pa.binary()),
    *(pa.large_binary(), pa.binary_view(), pa.binary(4), pa.uuid(), pa.json_()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64())),
    *(pa.list_(pa.int64()), pa.large_list(pa.string()), pa.list_(pa.int8(), 2)),
    *(pa.list_view(pa.int8()), pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])),
    pa.map_(pa.string(), pa.int64()),
]
"""Every type of Arrow that pyarrow writes to Parquet."""
NAMES = {"user_id": ["user_id", "USER_ID", "User_Id"], "item_id": ["item_id", "Item_ID"]}
NAMES |= {"timestamp": ["timestamp", "Timestamp"], "value": ["value", "VALUE"]}
NAMES |= {"event": ["event", "Event"]}


@dataclass(frozen=True)
class Made:
    """A source that was made, of which kind, and how many rows were written."""

    source: Source
    rows: int
    kind: str
    what: str


@dataclass(frozen=True)
class Rows:
    """The rows of a source to be, under its own names."""

    rows: list[dict[str, Any]]
    names: list[str]


Writer = Callable[[random.Random, Path, Rows], tuple[str, dict[str, Any], int]]


def make(folder: Path, seed: int, kinds: Sequence[str] = ()) -> Made:
    """Make a source in a folder, of one of these kinds or of any."""
    r = random.Random(seed)  # noqa: S311 - a test's
    draws = {
        "user_id": r.choice(["integers", "text", "mostly integers", r.choice(list(IDS))]),
        "item_id": r.choice(["integers", "integers", "text", r.choice(list(IDS))]),
        "timestamp": r.choice(["ISO", "seconds", "timestamps", r.choice(list(TIMES))]),
    }
    if r.random() < 0.4:
        draws["value"] = r.choice(["numbers", r.choice(list(VALUES))])
    if r.random() < 0.4:
        draws["event"] = r.choice(["text", r.choice(list(IDS))])
    if r.random() < 0.2:
        draws["more"] = r.choice(list(VALUES))
    names = {ours: r.choice(NAMES.get(ours, [ours])) for ours in draws}
    count = r.choice([0, 1, 2, 20, 60])
    rows = [
        {names[ours]: _draw(r, ours, kind, n) for ours, kind in draws.items()} for n in range(count)
    ]
    if rows and r.random() < 0.3:
        rows += r.choices(rows, k=r.randrange(1, 4))
    kind = r.choice(list(kinds or KINDS))
    options = {"drop_null_users": r.random() < 0.2}
    uri, more, written = KINDS[kind](r, folder, Rows(rows, list(names.values())))
    return Made(Source(uri=uri, **options, **more), written, kind, f"{kind} {draws} {more}")


def _draw(r: random.Random, ours: str, kind: str, n: int) -> Any:
    draws = TIMES if ours == "timestamp" else VALUES if ours in ("value", "more") else IDS
    if r.random() < 0.03:
        return None
    return draws[kind](r, n)


def _csv(ending: str) -> Writer:
    def write(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
        rows, names = made.rows, made.names
        out = io.StringIO()
        line_end = r.choice(["\n", "\n", "\r\n", "\r"])
        delimiter = "\t" if "tsv" in ending else r.choice([",", ",", ";", "|"])
        writer = csv.writer(
            out,
            delimiter=delimiter,
            lineterminator=line_end,
            quoting=r.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        )
        writer.writerow(names)
        written = 0
        for row in rows:
            writer.writerow([row[name] for name in names])
            written += 1
            chance = r.random()
            if chance < 0.01:
                writer.writerow(names)
                written += 1
            elif chance < 0.02:
                writer.writerow(["too", "few"])
                written += 1
            elif chance < 0.03:
                writer.writerow([*names, "one", "more"])
                written += 1
        content = out.getvalue().encode()
        if r.random() < 0.2:
            content = b"\xef\xbb\xbf" + content
        if rows and r.random() < 0.1:
            content = content.rstrip(line_end.encode())
        if rows and r.random() < 0.05:
            content = content.replace(b"2", b"\xff", 1)
        _write(folder / f"a.{ending}", content)
        return str(folder / f"a.{ending}"), {}, written

    return write


def _json_lines(ending: str) -> Writer:
    def write(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
        lines = []
        for row in made.rows:
            kept = {name: value for name, value in row.items() if r.random() > 0.02}
            lines.append(json.dumps(kept, default=str, ensure_ascii=r.random() < 0.5))
            if r.random() < 0.03:
                lines.append(r.choice(["{", "[1]", "null", '"x"', lines[-1][:-3], "{}"]))
        content = r.choice(["\n", "\r\n"]).join(lines) + r.choice(["", "\n", "\n\n"])
        _write(folder / f"a.{ending}", content.encode())
        return str(folder / f"a.{ending}"), {}, len(lines)

    return write


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _arrow(r: random.Random, made: Rows) -> pa.Table:
    arrays = {}
    for name in made.names:
        values = [row[name] for row in made.rows]
        try:
            array = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            array = pa.array([None if value is None else str(value) for value in values])
        narrower = {
            pa.int64(): [pa.int8(), pa.int32(), pa.uint64(), pa.float64(), pa.decimal128(38, 0)],
            pa.float64(): [pa.float32(), pa.float16()],
            pa.string(): [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
            pa.timestamp("us"): [pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC")],
        }.get(array.type, [])
        if narrower and r.random() < 0.5:
            with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
                array = array.cast(r.choice(narrower))
        arrays[name] = array
    return pa.table(arrays)


def _any_type(r: random.Random, table: pa.Table) -> pa.Table:
    """Give one column, or one more, a type of all that pyarrow writes, and values of that type."""
    kind = r.choice(TYPES)
    values = [None if r.random() < 0.1 else _value_of(r, kind, n) for n in range(table.num_rows)]
    array = pa.array(values, kind)
    name = r.choice([*table.column_names, "one more"])
    if name not in table.column_names:
        return table.append_column(name, array)
    return table.set_column(table.column_names.index(name), name, array)


def _value_of(r: random.Random, kind: pa.DataType, n: int) -> Any:
    number = r.randrange(50)
    if pa.types.is_dictionary(kind):
        return _value_of(r, kind.value_type, n)
    if kind == pa.uuid():
        return number.to_bytes(16, "big")
    if pa.types.is_boolean(kind):
        return bool(number % 2)
    if kind == pa.json_():
        return json.dumps({"a": number})
    if pa.types.is_decimal(kind):
        return Decimal(number)
    if pa.types.is_time(kind):
        return time(number % 24)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return datetime(2026, 1, 1 + n % 28, number % 24)
    if pa.types.is_duration(kind):
        return timedelta(seconds=number)
    if pa.types.is_struct(kind):
        return {"a": number, "b": ["x"]}
    if pa.types.is_map(kind):
        return [("a", number)]
    if pa.types.is_nested(kind):
        return [_value_of(r, kind.value_type, n) for _ in range(2)]
    if pa.types.is_null(kind):
        return None
    if kind == pa.binary(4):
        return r.choice([b"abcd", b"\xff\xff\xff\xff", f"{number:04}".encode()])
    if "binary" in str(kind):
        return r.choice([b"abc", b"\xff", str(number).encode()])
    if "string" in str(kind):
        return r.choice(["", f"u{number}", str(number), "2026-01-02"])
    return float(number) if pa.types.is_floating(kind) else number


def _parquet(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
    files = r.choice([1, 1, 2, 3])
    for number in range(files):
        table = _arrow(r, Rows(made.rows[number::files], made.names))
        _write_parquet(r, table, folder / f"{number}.parquet")
    return str(folder / "*.parquet"), {}, len(made.rows)


def _parquet_types(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
    table = _any_type(r, _arrow(r, made))
    if r.random() < 0.3:
        table = _any_type(r, table)
    _write_parquet(r, table, folder / "a.parquet")
    return str(folder / "a.parquet"), {}, len(made.rows)


def _write_parquet(r: random.Random, table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        compression=r.choice(["snappy", "gzip", "zstd", "brotli", "lz4", "none"]),
        version=r.choice(["1.0", "2.4", "2.6"]),
        data_page_version=r.choice(["1.0", "2.0"]),
        use_dictionary=r.random() < 0.5,
        write_statistics=r.random() < 0.8,
        store_schema=r.random() < 0.7,
        row_group_size=r.choice([None, 7]),
        use_deprecated_int96_timestamps=r.random() < 0.1,
    )


def _duckdb(*, is_query: bool) -> Writer:
    def write(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
        path = folder / "s.duckdb"
        with duckdb.connect(str(path)) as con:
            table = _arrow(r, made)
            for number, field in enumerate(table.schema):  # DuckDB takes no half floats from Arrow
                if field.type == pa.float16():
                    table = table.set_column(number, field.name, table[number].cast(pa.float32()))
            con.register("made", table)
            con.execute("create table t as from made")
        queries = ["select * from t -- all", "from t;", "with a as (from t) select * from a"]
        more = {"query": r.choice(queries)} if is_query else {"table": "t"}
        return str(path), more, len(made.rows)

    return write


def _delta(r: random.Random, folder: Path, made: Rows) -> tuple[str, dict[str, Any], int]:
    table, uri = _arrow(r, made), str(folder / "table")
    try:
        write_deltalake(uri, table)
    except Exception:  # of a type that Delta has not, whatever deltalake raises
        strings = pa.schema([(name, pa.string()) for name in made.names])
        rows = [[row[name] for row in made.rows] for name in made.names]
        texts = [[None if v is None else str(v) for v in values] for values in rows]
        table = pa.table([pa.array(values, pa.string()) for values in texts], schema=strings)
        shutil.rmtree(uri, ignore_errors=True)
        write_deltalake(uri, table)
    more = r.choice(["", "append", "overwrite"])
    if more:
        write_deltalake(uri, table, mode=more)
    return uri, {}, len(made.rows) * (2 if more == "append" else 1)


KINDS: dict[str, Writer] = {
    **{ending: _csv(ending) for ending in ("csv", "tsv", "csv.gz", "tsv.gz")},
    **{ending: _json_lines(ending) for ending in ("jsonl", "ndjson", "json", "jsonl.gz")},
    "parquet": _parquet,
    "parquet of any type": _parquet_types,
    "DuckDB table": _duckdb(is_query=False),
    "DuckDB query": _duckdb(is_query=True),
    "Delta": _delta,
}
FILES = [kind for kind in KINDS if not kind.startswith(("DuckDB", "Delta"))]


def on_s3(made: Made, endpoint: str, bucket: str) -> Made:
    """Put the files of a source into a new bucket; return the source that is there."""
    store = servers.client(endpoint)
    store.create_bucket(Bucket=bucket)
    pattern = Path(made.source.uri)
    for path in pattern.parent.glob(pattern.name):
        store.put_object(Bucket=bucket, Key=f"data/{path.name}", Body=path.read_bytes())
    source = made.source.model_copy(update={"uri": f"s3://{bucket}/data/{pattern.name}"})
    return replace(made, source=source, kind=f"{made.kind} on S3")


def lenient(folder: Path, endpoint: str | None = None) -> Settings:
    """Return settings of a lake in a folder, whose contract refuses no batch."""
    return Settings(
        lake=str(folder / "lake"),
        memory_limit="1GB",
        threads=1,
        s3=ObjectStorage(endpoint_url=endpoint),
        contract=Contract(
            max_rejected_share=1.0, max_row_count_change=1e9, max_span=timedelta(days=36500)
        ),
    )


def ingest_made(made: Made, folder: Path, endpoint: str | None = None) -> str:
    """Ingest a source into a new lake, twice; say how it ended.

    Args:
        made: the source.
        folder: for the lake.
        endpoint: the S3 that has the source's files.

    Raises:
        AssertionError: rows were lost or doubled, or the second run changed something.
        Exception: whatever is not a refusal.
    """
    settings = lenient(folder, endpoint)
    lake = Lake.from_settings(settings)
    with lake.write_lock("the fuzz"):  # as a command does; each table is opened once
        try:
            first = batch.ingest(lake, settings, made.source, now=NOW)
        except RecsysError:
            return "refused"
        return _check(lake, settings, made, first)


def _check(lake: Lake, settings: Settings, made: Made, first: batch.IngestResult) -> str:
    assert first.rows_in == made.rows, f"{first.rows_in} rows read of {made.rows}"
    told = first.accepted + first.quarantined + first.duplicates + first.anonymous
    assert told == first.rows_in, f"{told} of {first.rows_in} rows are accounted for"
    if first.anonymous == first.rows_in:  # there is nothing to make a lake for
        assert batch.ingest(lake, settings, made.source, now=NOW).status == batch.NOTHING_NEW
        return "without users"
    tables = {name: lake.rows(name) for name in (columns.INTERACTIONS, columns.QUARANTINE)}
    assert tables[columns.INTERACTIONS].num_rows == first.accepted
    assert tables[columns.QUARANTINE].num_rows == first.quarantined
    for row in tables[columns.QUARANTINE]["row"].to_pylist():
        json.loads(row)
    check_row_counts(lake)
    versions = {name: lake.version(name) for name in tables}
    second = batch.ingest(lake, settings, made.source, now=NOW)
    assert second.status == batch.NOTHING_NEW
    assert versions == {name: lake.version(name) for name in tables}
    return "accepted" if first.accepted else "rejected"


Ends = Counter[tuple[str, str]]
"""(kind, how it ended) -> how many sources."""


def no_contract(*_: object) -> list[Any]:
    """Stand in for Great Expectations, which takes ten times as long as all else together."""
    return []


def make_cheap(patch: pytest.MonkeyPatch) -> None:
    """Let all that work in memory use one DuckDB, emptied each time: to start one takes 20 ms.

    And leave out what takes longer than all else together and concerns no source of the fuzz.
    """
    patch.setattr(batch, "check_contract", no_contract)
    start = duckdb.connect
    database = start(":memory:", config={"threads": "1", "memory_limit": "1GB"})
    database.execute("set autoinstall_known_extensions = false")

    def connect(file: str | Path = ":memory:", **options: Any) -> duckdb.DuckDBPyConnection:
        if file != ":memory:":
            return start(file, **options)
        con = database.cursor()
        for (table,) in con.sql("select table_name from duckdb_tables()").fetchall():
            con.execute(f'drop table memory.main."{table}"')
        for (view,) in con.sql(
            "select view_name from duckdb_views() where not internal"
        ).fetchall():
            con.execute(f'drop view memory.main."{view}"')
        return con

    patch.setattr(duckdb, "connect", connect)
    patch.setattr(sources, "confine_source", lambda *_: None)  # it is for good
    patch.setattr(Lake, "retype", lambda *_: None)  # each lake is new, and of the right types


def ingest_seeds(seeds: Iterable[int], endpoint: str | None = None) -> tuple[Ends, list[str]]:
    """Ingest the sources of seeds; return (kind, end) -> how many, and what broke a promise."""
    ends: Ends = Counter()
    broken = []
    for seed in seeds:
        folder, made = Path(tempfile.mkdtemp(prefix="recsys-fuzz-")), None
        try:
            made = make(folder, seed, FILES if endpoint else ())
            if endpoint:
                made = on_s3(made, endpoint, f"seed-{seed}")
            ends[made.kind, ingest_made(made, folder, endpoint)] += 1
        except Exception as error:  # a defect, whatever it is
            last = traceback.format_exc().strip().splitlines()[-4:]
            of = made.what if made else "it could not be made"
            what = f"seed {seed}: {type(error).__name__}: {error}\n  {of}\n  {last}"
            print(what, flush=True)
            broken.append(what)
        finally:
            shutil.rmtree(folder)
    return ends, broken


def main(count: int, first_seed: int) -> int:
    """Ingest sources of consecutive seeds; return how many broke a promise."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        remember_tables(patch, Path(folder))
        make_cheap(patch)
        started = process_time()
        ends, broken = ingest_seeds(range(first_seed, first_seed + count))
    seconds = process_time() - started
    for kind in KINDS:
        print(kind, {end: many for (of, end), many in sorted(ends.items()) if of == kind})
    print(
        f"{count} sources, {len(broken)} broken; {seconds / count * 1000:.0f} ms of CPU each",
        flush=True,
    )
    return len(broken)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(bool(main(numbers[0], numbers[1] if len(numbers) > 1 else 0)))
