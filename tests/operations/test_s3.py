"""The same upkeep of a lake on S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys import columns
from recsys.lake import object_store
from recsys.lake.tables import Lake
from recsys.operations.erase import erase
from recsys.operations.maintain import maintain
from recsys.settings import Maintenance, ObjectStorage, Settings
from tests import lakes, servers

NOW = datetime(2026, 4, 20, tzinfo=UTC)


@pytest.mark.slow
def test_a_lake_on_s3_is_maintained_and_a_user_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        client = servers.client(endpoint)
        client.create_bucket(Bucket="lake")
        settings = Settings(
            lake="s3://lake/nightly",
            s3=ObjectStorage(endpoint_url=endpoint),
            maintenance=Maintenance(retention=timedelta(0)),
        )
        lake = Lake.from_settings(settings)
        for day in range(2):
            lakes.fill(lake, {4711: [day], 2: [day]}, batch_id=f"batch {day}", day=day)
            lists = lakes.lists(NOW.date() - timedelta(days=50 * day), {4711: [9], 2: [8]})
            lakes.write(lake, columns.RECOMMENDATIONS, lists)
        for key in (
            "weights/m-killed/model.json",
            "checks/batch-1.html",
            "interactions/part-killed.parquet",
        ):
            client.put_object(Bucket="lake", Key=f"nightly/{key}", Body=b"12345")
        with lake.write_lock():
            erase(lake, "4711", "asked")
            result = maintain(lake, settings, now=datetime.now(UTC) + timedelta(days=91))

        kinds = {one.kind: (one.entries, one.files) for one in result.upkeep}
        assert kinds["check pages"] == (1, 1)
        assert kinds["models"] == (1, 1)
        days = [row["run_date"] for row in lake.rows(columns.LIST_DAYS).to_pylist()]
        assert len(days) == 1, "the newest lists stay"
        rows = lake.rows(columns.INTERACTIONS).to_pylist()
        assert [row["user_id"] for row in rows] == [2, 2]
        found = {one.key for one in object_store.find("s3://lake/nightly/**", settings.s3)}
        left = [key.removeprefix("s3://lake/nightly/") for key in found]
        assert not [key for key in left if "killed" in key or "batch-1" in key]
        assert len(lake.open(columns.INTERACTIONS).file_uris()) == 1
