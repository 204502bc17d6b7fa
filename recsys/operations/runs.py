"""What a run came to: its row in `runs`, the catalog after it, the Markdown that people read."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.errors import RecsysError
from recsys.lake.migration import migrate
from recsys.lake.schemas import as_json
from recsys.lake.tables import Lake
from recsys.signals import stop_signal
from recsys.version import code_version
from sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.settings import Settings


@dataclass
class Run:
    """A run that is going on: where it works, and what has come out of it so far."""

    run_id: str
    lake: Lake
    settings: Settings
    outcome: dict[str, Any] = field(default_factory=dict)

    def record(self, step: str, result: Any) -> None:
        """Keep a step's result dataclass for `runs.outcome`."""
        self.outcome[step] = dataclasses.asdict(result)


@contextmanager
def record_run(
    flow: str, run_id: str, settings: Settings, parameters: Mapping[str, Any]
) -> Iterator[Run]:
    """Do a run, alone on its lake: however it ends, write its row of `runs`, then the catalog.

    A lake without tables yet (its first ingest was refused before it knew the type of an id) has
    nowhere to record, and stays empty.
    """
    this = Run(run_id, Lake.from_settings(settings), settings)
    with this.lake.write_lock():
        migrate(this.lake)
        started = datetime.now(UTC)
        row = {
            "run_id": run_id,
            "flow": flow,
            "started": started,
            "parameters": as_json(dict(parameters)),
            "code_version": code_version(),
        }
        try:
            yield this
        except BaseException as failure:
            stopped = stop_signal()
            refused = isinstance(failure, RecsysError) and not stopped
            row["status"] = "refused" if refused else "failed"
            if stopped:
                row["error"] = f"stopped by {stopped.name}"
            elif refused:
                row["error"] = str(failure)
            else:
                row["error"] = f"{type(failure).__name__}: {failure}"
            try:
                _close(this, row)
            except Exception as second:  # the first is what a person has to know
                failure.add_note(f"the run could not be recorded either: {second}")
            raise
        _close(this, {**row, "status": "completed"})


def _close(this: Run, row: dict[str, Any]) -> None:
    if not this.lake.exists(columns.INTERACTIONS):
        return
    finished = datetime.now(UTC)
    row["finished"] = finished
    row["seconds"] = (finished - row["started"]).total_seconds()
    row["outcome"] = as_json(this.outcome)
    schema = this.lake.schema(columns.RUNS)
    # One that Prefect tries again goes by the same id.
    table = pa.Table.from_pylist([row], schema=schema)
    this.lake.replace(columns.RUNS, table, where=f"run_id = {literal(this.run_id)}")
    publish_catalog(this.lake)
