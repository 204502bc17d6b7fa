"""What a source has corrected or withdrawn since it brought it: the rule ``on_change`` of a source.

``add`` takes new interactions, and leaves those in the lake as they are. ``replace`` also gives an
interaction the event and value that the source holds now. ``delete`` also removes interactions that
the source no longer holds; for that all of its objects are read whenever one of them has changed.

An interaction is the same while its user, item and timestamp are. Only what batches of the same
source brought is changed: another source's row of the same interaction stays. `delete_scope` says
which of these may be deleted. A changed row keeps its batch and its time of ingestion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys.ingest.selection import have_etags, new_objects
from sql import load

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import duckdb

    from recsys.ingest.commit import Batch
    from recsys.lake.object_store import Stored
    from recsys.lake.row_counts import AcceptedBatch
    from recsys.settings import Source


@dataclass(frozen=True)
class Changes:
    """The changes to rows that earlier batches of a source brought.

    Attributes:
        replaced: rows with a new event or value.
        deleted: rows that are removed.
        share: the larger of two shares: of the replaced rows among all of the source's, and of the
            deleted ones among those in scope.
        fingerprint: a hash of the changes, in any order; empty where there is none.
        by_batch: batch -> rows of it that are removed, for each batch of which a row changes.
    """

    replaced: int = 0
    deleted: int = 0
    share: float = 0.0
    fingerprint: str = ""
    by_batch: Mapping[str, int] = field(default_factory=dict)


NO_CHANGES = Changes()


def objects_to_read(
    source: Source, name: str, objects: Sequence[Stored], batches: Sequence[Batch]
) -> list[Stored]:
    """Return the objects that an ingest reads: what is new, or all where rows may be deleted.

    Args:
        source: the source.
        name: its name in `batches`.
        objects: what it holds.
        batches: the accepted batches.
    """
    if source.on_change != "delete" or not have_etags(objects):
        return new_objects(objects, batches)
    earlier = [batch for batch in batches if batch.source == name]
    newest = max(earlier, key=lambda batch: batch.started, default=None)
    is_same = newest is not None and set(newest.objects) == set(objects)
    return [] if is_same else list(objects)


def find_changes(
    con: duckdb.DuckDBPyConnection, source: Source, batches: Collection[AcceptedBatch]
) -> Changes:
    """Make the tables ``changed_rows`` and ``deleted_rows``; return what they hold.

    Args:
        con: holds what :func:`recsys.ingest.row_checks.classify_rows` made, compared with a lake.
        source: says what becomes of changes.
        batches: the accepted batches of the source.
    """
    if source.on_change == "add" or not batches:
        return NO_CHANGES
    ((oldest, newest),) = con.execute(
        'select min("timestamp"), max("timestamp") from staged_rows'
    ).fetchall()
    is_deleting = source.on_change == "delete"
    con.execute(
        load("ingest/create_rows_in_scope"),
        {
            "batches": [batch.batch_id for batch in batches],
            "scope": source.delete_scope if is_deleting else "span",
            "oldest": oldest,
            "newest": newest,
        },
    )
    con.execute(load("ingest/create_changed_rows"))
    con.execute(load("ingest/create_deleted_rows"), {"is_deleting": is_deleting})
    ((replaced, deleted, in_scope, fingerprint),) = con.sql(
        load("ingest/change_profile")
    ).fetchall()
    total = sum(batch.accepted - (batch.withdrawn or 0) for batch in batches)
    return Changes(
        replaced=replaced,
        deleted=deleted,
        share=max(replaced / max(1, total), deleted / max(1, in_scope)),
        fingerprint=fingerprint if replaced or deleted else "",
        by_batch=dict(con.sql(load("ingest/changes_by_batch")).fetchall()),
    )
