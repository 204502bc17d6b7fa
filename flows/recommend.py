"""Make every user's list with the champion and publish it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from prefect import State, flow
from prefect.states import Completed

from flows.artifacts import run_step
from flows.deliver import deliver_lists
from flows.runs import checked_run_date, flow_run, retrying_task, run_name
from flows.story import lists_line
from recsys.lake.bound import Bound
from recsys.operations.runs import Run
from recsys.settings import AsOf, Recommending, RecommendingChanges
from recsys.version import code_version

if TYPE_CHECKING:
    from recsys.lists.recommend import RecommendResult  # noqa: TC004 - Prefect asks for parameters


@retrying_task("recommend")
def recommend_task(
    run: Run,
    recommending: Recommending,
    run_date: date,
    bound: Bound | None = None,
    replace: str | None = None,
) -> RecommendResult:
    """Make, check and publish the lists of one run_date."""
    # here: `recsys serve` does without torch
    from recsys.distributed.shards_on_ray import strategy
    from recsys.lists.recommend import recommend

    return run_step(
        run,
        "recommend",
        lambda progress: recommend(
            run.lake,
            run.settings,
            recommending,
            run_date=run_date,
            run_id=run.run_id,
            bound=bound,
            replace_why=replace,
            make_shards=strategy(run.settings),
            progress=progress,
        ),
    )


def changed_recommending(run: Run, changes: RecommendingChanges | None) -> Recommending:
    """Return the configured `Recommending` with what this run changes of it."""
    return run.settings.recommending.changed(changes.model_dump() if changes else {})


@flow(name="recommend", flow_run_name=run_name, version=code_version())
def recommend_flow(
    run_date: date | None = None,
    recommending: RecommendingChanges | None = None,
    as_of: AsOf | None = None,
    replace: str | None = None,
) -> State[None]:
    """Recommend to every user with the champion.

    Args:
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        recommending: what to change of the configured ``recommending``, e.g. ``{"k": 50}``.
        as_of: use what was ingested before this time, "now" for all; by default the end of a day
            that is over.
        replace: why another edition is to be published over lists that stand.
    """
    with flow_run("recommend") as run:
        run_date = checked_run_date(run, run_date)
        bound = Bound.of(run.settings, run_date, as_of)
        recommend_task(run, changed_recommending(run, recommending), run_date, bound, replace)
        deliver_lists(run, {run_date})
    return Completed(message=lists_line(run.outcome["recommend"]))
