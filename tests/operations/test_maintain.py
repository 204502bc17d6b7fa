"""A lake that is maintained gets small, and nothing that anybody sees or counts changes."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
import torch

from recsys import columns
from recsys.catalog.publish import CATALOG_FILE, publish_catalog
from recsys.errors import LakeError
from recsys.histories import ItemIds
from recsys.ingest.batch import ingest
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.packing import pack
from recsys.lake.row_counts import check_row_counts
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake
from recsys.model.presets import resolve
from recsys.model.recommender import Recommender
from recsys.operations.maintain import MaintainResult, Upkeep, maintain
from recsys.registry.models import save_model
from recsys.registry.promotions import Promotion, record
from recsys.settings import Settings, Source
from tests import lakes
from tests.operations.nights import FIRST, ITEMS, NIGHTS, NOW, USERS, night, put_day, settings_of
from tests.sampling import sample
from tests.test_cli import recsys

if TYPE_CHECKING:
    pass


def run(settings: Settings, now: datetime = NOW, *, dry_run: bool = False) -> MaintainResult:
    lake = Lake.from_settings(settings)
    with lake.write_lock():
        result = maintain(lake, settings, dry_run=dry_run, now=now)
        if not dry_run:
            publish_catalog(lake)
    return result


def by_kind(result: MaintainResult) -> dict[str, Upkeep]:
    return {upkeep.kind: upkeep for upkeep in result.upkeep}


def contents(settings: Settings) -> dict[str, list[Any]]:
    """Every row of every table, in no order."""
    lake = Lake.from_settings(settings)
    return {
        name: sorted(map(repr, lake.rows(name).to_pylist())) for name in TABLES if lake.exists(name)
    }


def data_files(folder: Path) -> list[Path]:
    return list((folder / "lake").rglob("part-*.parquet"))


def lists_of(settings: Settings, day: date) -> list[tuple[Any, ...]]:
    lake = Lake.from_settings(settings)
    with open_duckdb(settings) as con:
        lake.view(con, columns.RECOMMENDATIONS)
        return con.execute(
            "select user_id, rank, item_id, score, reason from recommendations where run_date = ? "
            "order by all",
            [day],
        ).fetchall()


@pytest.mark.slow
def test_between_two_nights_it_changes_no_row_no_count_no_history_and_no_list(
    folder: Path, tmp_path: Path
) -> None:
    settings, plain = settings_of(folder, retention=timedelta(0)), settings_of(tmp_path / "plain")
    shutil.copytree(folder, tmp_path / "plain", symlinks=True)
    before = contents(settings)
    lake = Lake.from_settings(settings)

    result = by_kind(run(settings))

    assert contents(settings) == before
    assert result["small files"].files > 3 * NIGHTS
    for name in (columns.INTERACTIONS, columns.BATCHES, columns.QUALITY_RESULTS, columns.RUNS):
        assert len(lake.open(name).file_uris()) == 1, name
    assert len(lake.open(columns.RECOMMENDATIONS).file_uris()) == NIGHTS, "one a day"
    check_row_counts(lake)
    with open_duckdb(settings) as con:
        cached = load_histories(lake, con, lake.version(columns.INTERACTIONS))
        lake.view(con, columns.INTERACTIONS)
        fresh = pack(con)
    assert cached.users.equals(fresh.users)
    assert cached.histories.items.tolist() == fresh.histories.items.tolist()
    put_day(tmp_path / "more", NIGHTS)
    for each in (settings, plain):
        night(each, NIGHTS, Source(uri=str(tmp_path / "more" / "*.parquet")))
    day = FIRST + timedelta(days=NIGHTS)
    assert lists_of(settings, day) == lists_of(plain, day)


@pytest.mark.slow
def test_a_report_goes_with_the_lists_of_its_day(folder: Path) -> None:
    reports = folder / "lake" / "reports"
    reports.mkdir(exist_ok=True)
    days = [(NOW - timedelta(days=age)).date() for age in (90, 91)]
    for name in (*map(str, days), "latest"):
        (reports / f"{name}.html").write_text("a report")
    assert by_kind(run(settings_of(folder), dry_run=True))["reports"].files == 1
    assert by_kind(run(settings_of(folder)))["reports"].entries == 1
    assert {path.name for path in reports.glob("*.html")} >= {f"{days[0]}.html", "latest.html"}
    assert not (reports / f"{days[1]}.html").exists()


@pytest.mark.slow
def test_files_go_once_they_are_older_than_the_retention(folder: Path) -> None:
    settings = settings_of(folder)
    lake = Lake.from_settings(settings)
    before = set(data_files(folder))
    run(settings)
    assert before <= set(data_files(folder)), "merged files are still needed by older versions"
    for version in range(lake.version(columns.INTERACTIONS)):
        lake.open(columns.INTERACTIONS, version)

    again = by_kind(run(settings_of(folder, retention=timedelta(0))))

    assert again["old versions"].files >= 3 * NIGHTS
    assert again["old versions"].bytes > 0
    assert len(data_files(folder)) < len(before)
    run(settings_of(folder, retention=timedelta(0)))
    with pytest.raises(LakeError):
        lake.open(columns.INTERACTIONS, 1)
    assert len(lake.rows(columns.INTERACTIONS)) == USERS * NIGHTS
    logs = list((folder / "lake").rglob("_delta_log/*.json"))
    assert len(logs) < 3 * len(TABLES)


@pytest.mark.slow
def test_an_open_catalog_reads_on(published: Path) -> None:
    settings = settings_of(published)
    catalog = published / "lake" / CATALOG_FILE
    ask = "select count(*), sum(hash(user_id, item_id)) from interactions"
    with duckdb.connect(catalog, read_only=True) as con:
        before = con.execute(ask).fetchall()
        run(settings)
        run(settings)
        assert con.execute(ask).fetchall() == before
    with duckdb.connect(catalog, read_only=True) as con:
        assert con.execute(ask).fetchall() == before


@pytest.mark.slow
def test_the_standing_catalog_reads_even_where_no_old_version_stays(published: Path) -> None:
    settings = settings_of(published, retention=timedelta(0))
    lake = Lake.from_settings(settings)
    run(settings)
    with lake.write_lock():
        maintain(lake, settings, now=NOW)  # killed before the catalog is published
    with duckdb.connect(published / "lake" / CATALOG_FILE, read_only=True) as con:
        assert con.execute("select count(*) from interactions").fetchone() == (USERS * NIGHTS,)


@pytest.mark.slow
def test_what_was_done_once_is_not_done_again_after_the_log_is_gone(folder: Path) -> None:
    settings = settings_of(folder, retention=timedelta(0))
    lake = Lake.from_settings(settings)
    names = lake.rows(columns.BATCHES, ["batch_id"])["batch_id"].to_pylist()
    for _ in range(2):
        run(settings)
    assert all(lake.has(columns.INTERACTIONS, name) for name in names)
    rows = lake.rows(columns.INTERACTIONS)
    version = lake.version(columns.INTERACTIONS)
    assert lake.append(columns.INTERACTIONS, rows, transaction=names[0]) == version
    result = ingest(lake, settings)
    assert result.status == "nothing new"


@pytest.mark.slow
@pytest.mark.parametrize("write", sample([2, 11, 24], 1))
def test_a_killed_maintenance_loses_nothing_and_the_next_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    settings = settings_of(folder, retention=timedelta(0), keep_lists=timedelta(days=2))
    now = datetime(2026, 1, NIGHTS + 1, tzinfo=UTC)
    real, writes = Lake.writing, 0

    def killed(lake: Lake, table: str) -> Any:
        nonlocal writes
        writes += 1
        if writes == write:
            raise KeyboardInterrupt
        return real(lake, table)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "writing", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings, now)
    run(settings, now)
    lake = Lake.from_settings(settings)
    days = [(row["run_date"], row["users"]) for row in lake.rows(columns.LIST_DAYS).to_pylist()]
    assert days == [(FIRST, USERS)]
    assert lake.partitions(columns.RECOMMENDATIONS, "run_date") == {"2026-01-02", "2026-01-03"}
    assert min(lake.rows(columns.POPULAR_ITEMS)["run_date"].to_pylist()) == date(2026, 1, 2)
    assert len(lake.rows(columns.INTERACTIONS)) == USERS * NIGHTS
    night(settings, NIGHTS)


@pytest.mark.slow
def test_old_lists_leave_a_row_a_day(folder: Path) -> None:
    settings = settings_of(folder)
    run(settings, datetime(2026, 4, 3, tzinfo=UTC))
    lake = Lake.from_settings(settings)
    (row,) = [
        row
        for row in lake.rows(columns.LIST_DAYS).to_pylist()
        if row["run_date"] == FIRST + timedelta(days=1)
    ]
    assert (row["edition"], row["run_id"]) == (1, "run 1")
    assert (row["users"], row["rows"]) == (USERS, 3 * USERS)
    assert (row["model_rows"], row["popular_rows"]) == (0, 3 * USERS)
    assert 3 <= row["items"] <= ITEMS
    with duckdb.connect(folder / "lake" / CATALOG_FILE, read_only=True) as con:
        assert con.execute("select count(*) from recommendations").fetchone() == (3 * USERS,)
        assert con.execute("select count(*) from list_days").fetchone() == (2,)


@pytest.mark.slow
def test_the_newest_lists_stay_however_old_they_are(folder: Path) -> None:
    settings = settings_of(folder)
    run(settings, datetime(2027, 1, 1, tzinfo=UTC))
    newest = FIRST + timedelta(days=NIGHTS - 1)
    assert len(lists_of(settings, newest)) == 3 * USERS
    assert len(Lake.from_settings(settings).rows(columns.LIST_DAYS)) == NIGHTS - 1


@pytest.mark.slow
def test_results_of_checks_and_their_pages_go_together(folder: Path, tmp_path: Path) -> None:
    settings = settings_of(folder)
    pages = folder / "lake" / "checks"
    assert len(list(pages.iterdir())) == NIGHTS
    kept = by_kind(run(settings))
    assert (kept["quality results"].entries, kept["check pages"].entries) == (0, 0)
    gone = by_kind(run(settings, datetime.now(UTC) + timedelta(days=91)))
    assert gone["quality results"].entries > NIGHTS
    assert (gone["check pages"].entries, gone["check pages"].files) == (NIGHTS, NIGHTS)
    assert not list(pages.iterdir())
    put_day(tmp_path / "more", NIGHTS)
    night(settings, NIGHTS, Source(uri=str(tmp_path / "more" / "*.parquet")))
    assert len(list(pages.iterdir())) == 1


def save(lake: Lake, model_id: str, status: Any, trained_at: datetime) -> None:
    torch.manual_seed(0)
    preset = resolve("best", {"width": 16, "blocks": 1, "max_length": 8})
    model = Recommender(preset.model, ITEMS).eval()
    save_model(lake, model_id, model, ItemIds(pa.array(range(ITEMS))), {}, "")
    row = lakes.model_row(model_id, status, trained_at=trained_at)
    lakes.write(lake, columns.MODELS, [asdict(row)])


@pytest.mark.slow
def test_models_stay_while_they_serve_or_their_lists_stand_or_they_are_new(folder: Path) -> None:
    settings = settings_of(folder)
    lake = Lake.from_settings(settings)
    now = datetime.now(UTC)
    old, new = now - timedelta(days=100), now - timedelta(days=10)
    for name, status, trained in (
        ("m-champion", "champion", old),
        ("m-served", "retired", old),
        ("m-listed", "retired", old),
        ("m-old", "retired", old),
        ("m-rejected", "rejected", old),
        ("m-new", "rejected", new),
    ):
        save(lake, name, status, trained)
    for days, model, before in (
        (120, "m-old", None),
        (99, "m-served", "m-old"),
        (40, "m-champion", "m-served"),
    ):
        served_from = now - timedelta(days=days)
        record(lake, Promotion(served_from, "gate", model, before, "me", "a test", None))
    lakes.write(
        lake,
        columns.RECOMMENDATIONS,
        lakes.lists(now.date(), {1: [2, 3]}, model_id="m-listed"),
    )
    weights = folder / "lake" / "weights"
    for name, days in (("m-killed", 100), ("m-training", 1)):
        (weights / name).mkdir()
        written = time.time() - days * 86400
        os.utime(weights / name, (written, written))

    result = by_kind(run(settings, now))

    kept = {"m-champion", "m-served", "m-listed", "m-new", "m-training"}
    assert {path.name for path in weights.iterdir()} == kept
    assert result["models"].files == 2 * len(list((weights / "m-champion").iterdir()))
    assert len(lake.rows(columns.MODELS)) == 6, "rows stay"


@pytest.mark.slow
def test_leftovers_of_killed_runs_go(folder: Path) -> None:
    settings = settings_of(folder)
    root = folder / "lake"
    (root / ".recsys-temporary-1").mkdir()
    (root / ".recsys-temporary-1" / "catalog.duckdb").write_text("half")
    (root / "runs" / "part-0-killed.parquet").write_text("never committed")
    (root / "runs" / "_delta_log" / "_commit_1.json.tmp").write_text("half")
    result = by_kind(run(settings))
    assert (result["leftovers"].entries, result["leftovers"].bytes) == (2, 8)
    assert not list(root.glob(".recsys-temporary*"))
    assert not list(root.rglob("*.tmp"))
    assert (root / "runs" / "part-0-killed.parquet").exists(), "it could be of a run that goes on"
    run(settings_of(folder, retention=timedelta(0)))
    assert not (root / "runs" / "part-0-killed.parquet").exists()


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(folder, retention=timedelta(0))
    before = {path: path.stat().st_mtime_ns for path in (folder / "lake").rglob("*")}
    now = datetime(2026, 4, 3, tzinfo=UTC)
    told = run(settings, now, dry_run=True)
    lake = ["--lake", str(folder / "lake")]
    code, _, said = recsys(monkeypatch, capsys, *lake, "maintain", "--dry-run")
    assert code == 0
    assert "small files: 7 tables would be merged" in said
    after = {path: path.stat().st_mtime_ns for path in (folder / "lake").rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} <= {
        folder / "lake" / ".lock"
    }
    done = by_kind(run(settings, now))
    for kind in ("old versions", "lists", "quality results"):
        assert done[kind] == by_kind(told)[kind]


def test_an_empty_lake_has_nothing_to_maintain(tmp_path: Path) -> None:
    result = run(settings_of(tmp_path), dry_run=True)
    assert {upkeep.entries for upkeep in result.upkeep} == {0}
