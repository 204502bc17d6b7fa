"""The data dictionary: every table of the lake, with each column's type, unit and meaning.

It is longer than other files, since a reader looks for a table in one place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from recsys import columns

# Raise it with every table, and with every column that a table gets, so that older lakes are given
# it too, see recsys.lake.migration. A new column may be null.
SCHEMA_VERSION = 3
VERSION_PROPERTY = "recsys.schema_version"

TIMESTAMP = pa.timestamp("us", tz="UTC")
TEXT, COUNT, REAL = pa.string(), pa.int64(), pa.float64()
USER_ID, ITEM_ID = columns.USER_ID, columns.ITEM_ID
FILES = pa.list_(pa.struct([("key", TEXT), ("etag", TEXT), ("size", COUNT)]))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: as it is stored.
        type: its Arrow type; "user_id" or "item_id" for the type that the lake's ids have, int64 or
            string, as the source has them.
        meaning: one sentence: what it says, with its unit where it has one.
        required: whether it is never null.
    """

    name: str
    type: pa.DataType | str
    meaning: str
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the lake.

    Attributes:
        name: also the folder that it lies in.
        meaning: its grain, in one sentence: what one row stands for.
        columns: in the order in which they are stored.
        partitions: the columns that it is partitioned by.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    partitions: tuple[str, ...] = ()

    def meanings(self) -> dict[str, str]:
        """Return column -> meaning."""
        return {column.name: column.meaning for column in self.columns}


_INTERACTIONS = Table(
    columns.INTERACTIONS,
    "One row per user, item and timestamp: an interaction that was accepted.",
    (
        Column("user_id", USER_ID, "Who interacted, by the source's own id.", required=True),
        Column("item_id", ITEM_ID, "What with, by the source's own id.", required=True),
        Column("timestamp", TIMESTAMP, "When it happened, in UTC.", required=True),
        Column(
            "event", TEXT, "The kind of interaction, such as click; null if the source has none."
        ),
        Column("value", REAL, "A number of the source's, such as a rating, in the source's unit."),
        Column(
            "source_row", COUNT, "The row's place in its batch, from 1: the order of equal times."
        ),
        Column("batch_id", TEXT, "The batch that brought it, a key of batches."),
        Column("ingested_at", TIMESTAMP, "When its batch was ingested, in UTC."),
    ),
)

_QUARANTINE = Table(
    columns.QUARANTINE,
    "One row per source row that was rejected, and the reasons.",
    (
        Column("batch_id", TEXT, "The batch that brought it, a key of batches.", required=True),
        Column("source", TEXT, "The source's name, as in batches.", required=True),
        Column("object", TEXT, "The file or object that holds the row; null for a DuckDB source."),
        Column("source_row", COUNT, "The row's place in that file, from 1; null if it has none."),
        Column("row", TEXT, "The row as it was read, as JSON."),
        Column("reasons", pa.list_(TEXT), "Every rule that the row broke."),
        Column("quarantined_at", TIMESTAMP, "When its batch was ingested, in UTC."),
    ),
)

_BATCHES = Table(
    columns.BATCHES,
    "One row per batch that an ingest read: what came in, and what became of it.",
    (
        Column("batch_id", TEXT, "The key: a digest of what the batch holds.", required=True),
        Column("source", TEXT, "The address, with the table or a query's digest.", required=True),
        Column(
            "status",
            TEXT,
            "accepted; refused: it broke its contract; replaced: by `recsys ingest --again`.",
            required=True,
        ),
        Column("objects", FILES, "The files or objects: address, ETag, and size in bytes."),
        Column("rows_in", COUNT, "Rows that were read."),
        Column("accepted", COUNT, "Rows that were added to interactions."),
        Column("quarantined", COUNT, "Rows that were added to quarantine."),
        Column(
            "duplicates",
            COUNT,
            "Rows that were in interactions, repeated another row, or were of erased users.",
        ),
        Column(
            "interactions_version", COUNT, "The version of interactions that first holds the rows."
        ),
        Column("started", TIMESTAMP, "When the ingest started, in UTC."),
        Column("finished", TIMESTAMP, "When the batch was decided, in UTC."),
        Column(
            "anonymous",
            COUNT,
            "Rows without a user, left out; null where drop_null_users was not set.",
        ),
        Column(
            "replaced_rows",
            COUNT,
            "Rows of earlier batches that got another event or value from it, see on_change.",
        ),
        Column("deleted_rows", COUNT, "Rows of earlier batches that it removed, see on_change."),
        Column("withdrawn", COUNT, "Rows of its own that later batches removed, see on_change."),
    ),
)

_ITEMS = Table(
    columns.ITEMS,
    "One row per item of the item source; the table may be empty.",
    (
        Column("item_id", ITEM_ID, "The item, by the id that interactions use.", required=True),
        Column("title", TEXT, "What people call it."),
        Column("category", TEXT, "The source's category."),
        Column("eligible", pa.bool_(), "Whether it may be recommended; null: it may not."),
        Column("extra", TEXT, "The source's other columns, as a JSON object."),
    ),
)

_EDITIONS = Table(
    columns.EDITIONS,
    "One row per run_date and edition: lists that were published, also those that nobody got.",
    (
        Column("run_date", pa.date32(), "The day that the lists are for.", required=True),
        Column("edition", pa.int32(), "The edition, from 1; a later one replaces.", required=True),
        Column(
            "status",
            TEXT,
            "current (served), superseded (a later edition replaced it) or withdrawn.",
            required=True,
        ),
        Column("run_id", TEXT, "The run that published it, a key of runs."),
        Column("model_id", TEXT, "The model that made it, a key of models; null without one."),
        Column("interactions_version", COUNT, "The version of interactions that was read."),
        Column("data_until", TIMESTAMP, "Interactions before this time were read, in UTC."),
        Column("as_of", TIMESTAMP, "What was ingested before this was read, in UTC; null: all."),
        Column("users", COUNT, "Users with a list."),
        Column("popular_users", COUNT, "Users whose whole list comes from popularity."),
        Column(
            "without_list",
            COUNT,
            "Users with interactions but without a list: no item was left for them.",
        ),
        Column("rows", COUNT, "Rows of recommendations that belong to it."),
        Column("inputs", TEXT, "All that decides the lists, as JSON: the same make the same."),
        Column("why", TEXT, "Why it replaced another one, or why its status was changed."),
        Column("who", TEXT, "Who published it, or changed its status last."),
        Column("changed_at", TIMESTAMP, "When its status was set last, in UTC."),
        Column("published_at", TIMESTAMP, "When it was published, in UTC."),
        Column("eligible_items", COUNT, "Items that could be listed; null: not known."),
    ),
)

_RECOMMENDATIONS = Table(
    columns.RECOMMENDATIONS,
    "One row per run_date, edition, user and rank; the catalog shows current editions only.",
    (
        Column("run_date", pa.date32(), "The day that the list is for.", required=True),
        Column("run_id", TEXT, "The run that made it, a key of runs.", required=True),
        Column("user_id", USER_ID, "Whose list it is.", required=True),
        Column("rank", pa.int32(), "The place in the list, from 1, the best.", required=True),
        Column("item_id", ITEM_ID, "The recommended item."),
        Column(
            "score",
            pa.float32(),
            "Natural log of a probability: that the item is next; popular: of its share of "
            "interactions.",
        ),
        Column(
            "reason",
            TEXT,
            "Who put it there: model, model-new-item, own-history, popular, "
            "popular-low-confidence or pinned, see the glossary.",
        ),
        Column(
            "model_id",
            TEXT,
            "The champion of that night, or an experiment's model; null: popularity made all.",
        ),
        Column("interactions_version", COUNT, "The version of interactions that was read."),
        Column("generated_at", TIMESTAMP, "When the lists were made, in UTC."),
        Column("edition", pa.int32(), "The edition of the run_date's lists, from 1, see editions."),
        Column(
            "confidence",
            pa.float32(),
            "How likely the user's next item is in the list, 0 to 1; null where that is not known.",
        ),
    ),
    partitions=("run_date",),
)

_MODELS = Table(
    columns.MODELS,
    "One row per trained model: what it learnt from, how good it is, and whether it serves.",
    (
        Column(
            "model_id", TEXT, "The key: the same data, settings and code give it.", required=True
        ),
        Column(
            "status",
            TEXT,
            "champion (serves), retired (served once) or rejected (failed the gate).",
            required=True,
        ),
        Column("why", TEXT, "The gate's reason, with its figures."),
        Column("preset", TEXT, "The preset that it was trained with."),
        Column("seed", COUNT, "The seed of every random draw."),
        Column("interactions_version", COUNT, "The version of interactions that it learnt from."),
        Column("users", COUNT, "Users in that version."),
        Column("items", COUNT, "Items in that version."),
        Column("interactions", COUNT, "Interactions in that version."),
        Column("validation_ndcg_10", REAL, "NDCG@10 on the validation items, 0 to 1."),
        Column("test_ndcg_10", REAL, "NDCG@10 on the test items, 0 to 1."),
        Column("test_hr_10", REAL, "Hit rate at 10 on the test items, 0 to 1."),
        Column(
            "popularity_validation_ndcg_10",
            REAL,
            "Popularity's NDCG@10 on the same validation items, 0 to 1.",
        ),
        Column(
            "popularity_test_ndcg_10", REAL, "Popularity's NDCG@10 on the same test items, 0 to 1."
        ),
        Column(
            "popularity_test_hr_10",
            REAL,
            "Popularity's hit rate at 10 on the same test items, 0 to 1.",
        ),
        Column("metrics", TEXT, "All its metrics by split and protocol, as JSON."),
        Column("baselines", TEXT, "The same metrics of what it was compared with, as JSON."),
        Column("config", TEXT, "The recipe: preset, model, training and data version, as JSON."),
        Column("code_version", TEXT, "The version of the code that trained it."),
        Column("seconds", REAL, "Wall time of training and evaluation, in seconds."),
        Column("trained_at", TIMESTAMP, "When it was registered, in UTC."),
    ),
)

_PROMOTIONS = Table(
    columns.PROMOTIONS,
    "One row per change of champion: which model serves from then on, who decided it, and why.",
    (
        Column("promoted_at", TIMESTAMP, "From when on the model serves, in UTC.", required=True),
        Column(
            "action",
            TEXT,
            "gate (a training's verdict), promote or rollback (a person's decision).",
            required=True,
        ),
        Column("model_id", TEXT, "The model that serves, a key of models; null: popularity alone."),
        Column("previous_model_id", TEXT, "The champion before; null where there was none."),
        Column("who", TEXT, "The account that did it, as user@host."),
        Column("why", TEXT, "The gate's reason, or the person's."),
        Column("run_id", TEXT, "The run that did it, a key of runs."),
    ),
)

_RUNS = Table(
    columns.RUNS,
    "One row per run of a flow or a command that writes to the lake.",
    (
        Column("run_id", TEXT, "The key; a Prefect flow run has the same id.", required=True),
        Column("flow", TEXT, "The flow or the command, such as nightly or train.", required=True),
        Column(
            "status",
            TEXT,
            "running, completed, rejected (by the gate), refused, failed, cancelled, or crashed: "
            "killed.",
            required=True,
        ),
        Column("started", TIMESTAMP, "When it started, in UTC."),
        Column("finished", TIMESTAMP, "When it ended, in UTC; null for one that runs or crashed."),
        Column("seconds", REAL, "Wall time, in seconds."),
        Column("parameters", TEXT, "What it was started with, as JSON."),
        Column("outcome", TEXT, "The result of each step, as JSON."),
        Column("error", TEXT, "What stopped it, or what failed in a run that went on; or null."),
        Column("code_version", TEXT, "The version of the code that ran."),
        Column("process", TEXT, "Where it runs: host, boot of the host, process id and its start."),
    ),
)

_QUALITY_RESULTS = Table(
    columns.QUALITY_RESULTS,
    "One row per subject and rule: what the newest check of it found.",
    (
        Column(
            "subject",
            TEXT,
            "What was checked: a batch_id, a source, interactions, or lists of a run_date.",
            required=True,
        ),
        Column(
            "suite",
            TEXT,
            "Their group: source, batch_profile, rows, row counts, recommendations, or rules: what "
            "[rules] did to the lists.",
            required=True,
        ),
        Column("rule", TEXT, "The rule, in words.", required=True),
        Column(
            "status",
            TEXT,
            "passed, failed, or broken: the check itself did not run.",
            required=True,
        ),
        Column("column", TEXT, "The column or figure that the rule is about."),
        Column("observed", TEXT, "What was found."),
        Column("threshold", TEXT, "What the rule allows."),
        Column("detail", TEXT, "A broken check's error; or JSON: rows deleted since, by batch."),
        Column("checked_at", TIMESTAMP, "When it was checked, in UTC."),
    ),
)

_LIST_DAYS = Table(
    columns.LIST_DAYS,
    "One row per run_date and edition whose lists have been expired: what they were, in figures.",
    (
        Column("run_date", pa.date32(), "The day that the lists were for.", required=True),
        Column("edition", pa.int32(), "The edition of that day, from 1.", required=True),
        Column("run_id", TEXT, "The run that made them, a key of runs."),
        Column("model_id", TEXT, "The champion of that night; null without one."),
        Column("users", COUNT, "Users who had a list."),
        Column("rows", COUNT, "Recommended items, over all users."),
        Column("model_rows", COUNT, "Those of them that the model ranked."),
        Column("popular_rows", COUNT, "Those of them that popularity gave."),
        Column("items", COUNT, "Distinct items in the lists."),
        Column("generated_at", TIMESTAMP, "When the lists were made, in UTC."),
    ),
)

_ERASURES = Table(
    columns.ERASURES,
    "One row per user who was erased: no source brings them back.",
    (
        Column(
            "user_hash",
            TEXT,
            "The key: SHA-256 of salt, a colon and the user_id, in hexadecimal.",
            required=True,
        ),
        Column("salt", TEXT, "The same for all rows of a lake.", required=True),
        Column("erased_at", TIMESTAMP, "When the user was erased, in UTC."),
        Column("who", TEXT, "Who did it: user@host."),
        Column("why", TEXT, "The reason that was given."),
    ),
)

_POPULAR_ITEMS = Table(
    columns.POPULAR_ITEMS,
    "One row per run_date, edition and place: the night's items by popularity, best first.",
    (
        Column("run_date", pa.date32(), "The day that the lists are for.", required=True),
        Column("edition", pa.int32(), "The edition of that day, from 1.", required=True),
        Column("place", pa.int32(), "The place of the item, from 1, the best.", required=True),
        Column(
            "item_id",
            ITEM_ID,
            "The item; popularity alone would list the first ones that the user has not had.",
        ),
        Column("score", pa.float32(), "What it is sorted by, see recommendations."),
    ),
)

_EXPLANATIONS = Table(
    columns.EXPLANATIONS,
    "One row per run_date, edition, user, rank and number: what speaks for an item of the newest "
    "lists, for some users.",
    (
        Column("run_date", pa.date32(), "The day that the list is for.", required=True),
        Column("edition", pa.int32(), "The edition of that day, from 1.", required=True),
        Column("user_id", USER_ID, "Whose list it is.", required=True),
        Column("rank", pa.int32(), "The item's place in the list, from 1.", required=True),
        Column("item_id", ITEM_ID, "The listed item."),
        Column("number", pa.int32(), "1 for what speaks most for it, up to 3.", required=True),
        Column(
            "because_item_id",
            ITEM_ID,
            "The item of the history that speaks for it; null where it is popular or frequent.",
        ),
        Column(
            "effect",
            REAL,
            "How much the score is higher than without it in the history; null where it is alone.",
        ),
        Column(
            "interactions",
            COUNT,
            "Popular: how often the item was taken since counted_since; own-history: how often the "
            "user took it.",
        ),
        Column(
            "counted_since", TIMESTAMP, "From when on interactions count, in UTC; null: from ever."
        ),
    ),
    partitions=("run_date",),
)

_LIVE_METRICS = Table(
    columns.LIVE_METRICS,
    "One row per run_date, lists, days, slice, value and metric: lists against what users did.",
    (
        Column("run_date", pa.date32(), "The day that the lists were for.", required=True),
        Column("edition", pa.int32(), "The edition that is served for that day.", required=True),
        Column("model_id", TEXT, "The model that made it, a key of models; null without one."),
        Column(
            "lists",
            TEXT,
            "served; popularity: those it would have made that night; lead: served less popularity "
            "for the same users.",
            required=True,
        ),
        Column(
            "days",
            pa.int32(),
            "How many days of interactions count, from 1; the first is the day the lists came.",
            required=True,
        ),
        Column(
            "slice",
            TEXT,
            "What the figure is for: all, user, item, reason, rank, or model in an experiment.",
            required=True,
        ),
        Column(
            "value",
            TEXT,
            "Which part: all; users or items known to the model, or new; a reason, rank or model.",
            required=True,
        ),
        Column("metric", TEXT, "hr@K or ndcg@K; hr for a rank: hits in that place.", required=True),
        Column("users", COUNT, "Users of the slice who had a list and took an item that was new."),
        Column("hits", COUNT, "Those of them who took a listed item; null for a lead."),
        Column("result", REAL, "The mean of the metric over users, 0 to 1; of a lead, -1 to 1."),
        Column("deviation", REAL, "Its standard deviation over users, for error bars."),
        Column("since", TIMESTAMP, "Interactions from this time on count, in UTC."),
        Column("until", TIMESTAMP, "Interactions before this time count, in UTC."),
    ),
)

_DRIFT = Table(
    columns.DRIFT,
    "One row per run_date and measure: how far the newest data are from what was learnt from.",
    (
        Column("run_date", pa.date32(), "The night that measured it.", required=True),
        Column(
            "measure",
            TEXT,
            "item popularity, categories, history lengths, hours, weekdays, unknown users, unknown "
            "items or quarantined rows.",
            required=True,
        ),
        Column("kind", TEXT, "psi: population stability index; share: 0 to 1.", required=True),
        Column("result", REAL, "The figure; null where there are too few rows to say."),
        Column("warn_at", REAL, "From this figure on the night warns."),
        Column("retrain_at", REAL, "From this figure on a training is asked for."),
        Column("verdict", TEXT, "steady, warn, retrain, or unknown: too few rows.", required=True),
        Column("rows", COUNT, "Interactions of the newest time, or users for history lengths."),
        Column("reference_rows", COUNT, "Rows that they were compared with."),
        Column("since", TIMESTAMP, "The newest data begin here, in UTC."),
        Column("until", TIMESTAMP, "The newest data end before this, in UTC."),
        Column("reference_since", TIMESTAMP, "What they are compared with begins here, in UTC."),
        Column("reference_until", TIMESTAMP, "And ends before this, in UTC."),
        Column(
            "model_id",
            TEXT,
            "The newest training before that day, which the reference ends at; or null.",
        ),
    ),
)

_REPLAYS = Table(
    columns.REPLAYS,
    "One row per replay, setting, run_date and metric: past nights, as they would have been.",
    (
        Column("replay_id", TEXT, "The key of a replay: the same one gives it.", required=True),
        Column("setting", TEXT, "The name of the settings that were replayed.", required=True),
        Column("run_date", pa.date32(), "The night; null for all nights together."),
        Column("metric", TEXT, "hr@10 or ndcg@10, within seven days.", required=True),
        Column("model_id", TEXT, "The model that would have served; null: popularity, or several."),
        Column("users", COUNT, "Users with a list who took an item that was new, by night."),
        Column("result", REAL, "The mean of the metric over users and nights, 0 to 1."),
        Column("popularity", REAL, "The same for the lists that popularity would have made."),
        Column("compared_with", TEXT, "The setting that the difference is to, the first one."),
        Column("difference", REAL, "Result less that setting's, for users that both served."),
        Column("low", REAL, "The low end of its 95 % interval: a bootstrap, paired by user."),
        Column("high", REAL, "The high end of it."),
        Column("trainings", COUNT, "Models that the setting trained over all nights."),
        Column("settings", TEXT, "The settings, as JSON."),
        Column("replayed_at", TIMESTAMP, "When the replay ended, in UTC."),
    ),
)

TABLES = {
    table.name: table
    for table in (
        _INTERACTIONS,
        _QUARANTINE,
        _BATCHES,
        _ITEMS,
        _EDITIONS,
        _RECOMMENDATIONS,
        _MODELS,
        _PROMOTIONS,
        _RUNS,
        _QUALITY_RESULTS,
        _LIST_DAYS,
        _ERASURES,
        _POPULAR_ITEMS,
        _EXPLANATIONS,
        _LIVE_METRICS,
        _DRIFT,
        _REPLAYS,
    )
}
"""Every table of the lake by its name."""


def schemas(user_id: pa.DataType, item_id: pa.DataType) -> dict[str, pa.Schema]:
    """Return the Arrow schema of every table for these id types (int64 or string)."""
    ids = {USER_ID: user_id, ITEM_ID: item_id}
    return {
        table.name: pa.schema(
            pa.field(
                column.name,
                ids[column.type] if isinstance(column.type, str) else column.type,
                nullable=not column.required,
            )
            for column in table.columns
        )
        for table in TABLES.values()
    }


def as_json(value: object) -> str:
    """Return the JSON text that tables hold for nested values, keys in order."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
