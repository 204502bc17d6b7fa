"""The frame of every run: alone on its lake, with its row in `runs` and the catalog at its end."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.errors import LakeError, RecsysError, TimeLimitError
from recsys.lake.migration import migrate
from recsys.lake.schemas import as_json
from recsys.lake.tables import Lake
from recsys.process import has_ended, this_process
from recsys.signals import is_overdue, stop_signal, time_limit
from recsys.version import code_version
from sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.settings import Settings

_log = logging.getLogger(__name__)

Status = Literal["running", "completed", "rejected", "refused", "failed", "cancelled", "crashed"]
"""What became of a run: the gate rejected the model of a training; a RecsysError (of a contract, a
gate, a setting, a store) refused it; any other error failed it; a signal cancelled it; its process
ended without a word."""

_REPORTED = {"nightly", "recommend", "train", "backfill", "lists-rollback", "erase"}
"""Flows and commands after which the report is written: what it says may have changed."""
_CRASHED = "its process ended without a word: killed, out of memory, or the machine stopped"
_OTHER_HOST = timedelta(hours=1)
"""How long over its time limit a run of another machine counts as running."""


@dataclass
class Run:
    """A run that is going on: where it works, and the results of its steps so far.

    Attributes:
        run_id: its key in `runs`.
        lake: the lake that it writes to.
        settings: what it runs with.
        outcome: step -> the step's result, for `runs.outcome`.
        status: of a run that ends well.
        error: what went wrong in a run that ends well all the same.
        first: its row while it runs.
        report: where its report lies, once it has ended.
        night_before: the outcome of the newest night before it, once it was read.
    """

    run_id: str
    lake: Lake
    settings: Settings
    outcome: dict[str, Any] = field(default_factory=dict)
    status: Status = "completed"
    error: str | None = None
    first: RunRow | None = None
    report: str | None = None
    night_before: dict[str, Any] | None = None
    _is_announced: bool = False

    def record(self, step: str, result: Any) -> None:
        """Keep a step's result dataclass for `runs.outcome`."""
        self.outcome[step] = asdict(result)
        self.announce()

    def record_failure(self, step: str, failure: str, error: Exception) -> str:
        """Keep what an optional step, which stops nothing, failed by; return it as it is told.

        Args:
            step: its name in `runs.outcome`.
            failure: what did not happen, such as "not trained".
            error: why.
        """
        kind = "refused" if isinstance(error, RecsysError) else "failed"
        reason = str(error) if kind == "refused" else f"{type(error).__name__}: {error}"
        self.outcome[step] = {kind: reason}
        told = f"{failure}: {reason}"
        self.error = f"{self.error}; {told}" if self.error else told
        return told

    def announce(self) -> None:
        """Write the run's first row, once there are tables: a first ingest makes them."""
        if self.first and not self._is_announced and self.lake.exists(columns.INTERACTIONS):
            self._is_announced = True
            _write(self.lake, [self.first, *_crashed(self)])


@dataclass(frozen=True)
class RunRow:
    """A row of `runs`; the data dictionary (`recsys.lake.schemas`) says what its columns mean."""

    run_id: str
    flow: str
    status: Status
    started: datetime
    finished: datetime | None
    seconds: float | None
    parameters: str
    outcome: str
    error: str | None
    code_version: str
    process: str | None


@contextmanager
def record_run(
    flow: str, run_id: str, settings: Settings, parameters: Mapping[str, Any]
) -> Iterator[Run]:
    """Do a run, alone on its lake: write its row of `runs` at the start and at the end.

    However it ends, its row says so, and the catalog is published. A run that is killed leaves
    its first row, which the next run finds. While `Lake.unlocked`, others may write.

    A lake without tables yet (its first ingest was refused before it knew the type of an id) has
    no place for the row, and stays empty.

    Raises:
        LakeError: another run writes to the lake, or the row or the catalog can't be written.
        TimeLimitError: the run took longer than the settings allow.
    """
    run = Run(run_id, Lake.from_settings(settings), settings)
    seconds = settings.time_limit.total_seconds()
    with time_limit(seconds), run.lake.write_lock(f"{flow} {run_id}"):
        migrate(run.lake)
        run.first = first = RunRow(
            run_id=run_id,
            flow=flow,
            status="running",
            started=datetime.now(UTC),
            finished=None,
            seconds=None,
            parameters=as_json(dict(parameters)),
            outcome="{}",
            error=None,
            code_version=code_version(),  # before the code can change on disk
            process=this_process(),
        )
        run.announce()
        try:
            yield run
        except BaseException as failure:
            try:
                _end(run, first, *_verdict(failure, settings))
            except Exception as second:  # the first is what a person has to know
                failure.add_note(f"the run could not be recorded either: {second}")
            if is_overdue():
                raise TimeLimitError(_too_long(settings)) from failure
            raise
        _end(run, first, run.status, run.error)


def _verdict(failure: BaseException, settings: Settings) -> tuple[Status, str]:
    """Return the status of a run that ended with this exception, and what its row says of it."""
    if is_overdue():
        return "failed", _too_long(settings)
    if stopped := stop_signal():
        return "cancelled", f"stopped by {stopped.name}"
    if isinstance(failure, RecsysError):
        return "refused", str(failure)
    return "failed", f"{type(failure).__name__}: {failure}"


def _too_long(settings: Settings) -> str:
    return (
        f"the run was stopped: it took longer than time_limit = {settings.time_limit}; "
        "find out what it waited for, or set a longer time_limit, and run again"
    )


def _end(run: Run, first: RunRow, status: Status, error: str | None) -> None:
    """Write a run's last row, and the catalog after it."""
    if not run.lake.exists(columns.INTERACTIONS):
        return
    finished = datetime.now(UTC)
    row = replace(
        first,
        status=status,
        finished=finished,
        seconds=(finished - first.started).total_seconds(),
        outcome=as_json(run.outcome),
        error=error,
    )
    _write(run.lake, [row])
    publish_catalog(run.lake, run.settings.scale.catalog_rows)
    if row.flow in _REPORTED and status in ("completed", "rejected"):
        run.report = _write_report(run.lake)


def _write_report(lake: Lake) -> str | None:
    """Write the report and return its address; what goes wrong stops no list and no model."""
    from recsys.catalog.report.files import write_report  # here: it takes time to import

    try:
        return write_report(lake)
    except Exception as error:
        _log.warning("the report could not be written: %s: %s", type(error).__name__, error)
        return None


def _write(lake: Lake, rows: list[RunRow]) -> None:
    """Write rows; a run that Prefect tries again has one row.

    On S3 another run may write its own row at the same time.
    """
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=lake.schema(columns.RUNS))
    ids = ", ".join(literal(row.run_id) for row in rows)
    for pause in (0.1, 0.5, 2.0, None):
        try:
            lake.replace(columns.RUNS, table, where=f"run_id in ({ids})")
            return
        except LakeError as error:
            if not error.transient or pause is None:
                raise
            time.sleep(pause)


def _crashed(run: Run) -> Iterator[RunRow]:
    """Yield the last rows of runs whose processes have ended without a word.

    A process of another machine can't be asked: its run is given up when its time is over.
    """
    names = [field.name for field in fields(RunRow)]
    found = run.lake.rows(columns.RUNS, names, where="status = 'running'")
    oldest = datetime.now(UTC) - run.settings.time_limit - _OTHER_HOST
    for values in found.to_pylist():
        row = RunRow(**values)
        if row.status != "running" or row.run_id == run.run_id:
            continue
        ended = has_ended(row.process or "")
        if ended or (ended is None and row.started < oldest):
            yield replace(row, status="crashed", error=_CRASHED)
