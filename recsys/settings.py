"""Where things are: the lake, object storage, the machine. Read from RECSYS_* or recsys.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from recsys.config import Contract, ItemSource, Recommending, Source, Training
from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import date, datetime

    from recsys.model.runtime import Runtime


class ObjectStorage(BaseModel):
    """An S3 endpoint. Credentials never stand here: they come from the standard AWS chain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_url: str | None = Field(
        None, pattern="^https?://.", description="a custom endpoint, e.g. http://host:9000"
    )
    region: str | None = Field(
        None, description="the bucket's region; AWS_REGION, or what the AWS chain says, without it"
    )
    conditional_put: bool = Field(
        True, description="whether the endpoint honours If-None-Match, which makes commits safe"
    )

    @property
    def bucket_region(self) -> str:
        """The region given, or the surroundings', or the one that AWS began with."""
        if named := self.region or os.environ.get("AWS_REGION"):
            return named
        import boto3  # here, since it takes time to import

        return boto3.session.Session().region_name or "us-east-1"

    def delta_options(self) -> dict[str, str]:
        """Return what the Delta writer needs to know of the endpoint."""
        options = {"aws_region": self.bucket_region}
        if self.endpoint_url:
            options["aws_endpoint"] = self.endpoint_url
            options["aws_allow_http"] = str(self.endpoint_url.startswith("http://")).lower()
        options["aws_conditional_put" if self.conditional_put else "aws_s3_allow_unsafe_rename"] = (
            "etag" if self.conditional_put else "true"
        )
        return options


class Settings(BaseSettings):
    """All that can be set, with defaults that run on a laptop.

    Order of precedence: arguments, environment (``RECSYS_LAKE``, ``RECSYS_S3__ENDPOINT_URL``),
    then ``recsys.toml`` in the working directory.
    """

    model_config = SettingsConfigDict(
        env_prefix="RECSYS_",
        env_nested_delimiter="__",
        toml_file="recsys.toml",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    lake: str = Field("./lake", description="root of the tables: a folder or s3://bucket/prefix")
    s3: ObjectStorage = ObjectStorage()
    source: Source | None = Field(None, description="where interactions come from")
    items: ItemSource | None = Field(None, description="where item titles come from")
    contract: Contract = Contract()
    training: Training = Training()
    recommending: Recommending = Recommending()
    timezone: str = Field("UTC", description="where a run_date is a day, e.g. Europe/Berlin")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory_limit: str = Field(
        "4GB",
        pattern=r"^([1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*) ?[KMGT]i?B$",
        description="what DuckDB may hold before it spills to disk",
    )
    threads: int = Field(0, ge=0, description="threads of DuckDB and torch; 0 is every core")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no time zone; give one such as UTC or Europe/Berlin")
        return name

    def required_source(self) -> Source:
        """Return the configured source.

        Raises:
            ConfigurationError: there is none.
        """
        if self.source is None:
            raise ConfigurationError(
                "no source to ingest from: write a [source] table with a uri into recsys.toml, or "
                "set RECSYS_SOURCE__URI, or give one, e.g. `recsys ingest 'data/*.parquet'`"
            )
        return self.source

    def day_of(self, moment: datetime) -> date:
        """Return the day that a moment falls on, in our time zone: a run's run_date."""
        return moment.astimezone(ZoneInfo(self.timezone)).date()

    def runtime(self) -> Runtime:
        """Return where and how the model computes."""
        from recsys.model.runtime import Runtime  # here, since torch takes seconds to import

        return Runtime(device=self.device, threads=self.threads)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then ``recsys.toml``."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
