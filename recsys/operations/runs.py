"""The frame of every run: alone on its lake, with its row in `runs` and the catalog at its end."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

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

Status = Literal["completed", "refused", "failed"]
"""A run that is refused met a RecsysError: a contract, a gate, a setting, a store."""


@dataclass
class Run:
    """A run that is going on: where it works, and the results of its steps so far.

    Attributes:
        run_id: its key in `runs`.
        lake: the lake that it writes to.
        settings: what it runs with.
        outcome: step -> the step's result, for `runs.outcome`.
    """

    run_id: str
    lake: Lake
    settings: Settings
    outcome: dict[str, Any] = field(default_factory=dict)

    def record(self, step: str, result: Any) -> None:
        """Keep a step's result dataclass for `runs.outcome`."""
        self.outcome[step] = asdict(result)


@dataclass(frozen=True)
class RunRow:
    """A row of `runs`; the data dictionary (`recsys.lake.schemas`) says what its columns mean."""

    run_id: str
    flow: str
    status: Status
    started: datetime
    finished: datetime
    seconds: float
    parameters: str
    outcome: str
    error: str | None
    code_version: str


@contextmanager
def record_run(
    flow: str, run_id: str, settings: Settings, parameters: Mapping[str, Any]
) -> Iterator[Run]:
    """Do a run, alone on its lake: however it ends, write its row of `runs`, then the catalog.

    A lake without tables yet (its first ingest was refused before it knew the type of an id) has
    no place for the row, and stays empty.

    Raises:
        LakeError: another run writes to the lake, or the row or the catalog can't be written.
    """
    run = Run(run_id, Lake.from_settings(settings), settings)
    with run.lake.write_lock():
        migrate(run.lake)
        started = datetime.now(UTC)

        def write(status: Status, error: str | None = None) -> None:
            finished = datetime.now(UTC)
            row = RunRow(
                run_id=run_id,
                flow=flow,
                status=status,
                started=started,
                finished=finished,
                seconds=(finished - started).total_seconds(),
                parameters=as_json(dict(parameters)),
                outcome=as_json(run.outcome),
                error=error,
                code_version=code,
            )
            _write(run.lake, row)

        code = code_version()  # before the code can change on disk
        try:
            yield run
        except BaseException as failure:
            try:
                write(*_verdict(failure))
            except Exception as second:  # the first is what a person has to know
                failure.add_note(f"the run could not be recorded either: {second}")
            raise
        write("completed")


def _verdict(failure: BaseException) -> tuple[Status, str]:
    """Return the status of a run that ended with this exception, and what its row says of it."""
    if stopped := stop_signal():
        return "failed", f"stopped by {stopped.name}"
    if isinstance(failure, RecsysError):
        return "refused", str(failure)
    return "failed", f"{type(failure).__name__}: {failure}"


def _write(lake: Lake, row: RunRow) -> None:
    """Write the row, and the catalog after it; a run that Prefect tries again has one row."""
    if not lake.exists(columns.INTERACTIONS):
        return
    table = pa.Table.from_pylist([asdict(row)], schema=lake.schema(columns.RUNS))
    lake.replace(columns.RUNS, table, where=f"run_id = {literal(row.run_id)}")
    publish_catalog(lake)
