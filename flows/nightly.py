"""The night: take what is new, train where asked, recommend to everyone, publish."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from flows.ingest import refresh_items, take
from flows.recommend import serve_everyone
from flows.runs import flow_run, scheduled_day
from flows.train import fit
from recsys.errors import GateError
from recsys.registry.models import find_champion
from recsys.settings import Source


@flow(name="nightly")
def nightly(
    train: Literal["auto", "always", "never"] = "auto",
    source: Source | None = None,
    run_date: date | None = None,
    k: Annotated[int, Field(ge=1, le=10_000)] | None = None,
) -> None:
    """Run a whole night; a second run on the same inputs changes nothing.

    A batch that breaks its contract, or items that can't be taken, stop the night, and the lists of
    before stay. A training that can't be judged does not: the champion of before, or popularity,
    serves everyone.

    Args:
        train: "always" trains when the data or the settings changed, "auto" only while there is
            no champion, "never" not at all.
        source: where interactions come from; the configured source when not given.
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        k: items per user; the configured number when not given.
    """
    with flow_run("nightly") as run:
        take(run, source)
        refresh_items(run)
        if train == "always" or (train == "auto" and find_champion(run.lake) is None):
            try:
                fit(run, run.settings.training)
            except GateError as error:
                run.outcome["train"] = {"refused": str(error)}
                get_run_logger().warning("not trained, going on with what serves: %s", error)
        wanted = run.settings.recommending.changed({"k": k})
        serve_everyone(run, wanted, run_date or scheduled_day(run))


if __name__ == "__main__":
    nightly()
