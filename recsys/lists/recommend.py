"""Every user's top-K: score in a stream, check what was made, publish it in one commit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.errors import GateError
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.row_counts import check_row_counts
from recsys.lists.blocks import make_lists
from recsys.lists.checks import ListChecks, enforce
from recsys.lists.commit_note import ListCounts, ListInputs, commit_note, published_counts
from recsys.lists.staging import stage_lists, staged_rows
from recsys.progress import Progress, silent
from recsys.registry.models import find_champion, load_model
from recsys.temporary import temporary_folder
from sql import load

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.registry.models import ModelRow
    from recsys.settings import Recommending, Settings


@dataclass(frozen=True)
class RecommendResult:
    """The result of a night's recommendations.

    Attributes:
        status: "published", or "unchanged" where the same lists had been published before.
        run_date: the partition of `recommendations`.
        model_id: the champion, or None where popularity served everyone.
        interactions_version: version of `interactions` that was read.
        users: users served.
        rows: rows published.
        popular_users: users whose whole list comes from popularity.
        version: version of `recommendations` that holds the lists.
        seconds: wall time.
    """

    status: Literal["published", "unchanged"]
    run_date: date
    model_id: str | None
    interactions_version: int
    users: int
    rows: int
    popular_users: int
    version: int
    seconds: float


def recommend(
    lake: Lake,
    settings: Settings,
    recommending: Recommending | None = None,
    *,
    run_date: date,
    run_id: str,
    progress: Progress = silent,
) -> RecommendResult:
    """Make and publish the lists of every user with at least one interaction.

    The champion ranks the items it knows; popularity fills what it can't: users none of whose
    items it knows, lists that its items don't fill, and everyone while there is no champion.

    Raises:
        LakeError: the lake has no interactions, has lost or doubled rows, or can't be read or
            written. The champion is among what is read: popularity does not take the place of one
            that is missing or damaged.
        ConfigurationError: ``run_date`` lies in the future.
        GateError: no item may be shown, or the lists broke a rule; nothing was published.
    """
    started = time.perf_counter()
    settings.check_run_date(run_date)
    version = lake.version(columns.INTERACTIONS)
    check_row_counts(lake, version)
    champion = find_champion(lake)
    inputs = ListInputs(
        run_date=run_date,
        model_id=champion.model_id if champion else None,
        interactions_version=version,
        items_version=lake.version(columns.ITEMS),
        recommending=recommending or settings.recommending,
    )
    status: Literal["published", "unchanged"] = "unchanged"
    if counts := published_counts(lake, inputs):
        published = lake.version(columns.RECOMMENDATIONS)
    else:
        status = "published"
        with temporary_folder() as folder:
            staged = folder / "lists.parquet"
            counts = _make_lists(lake, settings, champion, inputs, staged, progress)
            published = _publish(lake, staged, inputs, counts, run_id)
    return RecommendResult(
        status=status,
        run_date=run_date,
        model_id=inputs.model_id,
        interactions_version=version,
        version=published,
        seconds=time.perf_counter() - started,
        **asdict(counts),
    )


def _make_lists(
    lake: Lake,
    settings: Settings,
    champion: ModelRow | None,
    inputs: ListInputs,
    staged: Path,
    progress: Progress,
) -> ListCounts:
    """Write checked lists to a file.

    Raises:
        GateError: there are no users or no eligible items, or the lists broke a rule.
    """
    recommending = inputs.recommending
    with open_duckdb(settings) as con:
        lake.view(con, columns.INTERACTIONS, inputs.interactions_version)
        lake.view(con, columns.ITEMS, inputs.items_version)
        model = load_model(lake, champion, settings.device) if champion else None
        packed = load_histories(
            lake, con, inputs.interactions_version, model.items if model else None
        )
        if not len(packed.histories):
            raise GateError("no lists were made: `interactions` is empty; run `recsys ingest`")
        eligible = _eligible_items(con, packed)
        if not eligible.any():
            raise GateError(
                "no lists were made: `items` marks every item as not eligible; the previous lists "
                "stay in place"
            )
        checks = ListChecks(
            con,
            packed.items.where(eligible),
            k=recommending.k,
            exclude_seen=recommending.seen == "exclude",
        )
        lists = make_lists(model, packed, eligible, recommending, settings, progress)
        schema = lake.schema(columns.RECOMMENDATIONS)
        counts = stage_lists(lists, packed, checks, staged, schema)
        enforce(lake, checks.violations(), inputs.run_date)
    return counts


def _eligible_items(con: duckdb.DuckDBPyConnection, packed: Packed) -> NDArray[np.bool_]:
    """Return (V + 1,) whether each index may be recommended.

    An item may be when somebody has interacted with it and `items` does not say otherwise.
    """
    indices = (np.flatnonzero(packed.counts) + 1).astype(np.int32)
    catalogue = {"item_id": packed.items.of_indices(indices), "item": indices}
    con.register("catalogue", pa.table(catalogue))
    eligible = con.sql(load("lists/eligible_items")).to_arrow_table()["item"].to_numpy()
    con.unregister("catalogue")
    mask = np.zeros(len(packed.items) + 1, dtype=bool)
    mask[eligible] = True
    return mask


def _publish(lake: Lake, staged: Path, inputs: ListInputs, counts: ListCounts, run_id: str) -> int:
    """Replace the lists of a run_date in one commit; return the version that holds them."""
    schema = lake.schema(columns.RECOMMENDATIONS)
    shared = {
        "run_date": pa.scalar(inputs.run_date, pa.date32()),
        "run_id": pa.scalar(run_id),
        "model_id": pa.scalar(inputs.model_id, pa.string()),
        "interactions_version": pa.scalar(inputs.interactions_version),
        "generated_at": pa.scalar(datetime.now(UTC), schema.field("generated_at").type),
    }
    return lake.replace(
        columns.RECOMMENDATIONS,
        staged_rows(staged, shared, schema),
        where=f"run_date = '{inputs.run_date.isoformat()}'",
        note=commit_note(inputs, counts),
    )
