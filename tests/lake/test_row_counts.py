"""Rows that accepted batches brought are there, once; what an owner deleted is not missed."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from recsys import columns
from recsys.errors import DamagedError
from recsys.ingest.batch import ingest
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.settings import ObjectStorage, Source
from tests import lakes, servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)


def add_batch(lake: Lake, name: str, day: int) -> None:
    """Append 60 rows of 6 users, and the batch's row, as an ingest does."""
    lakes.fill(lake, {user: range(10) for user in range(6)}, batch_id=name, day=day)
    batch = {
        "batch_id": name,
        "source": f"{name}.csv",
        "status": "accepted",
        "objects": [{"key": f"{name}.csv", "etag": "1", "size": 1}],
        "rows_in": 60,
        "accepted": 60,
        "quarantined": 0,
        "duplicates": 0,
        "started": datetime.now(UTC),
        "finished": datetime.now(UTC),
        "interactions_version": lake.version(columns.INTERACTIONS),
    }
    lakes.write(lake, columns.BATCHES, [batch])


@pytest.fixture
def two_batches(lake: Lake) -> Lake:
    for day, name in enumerate("ab"):
        add_batch(lake, name, day)
    return lake


def newest_log_entry(lake: Lake) -> Path:
    version = lake.version(columns.INTERACTIONS)
    return Path(lake.uri(columns.INTERACTIONS, "_delta_log", f"{version:020d}.json"))


def versions(lake: Lake) -> dict[str, int]:
    names = (columns.INTERACTIONS, columns.QUARANTINE, columns.BATCHES, columns.QUALITY_RESULTS)
    return {name: lake.version(name) for name in names}


def append_again(lake: Lake, batch_id: str) -> None:
    """Append the rows of a batch a second time, as a tool that is not ours would."""
    rows = lake.open(columns.INTERACTIONS).to_pyarrow_table(filters=[("batch_id", "=", batch_id)])
    write_deltalake(lake.open(columns.INTERACTIONS), rows, mode="append")


def test_a_whole_lake_passes_and_nothing_is_written(two_batches: Lake) -> None:
    before = versions(two_batches)
    check_row_counts(two_batches)
    assert versions(two_batches) == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), lambda file: file.unlink()])
def test_a_damaged_log_stops_an_ingest_and_lists_until_the_batch_is_ingested_again(
    two_batches: Lake, settings: Settings, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    lake, file = two_batches, tmp_path / "c.parquet"
    times = [START + timedelta(days=9, minutes=minute) for minute in range(60)]
    pq.write_table(pa.table({"user_id": [7] * 60, "item_id": [8] * 60, "timestamp": times}), file)
    batch_id = ingest(lake, settings, Source(uri=str(file))).batch_id
    before = versions(lake)
    damage(newest_log_entry(lake))
    report = rf"batch {batch_id} of .* brought 60 rows, and 0 of them are there.*recsys ingest"
    with pytest.raises(DamagedError, match=report):
        ingest(lake, settings, Source(uri=str(file)))
    with pytest.raises(DamagedError, match=report):
        recommend(lake, settings, run_date=date(2026, 3, 1), run_id="run")
    before.pop(columns.INTERACTIONS)
    assert {name: lake.version(name) for name in before} == before, "a refusal writes nothing"

    lake.delete(columns.BATCHES, f"batch_id = '{batch_id}'")
    again = ingest(lake, settings, Source(uri=str(file)))
    assert again.accepted == 60, "as the message says"
    assert lake.open(columns.INTERACTIONS).to_pyarrow_table().num_rows == 180


@pytest.mark.parametrize("compact", [False, True])
def test_doubled_rows_are_refused(two_batches: Lake, compact: bool) -> None:
    append_again(two_batches, "b")
    if compact:
        two_batches.open(columns.INTERACTIONS).optimize.compact()
    with pytest.raises(DamagedError, match=r"batch b of b\.csv brought 60 rows, and 120"):
        check_row_counts(two_batches)


def test_a_missing_data_file_is_named(two_batches: Lake) -> None:
    file = Path(unquote(two_batches.open(columns.INTERACTIONS).file_uris()[0]))
    file.unlink()
    with pytest.raises(DamagedError, match=rf"1 data files of .* for example .*{file.name}"):
        check_row_counts(two_batches)


def test_files_of_several_batches_are_counted_by_reading_them(two_batches: Lake) -> None:
    two_batches.open(columns.INTERACTIONS).optimize.compact()
    add_batch(two_batches, "c", 3)
    check_row_counts(two_batches)
    newest_log_entry(two_batches).write_bytes(b"")
    with pytest.raises(DamagedError, match="batch c"):
        check_row_counts(two_batches)


def test_a_batch_that_was_deleted_with_its_row_is_not_missed(two_batches: Lake) -> None:
    for name in (columns.INTERACTIONS, columns.BATCHES):
        two_batches.delete(name, "batch_id = 'b'")
    before = versions(two_batches)
    check_row_counts(two_batches)
    assert versions(two_batches) == before


def test_rows_that_a_delete_removed_are_written_down_once(two_batches: Lake) -> None:
    lake = two_batches
    lake.delete(columns.INTERACTIONS, "user_id = 3")
    before = versions(lake)
    for _ in range(2):
        check_row_counts(lake)
    after = versions(lake)
    assert after == before | {columns.QUALITY_RESULTS: before[columns.QUALITY_RESULTS] + 1}
    (result,) = lake.open(columns.QUALITY_RESULTS).to_pyarrow_table().to_pylist()
    assert (result["status"], result["observed"]) == ("passed", "20 rows deleted since by DELETE")
    # The log is cleaned up some day; what was written down still counts.
    for entry in Path(lake.uri(columns.INTERACTIONS, "_delta_log")).glob("*.json"):
        entry.write_text(entry.read_text().replace('"DELETE"', '"WRITE"'))
    check_row_counts(lake)


def test_a_delete_does_not_hide_the_loss_of_a_later_batch(two_batches: Lake) -> None:
    two_batches.delete(columns.INTERACTIONS, "true")
    time.sleep(0.01)  # a commit's time is in milliseconds
    add_batch(two_batches, "c", 3)
    newest_log_entry(two_batches).write_bytes(b"")
    with pytest.raises(DamagedError, match="batch c of"):
        check_row_counts(two_batches)


def test_rows_deleted_later_are_compared_with_what_was_written_down(two_batches: Lake) -> None:
    lake = two_batches
    lake.delete(columns.INTERACTIONS, "user_id = 3")
    check_row_counts(lake)
    for entry in Path(lake.uri(columns.INTERACTIONS, "_delta_log")).glob("*.json"):
        entry.write_text(entry.read_text().replace('"DELETE"', '"WRITE"'))
    lake.delete(columns.INTERACTIONS, "user_id = 4 and item_id = 1")
    check_row_counts(lake)
    (result,) = lake.open(columns.QUALITY_RESULTS).to_pyarrow_table().to_pylist()
    assert result["observed"] == "22 rows deleted since by DELETE"


def test_a_delete_explains_no_more_rows_than_it_removed(two_batches: Lake) -> None:
    two_batches.delete(columns.INTERACTIONS, "batch_id = 'a'")
    entry = Path(two_batches.uri(columns.INTERACTIONS, "_delta_log"))
    for file in entry.glob("*.json"):
        lines = file.read_text().splitlines()
        kept = [line for line in lines if not ('"add"' in line and '\\"b\\"' in line)]
        file.write_text("\n".join(kept))
    with pytest.raises(DamagedError, match="batch b of"):
        check_row_counts(two_batches)


def test_an_older_version_is_not_asked_for_later_batches(two_batches: Lake) -> None:
    version = two_batches.version(columns.INTERACTIONS)
    add_batch(two_batches, "c", 3)
    before = versions(two_batches)
    check_row_counts(two_batches, version)
    assert versions(two_batches) == before


def test_a_batch_that_another_run_brings_meanwhile_is_not_missed(two_batches: Lake) -> None:
    with two_batches.write_lock():
        assert two_batches.version(columns.INTERACTIONS), "the run has opened the table by now"
        # On S3 nothing keeps another run out.
        add_batch(Lake(two_batches.root, two_batches.storage), "c", 3)
        check_row_counts(two_batches)


def test_rows_of_no_batch_are_left_alone(two_batches: Lake) -> None:
    lakes.fill(two_batches, {9: [1, 2]}, batch_id="somebody's", day=5)
    before = versions(two_batches)
    check_row_counts(two_batches)
    assert versions(two_batches) == before


@pytest.mark.slow
def test_a_lake_on_s3_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.use_credentials(monkeypatch)
    with servers.rclone_s3(tmp_path) as endpoint:
        store = servers.client(endpoint)
        store.create_bucket(Bucket="bucket")
        storage = ObjectStorage(endpoint_url=endpoint, single_writer=True)
        lake = Lake("s3://bucket/lake", storage)
        for day, name in enumerate("ab"):
            add_batch(lake, name, day)
        lake.open(columns.INTERACTIONS).optimize.compact()
        add_batch(lake, "c", 3)
        check_row_counts(lake)
        append_again(lake, "a")
        with pytest.raises(DamagedError, match=r"batch a of a\.csv brought 60 rows, and 120"):
            check_row_counts(lake)
        key = lake.open(columns.INTERACTIONS).file_uris()[0].removeprefix("s3://bucket/")
        store.delete_object(Bucket="bucket", Key=key)
        with pytest.raises(DamagedError, match=f"1 data files of .*{Path(key).name}"):
            check_row_counts(lake)
