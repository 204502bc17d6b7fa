"""All that can be set: sources, the contract of a batch, training, lists, the lake, the machine.

It is one long file, so that nobody has to know in which of several a setting is.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.model.presets import PRESETS, override_schema

if TYPE_CHECKING:
    from collections.abc import Mapping


_MAX_SPAN = timedelta(days=365 * 1000)

# The bounds of a parameter, once: for files, variables, commands and flows alike. Each has an upper
# one, since Prefect can't list runs whose parameters hold integers of over 64 bits.
MAX_SEED = 2**63 - 1
MAX_EPOCHS = 10_000
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
Splitting = Literal["leave-one-out", "temporal"]
K = Annotated[int, Field(ge=1, le=10_000)]
Block = Annotated[int, Field(ge=1, le=2**31 - 1)]
ExplainedUsers = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=2**31 - 1)]
HalfLife = Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(days=365 * 1000))]
Seen = Literal["exclude", "include"]
AsOf = Literal["now"] | datetime
"""Which data lists may know: what had been ingested before a time, or all that is there now."""
PresetName = Annotated[str, Field(json_schema_extra={"enum": [*PRESETS]})]
Override = (
    Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
    | str
)
# `resolve` refuses a wrong field or value; by this, Prefect refuses it before it makes a run.
Overrides = Annotated[
    dict[str, Override],
    Field(json_schema_extra={"properties": override_schema(), "additionalProperties": False}),
]
IdType = Literal["integer", "text"]
_POSTGRES = ("postgresql", "postgres")
TimestampUnit = Literal["s", "ms", "us", "ns", "yyyymmdd", "ticks", "days", "excel_days"]


def without_secrets(address: str) -> str:
    """Return an address of S3 or of an endpoint, or refuse it: it may hold a password or a key.

    Raises:
        ValueError: it names a user, or has a query such as a signature; neither is repeated.
    """
    scheme, sign, rest = address.partition("://")
    if not sign:
        return address
    host = rest.partition("/")[0]
    is_signed = re.search(r"[?&](x-amz-|awsaccesskeyid=|signature=|password=|token=)", rest.lower())
    if "@" in host or is_signed or (scheme != "s3" and "?" in rest):
        raise ValueError(
            f"the {scheme}:// address holds a key, a password or a signature: leave it out; "
            "credentials come from the standard AWS chain, such as AWS_ACCESS_KEY_ID"
        )
    return address


class Config(BaseModel):
    """Base of all configuration: unknown names are refused, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return a validated copy with some fields changed; None leaves a field as it is."""
        values = {name: value for name, value in changes.items() if value is not None}
        return type(self).model_validate({**self.model_dump(), **values})


class _Location(Config):
    our_columns: ClassVar[tuple[str, ...]]
    """Our columns that a mapping can name."""
    required_columns: ClassVar[tuple[str, ...]]

    uri: str = Field(
        min_length=1,
        description="a DuckDB file (with table or query), or Parquet, CSV, TSV or JSON Lines "
        "files, the last three gzipped or not, by path or glob, local or s3://",
    )
    table: str | None = Field(None, description="DuckDB table, optionally schema.table")
    query: str | None = Field(None, description="DuckDB query, in place of a table")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our column name -> the source's column name; empty: it has none",
    )

    @field_validator("uri")
    @classmethod
    def _expand_home(cls, uri: str) -> str:
        return os.path.expanduser(uri)

    @model_validator(mode="after")
    def _consistent(self) -> _Location:
        scheme, address, _ = self.uri.partition("://")
        if address and scheme != "s3":  # the rest may hold a password or a signature
            raise ValueError(f"{scheme}:// can't be read; give a local path or s3://bucket/key")
        without_secrets(self.uri)
        if self.table is not None and self.query is not None:
            raise ValueError("give a table or a query, not both")
        ours_of: dict[str, str] = {}
        for ours, theirs in self.columns.items():
            if ours not in self.our_columns:
                allowed = ", ".join(self.our_columns)
                raise ValueError(f"the mapping names {ours!r}; it can name {allowed}")
            if not theirs and ours in self.required_columns:
                raise ValueError(f"the mapping gives {ours} no column, but every row needs one")
            if theirs and theirs in ours_of:
                raise ValueError(
                    f"the mapping names column {theirs!r} twice: for {ours_of[theirs]!r} and "
                    f"{ours!r}; give each its own"
                )
            ours_of[theirs] = ours
        return self


class Source(_Location):
    """Where interactions come from."""

    our_columns = (*columns.REQUIRED, *columns.OPTIONAL)
    required_columns = columns.REQUIRED

    user_id_type: IdType | None = Field(
        None, description="what users' ids are in a new lake; told by the values when not given"
    )
    item_id_type: IdType | None = Field(
        None, description="what items' ids are in a new lake; told by the values when not given"
    )
    timestamp_unit: TimestampUnit | None = Field(
        None, description="unit of timestamps that are numbers; told by the column when not given"
    )
    drop_null_users: bool = Field(
        False,
        description="whether rows without a user are expected: they are counted, and left out",
    )
    on_change: Literal["add", "replace", "delete"] = Field(
        "add",
        description="what becomes of interactions that the source has changed since: they stay; "
        "get its new event and value (replace); and go where it no longer holds them (delete)",
    )
    delete_scope: Literal["all", "span", "users"] = Field(
        "all",
        description="for delete, what the source is complete for: all that it ever brought, the "
        "span of time that it holds now, or the users that it holds now",
    )


class ItemSource(_Location):
    """Where the optional item table comes from: item_id, title, category, eligible and more.

    Columns beyond these four go into ``extra``.
    """

    our_columns = columns.OF_ITEMS
    required_columns = (columns.ITEM_ID,)


class Contract(Config):
    """The rules that a batch must keep; a batch that breaks one is refused whole."""

    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="largest share of rows that may fail the row checks"
    )
    max_span: timedelta = Field(
        timedelta(days=365 * 50),
        le=_MAX_SPAN,
        description="oldest to newest timestamp of one batch",
    )
    max_future: timedelta = Field(
        timedelta(days=1), le=_MAX_SPAN, description="how far in the future a timestamp may lie"
    )
    max_row_count_change: float = Field(
        10.0,
        gt=1,
        description="how many times more or fewer rows than the median of earlier batches",
    )
    max_changed_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of a source's interactions that one batch may replace or "
        "delete, see on_change",
    )
    max_id_bytes: int = Field(1024, ge=1, description="longest id, in bytes")
    sample_rows: int = Field(
        1_000_000, ge=1, description="rows that Great Expectations checks one by one"
    )


class Policy(Config):
    """When a night trains again; one reason is enough.

    The first two are counted from the newest training, whether its model serves or was rejected.
    Where no interaction is new since then, nothing is trained.
    """

    max_age: timedelta = Field(
        timedelta(days=7), ge=timedelta(0), le=_MAX_SPAN, description="age of the newest training"
    )
    new_data_share: float = Field(
        0.1, ge=0, description="share by which interactions grew since the newest training"
    )
    unknown_share: float = Field(
        0.05, ge=0, description="share of interactions whose item the champion does not know"
    )


class Training(Config):
    """A training run. ``overrides`` change single fields of the preset."""

    preset: PresetName = Field(
        "best", description="a named model and its training, see recsys.model"
    )
    epochs: Epochs | None = Field(None, description="most epochs; the preset's when not given")
    seed: Seed = Field(0, description="the seed of every random draw")
    tolerance: float = Field(
        0.002,
        ge=0,
        description="how far below the champion's NDCG@10 a new model may be and still replace it",
    )
    split: Splitting = Field(
        "leave-one-out",
        description="what is held out of a training, to judge by: each user's last two items; or "
        "(temporal) all that came after 80 % of the interactions, which is nearer to what lists "
        "meet, where timestamps are those of the events. With refit, what serves learns from all",
    )
    refit: bool = Field(
        False,
        description="whether a model that passes the gate is trained once more, on whole "
        "histories, before it serves",
    )
    warm_start: bool = Field(
        False,
        description="whether a training goes on from the champion's judged weights, where nothing "
        "was removed from `interactions` since",
    )
    warm_epochs: Epochs = Field(5, description="most epochs of a training that goes on")
    overrides: dict[str, Any] = Field(default_factory=dict, description="preset field -> value")
    save_every: timedelta = Field(
        timedelta(minutes=10),
        ge=timedelta(0),
        le=timedelta(days=30),
        description="how often the state of a training, and the scores of a night, are saved, from "
        "where a stopped one goes on",
    )
    policy: Policy = Policy()

    def with_fields(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some values changed: our own fields, and any other as an override."""
        names = set(type(self).model_fields) - {"overrides", "policy"}
        fields = {name: value for name, value in changes.items() if name in names}
        overrides = {name: value for name, value in changes.items() if name not in names}
        return self.changed({**fields, "overrides": {**self.overrides, **overrides}})


_EventNames = Annotated[tuple[str, ...], Field(min_length=1)]


class Events(Config):
    """What lists learn from, and what counts as had. Empty: every interaction is for both."""

    targets: _EventNames | None = Field(
        None,
        description="events that are learnt to be predicted, that models are judged on, and that "
        "popularity counts; all when not given",
    )
    context: tuple[str, ...] | None = Field(
        None,
        description="other events that the model reads, without predicting them; all others when "
        "not given",
    )
    min_value: float | None = Field(
        None,
        allow_inf_nan=False,
        description="smallest value of a target, such as a rating; an interaction below it, or "
        "without a value, is not one, and the model still reads it",
    )
    seen_events: _EventNames | None = Field(
        None,
        description="events after which an item is left out of the user's lists, where "
        "recommending.seen is exclude; all when not given",
    )
    seen_window: timedelta | None = Field(
        None,
        gt=timedelta(0),
        le=_MAX_SPAN,
        description="how long an item is left out after such an event, e.g. 90d; for good when "
        "not given",
    )

    @property
    def is_set(self) -> bool:
        """Whether anything is asked."""
        return any(getattr(self, name) is not None for name in type(self).model_fields)

    def as_dict(self) -> dict[str, Any]:
        """Return what decides what is learnt and listed, which JSON can carry; empty if unset."""
        return {"events": self.model_dump(mode="json")} if self.is_set else {}


_Condition = Annotated[str, Field(min_length=1, max_length=10_000)]


class Boost(Config):
    """Items whose probability is multiplied before lists are ranked."""

    when: _Condition = Field(description="a condition in SQL on a row of `items`")
    factor: float = Field(
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="what the probability is multiplied by; below 1 is a penalty",
    )


class Rules(Config):
    """What a shop asks of every list. Conditions are SQL on `items`; see docs/lists.md."""

    show_only: _Condition | None = Field(
        None, description="a condition in SQL on a row of `items`: no other item is shown"
    )
    pins: tuple[_Condition, ...] = Field(
        (), description="conditions in SQL: such items come first in every list that may hold them"
    )
    boosts: tuple[Boost, ...] = Field(
        (), description="factors by which the probability of some items is multiplied"
    )
    max_per: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="column of `items`, such as category -> most items of a list with one value",
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=100,
        description="what each item costs for every better one of its value of diversity_by, in "
        "units of the score",
    )
    diversity_by: str = Field("category", description="the column of `items` for diversity")

    @property
    def is_set(self) -> bool:
        """Whether anything is asked."""
        return bool(self.conditions or self.max_per or self.diversity)

    @property
    def conditions(self) -> dict[str, str]:
        """Where a condition is written in the settings -> the condition."""
        found = {"rules.show_only": self.show_only} if self.show_only else {}
        found |= {f"rules.pins[{nth}]": when for nth, when in enumerate(self.pins)}
        boosts = enumerate(self.boosts)
        return found | {f"rules.boosts[{nth}].when": boost.when for nth, boost in boosts}

    def as_dict(self) -> dict[str, Any]:
        """Return what decides lists, which JSON can carry; empty where nothing is asked."""
        return {"rules": self.model_dump(mode="json")} if self.is_set else {}


class Experiment(Config):
    """Another model that makes the lists of some users, beside the champion."""

    name: str = Field(
        min_length=1, max_length=200, description="its name: another one draws other users"
    )
    share: float = Field(
        gt=0, lt=1, description="share of the users whose lists the other model makes"
    )
    model: str = Field(min_length=1, description="the other model, as `recsys models` has it")

    def as_dict(self) -> dict[str, Any]:
        """Return what decides lists, which JSON can carry."""
        return {"experiment": self.model_dump(mode="json")}


class Gate(Config):
    """What a new model must pass before it serves."""

    allow_below_baseline: bool = Field(
        False,
        description="whether a model may serve that is above popularity and not above the best "
        "baseline",
    )


class Recommending(Config):
    """A night's lists."""

    k: K = Field(20, description="items per user")
    block: Block = Field(4096, description="users scored at a time")
    steps: Steps | None = Field(None, description="reverse steps; the preset's when not given")
    seed: Seed = Field(0, description="the seed of the reverse process")
    seen: Seen = Field(
        "exclude", description="whether items of the user's history may be recommended again"
    )
    new_items_share: Share = Field(
        0.0,
        description="largest share of a list for items that the model has not learnt, ranked by "
        "who took them first; 0: none",
    )
    min_confidence: Share = Field(
        0.0,
        description="confidence below which popularity makes a user's list; 0: the model makes all",
    )
    popularity_half_life: HalfLife | None = Field(
        None,
        description="age, by the newest interaction, at which one counts half for popularity, e.g. "
        "30d; all count alike when not given",
    )

    explained_users: ExplainedUsers = Field(
        12,
        description="users whose lists a night explains, drawn by a fixed hash, the report's dozen "
        "first; each takes as long as scoring a user for every item of the history; 0: none",
    )

    @property
    def decides(self) -> dict[str, Any]:
        """What decides lists: all but how many are made at a time, and how many are explained."""
        return self.model_dump(exclude={"block", "explained_users"})

    @property
    def most_new_items(self) -> int:
        """How many items of a list may be such that the model has not learnt."""
        return int(self.new_items_share * self.k)


def _as_configured(name: str) -> Any:
    """Return a field of `RecommendingChanges`: it says what the setting is, and its default."""
    setting = Recommending.model_fields[name]
    default = "" if setting.default is None else f"; by default {setting.default}"
    return Field(None, description=f"{setting.description} (empty: as configured{default})")


class RecommendingChanges(Config):
    """Fields of `Recommending` to change for one run; None: as it is configured."""

    k: K | None = _as_configured("k")
    block: Block | None = _as_configured("block")
    steps: Steps | None = _as_configured("steps")
    seed: Seed | None = _as_configured("seed")
    seen: Seen | None = _as_configured("seen")
    new_items_share: Share | None = _as_configured("new_items_share")
    min_confidence: Share | None = _as_configured("min_confidence")
    popularity_half_life: HalfLife | None = _as_configured("popularity_half_life")
    explained_users: ExplainedUsers | None = _as_configured("explained_users")


def _training_schema() -> dict[str, Any]:
    own = Training.model_json_schema()["properties"]
    fields = {name: own[name] for name in ("preset", "epochs", "seed", "tolerance")}
    return {"properties": {**override_schema(), **fields}, "additionalProperties": False}


TrainingChanges = Annotated[dict[str, Override], Field(json_schema_extra=_training_schema())]
"""Fields of `Training`, and of a preset, to change for one run; see `Training.with_fields`."""


class Maintenance(Config):
    """What `recsys maintain` keeps, and for how long."""

    retention: timedelta = Field(
        timedelta(days=7),
        ge=timedelta(0),
        le=_MAX_SPAN,
        description="how long an older version of a table can still be read, and an open catalog "
        "goes on; in whole hours, and longer than any run takes",
    )
    keep_lists: timedelta = Field(
        timedelta(days=90),
        ge=timedelta(days=1),
        le=_MAX_SPAN,
        description="how long lists stay; after that one row a day stays in `list_days`",
    )
    keep_quality_results: timedelta = Field(
        timedelta(days=90),
        ge=timedelta(days=1),
        le=_MAX_SPAN,
        description="how long results of checks stay, and the pages of them",
    )
    keep_models: timedelta = Field(
        timedelta(days=90),
        ge=timedelta(days=1),
        le=_MAX_SPAN,
        description="how long the files of a model stay that does not serve and made no list that "
        "stands; its row stays for good",
    )


class Drift(Config):
    """When the newest interactions are too far from those that were learnt from."""

    recent: timedelta = Field(
        timedelta(days=7),
        gt=timedelta(0),
        le=_MAX_SPAN,
        description="how far back the newest interactions go; in whole weeks, for their weekdays",
    )
    reference: timedelta = Field(
        timedelta(days=28),
        gt=timedelta(0),
        le=_MAX_SPAN,
        description="how much of what the newest training learnt from they are compared with",
    )
    min_rows: int = Field(1000, ge=1, description="fewer rows than this say nothing")
    warn_psi: float = Field(
        0.1, ge=0, description="population stability index from which a night warns"
    )
    retrain_psi: float = Field(
        0.25, ge=0, description="population stability index from which a training is asked for"
    )
    warn_share: float = Field(
        0.1, ge=0, description="share of unknown or rejected rows from which a night warns"
    )
    retrain_share: float = Field(
        0.3, ge=0, description="share of unknown rows from which a training is asked for"
    )


class Scale(Config):
    """What a night does where there are very many users."""

    shards: int = Field(
        1,
        ge=1,
        le=100_000,
        description="parts of the users whose lists are made one after the other, so that less "
        "memory is needed: histories and lists of one part are held at a time",
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="where the parts are made: on this machine, or on a Ray cluster"
    )
    ray_address: str = Field("auto", description="the cluster's, such as ray://head:10001")
    cpus_per_shard: float = Field(1, gt=0, le=1024, description="CPUs of Ray's for one part")
    gpus_per_shard: float = Field(0, ge=0, le=64, description="GPUs of Ray's for one part")
    catalog_rows: int = Field(
        20_000_000,
        ge=0,
        description="most rows of the newest lists that catalog.duckdb holds itself; of more, "
        "latest_recommendations is a view of the lake's files",
    )


class Sink(Config):
    """A place besides the lake that gets every night's lists; see docs/sinks.md."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="what you call it")
    to: str = Field(
        min_length=1,
        description="a folder or s3://bucket/prefix for Parquet files, a DuckDB file (*.duckdb, "
        "*.db), or postgresql://user@host/database; a password comes from PGPASSWORD or ~/.pgpass",
    )
    table: str = Field(
        "recommendations",
        pattern=r"^[A-Za-z_]\w{0,62}(\.[A-Za-z_]\w{0,62})?$",
        description="table of a database, optionally schema.table; it is made where it is missing",
    )
    wait: timedelta = Field(
        timedelta(minutes=10),
        ge=timedelta(0),
        le=timedelta(days=1),
        description="how long to wait for a database that another process holds",
    )

    @field_validator("to")
    @classmethod
    def _check_address(cls, to: str) -> str:
        scheme, address, rest = to.partition("://")
        if not address:
            return os.path.expanduser(to)
        if scheme not in ("s3", *_POSTGRES):  # the rest may hold a password or a signature
            raise ValueError(
                f"{scheme}:// can't be written; give a path, s3://bucket/prefix or postgresql://"
            )
        parts = urlsplit(to)
        if parts.password is not None or "password=" in parts.query.lower():
            raise ValueError(
                "the address holds a password: leave it out, and give it in the variable "
                "PGPASSWORD or in the file ~/.pgpass"
            )
        if scheme == "s3":
            without_secrets(to)
        if scheme == "s3" and (parts.query or not parts.netloc):
            raise ValueError("give s3://bucket/prefix; keys come from the AWS chain")
        return to if scheme in _POSTGRES else f"s3://{rest.rstrip('/')}"

    @property
    def kind(self) -> Literal["parquet", "duckdb", "postgres"]:
        """What is written there."""
        if self.to.startswith(tuple(f"{scheme}://" for scheme in _POSTGRES)):
            return "postgres"
        is_file = "://" not in self.to and self.to.endswith((".duckdb", ".db"))
        return "duckdb" if is_file else "parquet"


class ObjectStorage(BaseModel):
    """An S3 endpoint. Credentials are not set here: they come from the standard AWS chain."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoint_url: str | None = Field(
        None, pattern="^https?://.", description="a custom endpoint, e.g. http://host:9000"
    )
    region: str | None = Field(
        None, description="the bucket's region; if not given, AWS_REGION or the AWS configuration"
    )
    single_writer: bool = Field(
        False,
        description="true: you make sure that one run at a time writes to a lake there, for an "
        "endpoint that does not honour If-None-Match; false: the lake itself keeps runs apart",
    )

    timeout: timedelta = Field(
        timedelta(seconds=60),
        gt=timedelta(0),
        le=timedelta(hours=1),
        description="how long one request may take, of the Delta writer too",
    )
    retries: int = Field(
        4,
        ge=0,
        le=20,
        description="how often a request is tried again that failed in passing, of the Delta "
        "writer too",
    )

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        return endpoint and without_secrets(endpoint)

    @property
    def connect_timeout(self) -> float:
        """Seconds that it may take to reach the endpoint."""
        return min(10.0, self.timeout.total_seconds())

    @property
    def bucket_region(self) -> str:
        """The region given, or the surroundings', or the one that AWS began with."""
        if named := self.region or os.environ.get("AWS_REGION"):
            return named
        import boto3  # here, since it takes time to import

        return boto3.session.Session().region_name or "us-east-1"

    def delta_options(self) -> dict[str, str]:
        """Return what the Delta writer needs to know of the endpoint."""
        options = {
            "aws_region": self.bucket_region,
            "timeout": f"{self.timeout.total_seconds()}s",
            "connect_timeout": f"{self.connect_timeout}s",
            "max_retries": str(self.retries),
            "retry_timeout": f"{self.timeout.total_seconds() * (self.retries + 1)}s",
        }
        if self.endpoint_url:
            options["aws_endpoint"] = self.endpoint_url
            options["aws_allow_http"] = str(self.endpoint_url.startswith("http://")).lower()
        options |= (
            {"aws_s3_allow_unsafe_rename": "true"}
            if self.single_writer
            else {"aws_conditional_put": "etag"}
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
    allow_source_parameter: bool = Field(
        False,
        description="whether a flow run may bring a source of its own: whoever may start runs can "
        "then read any file that this machine can",
    )
    items: ItemSource | None = Field(None, description="where item titles come from")
    contract: Contract = Contract()
    events: Events = Events()
    training: Training = Training()
    gate: Gate = Gate()
    recommending: Recommending = Recommending()
    rules: Rules = Rules()
    experiment: Experiment | None = Field(
        None, description="another model for some of the users, to compare with"
    )
    sinks: tuple[Sink, ...] = Field((), description="where lists go besides the lake")
    maintenance: Maintenance = Maintenance()
    drift: Drift = Drift()
    scale: Scale = Scale()
    timezone: str = Field("UTC", description="where a run_date is a day, e.g. Europe/Berlin")
    time_limit: timedelta = Field(
        timedelta(hours=12),
        gt=timedelta(0),
        le=timedelta(days=30),
        description="longest run of a flow or a command: one that takes longer is stopped",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description='where the model runs: "auto" is the GPU where there is one, else "cpu"; '
        '"cuda:1" is the second of several',
    )
    memory_limit: str = Field(
        "4GB",
        pattern=r"^([1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*) ?[KMGT]i?B$",
        description="memory that DuckDB may use before it spills to disk",
    )
    threads: int = Field(
        0,
        ge=0,
        description="threads of DuckDB and torch; 0 is every core, for torch every free one",
    )

    @field_validator("lake")
    @classmethod
    def _check_lake(cls, lake: str) -> str:
        return without_secrets(lake)

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"{name!r} is not a time zone; give one such as UTC or Europe/Berlin"
            ) from error
        return name

    @field_validator("sinks")
    @classmethod
    def _check_sinks(cls, sinks: tuple[Sink, ...]) -> tuple[Sink, ...]:
        for values in ([sink.name for sink in sinks], [(sink.to, sink.table) for sink in sinks]):
            if len(set(values)) < len(values):
                raise ValueError("two sinks have one name, or one place; give each its own")
        return sinks

    def chosen_sinks(self, name: str | None = None) -> tuple[Sink, ...]:
        """Return the sink of a name, or all of them.

        Raises:
            ConfigurationError: there is none.
        """
        chosen = tuple(sink for sink in self.sinks if name in (None, sink.name))
        if not chosen:
            names = ", ".join(sink.name for sink in self.sinks) or "none"
            raise ConfigurationError(
                f"no sink {name or 'to deliver to'}; the settings have {names}. Write a [[sinks]] "
                "table with name and to into recsys.toml"
            )
        return chosen

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

    def check_source_parameter(self, source: Source | None) -> None:
        """Refuse a source that a flow run brings, unless that is allowed.

        Raises:
            ConfigurationError: there is one, and it is not allowed.
        """
        if source is not None and not self.allow_source_parameter:
            raise ConfigurationError(
                "this run brings a source of its own, which is not allowed: leave the parameter "
                "out, or set allow_source_parameter = true where the flows run"
            )

    def run_date(self, timestamp: datetime | None = None) -> date:
        """Return the day of a timestamp, now by default, in our time zone: a run's run_date."""
        return (timestamp or datetime.now(UTC)).astimezone(ZoneInfo(self.timezone)).date()

    def night_time(self, run_date: date) -> datetime:
        """Return the time of the night of a run_date: now, or the end of a day that is over."""
        return min(datetime.now(UTC), self.end_of(run_date) - timedelta(microseconds=1))

    def end_of(self, run_date: date) -> datetime:
        """Return when a day ends in our time zone, in UTC."""
        midnight = datetime.combine(run_date + timedelta(days=1), time())
        return self.in_zone(midnight).astimezone(UTC)

    def in_zone(self, timestamp: datetime) -> datetime:
        """Return a timestamp; one without a time zone is in ours."""
        return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=ZoneInfo(self.timezone))

    def check_run_date(self, run_date: date) -> None:
        """Refuse a day after tomorrow: until then, its lists would hide those of every night.

        Raises:
            ConfigurationError: the day lies in the future.
        """
        if run_date > self.run_date() + timedelta(days=1):
            raise ConfigurationError(
                f"run_date {run_date} lies in the future: its lists would hide those of every "
                "night until then; give a day up to tomorrow"
            )

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
