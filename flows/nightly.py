"""The night: ingest, train where asked, recommend to everyone, publish."""

from __future__ import annotations

from datetime import date
from typing import Literal

from prefect import flow, get_run_logger

from flows.ingest import ingest_items_task, ingest_task
from flows.recommend import changed_recommending, recommend_task
from flows.runs import checked_run_date, flow_run, retrying_task
from flows.train import check_training, train_task
from recsys.errors import GateError
from recsys.operations.runs import Run
from recsys.registry.models import find_champion
from recsys.settings import RecommendingChanges, Source

Train = Literal["auto", "always", "never"]


@flow(name="nightly")
def nightly_flow(
    train: Train = "auto",
    source: Source | None = None,
    run_date: date | None = None,
    recommending: RecommendingChanges | None = None,
) -> None:
    """Run a whole night; a second run on the same inputs changes nothing.

    A batch that breaks its contract, items that can't be read, or a champion that can't be read
    stop the night, and the previous lists stay in place. Too little data to train on does not: the
    champion, or popularity, serves everyone.

    Args:
        train: "always" trains when the data or the settings changed, "auto" only while there is
            no champion, "never" not at all.
        source: where interactions come from, where the setting ``allow_source_parameter`` allows
            it; the configured source when not given.
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        recommending: what to change of the configured ``recommending``, e.g. ``{"k": 50}``.
    """
    with flow_run("nightly") as run:
        run.settings.check_source_parameter(source)
        run_date = checked_run_date(run, run_date)
        training = train == "always" or (train == "auto" and not has_champion_task(run))
        if training:
            check_training(run.settings.training)
        ingest_task(run, source)
        ingest_items_task(run)
        if training:
            _train(run)
        recommend_task(run, changed_recommending(run, recommending), run_date)


@retrying_task("has_champion")
def has_champion_task(run: Run) -> bool:
    """Say whether a champion serves; where the lake can't be read, that is no answer."""
    return find_champion(run.lake) is not None


def _train(run: Run) -> None:
    try:
        train_task(run, run.settings.training)
    except GateError as error:
        run.outcome["train"] = {"refused": str(error)}
        get_run_logger().warning("not trained; the previous model serves: %s", error)


if __name__ == "__main__":
    nightly_flow()
