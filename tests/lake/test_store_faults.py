"""A store that fails: nothing is doubled, no answer is taken for another, errors name objects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys.errors import LakeError
from recsys.lake import object_store, s3_files
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_lease_whose_answer_is_lost_is_held(s3: FaultyS3) -> None:
    lake = lake_on(s3, "lease", retries=2)
    for _ in range(2):
        with s3.failing("lost", "PUT .*lease/", every=2), lake.write_lock():
            lake.create(pa.int64(), pa.int64())


@pytest.mark.slow
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
            lake.let_read(con)
            con.execute(f"create view interactions as from read_parquet('{uri}')")

    with s3.failing(fault, "GET .*interactions/part"):
        with pytest.raises(LakeError) as refused:
            read()
        told = str(refused.value)
        assert "^" not in told
        assert "Traceback" not in told
        assert "s3://lake/read/interactions/part-" in told
        assert refused.value.transient == (fault in PASSING)


@pytest.mark.slow
def test_a_table_that_the_store_refuses_is_told_and_never_waited_for(s3: FaultyS3) -> None:
    lake, told = lake_on(s3, "many"), []
    lakes.fill(lake, {1: [7]})
    with lake.write_lock():
        for _ in range(9):
            lake.append("interactions", lake.rows("interactions").slice(0, 1))

    def read() -> None:
        with open_duckdb(lake.limits) as con:
            lake.view(con, "interactions")
            con.sql("select user_id, max(timestamp) from interactions group by all").fetchall()

    def read_again() -> None:
        for _ in range(4):
            with pytest.raises(LakeError) as refused:
                read()
            told.append(str(refused.value))

    reader = threading.Thread(target=read_again, daemon=True)
    with s3.failing("unavailable", "GET .*interactions/part", every=2):
        reader.start()
        reader.join(60)
    assert not reader.is_alive()
    assert len(told) == 4
    assert all("s3://lake/many/interactions/part-" in message for message in told)


@pytest.mark.slow
def test_threads_read_one_file_side_by_side(s3: FaultyS3) -> None:
    lake, content = lake_on(s3, "large"), bytes(range(256)) * 8192
    object_store.put("s3://lake/large/file", content, lake.storage)
    object_store.put("s3://lake/large/small", content[:1000], lake.storage)
    for name in ("file", "small"):
        opened = s3_files.LakeFiles(lake.storage, {}).open(f"s3://lake/large/{name}", "rb")
        first, second = threading.Event(), threading.Event()

        def read(opened: Any = opened, first: Any = first, second: Any = second) -> bytes:
            opened.seek(5)
            first.set()
            second.wait(10)
            return opened.read(3)

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(read)
            first.wait(10)
            opened.seek(100)
            second.set()
            assert other.result() == content[5:8]
        assert opened.read(2) == content[100:102]
        assert opened.read(2) == content[102:104]


def test_an_object_whose_answer_ends_half_way_is_asked_for_again(
    s3: FaultyS3, tmp_path: Path
) -> None:
    lake, content = lake_on(s3, "half", retries=1), bytes(range(256)) * 8
    uri = "s3://lake/half/file"
    object_store.put(uri, content, lake.storage)
    ((stored,), path) = object_store.find(uri, lake.storage), tmp_path / "file"
    with s3.failing("cut", "GET .*half/file", every=2) as failed:
        assert object_store.get(uri, lake.storage) == content
        assert object_store.read_start(uri, 1000, lake.storage) == (content[:1000], len(content))
        object_store.download(uri, path, lake.storage, etag=stored.etag)
    assert path.read_bytes() == content
    assert len(failed()) == 3
    with s3.failing("cut", "GET .*half/file"), pytest.raises(LakeError, match=f"read {uri}"):
        object_store.get(uri, lake.storage)


@pytest.mark.slow
def test_a_store_that_answers_each_fifth_request_by_503_is_told_by_no_error(s3: FaultyS3) -> None:
    lake = lake_on(s3, "fifth", retries=4)
    with s3.failing("unavailable", every=5) as failed, lake.write_lock():
        lakes.fill(lake, {1: [7], 2: [8]})
        assert lake.rows("interactions").num_rows == 2
    assert len(failed()) >= 5
