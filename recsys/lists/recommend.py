"""Every user's top-K: score in a stream, check what was made, publish it in one commit."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.errors import GateError
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.row_counts import check_row_counts
from recsys.lists.blocks import ListBlock, make_lists
from recsys.lists.checks import ListChecks, enforce
from recsys.progress import Progress, silent
from recsys.registry.models import find_champion, load_model
from recsys.temporary import temporary_folder
from sql import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    import duckdb
    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.settings import Recommending, Settings

_T = TypeVar("_T")
_VARYING = (columns.USER_ID, "rank", columns.ITEM_ID, "score", "reason")
_BATCH = 100_000  # rows handed to the Delta writer, which holds several and may swap neighbours
_KEEPING = {"OPTIMIZE", "VACUUM START", "VACUUM END"}  # commits that change no row
_WAITING = 2  # blocks of lists that may wait to be checked and written


@dataclass(frozen=True)
class RecommendResult:
    """What a night's recommendations came to.

    Attributes:
        status: "published", or "unchanged" where the same lists already stood.
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
            written.
        ConfigurationError: ``run_date`` lies in the future.
        GateError: no item may be shown, or the lists broke a rule; nothing was published.
    """
    started = time.perf_counter()
    settings.check_run_date(run_date)
    wanted = recommending or settings.recommending
    version = lake.version(columns.INTERACTIONS)
    check_row_counts(lake, version)
    row = find_champion(lake)
    inputs = {
        "run_date": run_date.isoformat(),
        "model_id": row.model_id if row else None,
        "interactions_version": version,
        "items_version": lake.version(columns.ITEMS),
        **wanted.model_dump(exclude={"block"}),
    }
    standing = _standing(lake, run_date)
    if standing and standing["inputs"] == inputs:
        return RecommendResult(
            status="unchanged",
            run_date=run_date,
            model_id=inputs["model_id"],
            interactions_version=version,
            version=lake.version(columns.RECOMMENDATIONS),
            seconds=time.perf_counter() - started,
            **standing["counts"],
        )

    with open_duckdb(settings) as con, temporary_folder() as folder:
        lake.view(con, columns.INTERACTIONS, version)
        lake.view(con, columns.ITEMS, inputs["items_version"])
        model = load_model(lake, row, settings.device) if row else None
        packed = load_histories(lake, con, version, model.items if model else None)
        if not len(packed.histories):
            raise GateError(
                "there is nobody to recommend to: `interactions` is empty; run `recsys ingest`"
            )
        eligible = _eligible(con, packed)
        if not eligible.any():
            raise GateError(
                "there is nothing to recommend: `items` marks every item as not eligible; "
                "the lists of before still stand"
            )
        staged = folder / "lists.parquet"
        checks = ListChecks(
            con,
            packed.items.where(eligible),
            k=wanted.k,
            exclude_seen=wanted.seen == "exclude",
        )
        schema = lake.schema(columns.RECOMMENDATIONS)
        lists = make_lists(model, packed, eligible, wanted, settings, progress)
        counts = _stage(lists, packed, checks, staged, schema)
        enforce(lake, checks.violations(), run_date)
        constant = {
            "run_date": pa.scalar(run_date, pa.date32()),
            "run_id": pa.scalar(run_id),
            "model_id": pa.scalar(inputs["model_id"], pa.string()),
            "interactions_version": pa.scalar(version),
            "generated_at": pa.scalar(datetime.now(UTC), schema.field("generated_at").type),
        }
        published = lake.replace(
            columns.RECOMMENDATIONS,
            _stamped(staged, constant, schema),
            where=f"run_date = '{run_date.isoformat()}'",
            note={"recommend": {"inputs": inputs, "counts": counts}},
        )
    return RecommendResult(
        status="published",
        run_date=run_date,
        model_id=inputs["model_id"],
        interactions_version=version,
        version=published,
        seconds=time.perf_counter() - started,
        **counts,
    )


def _eligible(con: duckdb.DuckDBPyConnection, packed: Packed) -> NDArray[np.bool_]:
    """Return (V + 1,) whether each index may be recommended.

    An item may be when somebody has interacted with it and `items` does not say otherwise.
    """
    indices = (np.flatnonzero(packed.counts) + 1).astype(np.int32)
    catalogue = {"item_id": packed.items.of_indices(indices), "item": indices}
    con.register("catalogue", pa.table(catalogue))
    chosen = con.sql(load("lists/eligible_items")).to_arrow_table()["item"].to_numpy()
    con.unregister("catalogue")
    mask = np.zeros(len(packed.items) + 1, dtype=bool)
    mask[chosen] = True
    return mask


def _stage(
    lists: Iterable[ListBlock], packed: Packed, checks: ListChecks, staged: Path, schema: pa.Schema
) -> dict[str, int]:
    """Check and write the lists while the next ones are made; return the counts of the result."""
    counts = {"users": len(packed.histories), "rows": 0, "popular_users": 0}
    varying = pa.schema([schema.field(name) for name in _VARYING])
    # Dictionaries of ids and scores would not get small, and trying takes half of the time.
    with pq.ParquetWriter(
        staged, varying, use_dictionary=["reason"], write_statistics=False
    ) as writer:

        def keep(block: ListBlock) -> None:
            for part in block.parts():
                rows = part.rows(packed, varying)
                checks.check(rows, part.history(packed))
                writer.write_table(rows)
                counts["rows"] += len(rows)
            counts["popular_users"] += block.popular_users

        _behind(keep, lists)
    return counts


def _behind(work: Callable[[_T], None], things: Iterable[_T]) -> None:
    """Do the work on each thing, in order, in one thread while the next thing is made.

    What either side raises ends both.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[None]] = deque()
        for thing in things:
            waiting.append(thread.submit(work, thing))
            if len(waiting) > _WAITING:
                waiting.popleft().result()
        for future in waiting:
            future.result()


def _stamped(
    staged: Path, constant: Mapping[str, pa.Scalar], schema: pa.Schema
) -> pa.RecordBatchReader:
    """Stream the staged rows as `recommendations` has them, with what all of them share."""

    def batches() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(staged) as file:
            for rows in file.iter_batches(_BATCH):
                arrays = [
                    pa.repeat(constant[name], len(rows)) if name in constant else rows[name]
                    for name in schema.names
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _standing(lake: Lake, run_date: date) -> dict[str, dict[str, Any]] | None:
    """Return what the newest commit for a run_date was made from, and its counts.

    None where somebody else has written since: the lists may not be those that were published.
    """
    for _, operation, note in lake.commits(columns.RECOMMENDATIONS):
        made: dict[str, dict[str, Any]] | None = note.get("recommend")
        if not made and operation not in _KEEPING:
            return None
        if made and made["inputs"]["run_date"] == run_date.isoformat():
            return made
    return None
