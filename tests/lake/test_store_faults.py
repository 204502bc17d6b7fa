"""A store that fails: nothing is doubled, no answer is taken for another, errors name objects."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from recsys.errors import LakeError
from recsys.lake.engine import open_duckdb
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes, servers
from tests.faulty_s3 import FAULTS, Fault, FaultyS3, faulty_s3

PASSING = {"unavailable", "reset", "cut"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyS3]:
    with (
        pytest.MonkeyPatch.context() as environment,
        faulty_s3(tmp_path_factory.mktemp("s3")) as started,
    ):
        servers.use_credentials(environment)
        servers.client(started.endpoint).create_bucket(Bucket="lake")
        yield started


def lake_on(s3: FaultyS3, name: str, retries: int = 0) -> Lake:
    storage = ObjectStorage(endpoint_url=s3.endpoint, region="us-east-1", retries=retries)
    return Lake(f"s3://lake/{name}", storage)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_commit_whose_answer_is_lost_is_in_once(s3: FaultyS3, retries: int) -> None:
    lake = lake_on(s3, f"lost-{retries}", retries)
    with s3.failing("lost", "PUT .*_delta_log/0.*json"), lake.write_lock():
        lakes.fill(lake, {1: [7], 2: [8]})
        rows = lake.rows("interactions")
        assert lake.append("interactions", rows, transaction="batch") == 2
        assert lake.append("interactions", rows, transaction="batch") == 2
        assert lake.replace("interactions", rows.slice(0, 1), where="user_id = 1") == 3
        lake.delete("interactions", "user_id = 2")
        lake.set_property("batches", "recsys.test", "x")
    other = lake_on(s3, f"lost-{retries}")
    assert {name: other.version(name) for name in TABLES if other.version(name)} == {
        "batches": 1,
        "interactions": 4,
    }
    assert other.rows("interactions")["user_id"].to_pylist() == [1]


def test_a_lease_whose_answer_is_lost_is_held(s3: FaultyS3) -> None:
    lake = lake_on(s3, "lease", retries=2)
    for _ in range(2):
        with s3.failing("lost", "PUT .*lease/", every=2), lake.write_lock():
            lake.create(pa.int64(), pa.int64())


@pytest.mark.parametrize("fault", FAULTS)
def test_what_duckdb_can_not_read_on_s3_is_told_by_its_object(
    s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    lake = lake_on(s3, "read")
    if not lake.exists("interactions"):
        lakes.fill(lake, {1: [7]})
    (uri,) = lake.open("interactions").file_uris()

    def read() -> None:
        with open_duckdb(lake.limits) as con:
            con.register_filesystem(lake.filesystem())
            con.execute(f"create view interactions as from read_parquet('{uri}')")

    with s3.failing(fault, "GET .*interactions/part"):
        with pytest.raises(LakeError) as refused:
            read()
        told = str(refused.value)
        assert "^" not in told
        assert "Traceback" not in told
        assert "s3://lake/read/interactions/part-" in told
        assert refused.value.transient == (fault in PASSING)
