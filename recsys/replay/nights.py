"""The nights of one variant, in a lake of their own that knows what was known on each day.

Each night's lake holds the interactions that a night of that day would have read. It trains, where
the policy asks, the night before: the model of a night serves from the next one on. Its lists are
judged by what came after them, as live metrics judge those that were served.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.errors import GateError
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lists.editions import current_of, editions_of
from recsys.lists.recommend import recommend
from recsys.operations.judging import IDEAL, NIGHTS, create_popular_ranks, judged_lists, judging
from recsys.registry.policy import decide, read_standing
from recsys.registry.retrain import train
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from recsys.lake.tables import Lake
    from recsys.progress import Progress
    from recsys.replay.variants import Variant
    from recsys.settings import AsOf

CUTOFF = 10
"""Places of a list that are judged."""
_BATCH = 1_000_000  # interactions that are copied at a time
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Past:
    """The lake that is replayed.

    Attributes:
        lake: of the past.
        version: of its `interactions`.
        as_of: "now" where a day knew all that had happened by then; None where only what had been
            ingested by then.
    """

    lake: Lake
    version: int
    as_of: AsOf | None


def replay_nights(
    past: Past, scratch: Lake, variant: Variant, days: Sequence[date], progress: Progress
) -> pa.Table:
    """Live through the nights of some days, and return how each user was served on each.

    What a killed replay has done is not done again.

    Args:
        past: what is replayed.
        scratch: the lake of the variant.
        variant: the settings.
        days: run_dates, in order.
        progress: called as the work goes on.

    Returns:
        run_date, model_id, user_id, hr, ndcg, popular_hr and popular_ndcg of each user with a list
        who took something new within seven days.

    Raises:
        LakeError: a lake can't be read or written.
        GateError: there is nobody to serve on the first day.
    """
    settings = variant.settings
    with scratch.write_lock(f"replay {variant.name}"):
        schema = past.lake.schema(columns.INTERACTIONS)
        ids = [schema.field(name).type for name in (columns.USER_ID, columns.ITEM_ID)]
        scratch.create(*ids)
        items = past.lake.rows(columns.ITEMS)
        if len(items) and not scratch.has(columns.ITEMS, "items"):
            scratch.append(columns.ITEMS, items, transaction="items")
        known: Bound | None = None
        for nth, day in enumerate(days):
            progress(f"replay {variant.name}", nth, len(days), str(day))
            if current_of(editions_of(scratch, day)) is None:
                known = _learn(past, scratch, variant, day - timedelta(days=1), known)
                _train(scratch, variant, day - timedelta(days=1), progress)
            known = _learn(past, scratch, variant, day, known)
            recommend(
                scratch,
                settings,
                settings.recommending.changed({"explained_users": 0}),
                run_date=day,
                run_id=f"{variant.name} {day}",
                bound=Bound.of(settings, day, past.as_of),
            )
        progress(f"replay {variant.name}", len(days), len(days), "judging")
        end = settings.end_of(days[-1] + timedelta(days=NIGHTS))
        _learn(past, scratch, variant, days[-1] + timedelta(days=NIGHTS), known, "now")
        return pa.concat_tables(_scores(scratch, variant, days, min(end, datetime.now(UTC))))


def _learn(
    past: Past,
    scratch: Lake,
    variant: Variant,
    day: date,
    known: Bound | None,
    as_of: AsOf | None = None,
) -> Bound:
    """Copy the interactions that a night of the day knows and the night before did not."""
    bound = Bound.of(variant.settings, day, as_of or past.as_of)
    name = f"until {bound}"
    if scratch.has(columns.INTERACTIONS, name):
        return bound
    before = f"and not ({known.predicate})" if known else ""
    with open_duckdb(variant.settings) as con:
        past.lake.view(con, columns.INTERACTIONS, past.version)
        rows = con.sql(
            f"select * from interactions where {bound.predicate} {before}"  # noqa: S608 - times
        )
        schema = scratch.schema(columns.INTERACTIONS)
        batches = rows.select(*schema.names).to_arrow_reader(_BATCH)
        typed = (
            batch
            for part in batches
            for batch in pa.Table.from_batches([part]).cast(schema).to_batches()
        )
        reader = pa.RecordBatchReader.from_batches(schema, typed)
        scratch.append(columns.INTERACTIONS, reader, transaction=name)
    return bound


def _train(scratch: Lake, variant: Variant, day: date, progress: Progress) -> None:
    """Train where the policy asks for it; where there is too little data, popularity serves."""
    if variant.train == "never":
        return
    settings = variant.settings
    night = settings.end_of(day) - timedelta(microseconds=1)
    decision = decide(
        variant.train,
        settings.training.policy,
        read_standing(scratch, settings, variant.train),
        night,
    )
    if not decision.train:
        return
    try:
        train(scratch, settings, at=night, run_id=f"{variant.name} {day}", progress=progress)
    except GateError as error:
        _log.info("%s, %s: not trained: %s", variant.name, day, error)


def _scores(
    scratch: Lake, variant: Variant, days: Sequence[date], now: datetime
) -> Iterator[pa.Table]:
    """Yield the users' figures, of seven run_dates at a time."""
    settings = variant.settings
    judged = judged_lists(scratch, settings, days[0], days[-1], now)
    for start in range(0, len(judged), NIGHTS):
        chunk = judged[start : start + NIGHTS]
        with judging(scratch, settings, chunk) as con:
            for lists in chunk:
                create_popular_ranks(con, lists)
                parameters: dict[str, Any] = {
                    "cutoff": min(CUTOFF, lists.k),
                    "ideal": IDEAL,
                    "model_id": lists.model_id,
                    "run_date": lists.run_date,
                }
                rows = con.sql(load("replay/user_scores"), params=parameters)
                yield rows.to_arrow_table()
