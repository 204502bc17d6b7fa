from __future__ import annotations

import gzip
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.errors import ConfigurationError, ContractError, DamagedError, LakeError, SourceError
from recsys.ingest.batch import ingest
from recsys.ingest.commit import recover
from recsys.ingest.items import ingest_items
from recsys.lake.tables import Lake
from recsys.settings import Contract, ItemSource, Settings, Source
from tests import lakes
from tests.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = (columns.INTERACTIONS, columns.QUARANTINE, columns.BATCHES, columns.QUALITY_RESULTS)
# Columns that hold the time of writing, which differs from run to run.
CLOCKS = {"finished"}


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def rows_of(lake: Lake, table: str) -> list[dict[str, Any]]:
    rows = lake.open(table).to_pyarrow_table().to_pylist()
    return sorted(
        ({name: value for name, value in row.items() if name not in CLOCKS} for row in rows),
        key=str,
    )


def everything(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    return {table: rows_of(lake, table) for table in TABLES}


def versions(lake: Lake) -> dict[str, int]:
    return {table: lake.version(table) for table in TABLES}


def parquet(path: Path, rows: Sequence[tuple[Any, Any, Any]]) -> Path:
    users, items, timestamps = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": timestamps}), path)
    return path


def duck(path: Path, statement: str) -> Path:
    with duckdb.connect(str(path)) as con:
        con.execute(statement)
    return path


def good(count: int, first: int = 0) -> list[tuple[int, int, datetime]]:
    return [(n % 7, n % 5, minute(n)) for n in range(first, first + count)]


def lenient(settings: Settings, **contract: Any) -> Settings:
    limits = {"max_rejected_share": 1.0, "max_row_count_change": 1e9, **contract}
    return settings.model_copy(update={"contract": Contract(**limits)})


def ingest_source(lake: Lake, settings: Settings, uri: object, **source: Any) -> Any:
    return ingest(lake, settings, Source(uri=str(uri), **source), now=NOW)


# --- incremental and idempotent


def test_a_second_ingest_reads_nothing_and_commits_nothing(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = parquet(tmp_path / "a.parquet", good(20))
    first = ingest_source(lake, settings, file)
    assert (first.status, first.rows_in, first.accepted, first.objects) == ("accepted", 20, 20, 1)
    assert first.interactions_version == lake.version(columns.INTERACTIONS)
    before = versions(lake)
    again = ingest_source(lake, settings, file)
    assert (again.status, again.batch_id) == ("nothing new", None)
    assert (again.accepted, again.rows_in) == (0, 0)
    assert versions(lake) == before


@pytest.mark.slow
def test_only_the_new_object_of_a_glob_is_read(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    parquet(tmp_path / "a.parquet", good(20))
    ingest_source(lake, settings, tmp_path / "*.parquet")
    parquet(tmp_path / "b.parquet", good(15, first=20))
    second = ingest_source(lake, settings, tmp_path / "*.parquet")
    assert (second.rows_in, second.accepted, second.objects) == (15, 15, 1)
    assert lake.open(columns.INTERACTIONS).to_pyarrow_table().num_rows == 35


@pytest.mark.slow
def test_a_file_that_was_ingested_by_itself_is_not_ingested_again_by_a_pattern(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    parquet(tmp_path / "a.parquet", good(10))
    parquet(tmp_path / "b.parquet", good(10, 10))
    ingest_source(lake, settings, tmp_path / "a.parquet")
    assert ingest_source(lake, settings, tmp_path / "*.parquet").rows_in == 10
    assert ingest_source(lake, settings, tmp_path / "*.parquet").status == "nothing new"


@pytest.mark.slow
def test_only_the_new_rows_of_a_grown_table_are_ingested(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select i % 7 as user_id, i % 5 as item_id, 1767225600 + i as timestamp "
        "from range(100) t(i)",
    )
    assert ingest_source(lake, settings, file, table="t").accepted == 100
    before = versions(lake)
    assert ingest_source(lake, settings, file, table="t").status == "nothing new"
    assert versions(lake) == before
    duck(file, "insert into t values (1, 1, 1767999999), (null, 1, 1767999999)")
    grown = ingest_source(lake, settings, file, table="t")
    assert (grown.rows_in, grown.accepted, grown.quarantined, grown.duplicates) == (102, 1, 1, 100)
    before = versions(lake)
    again = ingest_source(lake, settings, file, table="t")
    assert (again.status, again.duplicates) == ("nothing new", 101)
    assert versions(lake) == before, "a row already in quarantine is not put there again"


@pytest.mark.slow
def test_a_table_that_shrank_to_rows_in_the_lake_is_refused(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    row = "select i % 7 as user_id, i as item_id, 1767225600 + i as timestamp"
    file = duck(tmp_path / "s.duckdb", f"create table t as {row} from range(0) t(i)")
    for night in range(3):
        duck(file, f"insert into t {row} from range({night * 10}, {300 + night * 10}) t(i)")
        duck(file, "create or replace table t as select distinct * from t")
        assert ingest_source(lake, settings, file, table="t").status == "accepted"
    before = versions(lake)
    duck(file, "delete from t where item_id >= 200")
    assert ingest_source(lake, settings, file, table="t").status == "nothing new"
    assert versions(lake) == before, "a quiet night commits nothing"
    duck(file, "delete from t where item_id >= 9")
    interactions = rows_of(lake, columns.INTERACTIONS)
    for _ in range(2):
        with pytest.raises(ContractError, match=r"change of row count .*34\.4"):
            ingest_source(lake, settings, file, table="t")
    assert rows_of(lake, columns.INTERACTIONS) == interactions
    statuses = [row["status"] for row in rows_of(lake, columns.BATCHES)]
    assert sorted(set(statuses)) == ["accepted", "refused"]
    assert ingest_source(lake, lenient(settings), file, table="t").status == "nothing new"


@pytest.mark.slow
def test_an_unchanged_table_is_not_refused_however_it_grew(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    row = "select 1 as user_id, i as item_id, 1767225600 + i as timestamp"
    for rows in (10, 12, 3000):
        file = duck(
            tmp_path / "s.duckdb", f"create or replace table t as {row} from range({rows}) t(i)"
        )
        assert ingest_source(lake, settings, file, table="t").status == "accepted"
    assert ingest_source(lake, settings, file, table="t").status == "nothing new"


@pytest.mark.slow
def test_rows_deleted_from_the_lake_come_back_when_the_source_still_has_them(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select 1 as user_id, i as item_id, 1767225600 + i as timestamp "
        "from range(9) t(i)",
    )
    first = ingest_source(lake, settings, file, table="t")
    lake.delete(columns.INTERACTIONS, "true")
    second = ingest_source(lake, settings, file, table="t")
    assert second.accepted == 9
    assert second.batch_id != first.batch_id


@pytest.mark.slow
@pytest.mark.parametrize("deleted", ["a", "b"])
def test_a_batch_that_was_deleted_whole_is_ingested_again(
    lake: Lake, settings: Settings, tmp_path: Path, deleted: str
) -> None:
    batch_ids = {}
    for first, name in enumerate("ab"):
        parquet(tmp_path / f"{name}.parquet", good(20, first=20 * first))
        batch_ids[name] = ingest_source(lake, settings, tmp_path / "*.parquet").batch_id
    for table in (columns.INTERACTIONS, columns.BATCHES):
        lake.delete(table, f"batch_id = '{batch_ids[deleted]}'")
    again = ingest_source(lake, settings, tmp_path / "*.parquet")
    assert (again.status, again.accepted) == ("accepted", 20)
    assert len(rows_of(lake, columns.INTERACTIONS)) == 40
    assert ingest_source(lake, settings, tmp_path / "*.parquet").status == "nothing new"


@pytest.mark.slow
def test_a_batch_is_named_by_what_it_holds(settings: Settings, tmp_path: Path) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select 1 as user_id, i as item_id, 1767225600 + i as timestamp "
        "from range(9) t(i)",
    )
    both = [Lake(str(tmp_path / name), settings.s3) for name in ("one", "two")]
    names = {ingest_source(lake, settings, file, table="t").batch_id for lake in both}
    assert len(names) == 1


def test_source_order_breaks_ties_across_objects(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    parquet(tmp_path / "b.parquet", [(1, 30, START), (1, 20, START)])
    parquet(tmp_path / "a.parquet", [(1, 50, START), (1, 40, START)])
    ingest_source(lake, settings, tmp_path / "*.parquet")
    rows = sorted(rows_of(lake, columns.INTERACTIONS), key=lambda row: row["source_row"])
    assert [row["item_id"] for row in rows] == [50, 40, 30, 20]


# --- quarantine


def test_quarantine_holds_each_bad_row_with_all_its_reasons(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.parquet"
    long = "x" * 10_000
    rows = [
        ("u", "i", minute(0)),
        (None, "i", minute(1)),
        ("", "i", minute(2)),
        (" \t\n\u3000", "i", minute(3)),
        (long, "i", minute(4)),
        ("u", None, minute(5)),
        ("u", "", None),
        ("u", "i", NOW + timedelta(days=2)),
        ("u", "i", minute(0)),
        ("u", "i", NOW + timedelta(hours=23)),
        ("é" * 512, "i", minute(9)),
        ("é" * 513, "i", minute(9)),
    ]
    parquet(file, rows)
    result = ingest_source(lake, lenient(settings), file)
    assert (result.rows_in, result.accepted, result.quarantined) == (12, 3, 8)
    assert result.duplicates == 1, "row 9 is row 1 again"
    rows = lake.open(columns.QUARANTINE).to_pyarrow_table().to_pylist()
    assert [(row["source_row"], row["reasons"]) for row in rows] == [
        (2, ["user_id is null"]),
        (3, ["user_id is empty"]),
        (4, ["user_id is empty"]),
        (5, ["user_id is too long"]),
        (6, ["item_id is null"]),
        (7, ["item_id is empty", "timestamp is null"]),
        (8, ["timestamp is in the future"]),
        (12, ["user_id is too long"]),
    ]
    assert {row["object"] for row in rows} == {str(file)}
    assert {row["source"] for row in rows} == {str(file)}
    assert {row["batch_id"] for row in rows} == {result.batch_id}
    assert json.loads(rows[3]["row"])["user_id"] == long, "nothing is lost"
    assert json.loads(rows[0]["row"]) == {
        "user_id": None,
        "item_id": "i",
        "timestamp": "2026-01-01 00:01:00+00",
    }


def test_quarantined_rows_have_the_names_and_values_of_the_source(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select * from (values (1, 2, 'yesterday', 'view', 4.5), "
        """(1, 2, '2026-01-01', 'view', 4.5)) t("the user", item, "wh""en", kind, stars)""",
    )
    mapping = {"user_id": "the user", "item_id": "item", "timestamp": 'wh"en', "event": "kind"}
    ingest_source(lake, lenient(settings), file, table="t", columns={**mapping, "value": "stars"})
    (row,) = rows_of(lake, columns.QUARANTINE)
    assert row["reasons"] == ["timestamp is unparsable"]
    assert json.loads(row["row"]) == {
        "the user": 1,
        "item": 2,
        'wh"en': "yesterday",
        "kind": "view",
        "stars": 4.5,
    }
    (interaction,) = rows_of(lake, columns.INTERACTIONS)
    assert (interaction["event"], interaction["value"], interaction["timestamp"]) == (
        "view",
        4.5,
        START,
    )


def test_the_first_of_several_equal_rows_is_accepted_with_its_value(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    lines = [f"1,2,2026-01-01,{value}" for value in (5, 4, 3)]
    file.write_text("\n".join(["user_id,item_id,timestamp,value", *lines, ""]))
    ingest_source(lake, lenient(settings), file)
    (interaction,) = rows_of(lake, columns.INTERACTIONS)
    assert interaction["value"] == 5.0
    quarantined = rows_of(lake, columns.QUARANTINE)
    assert [(row["source_row"], row["reasons"]) for row in quarantined] == [
        (3, ["duplicate in batch"]),
        (4, ["duplicate in batch"]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["one by one", "by a pattern"])
def test_exports_that_overlap_are_one_case_however_they_are_read(
    settings: Settings, tmp_path: Path, order: str
) -> None:
    """Ten files of seven days each, a day apart: sixteen days, of which most come seven times."""
    settings = settings.model_copy(update={"lake": str(tmp_path / order)})
    lake = Lake.from_settings(settings)
    days = [f"{number % 5},{number},2026-01-{number + 1:02}" for number in range(16)]
    for first in range(10):
        lines = ["user_id,item_id,timestamp", *days[first : first + 7], ""]
        (tmp_path / f"{first}.csv").write_text("\n".join(lines))
    files = [tmp_path / "*.csv"]
    if order == "one by one":
        files = sorted(tmp_path.glob("*.csv"))
    results = [ingest_source(lake, settings, file) for file in files]
    assert sum(result.accepted for result in results) == 16
    assert sum(result.duplicates for result in results) == 70 - 16
    assert sorted(lake.rows(columns.INTERACTIONS)["item_id"].to_pylist()) == [*range(16)]
    assert not lake.rows(columns.QUARANTINE).num_rows
    assert ingest_source(lake, settings, tmp_path / "*.csv").status == "nothing new"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["one by one", "together"])
@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (["view", "buy", "view"], ["buy", "view"]),
        (["view", "", "buy"], ["buy", "view"]),
        (["", "view", "buy"], ["None"]),
    ],
)
def test_two_events_of_one_moment_are_two_interactions(
    settings: Settings, tmp_path: Path, order: str, events: list[str], expected: list[str]
) -> None:
    settings = lenient(settings.model_copy(update={"lake": str(tmp_path / order)}))
    lake = Lake.from_settings(settings)
    lines = [f"1,2,2026-01-01,{event}\n" for event in events]
    batches = lines if order == "one by one" else ["".join(lines)]
    for number, batch_lines in enumerate(batches):
        file = tmp_path / f"{number}.csv"
        file.write_text(f"user_id,item_id,timestamp,event\n{batch_lines}")
        ingest_source(lake, settings, file)
    assert sorted(map(str, lake.rows(columns.INTERACTIONS)["event"].to_pylist())) == expected


def test_rows_that_are_all_bad_go_to_quarantine_when_the_contract_allows(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("user_id,item_id,timestamp\n1,2,never\n3,4,never\n")
    result = ingest_source(lake, lenient(settings), file)
    assert (result.status, result.accepted, result.quarantined) == ("accepted", 0, 2)
    before = versions(lake)
    assert ingest_source(lake, lenient(settings), file).status == "nothing new"
    assert versions(lake) == before


# --- ids, unchanged


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2, 2**63 - 1, -5],
        ["o'neill", 'say "hi"', "a;b; drop table interactions;--", "two\nlines", "🦆👩‍👩‍👧", "007"],
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "duckdb", "csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_ids_come_out_as_they_went_in(
    lake: Lake, settings: Settings, tmp_path: Path, ids: list[Any], kind: str
) -> None:
    table = pa.table(
        {"user_id": ids, "item_id": ids[::-1], "timestamp": [minute(n) for n in range(len(ids))]}
    )
    file = tmp_path / f"a.{kind}"
    _write(file, kind, table)
    result = ingest_source(lake, settings, file, table="t" if kind == "duckdb" else None)
    assert (result.accepted, result.quarantined) == (len(ids), 0)
    rows = lake.open(columns.INTERACTIONS).to_pyarrow_table().sort_by("source_row")
    assert rows["user_id"].to_pylist() == ids
    assert rows["item_id"].to_pylist() == ids[::-1]
    assert rows["timestamp"].to_pylist() == table["timestamp"].to_pylist()


def _write(file: Path, kind: str, table: pa.Table) -> None:
    if kind == "parquet":
        pq.write_table(table, file)
        return
    with duckdb.connect(str(file) if kind == "duckdb" else ":memory:") as con:
        con.register("rows", table)
        if kind == "duckdb":
            con.execute("create table t as select * from rows")
            return
        plain = file.with_name("plain")
        form = "csv, header" if kind.startswith("csv") else "json"
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"copy rows to '{plain}' (format {form})")
    content = plain.read_bytes()
    file.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)


def test_uuid_and_enum_ids_become_text(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create type colour as enum ('red', 'blue'); create table t as select "
        "uuid '6b1cf5a4-5b1e-4c6e-9d2f-0123456789ab' as user_id, 'red'::colour as item_id, "
        "timestamp '2026-01-01' as timestamp",
    )
    ingest_source(lake, settings, file, table="t")
    (row,) = rows_of(lake, columns.INTERACTIONS)
    assert (row["user_id"], row["item_id"]) == ("6b1cf5a4-5b1e-4c6e-9d2f-0123456789ab", "red")


def test_a_source_with_another_id_type_than_the_lake_is_refused(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    other = parquet(tmp_path / "b.parquet", [("u", "i", START)])
    before = everything(lake)
    with pytest.raises(SourceError, match="user_id of the source holds text, but the lake holds"):
        ingest_source(lake, settings, other)
    after = everything(lake)
    (refusal,) = [row for row in after["quality_results"] if row not in before["quality_results"]]
    assert (refusal["suite"], refusal["status"]) == ("source", "failed")
    after["quality_results"].remove(refusal)
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_stray_id_in_a_text_file_does_not_refuse_the_batch(
    lake: Lake, settings: Settings, tmp_path: Path, kind: str
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    rows = [*good(18, first=50), ("x7", 1, minute(1)), (1, "y 8", minute(2)), (None, 3, minute(3))]
    file = tmp_path / f"b.{kind}"
    if kind == "csv":
        lines = [
            f"{'' if user is None else user},{item},{timestamp}" for user, item, timestamp in rows
        ]
        file.write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    else:
        named = [dict(zip(("user_id", "item_id", "timestamp"), row, strict=True)) for row in rows]
        file.write_text("\n".join(json.dumps(row, default=str) for row in named))
    result = ingest_source(lake, lenient(settings), file)
    assert (result.accepted, result.quarantined) == (18, 3)
    rows = lake.open(columns.QUARANTINE).to_pyarrow_table().sort_by("source_row").to_pylist()
    assert [row["reasons"] for row in rows] == [
        ["user_id is not an integer"],
        ["item_id is not an integer"],
        ["user_id is null"],
    ]
    assert [json.loads(row["row"])["user_id"] for row in rows[::2]] == ["x7", None]
    assert lake.schema(columns.INTERACTIONS).field("user_id").type == pa.int64()
    before = versions(lake)
    assert ingest_source(lake, lenient(settings), file).status == "nothing new"
    assert versions(lake) == before


@pytest.mark.slow
def test_a_text_file_of_text_ids_breaks_the_contract_of_a_lake_of_integers(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    before = rows_of(lake, columns.INTERACTIONS)
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\nx,2,2026-01-01\ny,3,2026-01-01\n")
    with pytest.raises(ContractError, match="user_id is not an integer: 2"):
        ingest_source(lake, settings, tmp_path / "b.csv")
    assert rows_of(lake, columns.INTERACTIONS) == before


@pytest.mark.slow
def test_csv_digits_stay_text_where_the_lake_holds_text(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", [("u", "i", START)]))
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\n12,34,2026-01-01\n")
    ingest_source(lake, settings, tmp_path / "b.csv")
    assert {row["user_id"] for row in rows_of(lake, columns.INTERACTIONS)} == {"u", "12"}


@pytest.mark.slow
def test_a_refused_first_batch_does_not_fix_the_type_of_ids(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nx,y,never\nz,w,never\n")
    with pytest.raises(ContractError):
        ingest_source(lake, settings, tmp_path / "a.csv")
    ingest_source(lake, settings, parquet(tmp_path / "b.parquet", good(5)))
    assert {type(row["user_id"]) for row in rows_of(lake, columns.INTERACTIONS)} == {int}
    assert lake.schema(columns.RECOMMENDATIONS).field("item_id").type == pa.int64()


# --- kills


class Killed(BaseException):
    pass


class Dying(Lake):
    """A lake whose process dies right before or after its n-th commit."""

    def __init__(self, lake: Lake, commits: int, after: bool) -> None:
        super().__init__(lake.root, lake.storage)
        self.left, self.after = commits, after

    def append(self, *arguments: Any, **options: Any) -> int:
        return self._counted(super().append, *arguments, **options)

    def replace(self, *arguments: Any, **options: Any) -> int:
        return self._counted(super().replace, *arguments, **options)

    def _counted(self, write: Callable[..., int], *arguments: Any, **options: Any) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        version = write(*arguments, **options)
        if self.left == 0:
            raise Killed
        return version


MADE = (
    "create or replace table t as select i % 7 as user_id, i as item_id, "
    "1767225600 + i as timestamp from range(50) t(i); insert into t values (null, 1, 1)"
)
GREW = (
    "insert into t select 1, 100 + i, 1767900000 + i from range(9) t(i); "
    "insert into t values (5, null, 2), (1, 100, 1767900000)"
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source that all of these lakes share: its path is in their rows."""
    return tmp_path_factory.mktemp("shop") / "s.duckdb"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> dict[str, Path]:
    """Folders of a lake: after one undisturbed night, after two, after both nights at once."""
    roots = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "at_once")}
    for name, statements in {
        "one": [MADE],
        "two": [MADE, GREW],
        "at_once": [f"{MADE}; {GREW}"],
    }.items():
        for statement in statements:
            settings = Settings(lake=str(roots[name] / "lake"))
            ingest_source(Lake.from_settings(settings), settings, duck(shop, statement), table="t")
    return roots


# A kill after a commit and before the next one are one kill.
KILLS = [(1, False), (2, False), (3, False), (4, False), (4, True)]
KILL_NAMES = [f"{'after' if after else 'before'} {commit}" for commit, after in KILLS]


@pytest.mark.slow
@pytest.mark.parametrize(("commits", "after"), sample(KILLS, 1, 3), ids=KILL_NAMES)
@pytest.mark.parametrize("changes", [False, True], ids=["same source", "changed source"])
def test_after_a_kill_at_any_commit_a_rerun_ends_as_if_nothing_had_happened(
    nights: dict[str, Path],
    shop: Path,
    settings: Settings,
    tmp_path: Path,
    commits: int,
    after: bool,
    changes: bool,
) -> None:
    duck(shop, MADE)
    if not changes:
        shutil.copytree(nights["one"], tmp_path, dirs_exist_ok=True)
        duck(shop, GREW)
    lake = Lake.from_settings(settings)
    with pytest.raises(Killed):
        ingest_source(Dying(lake, commits, after), settings, shop, table="t")
    if changes:
        duck(shop, GREW)
    ingest_source(lake, settings, shop, table="t")

    landed = commits == 4
    # A batch that landed stands, so that a change after it makes a second one.
    expected = nights["two" if landed or not changes else "at_once"]
    assert everything(lake) == everything(Lake(str(expected / "lake"), settings.s3))
    before = versions(lake)
    recover(lake)
    assert versions(lake) == before, "nothing is left to recover"


@pytest.mark.slow
def test_an_object_whose_rows_are_all_in_the_lake_is_read_once(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    parquet(tmp_path / "a.parquet", [*good(20), (1, None, minute(50))])
    first = ingest_source(lake, lenient(settings), tmp_path / "*.parquet")
    shutil.copy(tmp_path / "a.parquet", tmp_path / "b.parquet")
    before = versions(lake)
    second = ingest_source(lake, lenient(settings), tmp_path / "*.parquet")
    assert (second.status, second.batch_id) == ("nothing new", None)
    assert (second.rows_in, second.duplicates, second.objects) == (21, 20, 1)
    assert second.interactions_version == first.interactions_version
    assert versions(lake) == before | {columns.BATCHES: before[columns.BATCHES] + 1}
    (row,) = (row for row in rows_of(lake, columns.BATCHES) if row["batch_id"] != first.batch_id)
    figures = ("status", "rows_in", "accepted", "quarantined", "duplicates")
    assert [row[name] for name in figures] == ["accepted", 21, 0, 0, 20]
    assert [stored["key"] for stored in row["objects"]] == [str(tmp_path / "b.parquet")]
    before = versions(lake)
    third = ingest_source(lake, lenient(settings), tmp_path / "*.parquet")
    assert (third.status, third.rows_in, third.objects) == ("nothing new", 0, 0)
    recover(lake)
    assert versions(lake) == before
    parquet(tmp_path / "c.parquet", good(5, first=100))
    assert ingest_source(lake, lenient(settings), tmp_path / "*.parquet").rows_in == 5


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_after_a_kill_while_such_objects_are_recorded_a_rerun_records_them_once(
    lake: Lake, settings: Settings, tmp_path: Path, after: bool
) -> None:
    undisturbed = Lake(str(tmp_path / "undisturbed"), settings.s3)
    shutil.copy(parquet(tmp_path / "a.parquet", good(20)), tmp_path / "b.parquet")
    for one in (undisturbed, lake):
        ingest_source(one, settings, tmp_path / "a.parquet")
    ingest_source(undisturbed, settings, tmp_path / "*.parquet")
    with pytest.raises(Killed):
        ingest_source(Dying(lake, 1, after), settings, tmp_path / "*.parquet")
    for _ in range(2):
        assert ingest_source(lake, settings, tmp_path / "*.parquet").status == "nothing new"
    assert everything(lake) == everything(undisturbed)


def test_tables_that_a_kill_left_out_are_created(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    lake.create(pa.int64(), pa.int64())
    for table in (columns.BATCHES, columns.ITEMS, columns.QUALITY_RESULTS):
        shutil.rmtree(tmp_path / "lake" / table)
    assert ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5))).accepted == 5


# --- refusals


def test_a_lake_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    lake = Lake(str(tmp_path / "file" / "lake"), settings.s3)
    with pytest.raises(LakeError, match="file/lake"):
        ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))


def test_without_a_source_it_says_how_to_give_one(lake: Lake, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="RECSYS_SOURCE__URI"):
        ingest(lake, settings)


def test_the_configured_source_is_used(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    source = Source(uri=str(parquet(tmp_path / "a.parquet", good(5))))
    assert ingest(lake, settings.model_copy(update={"source": source}), now=NOW).accepted == 5


def test_progress_ends_at_its_total(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []

    def record(stage: str, done: int, total: int, note: str = "") -> None:
        assert note
        calls.append((stage, done, total))

    source = Source(uri=str(parquet(tmp_path / "a.parquet", good(5))))
    for _ in range(2):
        ingest(lake, settings, source, progress=record, now=NOW)
        assert calls[-1][1] == calls[-1][2]
        assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
        calls.clear()


def test_no_temporary_folder_is_left(
    lake: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    with pytest.raises(SourceError):
        ingest_source(lake, settings, tmp_path / "none.parquet")
    assert os.listdir(temporary) == []


# --- items


def _items(path: Path, rows: Mapping[str, list[Any]]) -> ItemSource:
    pq.write_table(pa.table(dict(rows)), path)
    return ItemSource(uri=str(path))


@pytest.mark.slow
def test_items_are_replaced_in_one_commit_and_only_when_they_change(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    rows = {
        "item_id": [1, 2],
        "title": ["One", "Two"],
        "year": [1999, None],
        "eligible": [None, False],
    }
    source = _items(tmp_path / "items.parquet", rows)
    assert ingest_items(lake, settings, source).rows == 2
    assert lake.open(columns.ITEMS).to_pyarrow_table().to_pylist() == [
        {
            "item_id": 1,
            "title": "One",
            "category": None,
            "eligible": None,
            "extra": '{"year":1999}',
        },
        {
            "item_id": 2,
            "title": "Two",
            "category": None,
            "eligible": False,
            "extra": '{"year":null}',
        },
    ]
    version = lake.version(columns.ITEMS)
    ingest_items(lake, settings, source)
    assert lake.version(columns.ITEMS) == version
    ingest_items(lake, settings, _items(tmp_path / "items.parquet", {"item_id": [3]}))
    assert [row["item_id"] for row in rows_of(lake, columns.ITEMS)] == [3]
    assert lake.version(columns.ITEMS) == version + 1


@pytest.mark.parametrize("kind", ["duckdb", "csv", "csv.gz", "jsonl"])
def test_items_come_from_every_kind_of_source(
    lake: Lake, settings: Settings, tmp_path: Path, kind: str
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    file = tmp_path / f"i.{kind}"
    _write(file, kind, pa.table({"movie": [7, 8], "name": ["A;'\"", "B\nC"]}))
    mapping = {"item_id": "movie", "title": "name"}
    table = "t" if kind == "duckdb" else None
    source = ItemSource(uri=str(file), table=table, columns=mapping)
    assert ingest_items(lake, settings, source).rows == 2
    rows = [(row["item_id"], row["title"], row["extra"]) for row in rows_of(lake, columns.ITEMS)]
    assert rows == [(7, "A;'\"", None), (8, "B\nC", None)]


def test_texts_of_items_in_json_are_unchanged(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    uuid, day = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "2024-01-01"
    lakes.fill(lake, {1: [uuid, day]})
    rows = [{"item_id": uuid, "title": day, "of": {"id": uuid}}, {"item_id": day, "title": uuid}]
    file = tmp_path / "items[1].jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "items1.jsonl").write_text('{"item_id": "another"}')
    ingest_items(lake, settings, ItemSource(uri=str(file)))
    rows = [(row["item_id"], row["title"], row["extra"]) for row in rows_of(lake, columns.ITEMS)]
    nested = json.dumps({"of": {"id": uuid}}, separators=(",", ":"))
    assert rows == [(day, uuid, '{"of":null}'), (uuid, day, nested)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"item_id": [1, None]}, "1 items have no item_id"),
        ({"item_id": [1, 2, 2]}, "1 ids come more than once, for example '2'"),
        ({"item_id": ["a"]}, "holds text, but that of the lake's interactions integers"),
        ({"sku": [1]}, "has no column 'item_id'; it has sku"),
        ({"item_id": pa.array([], pa.int64())}, "holds no item"),
    ],
)
def test_bad_items_leave_the_table_as_it_was(
    lake: Lake, settings: Settings, tmp_path: Path, rows: dict[str, Any], message: str
) -> None:
    ingest_source(lake, settings, parquet(tmp_path / "a.parquet", good(5)))
    ingest_items(lake, settings, _items(tmp_path / "items.parquet", {"item_id": [1]}))
    before = lake.version(columns.ITEMS)
    with pytest.raises(SourceError, match=message):
        ingest_items(lake, settings, _items(tmp_path / "items.parquet", rows))
    assert lake.version(columns.ITEMS) == before


def test_items_need_a_source_and_a_lake(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RECSYS_ITEMS__URI"):
        ingest_items(lake, settings)
    source = _items(tmp_path / "items.parquet", {"item_id": [1]})
    with pytest.raises(LakeError, match="recsys ingest"):
        ingest_items(lake, settings, source)


@pytest.mark.slow
def test_the_reason_why_a_source_was_refused_is_in_quality_results(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    shop = duck(
        tmp_path / "shop.duckdb",
        "create table events as select 1::bigint as user_id, 2::bigint as item_id, "
        "timestamp '2026-01-01' as timestamp",
    )
    ingest_source(lake, settings, shop, table="events")
    before = versions(lake)
    with duckdb.connect(str(shop)) as con:
        con.execute("delete from events")
    for _ in range(2):
        with pytest.raises(SourceError, match="holds 0 rows, the limit is at least 1"):
            ingest_source(lake, settings, shop, table="events")
    with duckdb.connect(str(shop)) as con:
        con.execute("alter table events rename column item_id to sku")
    with pytest.raises(SourceError, match="item_id"):
        ingest_source(lake, settings, shop, table="events")
    rows = [row for row in rows_of(lake, "quality_results") if row["suite"] == "source"]
    assert [row["status"] for row in rows] == ["failed"], "the newest, once"
    assert "item_id" in rows[0]["observed"]
    after = versions(lake)
    assert {name for name in after if after[name] != before[name]} == {"quality_results"}


def test_a_lake_whose_log_of_interactions_is_gone_is_not_a_new_one(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    source = Source(uri=str(parquet(tmp_path / "a.parquet", good(5))))
    assert ingest(lake, settings, source, now=NOW).accepted == 5
    log = lake.uri("interactions", "_delta_log")
    shutil.rmtree(log)
    with pytest.raises(DamagedError, match="5 rows were accepted into it"):
        ingest(lake, settings, source, now=NOW)
    assert not os.path.exists(log)
