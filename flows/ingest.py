"""Take what is new at the source into the lake, checked."""

from __future__ import annotations

from prefect import State, flow, get_run_logger
from prefect.states import Completed

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task, run_name
from flows.story import ingest_line
from recsys.ingest.batch import IngestResult, ingest
from recsys.ingest.items import ingest_items
from recsys.operations.runs import Run
from recsys.settings import Source
from recsys.version import code_version


@retrying_task("ingest")
def ingest_task(run: Run, source: Source | None) -> IngestResult:
    """Pull, check and commit one batch."""
    return run_step(
        run,
        "ingest",
        lambda progress: ingest(run.lake, run.settings, source, progress=progress),
    )


@retrying_task("items")
def ingest_items_task(run: Run) -> None:
    """Make the items table what its source is, where one is configured."""
    if run.settings.items is not None:
        result = ingest_items(run.lake, run.settings)
        run.record("items", result)
        get_run_logger().info("%s", result.understood)


@flow(name="ingest", flow_run_name=run_name, version=code_version())
def ingest_flow(source: Source | None = None) -> State[None]:
    """Take new interactions into the lake; what the lake has is not taken again.

    Args:
        source: where interactions come from, where the setting ``allow_source_parameter`` allows
            it; the configured source when not given.
    """
    with flow_run("ingest") as run:
        run.settings.check_source_parameter(source)
        ingest_task(run, source)
        ingest_items_task(run)
    return Completed(message=ingest_line(run.outcome["ingest"]))
