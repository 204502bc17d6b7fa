"""The rows of a batch, one by one, against the rules in sql/ingest/, and the batch's profile."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from recsys import columns
from recsys.ingest.changes import NO_CHANGES
from recsys.ingest.ids import BLANKS, TYPE_NAMES
from recsys.ingest.staging import count_rows
from recsys.lake.erasures import view_erasures
from sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import duckdb

    from recsys.ingest.changes import Changes
    from recsys.ingest.commit import Batch
    from recsys.ingest.staging import StagedBatch
    from recsys.lake.tables import Lake
    from recsys.settings import Contract, Source

_BATCHES_TO_COMPARE = 3


@dataclass(frozen=True)
class BatchProfile:
    """A batch in one row: what its contract looks at, and what its row of `batches` counts.

    Attributes:
        row_count: rows read from the source.
        accepted: rows to append to `interactions`.
        rejected: rows that break a rule.
        quarantined: those of them that are not in `quarantine` yet.
        duplicates: rows that are already in the lake, or that another row of the batch is.
        anonymous: rows without a user, where the source says that there are such.
        rejected_share: rejected / (row_count - anonymous).
        span_days: days between the oldest and the newest accepted row.
        row_count_change: how many times more or fewer rows than the median of the source's earlier
            batches; None where there are too few of them.
        user_id_type: integer or text.
        item_id_type: integer or text.
        fingerprint: a hash of the rows to append and of the changes, in any order.
        replaced: rows in the lake that get another event or value.
        deleted: rows in the lake that are removed.
        changed_share: see :class:`recsys.ingest.changes.Changes`.
    """

    row_count: int
    accepted: int
    rejected: int
    quarantined: int
    duplicates: int
    anonymous: int
    rejected_share: float
    span_days: float
    row_count_change: float | None
    user_id_type: str
    item_id_type: str
    fingerprint: str
    replaced: int = 0
    deleted: int = 0
    changed_share: float = 0.0

    @property
    def has_new_rows(self) -> bool:
        """Whether there is a row to append to `interactions` or `quarantine`, or to change."""
        return bool(self.accepted or self.quarantined or self.replaced or self.deleted)


NO_ROWS = BatchProfile(0, 0, 0, 0, 0, 0, 0.0, 0.0, None, "", "", "")


def classify_rows(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    source: Source,
    contract: Contract,
    latest: datetime,
    *,
    compare: bool,
    replaced: Sequence[Batch] = (),
) -> None:
    """Make a table of each class of staged rows, see sql/ingest/create_*_rows.sql.

    They are anonymous_rows, faulty_rows, rows_in_lake, repeated_rows, rejected_rows,
    new_rejected_rows, and the view accepted_rows.

    Args:
        con: holds ``staged_rows``.
        lake: its interactions and quarantined rows are not ingested again, nor those of users who
            were erased.
        source: whether rows without a user are expected.
        contract: how long an id may be.
        latest: the latest timestamp that an interaction may have.
        compare: whether the lake has interactions to compare with.
        replaced: the batches that this one replaces: their rows count as not there.
    """
    batch_ids = [batch.batch_id for batch in replaced]
    con.execute(
        load("ingest/create_anonymous_rows"),
        {"blanks": BLANKS, "drop_null_users": source.drop_null_users},
    )
    con.execute(
        load("ingest/create_faulty_rows"),
        {"blanks": BLANKS, "max_id_bytes": contract.max_id_bytes, "latest": latest},
    )
    con.execute("create or replace temp table rows_in_lake (seq bigint)")
    con.execute("create or replace temp table quarantined_rows (row varchar, reasons varchar[])")
    if compare:
        _find_rows_in_lake(con, lake, batch_ids, ignore_event=source.on_change != "add")
    has_erasures = view_erasures(con, lake)
    if has_erasures:
        con.execute(load("ingest/insert_erased_rows"))
    con.execute(load("ingest/create_repeated_hashes"))
    # Of two batches the later one has the last word on a change; so has the later of two rows.
    con.execute(load("ingest/create_repeated_rows"), {"keep_last": source.on_change != "add"})
    con.execute(load("ingest/insert_exact_repeats"))
    con.execute(load("ingest/create_rejected_rows"))
    if count_rows(con, "rejected_rows") and lake.exists(columns.QUARANTINE):
        lake.view(con, columns.QUARANTINE)
        con.execute(
            "insert into quarantined_rows select row, reasons from quarantine "
            "where not list_contains(?::varchar[], batch_id)",
            [batch_ids],
        )
    if has_erasures:
        con.execute(load("ingest/insert_erased_rejections"))
    con.execute(load("ingest/create_new_rejected_rows"))
    con.execute(load("ingest/create_accepted_rows"))


def _find_rows_in_lake(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    replaced_ids: Sequence[str],
    *,
    ignore_event: bool,
) -> None:
    """Make the table of staged rows that the lake has, but for those of batches to be replaced."""
    ((oldest, newest),) = con.execute(
        'select min("timestamp"), max("timestamp") from staged_rows'
    ).fetchall()
    if replaced_ids:
        lake.view(con, columns.INTERACTIONS, name="all_interactions")
        for name in ("create_replaced_rows", "create_other_interactions"):
            con.execute(load(f"ingest/{name}"), {"batches": replaced_ids})
    else:
        lake.view(con, columns.INTERACTIONS)
    con.execute(
        load("ingest/create_rows_in_lake"),
        {"oldest": oldest, "newest": newest, "ignore_event": ignore_event},
    )


def profile_batch(
    con: duckdb.DuckDBPyConnection,
    staged: StagedBatch,
    source: str,
    batches: Sequence[Batch],
    changes: Changes = NO_CHANGES,
) -> BatchProfile:
    """Return the profile of a batch.

    Args:
        con: holds what :func:`classify_rows` made.
        staged: what is in ``staged_rows``.
        source: the source's name in `batches`.
        batches: the accepted batches before this one.
        changes: to the rows of earlier batches.
    """
    relation = con.sql(load("ingest/batch_profile"))
    counts = dict(zip(relation.columns, relation.fetchall()[0], strict=True))
    counts["duplicates"] -= changes.replaced
    counts["fingerprint"] += changes.fingerprint
    return BatchProfile(
        **counts,
        rejected_share=counts["rejected"] / max(1, counts["row_count"] - counts["anonymous"]),
        row_count_change=_row_count_change(counts["row_count"], _with_rows(batches, source)),
        user_id_type=TYPE_NAMES[staged.id_types.user_id],
        item_id_type=TYPE_NAMES[staged.id_types.item_id],
        replaced=changes.replaced,
        deleted=changes.deleted,
        changed_share=changes.share,
    )


def is_usual_size(
    profile: BatchProfile, source: str, batches: Sequence[Batch], contract: Contract
) -> bool:
    """Say whether a source that holds nothing new still has about as many rows as it used to.

    Being as large as the latest accepted batch is usual too, since that was accepted.
    """
    limit, change = contract.max_row_count_change, profile.row_count_change
    if change is None or change <= limit:
        return True
    latest = max(_with_rows(batches, source), key=lambda batch: batch.started)
    return _ratio(profile.row_count, latest.rows_in) <= limit


def _with_rows(batches: Sequence[Batch], source: str) -> list[Batch]:
    """Return a source's batches; one that held nothing new says nothing about what is usual."""
    return [batch for batch in batches if batch.source == source and batch.accepted]


def _row_count_change(row_count: int, batches: Sequence[Batch]) -> float | None:
    if len(batches) < _BATCHES_TO_COMPARE:
        return None
    return _ratio(row_count, median(batch.rows_in for batch in batches))


def _ratio(count: float, usual: float) -> float:
    return max(count / max(1, usual), usual / max(1, count))
