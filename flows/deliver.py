"""Deliver the lists that are served to the sinks of the settings; what fails stops no run."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from flows.artifacts import run_step
from flows.optional import try_step
from flows.runs import retrying_task
from recsys.operations.runs import Run
from recsys.settings import Sink

if TYPE_CHECKING:
    from collections.abc import Collection

    from recsys.lists.sinks.deliver import (
        DeliverResult,  # noqa: TC004 - Prefect asks for parameters
    )


@retrying_task("deliver")
def deliver_task(run: Run, sink: Sink, days: set[date]) -> DeliverResult:
    """Bring one sink to what the lake serves."""
    from recsys.lists.sinks.deliver import deliver

    return run_step(
        run,
        f"deliver {sink.name}",
        lambda progress: deliver(
            run.lake, run.settings, sink, days, run_id=run.run_id, progress=progress
        ),
    )


def deliver_lists(run: Run, days: Collection[date]) -> None:
    """Deliver to every sink, one after the other; meanwhile others may write to the lake.

    Args:
        run: the run whose lists changed.
        days: the run_dates that it changed.
    """
    for sink in run.settings.sinks:
        step, failure = f"deliver {sink.name}", f"not delivered to {sink.name}"

        def work(sink: Sink = sink) -> None:
            with run.lake.unlocked():
                deliver_task(run, sink, set(days))

        try_step(run, step, failure, work)
