"""Commits of a Delta table: the note and the transaction that travel in one, and checkpoints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

_NOTE = "recsys"  # its key among a commit's metadata
CHECKPOINT_EVERY = 5
"""Commits. To open a table takes 2 requests for each commit since, and 11 for the checkpoint."""
# Checkpoints are made here, more often; old logs are removed by recsys.lake.maintenance.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def properties(
    note: Mapping[str, Any] | None = None, transaction: str | None = None
) -> CommitProperties:
    """Return what a commit carries: a note, and the name of what it does, once."""
    return CommitProperties(
        custom_metadata={_NOTE: json.dumps(note)} if note else None,
        app_transactions=[Transaction(transaction, 1)] if transaction else None,
    )


def write(
    table: DeltaTable,
    rows: pa.RecordBatchReader | pa.Table,
    *,
    transaction: str | None = None,
    note: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write rows in one commit; ``options`` are those of `write_deltalake`."""
    write_deltalake(
        table,
        rows,
        commit_properties=properties(note, transaction),
        post_commithook_properties=NO_HOOKS,
        **options,
    )


def read(table: DeltaTable, limit: int | None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (version, operation, note), newest first; few are read where few are asked for."""
    known, count = 0, 1
    while limit is None or known < limit:
        history = table.history(count if limit is None else min(count, limit))
        for commit in history[known:]:
            yield commit["version"], commit["operation"], json.loads(commit.get(_NOTE, "{}"))
        if len(history) < count:
            return
        known, count = len(history), 4 * count


def is_checkpoint_due(before: int, after: int) -> bool:
    """Say whether the commits between two versions make a checkpoint due."""
    return after // CHECKPOINT_EVERY > before // CHECKPOINT_EVERY


def create_checkpoint(table: DeltaTable) -> None:
    """Sum the log up in one file, so that opening the table does not read ever more of them."""
    table.create_checkpoint()
