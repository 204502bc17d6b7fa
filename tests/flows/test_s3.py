"""The whole path on S3: source, lake, weights and catalog, against a real endpoint over HTTP."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pytest

from recsys.catalog.query import query_catalog
from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.operations.runs import record_run
from recsys.registry.retrain import train
from recsys.settings import ObjectStorage, Recommending, Settings, Source, Training
from tests import servers
from tests.sampling import sample


def settings(endpoint: str, *, single_writer: bool) -> Settings:
    return Settings(
        lake="s3://lake/nightly",
        s3=ObjectStorage(endpoint_url=endpoint, single_writer=single_writer),
        source=Source(uri="s3://shop/events/*.parquet"),
        training=Training(epochs=2, overrides={"width": 16, "blocks": 1, "max_length": 10}),
        recommending=Recommending(k=5),
        device="cpu",
        threads=1,
    )


def night(settings: Settings, day: date) -> str:
    with record_run("nightly", f"run {day}", settings, {}) as run:
        run.record("ingest", ingest(run.lake, settings))
        run.record("train", train(run.lake, settings))
        bound = Bound.of(settings, day, "now")
        result = recommend(run.lake, settings, run_date=day, run_id=run.run_id, bound=bound)
        run.record("recommend", result)
    return result.status


def put_events(endpoint: str, tmp_path: Path, name: str, steps: str) -> None:
    path = tmp_path / name
    with duckdb.connect() as con:
        con.execute(
            "copy (select u as user_id, 'item ' || ((u * 7 + s) % 25) as item_id, "
            "timestamp '2026-01-01' + to_minutes(s::int) as timestamp "
            f"from range(40) users(u), range({steps}) steps(s)) to '{path}' (format parquet)"
        )
    servers.client(endpoint).upload_file(str(path), "shop", f"events/{name}")


@pytest.mark.slow
@pytest.mark.parametrize("server", sample([servers.rclone_s3, servers.moto_s3], 0))
def test_two_nights_from_s3_to_a_lake_on_s3(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with server(tmp_path) as endpoint:
        for bucket in ("shop", "lake"):
            servers.client(endpoint).create_bucket(Bucket=bucket)
        put_events(endpoint, tmp_path, "one.parquet", "0, 9")
        ours = settings(endpoint, single_writer=server is servers.rclone_s3)
        assert night(ours, date(2026, 1, 2)) == "published"
        assert night(ours, date(2026, 1, 2)) == "unchanged"
        put_events(endpoint, tmp_path, "two.parquet", "9, 10")
        assert night(ours, date(2026, 1, 3)) == "published"

        lake = Lake.from_settings(ours)
        lists = "select count(*) as n, count(distinct user_id) as users, min(run_date) as day "
        found = query_catalog(lake, lists + "from latest_recommendations").to_pylist()
        assert found == [{"n": 200, "users": 40, "day": date(2026, 1, 3)}]
        stored = query_catalog(lake, "select count(*) as n from recommendations").to_pylist()
        assert stored == [{"n": 400}], "a view over s3:// needs no extension here either"
        batches = lake.open("batches").to_pyarrow_table().to_pylist()
        assert sorted((row["accepted"], len(row["objects"])) for row in batches) == [
            (40, 1),
            (360, 1),
        ]
        runs = lake.open("runs").to_pyarrow_table().to_pylist()
        # A run that is tried again goes by the same id, and has one row.
        assert [row["status"] for row in runs] == ["completed"] * 2
        stored = servers.client(endpoint).list_objects_v2(Bucket="lake", Prefix="nightly/")
        keys = [entry["Key"].removeprefix("nightly/") for entry in stored["Contents"]]
        assert "catalog.duckdb" in keys
        assert any(key.startswith("weights/") and key.endswith(".safetensors") for key in keys)
        secret = servers.SECRET_KEY.encode()
        for key in keys:
            body = servers.client(endpoint).get_object(Bucket="lake", Key=f"nightly/{key}")["Body"]
            assert secret not in body.read(), key
