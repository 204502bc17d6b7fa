"""The night: ingest, train where asked, recommend to everyone, publish."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from flows.ingest import ingest_items_task, ingest_task
from flows.recommend import recommend_task
from flows.runs import flow_run, scheduled_day
from flows.train import train_task
from recsys.errors import GateError
from recsys.registry.models import find_champion
from recsys.settings import Source


@flow(name="nightly")
def nightly_flow(
    train: Literal["auto", "always", "never"] = "auto",
    source: Source | None = None,
    run_date: date | None = None,
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None,
) -> None:
    """Run a whole night; a second run on the same inputs changes nothing.

    A batch that breaks its contract, or items that can't be read, stop the night, and the previous
    lists stay in place. A training that can't be judged does not: the champion, or popularity,
    serves everyone.

    Args:
        train: "always" trains when the data or the settings changed, "auto" only while there is
            no champion, "never" not at all.
        source: where interactions come from; the configured source when not given.
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        k: items per user; the configured number when not given.
    """
    with flow_run("nightly") as run:
        ingest_task(run, source)
        ingest_items_task(run)
        if train == "always" or (train == "auto" and find_champion(run.lake) is None):
            try:
                train_task(run, run.settings.training)
            except GateError as error:
                run.outcome["train"] = {"refused": str(error)}
                get_run_logger().warning("not trained; the previous model serves: %s", error)
        recommending = run.settings.recommending.changed({"k": k})
        recommend_task(run, recommending, run_date or scheduled_day(run))


if __name__ == "__main__":
    nightly_flow()
