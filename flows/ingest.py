"""Take what is new at the source into the lake, checked."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import step
from flows.runs import flow_run, retried
from recsys.ingest.batch import IngestResult
from recsys.ingest.batch import ingest as ingest_batch
from recsys.ingest.items import ingest_items
from recsys.operations.runs import Run
from recsys.settings import Source


@retried("ingest")
def take(run: Run, source: Source | None) -> IngestResult:
    """Pull, check and commit one batch."""
    return step(
        run,
        "ingest",
        lambda progress: ingest_batch(run.lake, run.settings, source, progress=progress),
    )


@retried("items")
def refresh_items(run: Run) -> None:
    """Make the items table what its source is, where one is configured."""
    if run.settings.items is not None:
        ingest_items(run.lake, run.settings)


@flow(name="ingest")
def ingest(source: Source | None = None) -> None:
    """Take new interactions into the lake; what is held already is not taken again.

    Args:
        source: where from; the configured source when not given.
    """
    with flow_run("ingest") as run:
        take(run, source)
        refresh_items(run)
