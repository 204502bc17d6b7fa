"""Erase a user: from every table, from the caches and from the pages; a hash stays.

The row of `erasures` comes first, so that no ingest brings the user back whatever happens after it.
The rows of `interactions` go last: whoever is erased and still has some there was left by a killed
run, and the same command again, or the next maintenance, does the rest. The catalog is published at
the end of the run. Files of older versions hold the rows until `recsys maintain` removes them.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.account import current_account
from recsys.catalog.report.files import forget_user
from recsys.errors import ConfigurationError
from recsys.ingest.commit import recover
from recsys.lake import commits
from recsys.lake.engine import open_duckdb
from recsys.lake.erasures import record_erasure, view_erasures
from recsys.lake.history_cache import forget_histories
from recsys.lake.maintenance import REPLAYED
from recsys.lake.row_counts import check_row_counts, record_deletions
from recsys.lake.typed_ids import typed_id
from sql import literal, load

if TYPE_CHECKING:
    from recsys.lake.tables import Lake

_ERASED_ROW = '{"erased": true}'
_SAMPLES = "sample rows:"
"""Of a report on a refused batch, see recsys.ingest.contract_report; `runs.error` holds it."""


@dataclass(frozen=True)
class EraseResult:
    """The result of an erasure.

    Attributes:
        user_hash: key of `erasures`.
        erased_at: when the user was erased first.
        interactions: rows deleted from `interactions`.
        recommendations: rows deleted from `recommendations`.
        quarantined: rows of `quarantine` whose content was blanked.
        reports: rows of `runs` whose sample rows were removed.
        seconds: wall time.
    """

    user_hash: str
    erased_at: datetime
    interactions: int
    recommendations: int
    quarantined: int
    reports: int
    seconds: float


def erase(
    lake: Lake, user: str, why: str, *, who: str | None = None, now: datetime | None = None
) -> EraseResult:
    """Erase a user whose id is ``user``, as text; a second time does what a killed one left.

    Args:
        lake: the lake.
        user: the id.
        why: the reason, which stays; it must not name the user.
        who: the account that it is recorded with; this process's own when not given.
        now: when it is done; the clock's when not given.

    Raises:
        ConfigurationError: the reason is empty or names the user, or the id is not of the lake's
            type.
        LakeError: the lake can't be read or written, or has lost or doubled rows.
    """
    started = time.perf_counter()
    now = now or datetime.now(UTC)
    if not why.strip() or _names(why, user):
        raise ConfigurationError("give a reason that stays readable without the user: --why ...")
    user_id = typed_id(lake, columns.INTERACTIONS, columns.USER_ID, user)
    predicate = f"{columns.USER_ID} = {literal(user_id) if isinstance(user_id, str) else user_id}"
    recover(lake)
    check_row_counts(lake)
    erasure = record_erasure(lake, user, now, who or current_account(), why)
    batches = _rows_by_batch(lake, predicate)
    lists = _count(lake, columns.RECOMMENDATIONS, predicate)
    if lists:
        lake.delete(columns.EXPLANATIONS, predicate)
        lake.delete(columns.RECOMMENDATIONS, predicate)
    quarantined = _blank_quarantine(lake, user)
    reports = _shorten_reports(lake, user)
    forget_user(lake, user)
    forget_histories(lake)
    if lake.is_local:  # what a killed replay has left
        shutil.rmtree(lake.uri(REPLAYED), ignore_errors=True)
    if batches:
        lake.delete(columns.INTERACTIONS, predicate)
        record_deletions(lake, batches, now)
    return EraseResult(
        user_hash=erasure.user_hash,
        erased_at=erasure.erased_at,
        interactions=sum(batches.values()),
        recommendations=lists,
        quarantined=sum(quarantined.values()),
        reports=reports,
        seconds=time.perf_counter() - started,
    )


def finish_erasures(lake: Lake) -> None:
    """Erase again whoever was erased and still has interactions: a killed run left them.

    Raises:
        LakeError: the lake can't be read or written.
    """
    with open_duckdb(lake.limits) as con:
        if not view_erasures(con, lake):
            return
        lake.view(con, columns.INTERACTIONS)
        left = con.execute(load("operations/erased_users")).fetchall()
    for (user,) in left:
        erase(lake, str(user), "a maintenance finished it")


def _rows_by_batch(lake: Lake, predicate: str) -> dict[str, int]:
    with open_duckdb(lake.limits) as con:
        lake.view(con, columns.INTERACTIONS, where=predicate)
        rows = con.execute(
            f"select batch_id, count(*) from interactions where {predicate} group by all"  # noqa: S608 - the id is a literal
        ).fetchall()
    return dict(rows)


def _count(lake: Lake, table: str, predicate: str) -> int:
    with open_duckdb(lake.limits) as con:
        lake.view(con, table, where=predicate)
        ((count,),) = con.execute(
            f"select count(*) from {table} where {predicate}"  # noqa: S608 - the id is a literal
        ).fetchall()
    return int(count)


def _blank_quarantine(lake: Lake, user: str) -> dict[str, int]:
    """Blank the rows that name the user, in one commit; return how many by batch.

    They stay, since `batches` counts them, with their reasons.
    """
    with open_duckdb(lake.limits) as con:
        lake.view(con, columns.QUARANTINE)
        con.execute(load("ingest/create_words_of"))
        named = con.execute(load("operations/quarantined_rows_of_user"), {"user": user}).fetchall()
    if named:
        texts = ", ".join(sorted({literal(row) for _, row in named}))
        with lake.writing(columns.QUARANTINE) as target:
            target.update(
                {"row": literal(_ERASED_ROW)},
                predicate=f"row in ({texts})",
                commit_properties=commits.properties(),
            )
    counts: dict[str, int] = {}
    for batch, _ in named:
        counts[batch] = counts.get(batch, 0) + 1
    return counts


def _shorten_reports(lake: Lake, user: str) -> int:
    """Cut the sample rows off reports on refused batches that name the user."""
    changed = []
    for row in lake.rows(columns.RUNS).to_pylist():
        report, samples, rows = (row["error"] or "").partition(_SAMPLES)
        if samples and _names(rows, user):
            changed.append(row | {"error": f"{report}{_SAMPLES} removed with a user's erasure"})
    if changed:
        table = pa.Table.from_pylist(changed, schema=lake.schema(columns.RUNS))
        lake.upsert(columns.RUNS, table, on="run_id")
    return len(changed)


def _names(text: str, user: str) -> bool:
    """Say whether a text names the user: the id, not part of another word or number."""
    return re.search(rf"(?<![\w-]){re.escape(user)}(?![\w-])", text) is not None
