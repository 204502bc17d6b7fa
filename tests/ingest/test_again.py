"""A source read again: corrected mappings, other spellings of a path, rows without a user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys import columns
from recsys.errors import DamagedError, SourceError
from recsys.ingest.batch import ingest
from recsys.ingest.commit import recover
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import Contract, Settings, Source
from tests.ingest.test_batch import (
    KILL_NAMES,
    KILLS,
    NOW,
    Dying,
    Killed,
    duck,
    everything,
    rows_of,
    versions,
)
from tests.sampling import sample

HEADER = "user_id,item_id,timestamp,kind,stars\n"
LATER = NOW + timedelta(days=1)


def lines(first: int, count: int) -> str:
    return "".join(
        f"{n % 4},{n},2026-01-01T00:{n:02}:00Z,view,{n}\n" for n in range(first, first + count)
    )


@pytest.fixture
def lenient(settings: Settings) -> Settings:
    contract = Contract(max_rejected_share=1.0, max_row_count_change=1e9)
    return settings.model_copy(update={"contract": contract})


def take(lake: Lake, settings: Settings, uri: object, now: datetime = NOW, **options: Any) -> Any:
    again = options.pop("again", False)
    return ingest(lake, settings, Source(uri=str(uri), **options), now=now, again=again)


MENDED = {"event": "kind", "value": "stars"}


# --- a corrected mapping


@pytest.mark.slow
def test_a_corrected_mapping_corrects_the_rows(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    for name, first in {"a": 0, "b": 10}.items():
        (tmp_path / f"{name}.csv").write_text(HEADER + lines(first, 10) + ",1,soon,view,1\n")
        take(lake, lenient, tmp_path / "*.csv", now=NOW + timedelta(hours=first))
    assert set(lake.rows(columns.INTERACTIONS)["event"].to_pylist()) == {None}
    again = take(lake, lenient, tmp_path / "*.csv", LATER, columns=MENDED, again=True)
    assert (again.status, again.rows_in, again.accepted, again.duplicates) == (
        "accepted", 22, 20, 0,
    )  # fmt: skip
    rows = sorted(rows_of(lake, columns.INTERACTIONS), key=lambda row: row["item_id"])
    assert [(row["item_id"], row["event"], row["value"]) for row in rows] == [
        (n, "view", float(n)) for n in range(20)
    ]
    assert {row["batch_id"] for row in rows} == {again.batch_id}
    # What stays the same interaction was known since it first came.
    assert [row["ingested_at"] for row in rows[::10]] == [NOW, NOW + timedelta(hours=10)]
    assert [json.loads(row["row"])["kind"] for row in rows_of(lake, columns.QUARANTINE)] == [
        "view",
        "view",
    ]
    statuses = {row["batch_id"]: row["status"] for row in rows_of(lake, columns.BATCHES)}
    assert sorted(statuses.values()) == ["accepted", "replaced", "replaced"]
    check_row_counts(Lake.from_settings(lenient))
    before = versions(lake)
    assert take(lake, lenient, tmp_path / "*.csv", columns=MENDED).status == "nothing new"
    assert take(lake, lenient, tmp_path / "*.csv", columns=MENDED, again=True).duplicates == 0
    assert versions(lake) == before, "to read the same again changes nothing"


@pytest.mark.slow
def test_rows_whose_key_was_wrong_are_replaced_and_not_doubled(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    made = (
        "create table t as select i as user_id, 1000 + i as sku, i % 5 as item_id, "
        "timestamp '2026-01-01' + to_minutes(i::int) as timestamp from range({}) r(i)"
    )
    shop = duck(tmp_path / "s.duckdb", made.format(30))
    take(lake, lenient, shop, table="t")
    duck(shop, "insert into t select 99, 1099, 3, timestamp '2026-01-02'")
    take(lake, lenient, shop, table="t")
    corrected = take(lake, lenient, shop, LATER, table="t", columns={"item_id": "sku"}, again=True)
    assert corrected.accepted == 31
    rows = rows_of(lake, columns.INTERACTIONS)
    assert sorted(row["item_id"] for row in rows) == [*range(1000, 1030), 1099]
    assert {row["ingested_at"] for row in rows} == {LATER}
    assert take(lake, lenient, shop, table="t", columns={"item_id": "sku"}).status == "nothing new"
    # A row that is lost after that is noticed, as ever.
    lake.replace(columns.INTERACTIONS, lake.rows(columns.INTERACTIONS).slice(1))
    with pytest.raises(DamagedError, match="brought 31 rows, and 30 of them are there"):
        check_row_counts(Lake.from_settings(lenient))


@pytest.mark.slow
def test_rows_that_the_source_no_longer_has_stay(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    for name, first in {"a": 0, "b": 10, "c": 20}.items():
        (tmp_path / f"{name}.csv").write_text(HEADER + lines(first, 10))
    take(lake, lenient, tmp_path / "[ab].csv")
    take(lake, lenient, tmp_path / "c.csv")
    (tmp_path / "a.csv").unlink()
    again = take(lake, lenient, tmp_path / "*.csv", columns=MENDED, again=True)
    assert (again.rows_in, again.accepted) == (10, 10), "only c: its whole batch can be read"
    events = {row["item_id"]: row["event"] for row in rows_of(lake, columns.INTERACTIONS)}
    assert events == {n: None if n < 20 else "view" for n in range(30)}
    (tmp_path / "c.csv").unlink()
    with pytest.raises(SourceError, match=r"nothing of .* can be corrected"):
        take(lake, lenient, tmp_path / "*.csv", columns=MENDED, again=True)


@pytest.mark.slow
def test_a_table_that_lost_rows_is_not_read_again(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    made = (
        "create table t as select i as user_id, i as item_id, timestamp '2026-01-01' as timestamp "
        "from range(30) r(i)"
    )
    shop = duck(tmp_path / "s.duckdb", made)
    take(lake, lenient, shop, table="t")
    duck(shop, "delete from t where user_id < 10")
    before = versions(lake) | {columns.QUALITY_RESULTS: 0}
    with pytest.raises(SourceError, match="holds 20 rows now, and its earlier batches brought 30"):
        take(lake, lenient, shop, table="t", again=True)
    assert versions(lake) | {columns.QUALITY_RESULTS: 0} == before
    with pytest.raises(SourceError, match="where another query brought the rows"):
        take(lake, lenient, shop, query="from t", again=True)


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lake, Lake]:
    """A file, the lake that ingested it, and that lake after the file was read again."""
    folder = tmp_path_factory.mktemp("replaced")
    (folder / "a.csv").write_text(HEADER + lines(0, 10) + ",1,soon,view,1\n")
    contract = Contract(max_rejected_share=1.0, max_row_count_change=1e9)
    settings = Settings(memory_limit="1GB", contract=contract)
    before, after = (Lake(str(folder / name), settings.s3) for name in ("before", "after"))
    take(before, settings, folder / "a.csv")
    shutil.copytree(before.root, after.root)
    take(after, settings, folder / "a.csv", columns=MENDED, again=True)
    return folder / "a.csv", before, after


@pytest.mark.slow
@pytest.mark.parametrize(("commits", "after"), sample(KILLS, 2, 3), ids=KILL_NAMES)
def test_after_a_kill_while_rows_are_replaced_a_rerun_ends_as_if_nothing_had_happened(
    replaced: tuple[Path, Lake, Lake], lake: Lake, lenient: Settings, commits: int, after: bool
) -> None:
    file, before, undisturbed = replaced
    shutil.copytree(before.root, lake.root)
    with pytest.raises(Killed):
        take(Dying(lake, commits, after), lenient, file, columns=MENDED, again=True)
    recover(lake)
    check_row_counts(lake)
    take(lake, lenient, file, columns=MENDED, again=True)
    assert everything(lake) == everything(undisturbed)


# --- one source, however it is spelt


@pytest.mark.slow
def test_the_spelling_of_a_path_is_not_the_identity_of_a_source(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_text(HEADER + lines(0, 5) + ",1,soon,view,1\n")
    (data / "link.csv").symlink_to(data / "a.csv")
    (tmp_path / "other").symlink_to(data)
    shop = duck(
        data / "s.duckdb",
        "create table t as select null::int as user_id, 1 as item_id, "
        "timestamp '2026-01-01' as timestamp from range(3)",
    )
    with contextlib.chdir(tmp_path):
        first = take(lake, lenient, "data/*.csv")
        assert (first.rows_in, first.quarantined, first.objects) == (6, 1, 1)
        take(lake, lenient, "data/s.duckdb", table="t")
        before = versions(lake)
        for spelling in ("./data/a.csv", "other/a.csv", data / "a.csv", "data/../data/link.csv"):
            assert take(lake, lenient, spelling).status == "nothing new"
        for spelling in ("./data/s.duckdb", "other/s.duckdb", shop):
            assert take(lake, lenient, spelling, table="t").status == "nothing new"
    assert versions(lake) == before
    assert {row["source"] for row in rows_of(lake, columns.BATCHES)} == {
        str(data / "*.csv"),
        f"{shop}#t",
    }


def test_a_relative_path_of_an_earlier_release_is_the_same_source(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + lines(0, 5) + ",1,soon,view,1\n")
    take(lake, lenient, tmp_path / "a.csv")
    rows = lake.rows(columns.BATCHES).to_pylist()
    rows[0]["objects"][0]["key"] = "a.csv"
    table = lake.rows(columns.BATCHES)
    lake.replace(columns.BATCHES, type(table).from_pylist(rows, schema=table.schema))
    before = versions(lake)
    assert take(lake, lenient, tmp_path / "a.csv").status == "nothing new"
    assert versions(lake) == before


@pytest.mark.slow
def test_a_bad_row_is_quarantined_once_by_whatever_name_its_file_comes(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + lines(0, 5) + ",1,soon,view,1\n")
    assert take(lake, lenient, tmp_path / "a.csv").quarantined == 1
    os.rename(tmp_path / "a.csv", tmp_path / "b.csv")
    assert take(lake, lenient, tmp_path / "b.csv").status == "nothing new"
    (tmp_path / "b.csv").write_text(HEADER + lines(0, 6) + ",1,soon,view,1\n,2,soon,view,1\n")
    grown = take(lake, lenient, tmp_path / "b.csv")
    assert (grown.accepted, grown.quarantined) == (1, 1)
    assert len(rows_of(lake, columns.QUARANTINE)) == 2


# --- rows without a user


@pytest.mark.slow
@pytest.mark.parametrize("ids", ["integers", "text"])
def test_rows_without_a_user_are_counted_and_not_quarantined_where_they_are_expected(
    lake: Lake, settings: Settings, tmp_path: Path, ids: str
) -> None:
    prefix = "" if ids == "integers" else "u"
    good = "".join(f"{prefix}{n},{n},2026-01-01\n" for n in range(40))
    nobody = ",1,2026-01-01\n" * 3 + ',1,soon\n"",2,2026-01-01\n" ",3,2026-01-01\n'
    file = tmp_path / "a.csv"
    file.write_text("user_id,item_id,timestamp\n" + good + nobody + f"{prefix}7,,2026-01-01\n")
    result = take(lake, settings, file, drop_null_users=True)
    assert (result.rows_in, result.accepted, result.quarantined, result.anonymous) == (47, 40, 1, 6)
    (batch,) = rows_of(lake, columns.BATCHES)
    assert batch["anonymous"] == 6
    (rejected,) = rows_of(lake, columns.QUARANTINE)
    assert rejected["reasons"] == ["item_id is null"]
    before = versions(lake)
    assert take(lake, settings, file, drop_null_users=True).status == "nothing new"
    assert versions(lake) == before


@pytest.mark.slow
def test_the_share_of_rejected_rows_is_one_of_rows_with_a_user(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    rows = ",1,2026-01-01\n" * 90 + "1,1,2026-01-01\n" * 9 + "1,,2026-01-01\n"
    file.write_text("user_id,item_id,timestamp\n" + rows)
    with pytest.raises(Exception, match="rejected share"):
        take(lake, settings, file, drop_null_users=True)
    file.write_text("user_id,item_id,timestamp\n" + ",1,2026-01-01\n" * 9 + "1,1,2026-01-01\n")
    result = take(lake, settings, file, drop_null_users=True)
    assert (result.accepted, result.anonymous) == (1, 9)
    (batch,) = (row for row in rows_of(lake, columns.BATCHES) if row["status"] == "accepted")
    assert batch["rows_in"] == 10


def test_a_source_that_expects_users_says_nothing_of_rows_without_one(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("user_id,item_id,timestamp\n,1,2026-01-01\n1,1,2026-01-01\n")
    result = take(lake, lenient, file)
    assert (result.accepted, result.quarantined, result.anonymous) == (1, 1, 0)
    (batch,) = rows_of(lake, columns.BATCHES)
    assert batch["anonymous"] is None
