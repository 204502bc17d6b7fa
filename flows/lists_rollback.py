"""Serve an earlier edition of a day's lists again."""

from __future__ import annotations

from datetime import date

from prefect import flow, get_run_logger

from flows.deliver import deliver_lists
from flows.runs import flow_run, run_name
from recsys.account import current_account
from recsys.lists.rollback import roll_back
from recsys.version import code_version


@flow(name="lists-rollback", flow_run_name=run_name, version=code_version())
def lists_rollback_flow(run_date: date, why: str, to: int | None = None) -> None:
    """Serve an earlier edition of a day's lists again, or none where there is no earlier one.

    Args:
        run_date: the day that the lists are for.
        why: the reason, which is kept.
        to: the edition to serve, also a later one; the one before when not given.
    """
    with flow_run("lists-rollback") as run:
        result = roll_back(
            run.lake, run_date, to=to, why=why, who=current_account(), run_id=run.run_id
        )
        run.record("rollback", result)
        get_run_logger().info("%s", result)
        deliver_lists(run, {run_date})
