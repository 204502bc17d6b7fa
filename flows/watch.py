"""Watch whether today's lists are there; where they are not, somebody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.events import tell_event
from flows.runs import run_name
from recsys.errors import LakeError
from recsys.lake.tables import Lake
from recsys.lists.editions import all_editions
from recsys.settings import Settings
from recsys.version import code_version

if TYPE_CHECKING:
    from datetime import date


@flow(name="watch", flow_run_name=run_name, version=code_version())
def watch_flow() -> State[None]:
    """Look for today's lists and tell the event recsys.lists.late where there are none.

    It reads alone, takes no lock, and leaves no row in `runs`.
    """
    settings = Settings()
    lake = Lake.from_settings(settings)
    today, due = settings.run_date(), settings.run_date(flow_run.get_scheduled_start_time())
    if due < today:  # after an outage: of all the runs that were missed, today's tells
        return Completed(message=f"the day that this was due, {due}, is over")
    newest = newest_lists(lake)
    if newest is not None and newest >= today:
        return Completed(message=f"the lists of {newest} are there")
    why = f"no lists of {today} yet; the newest are of {newest or 'no day'}"
    tell_event("recsys.lists.late", lake, {"run_date": str(today), "why": why})
    return Failed(name="Late lists", message=why, data=LakeError(why))


def newest_lists(lake: Lake) -> date | None:
    """Return the newest day that has lists; None where none has.

    Raises:
        LakeError: the lake can't be read.
    """
    days = (edition.run_date for edition in all_editions(lake) if edition.status == "current")
    return max(days, default=None)
