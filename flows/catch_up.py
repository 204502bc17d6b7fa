"""Late nights: after an outage the newest one makes lists, and the others are not needed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment
from prefect.runtime import flow_run as current

from recsys.lists.editions import all_editions

if TYPE_CHECKING:
    from recsys.operations.runs import Run

CatchUp = Literal["newest", "all"]

_NOT_OVER = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]


def newer_night(run: Run, run_date: date) -> str | None:
    """Return which newer night makes the current, late one needless; None where none does.

    Only a night of a day that is over is late.

    Raises:
        LakeError: the lake can't be read.
    """
    today = run.settings.run_date()
    if run_date >= today:
        return None
    for edition in reversed(all_editions(run.lake)):
        if run_date < edition.run_date <= today and edition.status == "current":
            return f"{edition.name} stands already"
    if due := _next_due():
        return f"the night of {run.settings.run_date(due)} is due as well"
    return None


def _next_due() -> datetime | None:
    """Return when the newest run of this deployment that is due was to start, if one is newer."""
    deployment_id = deployment.get_id()
    if not deployment_id:
        return None
    due = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_OVER)),
        expected_start_time=FlowRunFilterExpectedStartTime(
            after_=current.get_scheduled_start_time(), before_=datetime.now(UTC)
        ),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=due)
    scheduled = [
        one.expected_start_time
        for one in runs
        if str(one.id) != current.get_id() and not one.parameters.get("run_date")
    ]
    return max((time for time in scheduled if time), default=None)
