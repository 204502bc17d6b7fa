from __future__ import annotations

import errno
import re
import traceback
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.errors import ConfigurationError, LakeError, SourceError
from recsys.ingest.batch import ingest
from recsys.ingest.check_page import check_page_address
from recsys.lake import object_store
from recsys.lake.faults import explain_s3_errors
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage, Source
from tests.lake.answers import endpoint_that_answers
from tests.servers import SECRET_KEY, client, free_port, moto_s3, rclone_s3, use_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from recsys.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_s3(tmp_path_factory.mktemp("moto")) as address:
        client(address).create_bucket(Bucket="here")
        yield address


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch)


def on(endpoint: str) -> ObjectStorage:
    return ObjectStorage(endpoint_url=endpoint, single_writer=True)


def put(endpoint: str, bucket: str, *keys: str, content: bytes = b"x") -> None:
    server = client(endpoint)
    if bucket not in {entry["Name"] for entry in server.list_buckets()["Buckets"]}:
        server.create_bucket(Bucket=bucket)
    for key in keys:
        server.put_object(Bucket=bucket, Key=key, Body=content)


def events(path: Path, first: int, count: int = 10) -> bytes:
    moments = [
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=first + n) for n in range(count)
    ]
    users = list(range(count))
    pq.write_table(pa.table({"user_id": users, "item_id": users, "timestamp": moments}), path)
    return path.read_bytes()


def test_an_object_that_changed_since_it_was_listed_is_not_read(
    endpoint: str, moto: str, tmp_path: Path
) -> None:
    for address in (endpoint, moto):
        put(address, "changing", "a", content=b"before")
        (stored,) = object_store.find("s3://changing/a", on(address))
        object_store.download(stored.key, tmp_path / "a", on(address), etag=stored.etag)
        assert (tmp_path / "a").read_bytes() == b"before"
        put(address, "changing", "a", content=b"after!")
        with pytest.raises(SourceError, match="changed") as refusal:
            object_store.download(
                stored.key, tmp_path / "a", on(address), etag=stored.etag, raising=SourceError
            )
        assert refusal.value.transient


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.csv", ["in/a.csv", "in/b.csv"]),
        ("in/**/*.csv", ["in/a.csv", "in/b.csv", "in/deep/er/d.csv"]),
        ("in/?.csv", ["in/a.csv", "in/b.csv"]),
        ("in/[b-c].csv", ["in/b.csv"]),
        ("in/a.csv", ["in/a.csv"]),
        ("in/a.cs", []),
        ("in/**", ["in/a.csv", "in/a.csv.bak", "in/b.csv", "in/deep/er/d.csv"]),
    ],
)
def test_a_pattern_finds_objects_by_name(endpoint: str, pattern: str, names: list[str]) -> None:
    put(endpoint, "globs", "in/b.csv", "in/a.csv", "in/a.csv.bak", "in/deep/er/d.csv", "out/a.csv")
    found = object_store.find(f"s3://globs/{pattern}", on(endpoint))
    assert [stored.key for stored in found] == [f"s3://globs/{name}" for name in names]
    assert all(stored.etag and stored.size == 1 for stored in found)


def test_a_folder_goes_up_by_the_names_of_its_files(endpoint: str, tmp_path: Path) -> None:
    put(endpoint, "folders")
    (tmp_path / "up/sub").mkdir(parents=True)
    (tmp_path / "up/a").write_text("A")
    (tmp_path / "up/sub/b").write_text("B")
    object_store.upload_folder(tmp_path / "up", "s3://folders/models/m", on(endpoint))
    for name, content in (("a", "A"), ("sub/b", "B")):
        path = tmp_path / "down" / name
        object_store.download(f"s3://folders/models/m/{name}", path, on(endpoint))
        assert path.read_text() == content


@pytest.mark.slow
def test_new_objects_on_s3_are_taken_once(
    lake: Lake, settings: Settings, endpoint: str, tmp_path: Path
) -> None:
    put(endpoint, "events", "day/1.parquet", content=events(tmp_path / "e", 0))
    settings = settings.model_copy(update={"s3": on(endpoint)})
    source = Source(uri="s3://events/day/*.parquet")
    assert ingest(lake, settings, source, now=NOW).accepted == 10
    assert ingest(lake, settings, source, now=NOW).status == "nothing new"
    put(endpoint, "events", "day/2.parquet", content=events(tmp_path / "e", 100))
    second = ingest(lake, settings, source, now=NOW)
    assert (second.rows_in, second.accepted, second.objects) == (10, 10, 1)
    batches = lake.open(columns.BATCHES).to_pyarrow_table().to_pylist()
    taken = sorted(stored["key"] for batch in batches for stored in batch["objects"])
    assert taken == ["s3://events/day/1.parquet", "s3://events/day/2.parquet"]


def test_a_lake_on_s3_takes_batches_and_pages_of_their_checks(
    settings: Settings, endpoint: str, tmp_path: Path
) -> None:
    put(endpoint, "lake", "events/1.parquet", content=events(tmp_path / "e", 0))
    settings = settings.model_copy(update={"s3": on(endpoint), "lake": "s3://lake/tables"})
    lake = Lake.from_settings(settings)
    source = Source(uri="s3://lake/events/*.parquet")
    first = ingest(lake, settings, source, now=NOW)
    assert first.accepted == 10
    assert lake.open(columns.INTERACTIONS).to_pyarrow_table().num_rows == 10
    assert ingest(lake, settings, source, now=NOW).status == "nothing new"
    # The same rows under another name are held already.
    put(endpoint, "lake", "events/2.parquet", content=events(tmp_path / "e", 5))
    second = ingest(lake, settings, source, now=NOW)
    assert (second.accepted, second.duplicates) == (10, 0)
    put(endpoint, "lake", "events/3.parquet", content=(tmp_path / "e").read_bytes())
    third = ingest(lake, settings, source, now=NOW)
    assert (third.status, third.duplicates) == ("nothing new", 10)
    pages = object_store.find("s3://lake/tables/checks/**", on(endpoint))
    batches = (first.batch_id, second.batch_id)
    assert {page.key for page in pages} == {check_page_address(lake, str(one)) for one in batches}
    shown = client(endpoint).head_object(Bucket="lake", Key=pages[0].key[len("s3://lake/") :])
    assert shown["ContentType"] == "text/html"


def test_missing_buckets_and_objects_are_named(moto: str, tmp_path: Path) -> None:
    storage = ObjectStorage(endpoint_url=moto)
    with pytest.raises(SourceError, match=r"s3://nowhere/\*\.csv: no such bucket"):
        object_store.find("s3://nowhere/*.csv", storage, raising=SourceError)
    with pytest.raises(LakeError, match="s3://here/none: no such object"):
        object_store.download("s3://here/none", tmp_path / "none", storage)
    with pytest.raises(LakeError, match="s3://nowhere/x: no such bucket"):
        object_store.upload(_file_in(tmp_path), "s3://nowhere/x", storage)


def _file_in(folder: Path) -> Path:
    path = folder / "file"
    path.write_text("x")
    return path


def test_wrong_credentials_are_refused_and_never_shown(
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    lake: Lake,
    record_property: pytest.RecordProperty,
) -> None:
    use_credentials(monkeypatch, secret="wrong-and-just-as-secret")  # noqa: S106 - of a test
    settings = settings.model_copy(update={"s3": on(endpoint)})
    with pytest.raises(SourceError, match=r"s3://events/\*\.parquet") as refusal:
        ingest(lake, settings, Source(uri="s3://events/*.parquet"), now=NOW)
    told = repr([refusal.value, refusal.value.__cause__])
    assert "wrong-and-just-as-secret" not in told
    assert SECRET_KEY not in told
    assert "AKIA" not in str(refusal.value)
    # What the Delta writer says has the endpoint's whole answer: the key, the string to sign.
    with pytest.raises(LakeError, match="could not open s3://events/lake/models") as refused:
        Lake("s3://events/lake", on(endpoint)).open("models")
    told = "".join(traceback.format_exception(refused.value))
    assert "<" not in told.partition("LakeError")[2]
    assert not refused.value.transient
    record_property("counted hostile inputs", "planted secret")


def test_no_credentials_says_what_to_set(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match="set AWS_ACCESS_KEY_ID"):
        object_store.find("s3://events/*.parquet", on(endpoint), raising=SourceError)


def test_a_silent_endpoint_may_be_tried_again() -> None:
    nobody = on(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SourceError, match="does not answer") as refusal:
        object_store.find("s3://events/*.parquet", nobody, raising=SourceError)
    assert refusal.value.transient


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (502, "NotOfAws", True),
        (429, "NotOfAws", True),
        (400, "RequestTimeout", True),
        (0, None, True),
        (403, "AccessDenied", False),
        (400, "InvalidRequest", False),
    ],
)
def test_faults_that_pass_are_told_from_those_that_stay(
    status: int, code: str | None, transient: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with endpoint_that_answers(status, code) as endpoint:
        storage = on(endpoint)
        with pytest.raises(SourceError) as listing:
            object_store.find("s3://here/*.csv", storage, raising=SourceError)
        with pytest.raises(SourceError) as reading:
            object_store.download("s3://here/a.csv", tmp_path / "a", storage, raising=SourceError)
        with pytest.raises(LakeError) as writing:
            object_store.upload(_file_in(tmp_path), "s3://here/a.csv", storage)
    assert [each.value.transient for each in (listing, reading, writing)] == [
        transient,
        # To a HEAD request S3 says no more than the status, and 400 alone may be anything.
        transient and status != 400,
        transient,
    ]
    assert not any(SECRET_KEY in str(each.value) for each in (listing, reading, writing))


def test_credentials_are_in_no_table_and_no_log(
    lake: Lake,
    settings: Settings,
    endpoint: str,
    tmp_path: Path,
    record_property: pytest.RecordProperty,
) -> None:
    put(endpoint, "quiet", "1.parquet", content=events(tmp_path / "e", 0))
    settings = settings.model_copy(update={"s3": on(endpoint)})
    ingest(lake, settings, Source(uri="s3://quiet/1.parquet"), now=NOW)
    written = [path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert written
    assert not any(SECRET_KEY.encode() in content for content in written)
    record_property("counted hostile inputs", "planted secret")


def test_an_address_has_a_bucket() -> None:
    for wrong in ("s3://", "bucket/key", "https://bucket/key"):
        with pytest.raises(ConfigurationError, match="s3://bucket/key"):
            object_store.split(wrong)


def test_a_full_disk_is_told_as_such() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/spool/a.parquet")
    with (
        pytest.raises(SourceError, match=r"s3://b/k: No space left on device, /spool/a\.parquet"),
        explain_s3_errors("s3://b/k", "read", SourceError),
    ):
        raise full


@pytest.mark.slow
def test_a_range_of_letters_in_a_pattern_means_itself() -> None:
    assert re.fullmatch(object_store._as_regex("day[0-3].p*"), "day2.parquet")
    assert not re.fullmatch(object_store._as_regex("day[0-3].p*"), "day4.parquet")
