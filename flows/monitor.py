"""Look at how the lists do, and at the data that they come from; neither stops a night."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from flows.artifacts import run_step
from flows.runs import retrying_task
from recsys.operations.runs import Run

if TYPE_CHECKING:
    from recsys.operations.monitoring import (
        LiveMetricsResult,  # noqa: TC004 - Prefect asks for parameters
    )
    from recsys.progress import Progress


@retrying_task("live_metrics", (10,))
def live_metrics_task(run: Run, run_date: date) -> LiveMetricsResult:
    """Judge the lists of the last nights by what users did since."""
    from recsys.operations.monitoring import update_live_metrics

    def work(progress: Progress) -> LiveMetricsResult:  # noqa: ARG001 - it has none to report
        return update_live_metrics(run.lake, run.settings, run_date)

    return run_step(run, "live_metrics", work)
