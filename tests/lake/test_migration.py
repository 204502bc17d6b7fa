"""A lake that an earlier release made is given new columns; one of a later release is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from recsys import columns
from recsys.errors import LakeError
from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lake.migration import migrate
from recsys.lake.schemas import SCHEMA_VERSION, TABLES, VERSION_PROPERTY, schemas
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.operations.runs import record_run
from recsys.settings import Source
from tests import lakes

if TYPE_CHECKING:
    from recsys.settings import Settings

# Tables that an earlier release did not have.
NEW = {
    columns.EDITIONS,
    columns.PROMOTIONS,
    columns.LIST_DAYS,
    columns.ERASURES,
    columns.POPULAR_ITEMS,
    columns.EXPLANATIONS,
    columns.LIVE_METRICS,
    columns.DRIFT,
    columns.REPLAYS,
}
# What its tables did not have yet: the last columns that may be null.
LATER = {
    columns.INTERACTIONS: ["value", "source_row"],
    columns.QUARANTINE: ["reasons"],
    columns.BATCHES: ["duplicates"],
    columns.ITEMS: ["extra"],
    columns.RECOMMENDATIONS: ["reason", "generated_at", "edition"],
    columns.MODELS: ["seconds"],
    columns.RUNS: ["code_version"],
    columns.QUALITY_RESULTS: ["detail"],
}
START = datetime(2026, 1, 1, tzinfo=UTC)


def current(old: Lake) -> Lake:
    """Return the lake of this release that an old one was made from."""
    return Lake(f"{old.root}-current", old.storage)


@pytest.fixture
def old(lake: Lake) -> Lake:
    """A lake of an earlier release: a row in most tables, no column of LATER, no version."""
    new = current(lake)
    lakes.fill(new, {user: [1, 2, 3] for user in range(5)})
    items = [{"item_id": item, "title": "One", "eligible": True} for item in (1, 2, 3, 9)]
    lakes.write(new, columns.ITEMS, items)
    lakes.write(new, columns.RECOMMENDATIONS, lakes.lists(date(2026, 1, 1), {1: [2], 2: [3]}))
    lakes.write(new, columns.RUNS, [{"run_id": "r", "flow": "ingest", "status": "completed"}])
    copy_without(new, lake, LATER)
    return lake


@pytest.fixture
def first_version(lake: Lake) -> Lake:
    """A lake as version 1 made it, with lists of two days."""
    new = current(lake)
    lakes.fill(new, {1: [1, 2], 2: [2, 3]})
    for day, items in ((1, [2]), (2, [3, 2])):
        rows = lakes.lists(date(2026, 1, day), {1: items, 2: items}, run_id=f"run {day}")
        lakes.write(new, columns.RECOMMENDATIONS, rows)
    copy_without(new, lake, {columns.RECOMMENDATIONS: ["edition"]})
    lake.set_property(columns.BATCHES, VERSION_PROPERTY, "1")
    return lake


def copy_without(new: Lake, old: Lake, later: dict[str, list[str]]) -> None:
    """Copy each table that is not NEW, without some columns."""
    for name, table in TABLES.items():
        if name in NEW:
            continue
        missing = later.get(name, [])
        rows = new.open(name).to_pyarrow_table().drop_columns(missing)
        # A column with "required" is never null: Delta keeps that in the schema of the table.
        fields = [field for field in new.schema(name) if field.name not in missing]
        partitions = list(table.partitions) or None
        write_deltalake(old.uri(name), rows.cast(pa.schema(fields)), partition_by=partitions)


def versions(lake: Lake) -> dict[str, int]:
    return {name: lake.version(name) for name in TABLES if lake.exists(name)}


def source(folder: Path) -> Source:
    file = folder / "new.parquet"
    pq.write_table(pa.table({"user_id": [1], "item_id": [9], "timestamp": [START]}), file)
    return Source(uri=str(file))


@pytest.mark.slow
def test_an_older_lake_gets_each_tables_columns_in_one_commit(old: Lake) -> None:
    page = Path(old.uri("data_docs", "validations", "rows", "1.html"))
    page.parent.mkdir(parents=True)
    page.touch()
    before = versions(old)
    rows = {name: old.open(name).to_pyarrow_table().num_rows for name in before}
    migrate(old)
    marked = {name: version + 1 for name, version in before.items()}
    marked[columns.BATCHES] += 1
    marked |= {name: int(name == columns.EDITIONS) for name in NEW}
    assert versions(old) == marked
    assert all(set(old.schema(name)) == set(current(old).schema(name)) for name in TABLES)
    for name in before:
        table = old.open(name).to_pyarrow_table()
        assert table.num_rows == rows[name]
        assert all(table[column].null_count == table.num_rows for column in LATER[name])
        notes = [note["migration"] for _, _, note in old.commits(name) if "migration" in note]
        assert notes == [{"from": 0, "to": SCHEMA_VERSION, "added": LATER[name]}]
    assert not Path(old.uri("data_docs")).exists()
    migrate(old)
    assert versions(old) == marked, "once"


def test_lists_of_before_editions_are_the_first_edition_of_their_date(first_version: Lake) -> None:
    migrate(first_version)
    migrate(first_version)
    editions = first_version.rows(columns.EDITIONS).to_pylist()
    shown = ("run_date", "edition", "status", "run_id", "model_id", "rows", "data_until")
    assert [tuple(row[name] for name in shown) for row in editions] == [
        (date(2026, 1, 1), 1, "current", "run 1", "m", 2, None),
        (date(2026, 1, 2), 1, "current", "run 2", "m", 4, None),
    ]
    assert editions[0]["published_at"] == START


def test_a_migration_that_was_killed_before_the_editions_goes_on(
    first_version: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for step in ("append", "set_property"):
        with monkeypatch.context() as patch:
            patch.setattr(Lake, step, die)
            with pytest.raises(KeyboardInterrupt):
                migrate(first_version)
    migrate(first_version)
    assert first_version.rows(columns.EDITIONS)["edition"].to_pylist() == [1, 1]


@pytest.mark.slow
def test_a_night_on_an_older_lake_goes_on(old: Lake, settings: Settings, tmp_path: Path) -> None:
    with record_run("nightly", "r-2", settings, {}) as run:
        assert ingest(run.lake, settings, source(tmp_path)).accepted == 1
        day = date(2026, 1, 2)
        bound = Bound.of(settings, day, "now")
        recommend(run.lake, settings, run_date=day, run_id=run.run_id, bound=bound)
    interactions = old.open(columns.INTERACTIONS).to_pyarrow_table()
    assert sorted(interactions["source_row"].to_pylist(), key=str) == [1, *[None] * 15]
    runs = old.open(columns.RUNS).to_pyarrow_table().to_pylist()
    assert {row["run_id"]: row["code_version"] is None for row in runs} == {"r": True, "r-2": False}
    with duckdb.connect(str(Path(old.root) / "catalog.duckdb"), read_only=True) as con:
        lists = con.execute(
            "select run_date, count(distinct user_id), count(generated_at) > 0 "
            "from recommendations group by all order by all"
        ).fetchall()
    # User 1 has had every item.
    assert lists == [(date(2026, 1, 1), 2, False), (date(2026, 1, 2), 4, True)]


def test_a_migration_that_was_killed_goes_on(old: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    add_columns, tables = Lake.add_columns, []

    def die_at_the_third(lake: Lake, table: str, *arguments: pa.Schema, **options: object) -> None:
        tables.append(table)
        if len(tables) == 3:
            raise KeyboardInterrupt
        add_columns(lake, table, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "add_columns", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        migrate(old)
    assert VERSION_PROPERTY not in old.properties(columns.BATCHES)
    monkeypatch.undo()
    before = versions(old)
    migrate(old)
    after = versions(old)
    assert {name for name in tables[:2] if after[name] != before[name]} <= {columns.BATCHES}
    assert all(set(old.schema(name)) == set(current(old).schema(name)) for name in TABLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "absent",
    [
        {columns.INTERACTIONS},
        {columns.INTERACTIONS, columns.QUARANTINE},
        {columns.INTERACTIONS, columns.ITEMS},
        {columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS},
    ],
)
def test_a_first_ingest_that_an_earlier_release_was_killed_in_is_done_again(
    lake: Lake, settings: Settings, tmp_path: Path, absent: set[str]
) -> None:
    for name, schema in schemas(pa.string(), pa.string()).items():  # the source has integers
        if name not in absent | NEW:
            fields = [field for field in schema if field.name not in LATER[name]]
            partitions = list(TABLES[name].partitions) or None
            DeltaTable.create(lake.uri(name), pa.schema(fields), partition_by=partitions)
    with record_run("ingest", "r", settings, {}):
        assert ingest(lake, settings, source(tmp_path)).accepted == 1
    assert lake.properties(columns.BATCHES)[VERSION_PROPERTY] == str(SCHEMA_VERSION)
    current(lake).create(pa.int64(), pa.int64())
    for name in TABLES:
        assert set(lake.schema(name)) == set(current(lake).schema(name)), name
    assert lake.open(columns.INTERACTIONS).to_pyarrow_table()["item_id"].to_pylist() == [9]


def test_a_lake_of_a_newer_release_is_refused_and_left_alone(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    lakes.fill(lake, {1: [2]})
    newer = {VERSION_PROPERTY: str(SCHEMA_VERSION + 1)}
    table = DeltaTable(lake.uri(columns.BATCHES))
    table.alter.set_table_properties(newer, raise_if_not_exists=False)
    before = versions(lake)
    message = rf"newer recsys: its tables have schema version {SCHEMA_VERSION + 1}.*install"
    with (
        pytest.raises(LakeError, match=message),
        record_run("ingest", "r", settings, {}),
    ):
        ingest(lake, settings, source(tmp_path))
    assert versions(lake) == before
    assert not (Path(lake.root) / "catalog.duckdb").exists()


def test_a_lake_of_this_release_is_left_alone(lake: Lake) -> None:
    migrate(lake)
    assert not Path(lake.root).exists(), "nothing is made"
    lakes.fill(lake, {1: [2]})
    lake.retype(pa.string(), pa.string())
    assert lake.properties(columns.BATCHES)[VERSION_PROPERTY] == str(SCHEMA_VERSION)
    before = versions(lake)
    migrate(lake)
    assert versions(lake) == before


def test_a_table_without_a_column_that_is_never_null_is_refused(lake: Lake) -> None:
    lakes.fill(lake, {1: [2]})
    write_deltalake(
        lake.uri(columns.BATCHES),
        pa.table({"batch_id": ["a"], "source": ["s"]}),
        mode="overwrite",
        schema_mode="overwrite",
    )
    table = lake.open(columns.BATCHES)
    table.alter.set_table_properties({VERSION_PROPERTY: "0"}, raise_if_not_exists=False)
    with pytest.raises(LakeError, match="batches lacks the column status"):
        migrate(lake)


def test_a_column_that_is_added_raises_the_version() -> None:
    """Where this fails: raise SCHEMA_VERSION, and write the new digest here."""
    text = "\n".join(
        f"{name}: {schema}" for name, schema in schemas(pa.int64(), pa.int64()).items()
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert (SCHEMA_VERSION, digest) == (3, "7984b3a6bff3")
