"""Make every user's list with the champion and publish it."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task, scheduled_day
from recsys.lists.recommend import RecommendResult, recommend
from recsys.operations.runs import Run
from recsys.settings import Recommending


@retrying_task("recommend")
def recommend_task(run: Run, recommending: Recommending, run_date: date) -> RecommendResult:
    """Make, check and publish the lists of one run_date."""
    return run_step(
        run,
        "recommend",
        lambda progress: recommend(
            run.lake,
            run.settings,
            recommending,
            run_date=run_date,
            run_id=run.run_id,
            progress=progress,
        ),
    )


@flow(name="recommend")
def recommend_flow(
    run_date: date | None = None, k: Annotated[int, Field(ge=1, le=10_000)] | None = None
) -> None:
    """Recommend to every user with the champion.

    Args:
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        k: items per user; the configured number when not given.
    """
    with flow_run("recommend") as run:
        recommending = run.settings.recommending.changed({"k": k})
        recommend_task(run, recommending, run_date or scheduled_day(run))
