"""Make the lists of days that have none."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger

from flows.deliver import deliver_lists
from flows.recommend import changed_recommending, recommend_task
from flows.runs import flow_run, run_name
from recsys.lists.backfill import plan_backfill
from recsys.settings import AsOf, RecommendingChanges
from recsys.version import code_version


@flow(name="backfill", flow_run_name=run_name, version=code_version())
def backfill_flow(
    first: date,
    last: date,
    dry_run: bool = False,
    as_of: AsOf | None = None,
    recommending: RecommendingChanges | None = None,
) -> None:
    """Make the lists of days that have none, in order; those that stand are left alone.

    Args:
        first: the first day.
        last: the last day.
        dry_run: whether the plan is only logged.
        as_of: use what was ingested before this time, "now" for all; by default the end of each
            day that is over.
        recommending: what to change of the configured ``recommending``, e.g. ``{"k": 50}``.
    """
    logger, made = get_run_logger(), set[date]()
    with flow_run("backfill") as run:
        plan = plan_backfill(run.lake, run.settings, first, last, as_of)
        run.outcome["plan"] = [str(planned) for planned in plan]
        for planned in plan:
            logger.info("%s", planned)
            if not planned.standing and not dry_run:
                recommend_task(
                    run, changed_recommending(run, recommending), planned.run_date, planned.bound
                )
                made.add(planned.run_date)
        deliver_lists(run, made)
