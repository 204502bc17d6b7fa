"""Interactions that a source corrects or withdraws: `on_change`."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from recsys import columns
from recsys.errors import ContractError, DamagedError
from recsys.ingest.batch import ingest
from recsys.ingest.check_source import check_source
from recsys.ingest.commit import recover
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.operations.erase import erase
from recsys.settings import Contract, Settings, Source
from tests.ingest.test_batch import (
    KILL_NAMES,
    KILLS,
    NOW,
    Dying,
    Killed,
    duck,
    everything,
    lenient,
    minute,
    rows_of,
    versions,
)
from tests.sampling import sample

if TYPE_CHECKING:
    from pathlib import Path

LATER = NOW + timedelta(days=1)
MADE = (
    "create or replace table t as select i % 7 as user_id, i as item_id, 1.0 * i as value, "
    "timestamp '2026-01-01' + to_minutes(i::int) as timestamp from range({}) r(i)"
)
CHANGED = "update t set value = -1 where item_id in (3, 4); delete from t where item_id = 5"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return duck(tmp_path / "s.duckdb", MADE.format(30))


def take(lake: Lake, settings: Settings, uri: object, on_change: str, **source: Any) -> Any:
    now = source.pop("now", LATER)
    return ingest(lake, settings, Source(uri=str(uri), on_change=on_change, **source), now=now)


def values(lake: Lake) -> dict[int, float]:
    return {row["item_id"]: row["value"] for row in rows_of(lake, columns.INTERACTIONS)}


def two_batches(lake: Lake, settings: Settings, shop: Path) -> None:
    """Take 30 rows, and then 5 more."""
    take(lake, settings, shop, "add", table="t", now=NOW)
    duck(shop, MADE.format(35))
    take(lake, settings, shop, "add", table="t", now=NOW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_change", "replaced", "deleted", "fourth", "fifth"),
    [("add", 0, 0, 4.0, True), ("replace", 2, 0, -1.0, True), ("delete", 2, 1, -1.0, False)],
)
def test_a_rule_says_what_becomes_of_changes_at_the_source(
    lake: Lake,
    settings: Settings,
    shop: Path,
    on_change: str,
    replaced: int,
    deleted: int,
    fourth: float,
    fifth: bool,
) -> None:
    two_batches(lake, settings, shop)
    before = rows_of(lake, columns.INTERACTIONS)
    duck(shop, f"{CHANGED}; insert into t select 1, 99, 99, timestamp '2026-01-02'")
    result = take(lake, settings, shop, on_change, table="t")
    assert (result.accepted, result.replaced, result.deleted) == (1, replaced, deleted)
    assert result.duplicates == 34 - replaced
    assert (values(lake)[4], 5 in values(lake)) == (fourth, fifth)
    # What stays keeps its batch, its place and its time of ingestion.
    after = {row["item_id"]: row for row in rows_of(lake, columns.INTERACTIONS)}
    kept = ("batch_id", "source_row", "ingested_at", "timestamp")
    for row in before:
        later = after.get(row["item_id"], row)
        assert [row[name] for name in kept] == [later[name] for name in kept]
    assert len(after) == 36 - deleted
    batches = rows_of(lake, columns.BATCHES)
    assert {row["status"] for row in batches} == {"accepted"}
    assert sum(row["withdrawn"] or 0 for row in batches) == deleted
    (newest,) = (row for row in batches if row["batch_id"] == result.batch_id)
    assert (newest["replaced_rows"] or 0, newest["deleted_rows"] or 0) == (replaced, deleted)
    check_row_counts(Lake.from_settings(settings))
    unchanged = versions(lake)
    assert take(lake, settings, shop, on_change, table="t").status == "nothing new"
    assert versions(lake) == unchanged, "a second time changes nothing"


@pytest.mark.slow
def test_a_change_alone_is_a_batch_and_can_be_taken_back(
    lake: Lake, settings: Settings, shop: Path
) -> None:
    two_batches(lake, settings, shop)
    batches = set()
    for value in (-1.0, 4.0, -1.0):
        duck(shop, f"update t set value = {value} where item_id = 4")
        result = take(lake, settings, shop, "replace", table="t")
        assert (result.status, result.accepted, result.replaced) == ("accepted", 0, 1)
        assert values(lake)[4] == value
        batches.add(result.batch_id)
        check_row_counts(Lake.from_settings(settings))
    assert len(batches) == 3


@pytest.mark.slow
def test_a_truncated_source_deletes_nothing(lake: Lake, settings: Settings, shop: Path) -> None:
    take(lake, settings, shop, "delete", table="t", now=NOW)
    duck(shop, "delete from t where item_id >= 20")
    before = rows_of(lake, columns.INTERACTIONS)
    found = check_source(
        lake, settings, Source(uri=str(shop), table="t", on_change="delete"), now=LATER
    )
    assert "0 would be replaced and 10 deleted (33.3%)" in found.explain()
    assert [rule.rule for rule in found.broken_rules] == ["replaced or deleted"]
    with pytest.raises(ContractError, match="replaced or deleted"):
        take(lake, settings, shop, "delete", table="t")
    assert rows_of(lake, columns.INTERACTIONS) == before
    allowed = settings.model_copy(update={"contract": Contract(max_changed_share=0.4)})
    assert take(lake, allowed, shop, "delete", table="t").deleted == 10
    assert len(values(lake)) == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("all", set()),
        ("span", set(range(15))),
        ("users", {n for n in range(30) if n % 7 in (2, 3)}),
    ],
)
def test_a_source_is_complete_for_a_scope(
    lake: Lake, settings: Settings, shop: Path, scope: str, left: set[int]
) -> None:
    """The source holds items from 15 on of five of seven users now, and has withdrawn 27."""
    take(lake, settings, shop, "delete", table="t", now=NOW)
    duck(shop, "delete from t where item_id < 15 or user_id in (2, 3) or item_id = 27")
    allowed = settings.model_copy(update={"contract": Contract(max_changed_share=1)})
    take(lake, allowed, shop, "delete", table="t", delete_scope=scope)
    assert values(lake).keys() == left | {15, 18, 19, 20, 21, 22, 25, 26, 28, 29}


@pytest.mark.slow
def test_another_source_s_rows_and_erased_users_stay_as_they_are(
    lake: Lake, settings: Settings, shop: Path, tmp_path: Path
) -> None:
    two_batches(lake, settings, shop)
    other = duck(tmp_path / "other.duckdb", MADE.format(40))
    take(lake, settings, other, "add", table="t")
    erase(lake, "3", "asked for it", now=LATER)
    duck(other, "update t set value = -1; delete from t where item_id > 38")
    allowed = settings.model_copy(update={"contract": Contract(max_changed_share=1)})
    result = take(lake, allowed, other, "delete", table="t")
    # Of its five rows, item 38 is of the erased user, and 39 is gone.
    assert (result.replaced, result.deleted) == (3, 1)
    assert values(lake) == {n: -1.0 if n >= 35 else float(n) for n in range(38) if n % 7 != 3}
    check_row_counts(Lake.from_settings(settings))


@pytest.mark.slow
def test_files_are_read_again_where_one_has_changed(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    limits = lenient(settings)
    for name, first in {"a": 0, "b": 10}.items():
        write(tmp_path / f"{name}.csv", range(first, first + 10))
        take(lake, limits, tmp_path / "*.csv", "delete", now=NOW)
    assert take(lake, limits, tmp_path / "*.csv", "delete").status == "nothing new"
    write(tmp_path / "a.csv", range(9), value="7")
    write(tmp_path / "c.csv", range(20, 25))
    allowed = lenient(settings, max_changed_share=0.5)
    result = take(lake, allowed, tmp_path / "*.csv", "delete")
    assert (result.objects, result.accepted, result.replaced, result.deleted) == (3, 5, 9, 1)
    assert values(lake) == {n: 7.0 if n < 9 else 1.0 for n in range(25) if n != 9}
    (tmp_path / "b.csv").unlink()
    assert take(lake, allowed, tmp_path / "*.csv", "delete").deleted == 10
    assert take(lake, allowed, tmp_path / "*.csv", "delete").status == "nothing new"
    check_row_counts(Lake.from_settings(settings))


@pytest.mark.slow
@pytest.mark.parametrize("nights", [1, 2])
def test_the_last_of_overlapping_exports_has_the_last_word(
    lake: Lake, settings: Settings, tmp_path: Path, nights: int
) -> None:
    limits = lenient(settings, max_changed_share=1)
    write(tmp_path / "a.csv", range(10))
    if nights == 2:
        take(lake, limits, tmp_path / "*.csv", "replace", now=NOW)
    write(tmp_path / "b.csv", range(5, 15), value="2")
    take(lake, limits, tmp_path / "*.csv", "replace")
    assert values(lake) == {n: 1.0 if n < 5 else 2.0 for n in range(15)}


def write(path: Path, items: range, value: str = "1") -> None:
    lines = "".join(f"{n % 4},{n},{minute(n).isoformat()},{value}\n" for n in items)
    path.write_text(f"user_id,item_id,timestamp,value\n{lines}")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lake, Lake]:
    """A source that has changed, the lake that took it before, and that lake afterwards."""
    folder = tmp_path_factory.mktemp("changed")
    shop = duck(folder / "s.duckdb", MADE.format(30))
    settings = Settings(memory_limit="1GB")
    before, after = (Lake(str(folder / name), settings.s3) for name in ("before", "after"))
    two_batches(before, settings, shop)
    shutil.copytree(before.root, after.root)
    duck(shop, f"{CHANGED}; insert into t values (null, 1, 1, null)")
    take(after, settings, shop, "delete", table="t")
    return shop, before, after


@pytest.mark.slow
@pytest.mark.parametrize(("commits", "after"), sample(KILLS, 1, 3), ids=KILL_NAMES)
def test_after_a_kill_while_rows_change_a_rerun_ends_as_if_nothing_had_happened(
    changed: tuple[Path, Lake, Lake], lake: Lake, settings: Settings, commits: int, after: bool
) -> None:
    shop, before, undisturbed = changed
    shutil.copytree(before.root, lake.root)
    with pytest.raises(Killed):
        take(Dying(lake, commits, after), settings, shop, "delete", table="t")
    check_row_counts(lake)  # as the next step of a night does, which does not recover
    recover(lake)
    check_row_counts(lake)
    take(lake, settings, shop, "delete", table="t")
    assert everything(lake) == everything(undisturbed)


@pytest.mark.slow
def test_a_row_that_is_lost_after_changes_is_noticed(
    lake: Lake, settings: Settings, shop: Path
) -> None:
    two_batches(lake, settings, shop)
    duck(shop, CHANGED)
    take(lake, settings, shop, "delete", table="t")
    lake.replace(columns.INTERACTIONS, lake.rows(columns.INTERACTIONS).slice(1))
    with pytest.raises(DamagedError, match="lost or doubled"):
        check_row_counts(Lake.from_settings(settings))
