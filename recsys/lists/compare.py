"""Two sets of lists side by side: of two days, of two editions, or of two models.

Lists that were served are read as they are. Two models make lists of the same users now, from all
that the lake holds, as a night would with each as its champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.evaluation.metrics import CUTOFFS
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lists.blocks import make_lists
from recsys.lists.editions import EditionRow, ListInputs, all_editions, of_date
from recsys.lists.ingredients import Ingredients
from recsys.progress import Progress, silent
from recsys.registry.models import ModelRow, find_model, load_model
from recsys.version import code_version
from sql import load

if TYPE_CHECKING:
    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import Settings

USERS = 2_000
"""Users whose lists two models make, to be compared."""
_COUNT = 10  # items, users and categories that differ most
_LISTED = (columns.USER_ID, "rank", columns.ITEM_ID, "score", "reason", "confidence", "model_id")


@dataclass(frozen=True)
class Side:
    """One of the two, by its table with user_id, rank, item_id and reason.

    Attributes:
        lists: the rows.
        eligible: items that could be listed; None where that is not known.
        day: the day of the lists; None for a model.
        model_id: the model; None for lists.
    """

    lists: pa.Table
    eligible: int | None
    day: date | None = None
    model_id: str | None = None


def compare(
    lake: Lake,
    settings: Settings,
    a: str,
    b: str,
    *,
    users: int = USERS,
    progress: Progress = silent,
) -> pa.Table:
    """Return section, name, a, b and shared: how two sets of lists differ.

    Args:
        lake: the lake.
        settings: how models make lists.
        a: a run_date whose lists are served, a run_id that published lists, or a model_id.
        b: likewise; two models, or none.
        users: of how many users two models make lists, drawn by a fixed seed.
        progress: called as the work goes on.

    Raises:
        ConfigurationError: a name is none of these, or one is a model and the other is not.
        LakeError: the lake or a model can't be read.
    """
    first, second = _find(lake, a), _find(lake, b)
    with open_duckdb(settings) as con:
        if isinstance(first, ModelRow) and isinstance(second, ModelRow):
            sides = [_of_model(lake, settings, row, users, progress) for row in (first, second)]
        elif isinstance(first, EditionRow) and isinstance(second, EditionRow):
            sides = [_of_edition(lake, con, row) for row in (first, second)]
        else:
            raise ConfigurationError(
                f"{a} and {b} can't be compared: give two models, or two days or runs with lists"
            )
        for name in (columns.INTERACTIONS, columns.ITEMS, columns.LIVE_METRICS):
            lake.view(con, name)
        return _differences(con, *sides)


def _find(lake: Lake, name: str) -> EditionRow | ModelRow:
    editions = all_editions(lake)
    try:
        day = date.fromisoformat(name)
    except ValueError:
        published = [row for row in editions if row.run_id == name]
        if found := published[-1] if published else find_model(lake, name):
            return found
    else:
        for row in editions:
            if row.run_date == day and row.status == "current":
                return row
    raise ConfigurationError(
        f"{name!r} is neither a day whose lists are served, nor a run that published lists, nor a "
        "model; `recsys lists show` and `recsys models` list them"
    )


def _of_edition(lake: Lake, con: duckdb.DuckDBPyConnection, edition: EditionRow) -> Side:
    where = of_date(edition.run_date)
    lake.view(con, columns.RECOMMENDATIONS, where=where)
    key: dict[str, Any] = {"run_date": edition.run_date, "edition": edition.edition}
    rows = con.sql(load("lists/edition_lists"), params=key).to_arrow_table()
    return Side(rows, edition.eligible_items, day=edition.run_date)


def _of_model(
    lake: Lake, settings: Settings, row: ModelRow, users: int, progress: Progress
) -> Side:
    """Make the lists of some users with a model, as a night would now."""
    day = settings.run_date()
    inputs = ListInputs(
        run_date=day,
        model_id=row.model_id,
        interactions_version=lake.version(columns.INTERACTIONS),
        bound=Bound.of(settings, day, "now"),
        items_version=lake.version(columns.ITEMS),
        recommending=settings.recommending,
        events=settings.events,
        rules=settings.rules,
        code_version=code_version(),
    )
    model = load_model(lake, row, settings.device)
    with open_duckdb(settings) as con:
        made_from = Ingredients.gather(lake, settings, con, inputs, model)
    count = len(made_from.packed.histories)
    is_drawn = np.zeros(count, dtype=bool)
    is_drawn[np.random.default_rng(0).choice(count, min(users, count), replace=False)] = True
    packed = made_from.packed.of_users(is_drawn)
    blocks = make_lists(
        model,
        packed,
        made_from.eligible,
        made_from.popular,
        settings.recommending,
        settings,
        progress,
        rules=made_from.rules,
    )
    stored = lake.schema(columns.RECOMMENDATIONS)
    schema = pa.schema([stored.field(name) for name in _LISTED])
    rows = pa.concat_tables([block.rows(packed, schema, row.model_id) for block in blocks])
    return Side(rows, len(made_from.popular.order), model_id=row.model_id)


def _differences(con: duckdb.DuckDBPyConnection, a: Side, b: Side) -> pa.Table:
    for name, side in (("lists_a", a), ("lists_b", b)):
        con.register(name, side.lists)
    con.execute(load("lists/create_compared"))
    ((longest,),) = con.sql("select coalesce(max(rank), 1) from compared").fetchall()
    parameters: dict[str, dict[str, Any]] = {
        "agreement": {"cutoffs": sorted({min(cutoff, longest) for cutoff in CUTOFFS})},
        "lists": {"eligible_a": a.eligible, "eligible_b": b.eligible},
        "live": {
            "day_a": a.day,
            "day_b": b.day,
            "model_a": a.model_id,
            "model_b": b.model_id,
        },
        **{name: {"count": _COUNT} for name in ("categories", "items", "users")},
    }
    tables = [
        con.sql(load(f"lists/compare_{name}"), params=values).to_arrow_table()
        for name, values in parameters.items()
    ]
    return pa.concat_tables(tables, promote_options="permissive")
