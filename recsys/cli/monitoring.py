"""Commands that say how the lists do."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.common import RunDate, app, new_run_id
from recsys.settings import Settings
from recsys.terminal import print_line


@app.command("live-metrics")
def live_metrics(
    run_date: RunDate = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Judge all lists that the lake still has.")
    ] = False,
) -> None:
    """Judge the lists of the last seven nights by what users did after them, beside popularity's.

    A night does so by itself. The figures are in the table live_metrics.
    """
    from recsys.operations import monitoring
    from recsys.operations.runs import record_run
    from recsys.operations.summary import live_summary

    settings = Settings()
    day = run_date.date() if run_date else settings.run_date()
    parameters = {"run_date": day, "recompute": recompute}
    with record_run("live-metrics", new_run_id(), settings, parameters) as run:
        result = (
            monitoring.recompute_live_metrics(run.lake, settings)
            if recompute
            else monitoring.update_live_metrics(run.lake, settings, day)
        )
        run.record("live_metrics", result)
    print_line(f"{result.nights:,} nights judged, {result.rows:,} figures in live_metrics")
    if told := live_summary(run.outcome["live_metrics"]):
        print_line(told.strip())
