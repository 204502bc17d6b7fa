"""An error while reading is never read as absence, and says whether trying again may help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake.exceptions import CommitFailedError

from recsys.catalog.query import fetch_catalog
from recsys.errors import LakeError, MissingError, SourceError
from recsys.lake import object_store
from recsys.lake.faults import explain_delta_errors, explain_s3_errors
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import servers
from tests.lake.answers import endpoint_that_answers

READS: dict[str, Callable[[Lake, Path], object]] = {
    "exists": lambda lake, _: lake.exists("models"),
    "open": lambda lake, _: lake.open("models"),
    "rows": lambda lake, _: lake.rows("models"),
    "has": lambda lake, _: lake.has("interactions", "a batch"),
    "create": lambda lake, _: lake.create(*["string"] * 2),  # type: ignore[list-item]
    "find": lambda lake, _: object_store.find(f"{lake.root}/*", lake.storage),
    "download": lambda lake, folder: object_store.download(
        f"{lake.root}/x", folder / "x", lake.storage
    ),
    "fetch_catalog": fetch_catalog,
    "lease": lambda lake, _: (
        Lake(lake.root, ObjectStorage(endpoint_url=lake.storage.endpoint_url))
        .write_lock()
        .__enter__()
    ),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    servers.use_credentials(monkeypatch)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    options = ObjectStorage.delta_options
    monkeypatch.setattr(
        ObjectStorage, "delta_options", lambda self: {**options(self), "max_retries": "1"}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (0, None, True),
        (403, "AccessDenied", False),
        (400, "ExpiredToken", False),
        (404, "NoSuchBucket", False),
    ],
)
@pytest.mark.parametrize("read", READS)
def test_an_error_is_not_absence(
    read: str, status: int, code: str | None, transient: bool, tmp_path: Path
) -> None:
    with endpoint_that_answers(status, code) as endpoint:
        lake = Lake("s3://here/lake", ObjectStorage(endpoint_url=endpoint, single_writer=True))
        with pytest.raises(LakeError) as error, lake.write_lock():
            READS[read](lake, tmp_path)
    # A HEAD request is answered by a status alone: 404 is the object or its bucket.
    by_head = read in ("download", "fetch_catalog")
    assert isinstance(error.value, MissingError) == (by_head and status == 404)
    assert error.value.transient == transient
    assert servers.SECRET_KEY not in str(error.value)


def test_what_the_store_says_is_absent_is_absent(tmp_path: Path) -> None:
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="here")
        lake = Lake("s3://here/lake", ObjectStorage(endpoint_url=endpoint))
        assert not lake.exists("models")
        assert object_store.find("s3://here/lake/*", lake.storage) == []
        with pytest.raises(MissingError, match="run `recsys ingest` first"):
            lake.open("models")
        with pytest.raises(MissingError, match="run `recsys nightly` first"):
            fetch_catalog(lake, tmp_path)


def test_a_source_that_is_absent_is_an_error_of_the_source(tmp_path: Path) -> None:
    with endpoint_that_answers(404, "NoSuchKey") as endpoint:
        storage = ObjectStorage(endpoint_url=endpoint)
        with pytest.raises(SourceError, match="s3://here/x: no such object"):
            object_store.download("s3://here/x", tmp_path / "x", storage, raising=SourceError)


@pytest.mark.parametrize("action", ["open", "write"])
def test_a_local_table_that_cannot_be_read_is_not_absent(tmp_path: Path, action: str) -> None:
    (tmp_path / "models/_delta_log").mkdir(parents=True)
    (tmp_path / "models/_delta_log/00000000000000000000.json").write_text("{torn")
    lake = Lake(str(tmp_path), ObjectStorage())
    with pytest.raises(LakeError) as error:
        lake.exists("models") if action == "open" else lake.delete("models", "true")
    assert not isinstance(error.value, MissingError)


def test_a_catalog_that_cannot_be_read_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LakeError, match=r"could not read .*file/lake/catalog\.duckdb") as error:
        fetch_catalog(Lake(str(tmp_path / "file/lake"), ObjectStorage()), tmp_path)
    assert not isinstance(error.value, MissingError)


def test_a_conflict_of_two_writers_is_told_as_one() -> None:
    with pytest.raises(LakeError, match="another run has changed") as error:  # noqa: SIM117
        with explain_delta_errors("write s3://here/lake/runs", is_local=False):
            raise CommitFailedError("Commit failed: a concurrent transaction deleted data")
    assert error.value.transient


@pytest.mark.parametrize(
    ("text", "says", "transient"),
    [
        ("Generic S3 error ↳ status code ↳ 503 Service Unavailable", "answered 503", True),
        ("Generic S3 error ↳ status code ↳ 403 Forbidden", "access denied", False),
        ("HTTP error ↳ error sending request ↳ connection reset", "does not answer", True),
        ("Invalid data in the log", "Invalid data in the log", False),
    ],
)
def test_a_delta_error_is_told_in_words(text: str, says: str, transient: bool) -> None:
    with pytest.raises(LakeError, match=says) as error:  # noqa: SIM117
        with explain_delta_errors("open s3://here/lake/runs", is_local=False):
            raise OSError(text)
    assert error.value.transient == transient
    assert "disk" not in str(error.value)


def test_a_full_disk_is_never_told_as_a_damaged_file() -> None:
    full = OSError("Parquet error: External: /lake/runs/a.parquet: No space left (os error 28)")
    with pytest.raises(LakeError, match="the disk has room") as error:  # noqa: SIM117
        with explain_delta_errors("write /lake/runs", is_local=True):
            raise full
    assert "copy" not in str(error.value)


def test_a_disk_error_while_an_object_is_written_is_told_as_such() -> None:
    with pytest.raises(LakeError, match="No space left on device"):  # noqa: SIM117
        with explain_s3_errors("s3://here/x", "read"):
            raise OSError(28, "No space left on device", "/spool/x")
