"""Every user's top-K: score in a stream, check what was made, publish it in one commit."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns, registry
from recsys.errors import GateError
from recsys.lake import connect
from recsys.model.scoring import top_k
from recsys.popular import Popular
from recsys.progress import Progress, silent
from recsys.sequences import Packed, pack
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb
    from numpy.typing import NDArray

    from recsys.config import Recommending
    from recsys.lake import Lake
    from recsys.registry import Model
    from recsys.settings import Settings

_REASONS = pa.array(["model", "popular"])


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
        LakeError: the lake has no interactions, or can't be read or written.
        GateError: the lists broke a rule; nothing was published.
    """
    started = time.perf_counter()
    wanted = recommending or settings.recommending
    version = lake.version(columns.INTERACTIONS)
    row = registry.champion(lake)
    inputs = {
        "run_date": run_date.isoformat(),
        "model_id": row["model_id"] if row else None,
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

    with connect(settings) as con, tempfile.TemporaryDirectory() as folder:
        lake.view(con, columns.INTERACTIONS, version)
        lake.view(con, columns.ITEMS, inputs["items_version"])
        model = registry.load(lake, row, settings.device) if row else None
        packed = pack(con, model.items if model else None)
        if not len(packed.histories):
            raise GateError(
                "there is nobody to recommend to: `interactions` is empty; run `recsys ingest`"
            )
        eligible = _eligible(con, packed.items)
        staged = Path(folder) / "lists.parquet"
        counts = {"users": len(packed.histories), "rows": 0, "popular_users": 0}
        schema = lake.schema(columns.RECOMMENDATIONS)
        constant = {
            "run_date": pa.scalar(run_date, pa.date32()),
            "run_id": pa.scalar(run_id),
            "model_id": pa.scalar(inputs["model_id"], pa.string()),
            "interactions_version": pa.scalar(version),
            "generated_at": pa.scalar(datetime.now(UTC), schema.field("generated_at").type),
        }
        with pq.ParquetWriter(staged, schema) as writer:
            for lists in _lists(model, packed, eligible, wanted, settings, progress):
                rows = lists.rows(packed, constant, schema)
                counts["rows"] += len(rows)
                counts["popular_users"] += lists.popular_users
                writer.write_table(rows)
        _check(lake, con, staged, packed, eligible, wanted, run_date)
        note = {"recommend": {"inputs": inputs, "counts": counts}}
        reader = con.sql(f"from read_parquet({literal(str(staged))})").to_arrow_reader(100_000)
        published = lake.replace(
            columns.RECOMMENDATIONS,
            reader.cast(schema),
            where=f"run_date = '{run_date.isoformat()}'",
            note=note,
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


@dataclass(frozen=True)
class _Lists:
    """The lists of one block of users: items (B, K) int32 with 0 at the end of short ones."""

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    from_model: NDArray[np.bool_]

    @property
    def popular_users(self) -> int:
        return int(((self.items[:, 0] != 0) & ~self.from_model[:, 0]).sum())

    def rows(self, packed: Packed, constant: dict[str, pa.Scalar], schema: pa.Schema) -> pa.Table:
        """Return the rows of `recommendations`, in order of user and rank."""
        user, position = np.nonzero(self.items)
        reason = np.where(self.from_model[user, position], 0, 1).astype(np.int8)
        varying = {
            "user_id": packed.users.take(pa.array(self.start + user)),
            "rank": pa.array((position + 1).astype(np.int32)),
            "item_id": packed.items.take(pa.array(self.items[user, position] - 1)),
            "score": pa.array(self.scores[user, position]),
            "reason": _REASONS.take(pa.array(reason)),
        }
        return pa.table(
            [
                varying[name] if name in varying else pa.repeat(constant[name], len(user))
                for name in schema.names
            ],
            schema=schema,
        )


def _lists(
    model: Model | None,
    packed: Packed,
    eligible: NDArray[np.bool_],
    wanted: Recommending,
    settings: Settings,
    progress: Progress,
) -> Iterator[_Lists]:
    """Yield the lists block by block: the model's, filled up by popularity."""
    popular = Popular.of(packed.counts, eligible)
    exclude = wanted.seen == "exclude"
    for start, items, scores in _from_model(model, packed, eligible, wanted, settings):
        users = slice(start, start + len(items))
        from_model = items != 0
        popular.fill(items, scores, packed.histories[users], exclude_seen=exclude)
        yield _Lists(start, items, scores, from_model)
        progress("recommending", min(users.stop, len(packed.histories)), len(packed.histories))


def _from_model(
    model: Model | None,
    packed: Packed,
    eligible: NDArray[np.bool_],
    wanted: Recommending,
    settings: Settings,
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
    if model is None:
        for start in range(0, len(packed.histories), wanted.block):
            size = min(wanted.block, len(packed.histories) - start)
            nothing = np.zeros((size, wanted.k), dtype=np.int32)
            yield start, nothing, np.full((size, wanted.k), -np.inf, dtype=np.float32)
        return
    known = len(model.items)
    for block in top_k(
        model.recommender,
        packed.histories.up_to(known),
        wanted.k,
        steps=wanted.steps,
        seed=wanted.seed,
        block=wanted.block,
        exclude_seen=wanted.seen == "exclude",
        eligible=eligible[: known + 1],
        runtime=settings.runtime(),
    ):
        yield block.start, block.items, block.scores


def _eligible(con: duckdb.DuckDBPyConnection, items: pa.Array) -> NDArray[np.bool_]:
    """Return (V + 1,) whether each index may be recommended.

    An item may be when somebody has interacted with it and `items` does not say otherwise.
    """
    index = np.arange(1, len(items) + 1, dtype=np.int32)
    con.register("catalogue", pa.table({"item_id": items, "item": index}))
    chosen = con.sql(load("sources/eligible")).to_arrow_table()["item"].to_numpy()
    con.unregister("catalogue")
    mask = np.zeros(len(items) + 1, dtype=bool)
    mask[chosen] = True
    return mask


def _check(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    staged: Path,
    packed: Packed,
    eligible: NDArray[np.bool_],
    wanted: Recommending,
    run_date: date,
) -> None:
    """Refuse staged lists that break a rule, and keep every verdict in `quality_results`."""
    con.execute(f"create or replace temp view lists as from read_parquet({literal(str(staged))})")
    con.register("eligible", pa.table({"item_id": packed.items.filter(pa.array(eligible[1:]))}))
    parameters = {"k": wanted.k, "exclude_seen": wanted.seen == "exclude"}
    verdicts = con.execute(load("checks/lists"), parameters).fetchall()
    con.unregister("eligible")
    now = datetime.now(UTC)
    subject = f"{columns.RECOMMENDATIONS} {run_date.isoformat()}"
    results = [
        {
            "subject": subject,
            "suite": "recommendations",
            "rule": rule,
            "status": "failed" if offences else "passed",
            "observed": str(offences),
            "threshold": "0",
            "checked_at": now,
        }
        for rule, offences in verdicts
    ]
    table = pa.Table.from_pylist(results, schema=lake.schema(columns.QUALITY_RESULTS))
    lake.replace(columns.QUALITY_RESULTS, table, where=f"subject = {literal(subject)}")
    broken = [f"{rule}: {offences:,} offences" for rule, offences in verdicts if offences]
    if broken:
        raise GateError(
            "the lists were not published, since they break what every list must keep: "
            + "; ".join(broken)
            + ". The lists of before still stand; this is a defect of ours, please report it"
        )


def _standing(lake: Lake, run_date: date) -> dict[str, dict[str, Any]] | None:
    """Return what the newest commit for a run_date was made from, and its counts."""
    for _, note in lake.notes(columns.RECOMMENDATIONS):
        made: dict[str, dict[str, Any]] | None = note.get("recommend")
        if made and made["inputs"]["run_date"] == run_date.isoformat():
            return made
    return None
