from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.errors import ConfigurationError
from recsys.lake.tables import Lake
from recsys.settings import (
    ItemSource,
    ObjectStorage,
    Recommending,
    RecommendingChanges,
    Settings,
    Source,
    Training,
)


def test_the_environment_comes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recsys.toml").write_text(
        'lake = "s3://bucket/lake"\n[recommending]\nk = 7\n[s3]\nendpoint_url = "http://host:1"\n'
    )
    monkeypatch.setenv("RECSYS_LAKE", "elsewhere")
    monkeypatch.setenv("RECSYS_S3__REGION", "eu-central-1")
    settings = Settings()
    assert (settings.lake, settings.recommending.k) == ("elsewhere", 7)
    assert settings.s3.delta_options() == {
        "aws_region": "eu-central-1",
        "aws_endpoint": "http://host:1",
        "aws_allow_http": "true",
        "aws_conditional_put": "etag",
        "timeout": "60.0s",
        "connect_timeout": "10.0s",
        "max_retries": "4",
        "retry_timeout": "300.0s",
    }


def test_the_region_is_the_one_given_or_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert Settings().s3.bucket_region == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert Settings().s3.bucket_region == "eu-west-3"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert Settings().s3.bucket_region == "ap-south-1"
    assert ObjectStorage(region="eu-central-1").bucket_region == "eu-central-1"


def test_a_run_belongs_to_the_day_of_the_settings_time_zone() -> None:
    late = datetime(2026, 1, 1, 17, 0, tzinfo=UTC)
    assert Settings().run_date(late) == date(2026, 1, 1)
    assert Settings(timezone="Asia/Tokyo").run_date(late) == date(2026, 1, 2)


def test_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "recsys.toml").write_text("[recommending]\nkk = 7\n")
    with pytest.raises(ValidationError, match="kk"):
        Settings()


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Lake.from_settings(Settings(lake="~/lake")).root == "/home/me/lake"
    assert Source(uri="~/events/*.parquet").uri == "/home/me/events/*.parquet"


def test_a_mapping_may_name_a_column_once() -> None:
    with pytest.raises(ValidationError, match=r"names column 'u' twice: for 'user_id' and"):
        Source(uri="x.csv", columns={"user_id": "u", "item_id": "u"})
    with pytest.raises(ValidationError, match="it can name user_id, item_id, timestamp"):
        Source(uri="x.csv", columns={"user": "u"})
    with pytest.raises(ValidationError, match="it can name item_id, title, category, eligible"):
        ItemSource(uri="x.csv", columns={"title_": "name"})
    with pytest.raises(ValidationError, match="a table or a query, not both"):
        Source(uri="x.duckdb", table="t", query="select 1")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SOURCE__URI", "https://host/a.csv?X-Amz-Signature=hush", "https:// can't be read"),
        ("SOURCE__URI", "postgres://me:hush@host/db", "postgres:// can't be read"),
        ("SOURCE__URI", "s3://key:hush@bucket/a.csv", "holds a key, a password or a signature"),
        ("SOURCE__URI", "s3://bucket/a.csv?X-Amz-Signature=hush", "leave it out"),
        ("SOURCE__URI", "s3://b/a.csv?AWSAccessKeyId=k&Signature=hush", "leave it out"),
        ("ITEMS__URI", "s3://key:hush@bucket/a.csv", "leave it out"),
        ("LAKE", "s3://key:hush@bucket/lake", "leave it out"),
        ("LAKE", "s3://bucket/lake?x-amz-security-token=hush", "leave it out"),
        ("S3__ENDPOINT_URL", "http://me:hush@host:9000", "leave it out"),
        ("S3__ENDPOINT_URL", "https://host/?token=hush", "leave it out"),
        ("S3__ENDPOINT_URL", "minio-hush:9000", "endpoint_url"),
        ("MEMORY_LIMIT", "0GB", "memory_limit"),
        ("CONTRACT__MAX_FUTURE", "P999999999D", "max_future"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
    record_property: pytest.RecordProperty,
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(f"RECSYS_{name}", value)
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert says in str(refusal.value)
    assert "hush" not in str(refusal.value)
    if "hush" in value:
        record_property("counted hostile inputs", "secret in an address")


def test_a_pattern_of_s3_is_no_signature() -> None:
    uri = "s3://bucket/day=?/a?.csv"
    assert Source(uri=uri).uri == uri


def test_what_is_not_a_field_of_training_overrides_the_preset() -> None:
    base = Training(overrides={"width": 16})
    changed = base.with_fields({"epochs": "3", "dropout": "0.2"})
    assert (changed.epochs, changed.overrides) == (3, {"width": 16, "dropout": "0.2"})
    assert base.changed({"seed": None}) == base
    with pytest.raises(ValidationError, match="epochs"):
        base.with_fields({"epochs": "0"})


def test_settings_for_one_run_have_the_bounds_of_the_configured_ones() -> None:
    assert set(RecommendingChanges.model_fields) == set(Recommending.model_fields)
    for name, value in {"k": 10_001, "seed": 2**63, "steps": 0, "block": 0, "seen": "some"}.items():
        for model in (Recommending, RecommendingChanges):
            with pytest.raises(ValidationError, match=name):
                model.model_validate({name: value})
    changes = RecommendingChanges(k=3)
    assert Recommending(seen="include").changed(changes.model_dump()) == Recommending(
        k=3, seen="include"
    )


def test_a_run_date_may_be_tomorrow_and_not_later() -> None:
    settings = Settings(timezone="Pacific/Kiritimati")
    tomorrow = settings.run_date() + timedelta(days=1)
    settings.check_run_date(tomorrow)
    with pytest.raises(ConfigurationError, match="give a day up to tomorrow"):
        settings.check_run_date(tomorrow + timedelta(days=1))
