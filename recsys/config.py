"""What a run is asked to do: sources, the contract of a batch, training, recommending."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recsys import columns

if TYPE_CHECKING:
    from collections.abc import Mapping


_EVER = timedelta(days=365 * 1000)


class Config(BaseModel):
    """Base of all configuration: unknown names are refused, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def changed(self, given: Mapping[str, Any]) -> Self:
        """Return a validated copy with what was given; None means as it is."""
        chosen = {name: value for name, value in given.items() if value is not None}
        return type(self).model_validate({**self.model_dump(), **chosen})


class _Place(Config):
    mapped: ClassVar[tuple[str, ...]]
    """Our columns that a mapping can name."""

    uri: str = Field(
        min_length=1,
        description="a DuckDB file (with table or query), or Parquet, CSV, TSV or JSON Lines "
        "files, the last three gzipped or not, by path or glob, local or s3://",
    )
    table: str | None = Field(None, description="DuckDB table, optionally schema.table")
    query: str | None = Field(None, description="DuckDB query, in place of a table")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column name -> the source's column name"
    )

    @field_validator("uri")
    @classmethod
    def _at_home(cls, uri: str) -> str:
        return os.path.expanduser(uri)

    @model_validator(mode="after")
    def _consistent(self) -> _Place:
        scheme, address, _ = self.uri.partition("://")
        if address and scheme != "s3":  # the rest may hold a password or a signature
            raise ValueError(f"{scheme}:// is not read; give a local path or s3://bucket/key")
        if self.table is not None and self.query is not None:
            raise ValueError("give a table or a query, not both")
        taken: dict[str, str] = {}
        for ours, theirs in self.columns.items():
            if ours not in self.mapped:
                known = ", ".join(self.mapped)
                raise ValueError(f"the mapping names {ours!r}; it can name {known}")
            if theirs in taken:
                raise ValueError(
                    f"the mapping names column {theirs!r} twice: for {taken[theirs]!r} and "
                    f"{ours!r}; give each its own"
                )
            taken[theirs] = ours
        return self


class Source(_Place):
    """Where interactions are pulled from."""

    mapped = (*columns.REQUIRED, *columns.OPTIONAL)


class ItemSource(_Place):
    """Where the optional item table is pulled from: item_id, title, category, eligible and more.

    Columns beyond these four go into ``extra``.
    """

    mapped = columns.OF_ITEMS


class Contract(Config):
    """What a batch must keep to; breaking it refuses the batch whole."""

    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="share of pulled rows that may fail the row rules"
    )
    max_span: timedelta = Field(
        timedelta(days=365 * 50), le=_EVER, description="oldest to newest timestamp of one batch"
    )
    max_future: timedelta = Field(
        timedelta(days=1), le=_EVER, description="how far ahead of now a timestamp may lie"
    )
    max_row_count_change: float = Field(
        10.0,
        gt=1,
        description="how many times more or fewer rows than the median of earlier batches",
    )
    max_id_bytes: int = Field(1024, ge=1, description="longest id, in bytes")
    sample_rows: int = Field(
        1_000_000, ge=1, description="rows that Great Expectations judges one by one"
    )


class Training(Config):
    """A training run. ``overrides`` change single fields of the preset."""

    preset: str = Field("best", description="a named model and its training, see recsys.model")
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="most epochs; the preset's own when not given"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the seed of every random draw")
    tolerance: float = Field(
        0.002, ge=0, description="how far below the champion's NDCG@10 a new champion may lie"
    )
    overrides: dict[str, Any] = Field(default_factory=dict, description="preset field -> value")

    def with_fields(self, given: Mapping[str, Any]) -> Self:
        """Return a copy with what was given: our own fields, and any other as an override."""
        fields = set(type(self).model_fields) - {"overrides"}
        own = {name: value for name, value in given.items() if name in fields}
        others = {name: value for name, value in given.items() if name not in own}
        return self.changed({**own, "overrides": {**self.overrides, **others}})


class Recommending(Config):
    """A night's lists."""

    k: int = Field(20, ge=1, le=10_000, description="items per user")
    block: int = Field(4096, ge=1, description="users scored at a time")
    steps: int | None = Field(None, ge=1, description="reverse steps; the preset's when not given")
    seed: int = Field(0, ge=0, lt=2**63, description="the seed of the reverse process")
    seen: Literal["exclude", "include"] = Field(
        "exclude", description="whether an item the user has had may be recommended again"
    )
