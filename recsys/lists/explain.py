"""Why an item is in a list: what speaks most for it.

For an item that the model ranks, these are the items of the user's history without which its score
would be lower by most: each is left out in turn, and the user is scored again. The score is the
logarithm of the item's probability among all items that the model knows, without those that the
list may not hold since the user has had them. What the model has not learnt it does not read here.
For an item by popularity it is how often it was taken.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.catalog.report.figures import SAMPLE_SEED
from recsys.errors import ConfigurationError
from recsys.histories import HAD, INPUT, PADDING, TARGET, Packed
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.packing import pack
from recsys.lake.roles import Roles
from recsys.lake.typed_ids import typed_id
from recsys.lists.editions import all_editions, as_edition, of_date
from recsys.lists.left_out import left_out_effects, strongest
from recsys.lists.rules import LOW_CONFIDENCE, MODEL, OWN, POPULAR, REASONS
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.models import find_model, load_model
from recsys.settings import Events, Recommending
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date, datetime

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.lists.editions import EditionRow, ListInputs
    from recsys.registry.models import Model
    from recsys.settings import Settings

_UNLISTED = "not listed"
_ROWS = pa.schema(
    [
        ("rank", pa.int32()),
        ("number", pa.int32()),
        ("effect", pa.float64()),
        ("interactions", pa.int64()),
        ("counted_since", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Counted:
    """How often items were taken, as popularity counts.

    Attributes:
        interactions: item_id -> targets.
        since: from when on; None: from ever.
    """

    interactions: Mapping[Any, int]
    since: datetime | None


def explain_lists(
    lists: pa.Table,
    packed: Packed,
    model: Model | None,
    counted: Counted,
    recommending: Recommending,
    settings: Settings,
) -> pa.Table:
    """Return what speaks for each item of some lists, as `explanations` has it.

    Args:
        lists: user_id, rank, item_id and reason.
        packed: the histories of these users, whose first indices are those of the model's items.
        model: that made the lists; None where popularity made all.
        counted: how often the popular items were taken.
        recommending: how the lists were made.
        settings: the device and its threads.
    """
    place = {user: nth for nth, user in enumerate(packed.users.to_pylist())}
    by_user: list[list[dict[str, Any]]] = [[] for _ in place]
    for row in lists.to_pylist():
        by_user[place[row[columns.USER_ID]]].append(row)
    effects = _effects(by_user, packed, model, recommending, settings)
    found: list[dict[str, Any]] = []
    for nth, rows in enumerate(by_user):
        history = packed.histories[np.array([nth])].of_role(TARGET).interactions()[1]
        own = Counter(packed.items.of_indices(history).to_pylist())
        for row in rows:
            shared = {name: row[name] for name in (columns.USER_ID, "rank", columns.ITEM_ID)}
            found += [{**shared, **reason} for reason in effects.get((nth, row["rank"]), ())]
            if row["reason"] in (REASONS[POPULAR], REASONS[LOW_CONFIDENCE]):
                count = counted.interactions.get(row[columns.ITEM_ID], 0)
                found.append(
                    {**shared, "number": 1, "interactions": count, "counted_since": counted.since}
                )
            elif row["reason"] == REASONS[OWN]:
                found.append({**shared, "number": 1, "interactions": own[row[columns.ITEM_ID]]})
    item_id, user_id = packed.items.ids.type, packed.users.type
    ids = [(columns.USER_ID, user_id), (columns.ITEM_ID, item_id), ("because_item_id", item_id)]
    return pa.Table.from_pylist(found, schema=pa.schema([*ids, *_ROWS]))


def _effects(
    by_user: list[list[dict[str, Any]]],
    packed: Packed,
    model: Model | None,
    recommending: Recommending,
    settings: Settings,
) -> dict[tuple[int, int | None], list[dict[str, Any]]]:
    """Return (place of the user, rank) -> what speaks for the item, the strongest first."""
    if model is None:
        return {}
    known = len(model.items)
    histories = packed.histories.drop_unknown_items(known)
    inputs, had = histories.of_role(INPUT), histories.of_role(HAD)
    listed = np.zeros((len(by_user), max(map(len, by_user), default=0)), dtype=np.int32)
    for nth, rows in enumerate(by_user):
        indices = model.items.indices_of(pa.array([row[columns.ITEM_ID] for row in rows]))
        is_ranked = [row["reason"] in (REASONS[MODEL], _UNLISTED) for row in rows]
        listed[nth, : len(rows)] = np.where(is_ranked, indices, PADDING)
    runtime = Runtime(settings.device, settings.threads)
    scorer = ModelScorer(model.recommender, recommending.steps, recommending.seed, runtime)
    excluded = had if recommending.seen == "exclude" else None
    found = {}
    for nth, (items, effects) in enumerate(left_out_effects(scorer, inputs, excluded, listed)):
        ids = packed.items.of_indices(items).to_pylist()
        for column, row in enumerate(by_user[nth]):
            if listed[nth, column] != PADDING:
                found[nth, row["rank"]] = list(strongest(ids, effects[:, column]))
    return found


def explain_sample(
    con: duckdb.DuckDBPyConnection,
    lists: Sequence[str],
    histories_of: Callable[[pa.Array], Packed],
    everybody: Packed,
    model: Model | None,
    roles: Roles | None,
    settings: Settings,
    inputs: ListInputs,
) -> pa.Table:
    """Explain the lists of a few users of a night, the same that the report shows.

    Args:
        con: a connection with a view ``interactions``.
        lists: where the Parquet files of all lists lie.
        histories_of: returns the histories of those of some users whose lists are explained.
        everybody: all histories, or the items alone.
        model: that made these lists; None where popularity made all.
        roles: what is a target.
        settings: the device and its threads.
        inputs: how the lists were made, and how many are explained.
    """
    recommending, run_date = inputs.recommending, inputs.run_date
    staged = f"select *, {literal(run_date.isoformat())}::date as run_date"
    files = ", ".join(map(literal, lists))
    con.execute(
        f"create or replace temp view recommendations as {staged} "
        f"from read_parquet([{files}], hive_partitioning = false)"
    )
    parameters = {
        "run_date": run_date,
        "count": recommending.explained_users,
        "seed": str(SAMPLE_SEED),
    }
    users = con.sql(load("report/users"), params=parameters).to_arrow_table()
    some = histories_of(users[columns.USER_ID].combine_chunks())
    con.register("explained_users", pa.table({columns.USER_ID: some.users}))
    rows = con.sql(load("lists/explained_lists")).to_arrow_table()
    con.unregister("explained_users")
    packed = everybody if len(everybody.histories) else None
    counted = _counted(con, rows, roles, recommending, packed)
    return explain_lists(rows, some, model, counted, recommending, settings)


def _counted(
    con: duckdb.DuckDBPyConnection,
    lists: pa.Table,
    roles: Roles | None,
    recommending: Recommending,
    packed: Packed | None = None,
) -> Counted:
    """Count how often the popular items of some lists were taken, as popularity does.

    Where it counts older ones less, these are those of the newest half-life.

    Args:
        con: a connection with a view ``interactions``.
        lists: with item_id and reason.
        roles: what is a target.
        recommending: how the lists were made.
        packed: all histories, where they are at hand: then nothing is read.
    """
    popular = {REASONS[POPULAR], REASONS[LOW_CONFIDENCE]}
    rows = zip(lists["item_id"].to_pylist(), lists["reason"].to_pylist(), strict=True)
    items = sorted({item for item, reason in rows if reason in popular})
    half_life = recommending.popularity_half_life
    if not items:
        return Counted({}, None)
    if packed and half_life is None:
        ids = pa.array(items, packed.items.ids.type)
        counts = packed.target_counts[packed.items.indices_of(ids) - 1]
        return Counted(dict(zip(items, counts.tolist(), strict=True)), None)
    (roles or Roles(Events())).create_macro(con)
    since = None
    if half_life:
        ((newest,),) = con.sql('select max("timestamp") from interactions').fetchall()
        since = newest - half_life
    parameters = {"items": items, "since": since}
    return Counted(dict(con.sql(load("lists/popular_counts"), params=parameters).fetchall()), since)


def write_explanations(lake: Lake, rows: pa.Table, run_date: date, edition: int) -> None:
    """Write the rows of an edition in place of those of this day and of earlier ones."""
    table = as_edition(lake, columns.EXPLANATIONS, rows, run_date, edition)
    where = f"run_date <= {literal(run_date.isoformat())}"
    lake.replace(columns.EXPLANATIONS, table, where=where)


def explain_user(
    lake: Lake,
    settings: Settings,
    user: str,
    *,
    item: str | None = None,
    run_date: date | None = None,
) -> pa.Table:
    """Explain one user's list, with titles: see sql/lists/explanation.sql.

    The history is what the lake still holds of what the list was made from.

    Args:
        lake: the lake.
        settings: the device and its threads; and how lists are made, where an edition does not say.
        user: the user's id, as text.
        item: only this item's id, as text; one that is not listed is explained, too.
        run_date: the day of the list; the newest by default.

    Raises:
        ConfigurationError: no lists of that day are served, the user has none, or an id is not of
            the lake's type.
        LakeError: the lake or the model can't be read.
    """
    edition = _served_edition(lake, run_date)
    user_id = typed_id(lake, columns.RECOMMENDATIONS, columns.USER_ID, user)
    inputs = json.loads(edition.inputs or "{}")
    fields = {name: inputs[name] for name in Recommending.model_fields if name in inputs}
    recommending = settings.recommending.changed(fields)
    events = Events.model_validate(inputs["events"]) if "events" in inputs else Events()
    bound = _bound(edition, settings)
    with open_duckdb(settings) as con:
        where = of_date(edition.run_date)
        lake.view(con, columns.RECOMMENDATIONS, where=where)
        key = {"run_date": edition.run_date, "edition": edition.edition, "user_id": user_id}
        rows = con.sql(load("lists/explained_list"), params=key).to_arrow_table()
        if not len(rows):
            raise ConfigurationError(f"user {user!r} has no list in {edition.name}")
        model_id = rows["model_id"][0].as_py()
        row = find_model(lake, model_id) if model_id else None
        model = load_model(lake, row, settings.device) if row else None
        if item is not None:
            wanted = typed_id(lake, columns.RECOMMENDATIONS, columns.ITEM_ID, item)
            rows = _only_item(rows, wanted)
        roles = Roles.until(events, bound.until)
        bound.view(lake, con, lake.version(columns.INTERACTIONS))
        packed = _pack_user(con, lake, bound, roles, model, user_id)
        counted = _counted(con, rows, roles, recommending)
        explained = explain_lists(rows, packed, model, counted, recommending, settings)
        lake.view(con, columns.ITEMS)
        con.register("list", rows)
        con.register("explanations", explained)
        return con.sql(load("lists/explanation")).to_arrow_table()


def _pack_user(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    bound: Bound,
    roles: Roles | None,
    model: Model | None,
    user_id: Any,
) -> Packed:
    """Return the history of one user; the view ``interactions`` of ``con`` stays that of all."""
    with con.cursor() as cursor:
        bound.view(lake, cursor, lake.version(columns.INTERACTIONS))
        cursor.execute(
            "create temp table own_interactions as from interactions where user_id = $1", [user_id]
        )
        cursor.execute("create or replace temp view interactions as from own_interactions")
        return pack(cursor, model.items if model else None, roles)


def _served_edition(lake: Lake, run_date: date | None) -> EditionRow:
    served = [row for row in all_editions(lake) if row.status == "current"]
    wanted = [row for row in served if run_date in (None, row.run_date)]
    if not wanted:
        days = f"; the newest lists are of {served[-1].run_date}" if served else ""
        raise ConfigurationError(f"no lists of {run_date or 'any day'} are served{days}")
    return wanted[-1]


def _bound(edition: EditionRow, settings: Settings) -> Bound:
    """Return what an edition was made from, by the times that it says."""
    until = edition.data_until or settings.end_of(edition.run_date)
    known = [time for time in (edition.as_of, edition.published_at) if time]
    return Bound(until, min(known, default=None))


def _only_item(rows: pa.Table, item_id: Any) -> pa.Table:
    """Return the row of one item; one without a rank where it is not listed."""
    listed = rows.filter(pc.field("item_id") == item_id)
    if len(listed):
        return listed
    row = {"user_id": rows["user_id"][0].as_py(), "item_id": item_id, "reason": _UNLISTED}
    return pa.Table.from_pylist([row], schema=rows.schema)
