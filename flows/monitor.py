"""Look at how the lists do, and at the data that they come from; neither stops a night."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from flows.artifacts import run_step
from flows.runs import retrying_task
from recsys.operations.runs import Run

if TYPE_CHECKING:
    from recsys.operations.drift import DriftResult  # noqa: TC004 - Prefect asks for parameters
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


@retrying_task("drift", (10,))
def drift_task(run: Run, run_date: date) -> DriftResult:
    """Measure how far the newest interactions are from those that were learnt from."""
    from recsys.operations.drift import update_drift

    def work(progress: Progress) -> DriftResult:  # noqa: ARG001 - it has none to report
        return update_drift(run.lake, run.settings, run_date)

    return run_step(run, "drift", work)
