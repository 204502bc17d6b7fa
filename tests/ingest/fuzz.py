"""Small sources of every kind, made at random from a seed: wild values in wild files.

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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.errors import RecsysError
from recsys.ingest import batch
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import Contract, Settings, Source

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
NAMES = {"user_id": ["user_id", "USER_ID", "User_Id"], "item_id": ["item_id", "Item_ID"]}
NAMES |= {"timestamp": ["timestamp", "Timestamp"], "value": ["value", "VALUE"]}
NAMES |= {"event": ["event", "Event"]}


@dataclass(frozen=True)
class Made:
    """A source that was made, and how many rows were written."""

    source: Source
    rows: int
    what: str


def make(folder: Path, seed: int) -> Made:
    """Make a source in a folder."""
    r = random.Random(seed)  # noqa: S311 - a test's
    kinds = {
        "user_id": r.choice(list(IDS)),
        "item_id": r.choice(["integers", "text", r.choice(list(IDS))]),
        "timestamp": r.choice(["ISO", "seconds", r.choice(list(TIMES))]),
    }
    if r.random() < 0.4:
        kinds["value"] = r.choice(list(VALUES))
    if r.random() < 0.3:
        kinds["event"] = r.choice(list(IDS))
    if r.random() < 0.2:
        kinds["more"] = r.choice(list(VALUES))
    names = {ours: r.choice(NAMES.get(ours, [ours])) for ours in kinds}
    count = r.choice([0, 1, 2, 20, 60])
    rows = [
        {names[ours]: _draw(r, ours, kind, n) for ours, kind in kinds.items()} for n in range(count)
    ]
    if rows and r.random() < 0.3:
        rows += r.choices(rows, k=r.randrange(1, 4))
    form = r.choice([_csv, _csv, _json_lines, _parquet, _duckdb])
    options = {"drop_null_users": r.random() < 0.2}
    uri, more, written = form(r, folder, rows, list(names.values()))
    what = f"{form.__name__[1:]} {Path(uri).name} {kinds} {more}"
    return Made(Source(uri=uri, **options, **more), written, what)


def _draw(r: random.Random, ours: str, kind: str, n: int) -> Any:
    draws = TIMES if ours == "timestamp" else VALUES if ours in ("value", "more") else IDS
    if r.random() < 0.03:
        return None
    return draws[kind](r, n)


def _csv(
    r: random.Random, folder: Path, rows: list[dict[str, Any]], names: list[str]
) -> tuple[str, dict[str, Any], int]:
    ending = r.choice(["csv", "tsv", "csv.gz"])
    out = io.StringIO()
    line_end = r.choice(["\n", "\n", "\r\n", "\r"])
    delimiter = "\t" if ending == "tsv" else r.choice([",", ",", ";", "|"])
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
    path = folder / f"a.{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    return str(path), {}, written


def _json_lines(
    r: random.Random, folder: Path, rows: list[dict[str, Any]], _names: list[str]
) -> tuple[str, dict[str, Any], int]:
    lines = []
    for row in rows:
        kept = {name: value for name, value in row.items() if r.random() > 0.02}
        lines.append(json.dumps(kept, default=str, ensure_ascii=r.random() < 0.5))
        if r.random() < 0.03:
            lines.append(r.choice(["{", "[1]", "null", '"x"', lines[-1][:-3], "{}"]))
    content = r.choice(["\n", "\r\n"]).join(lines)
    ending = r.choice(["jsonl", "ndjson", "json", "jsonl.gz"])
    path = folder / f"a.{ending}"
    data = (content + r.choice(["", "\n", "\n\n"])).encode()
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    return str(path), {}, len(lines)


def _arrow(r: random.Random, rows: list[dict[str, Any]], names: list[str]) -> pa.Table:
    arrays = {}
    for name in names:
        values = [row[name] for row in rows]
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


def _parquet(
    r: random.Random, folder: Path, rows: list[dict[str, Any]], names: list[str]
) -> tuple[str, dict[str, Any], int]:
    files = r.choice([1, 1, 2, 3])
    for number in range(files):
        table = _arrow(r, rows[number::files], names)
        path = folder / f"{number}.parquet"
        try:
            pq.write_table(table, path)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pq.write_table(pa.table({name: table[name].cast(pa.string()) for name in names}), path)
    return str(folder / "*.parquet"), {}, len(rows)


def _duckdb(
    r: random.Random, folder: Path, rows: list[dict[str, Any]], names: list[str]
) -> tuple[str, dict[str, Any], int]:
    path = folder / "s.duckdb"
    with duckdb.connect(str(path)) as con:
        table = _arrow(r, rows, names)
        for number, field in enumerate(table.schema):  # DuckDB takes no half floats from Arrow
            if field.type == pa.float16():
                table = table.set_column(number, field.name, table[number].cast(pa.float32()))
        con.register("made", table)
        con.execute("create table t as from made")
    return str(path), r.choice([{"table": "t"}, {"query": "select * from t -- all"}]), len(rows)


def ingest_made(made: Made, folder: Path) -> str:
    """Ingest a source into a new lake, twice; say how it ended.

    Raises:
        AssertionError: rows were lost or doubled, or the second run changed something.
        Exception: whatever is not a refusal.
    """
    settings = Settings(
        lake=str(folder / "lake"),
        memory_limit="1GB",
        threads=1,
        contract=Contract(
            max_rejected_share=1.0, max_row_count_change=1e9, max_span=timedelta(days=36500)
        ),
    )
    lake = Lake.from_settings(settings)
    try:
        first = batch.ingest(lake, settings, made.source, now=NOW)
    except RecsysError:
        return "refused"
    assert first.rows_in == made.rows, f"{first.rows_in} rows read of {made.rows}"
    told = first.accepted + first.quarantined + first.duplicates + first.anonymous
    assert told == first.rows_in, f"{told} of {first.rows_in} rows are accounted for"
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


def no_contract(*_: object) -> list[Any]:
    """Stand in for Great Expectations, which takes ten times as long as all else together."""
    return []


def main(count: int, first_seed: int) -> int:
    """Ingest sources of consecutive seeds; return how many broke a promise."""
    batch.check_contract = no_contract
    ends: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + count):
        folder = Path(tempfile.mkdtemp(prefix="recsys-fuzz-"))
        try:
            made = make(folder, seed)
            ends[ingest_made(made, folder)] += 1
        except Exception as error:  # a defect, whatever it is
            ends["broken"] += 1
            last = traceback.format_exc().strip().splitlines()[-4:]
            print(
                f"seed {seed}: {type(error).__name__}: {error}\n  {made.what}\n  {last}", flush=True
            )
        finally:
            shutil.rmtree(folder)
    print(f"{count} sources: {dict(ends)}", flush=True)
    return ends["broken"]


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(bool(main(numbers[0], numbers[1] if len(numbers) > 1 else 0)))
