"""What a killed ingest has left: finished where its rows are in, undone where they are not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.ingest.contract import PROFILE, ROWS
from recsys.lake.engine import open_duckdb
from sql import literal

if TYPE_CHECKING:
    from recsys.lake.tables import Lake

ACCEPTED = "accepted"


def recover(lake: Lake) -> None:
    """Finish or undo what a run that was killed has left; without one, change nothing."""
    if not lake.exists(columns.INTERACTIONS):
        return
    schema = lake.schema(columns.INTERACTIONS)
    # A table may be missing all the same, in a lake that was copied or made by hand.
    lake.create(schema.field(columns.USER_ID).type, schema.field(columns.ITEM_ID).type)
    kept = ["batch_id", "status", "interactions_version"]
    batches = lake.open(columns.BATCHES).to_pyarrow_table(columns=kept).to_pylist()
    known = {row["batch_id"] for row in batches}
    taken = {row["batch_id"] for row in batches if row["status"] == ACCEPTED}
    written = max((row["interactions_version"] or 0 for row in batches), default=0)
    unseen = lake.version(columns.INTERACTIONS) - written
    if unseen > 0:
        for version, _, note in lake.commits(columns.INTERACTIONS, unseen):
            batch = note.get("batch")
            if batch and batch["batch_id"] not in taken and _holds(lake, batch):
                record(lake, {**batch, "interactions_version": version})
                taken.add(batch["batch_id"])
                known.add(batch["batch_id"])
    _forget(lake, columns.QUARANTINE, "batch_id", taken)
    suites = f"suite in ({literal(PROFILE)}, {literal(ROWS)})"
    _forget(lake, columns.QUALITY_RESULTS, "subject", known, suites)


def _holds(lake: Lake, batch: dict[str, Any]) -> bool:
    """Say whether a batch's rows are in, rather than deleted since with its row of `batches`."""
    with open_duckdb(lake.limits) as con:
        lake.view(con, columns.INTERACTIONS)
        its = f"from interactions where batch_id = {literal(batch['batch_id'])}"
        return not batch["accepted"] or bool(con.execute(f"select 1 {its} limit 1").fetchall())


def _forget(lake: Lake, table: str, column: str, known: set[str], among: str = "true") -> None:
    """Delete the rows of batches that never were."""
    with open_duckdb(lake.limits) as con:
        lake.view(con, table)
        there = con.execute(f"select distinct {column} from {table} where {among}").fetchall()  # noqa: S608 - names are quoted
    lost = [name for (name,) in there if name not in known]
    if lost:
        listed = ", ".join(literal(name) for name in lost)
        lake.delete(table, f"{column} in ({listed})" + ("" if among == "true" else f" and {among}"))


def record(lake: Lake, batch: dict[str, Any]) -> None:
    """Write a batch's row of `batches`, in place of an earlier refusal of the same batch."""
    row = {"finished": datetime.now(UTC), **batch}
    for moment in ("started", "finished"):
        if isinstance(row[moment], str):  # out of a commit's note
            row[moment] = datetime.fromisoformat(row[moment])
    table = pa.Table.from_pylist([row], schema=lake.schema(columns.BATCHES))
    lake.replace(columns.BATCHES, table, where=f"batch_id = {literal(batch['batch_id'])}")
