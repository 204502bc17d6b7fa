"""The night: ingest, train where asked, recommend to everyone, publish."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

from prefect import State, flow
from prefect.states import Completed

from flows.artifacts import link_report, run_step
from flows.catch_up import CatchUp, newer_night
from flows.deliver import deliver_lists
from flows.ingest import ingest_items_task, ingest_task
from flows.monitor import drift_task, live_metrics_task
from flows.optional import try_step
from flows.recommend import changed_recommending, recommend_task
from flows.runs import checked_run_date, flow_run, retrying_task, run_name
from flows.story import night_before, night_line
from flows.train import check_training, train_task
from recsys.lake.bound import Bound
from recsys.operations.runs import Run
from recsys.registry.models import find_champion
from recsys.registry.policy import Decision, Train, decide, read_standing
from recsys.settings import AsOf, RecommendingChanges, Source, Training, TrainingChanges
from recsys.version import code_version

if TYPE_CHECKING:
    from recsys.progress import Progress


@flow(name="nightly", flow_run_name=run_name, version=code_version())
def nightly_flow(
    train: Train = "policy",
    source: Source | None = None,
    run_date: date | None = None,
    recommending: RecommendingChanges | None = None,
    training: TrainingChanges | None = None,
    as_of: AsOf | None = None,
    replace: str | None = None,
    catch_up: CatchUp = "newest",
) -> State[None]:
    """Run a whole night; a second run on the same inputs changes nothing.

    A batch that breaks its contract, items that can't be read, or a champion that can't be read
    stop the night, and the previous lists stay in place. A training that fails does not: the
    champion, or popularity, serves everyone. Nor do live metrics or sinks that fail. Where a
    champion serves, the lists are published before the training, and the new model serves from the
    next night on.

    Args:
        train: "policy" trains while there is no champion and after that as ``training.policy``
            says, "always" when the data or the settings changed, "never" not at all.
        source: where interactions come from, where the setting ``allow_source_parameter`` allows
            it; the configured source when not given.
        run_date: the day the lists are for; the day the run was scheduled for when not given.
        recommending: what to change of the configured ``recommending``, e.g. ``{"k": 50}``.
        training: what to change of the configured ``training``, e.g. ``{"epochs": 2}``.
        as_of: make lists from what was ingested before this time, "now" for all; by default the
            end of a day that is over.
        replace: why another edition is to be published over lists that stand.
        catch_up: where several nights that were scheduled run late, whether only the newest one
            makes lists, or each does.
    """
    with flow_run("nightly") as run:
        run.settings.check_source_parameter(source)
        is_scheduled = run_date is None
        run_date = checked_run_date(run, run_date)
        bound = Bound.of(run.settings, run_date, as_of)
        if is_scheduled and catch_up == "newest" and (newer := newer_night(run, run_date)):
            run.outcome["skipped"] = newer
            return Completed(name="Skipped", message=f"skipped: {newer}")
        changed_training = run.settings.training.with_fields(training or {})
        if train != "never" and not has_champion_task(run):
            check_training(changed_training)
        ingest_task(run, source)
        ingest_items_task(run)
        try_step(run, "live_metrics", "no live metrics", lambda: live_metrics_task(run, run_date))
        try_step(run, "drift", "drift not measured", lambda: drift_task(run, run_date))
        night = run.settings.night_time(run_date)
        decision = decide_task(run, train, night)
        if decision.train and not decision.serves:
            _train(run, changed_training, night)
        recommend_task(run, changed_recommending(run, recommending), run_date, bound, replace)
        deliver_lists(run, {run_date})
        if decision.train and decision.serves:  # lists don't wait for a training
            _train(run, changed_training, night)
        message = night_line(run.outcome, night_before(run))
    link_report(run)
    return Completed(message=message)


@retrying_task("has_champion")
def has_champion_task(run: Run) -> bool:
    """Say whether a champion serves; where the lake can't be read, that is no answer."""
    return find_champion(run.lake) is not None


@retrying_task("policy")
def decide_task(run: Run, train: Train, night: datetime) -> Decision:
    """Decide whether this night trains."""

    def work(progress: Progress) -> Decision:  # noqa: ARG001 - it has none to report
        standing = read_standing(run.lake, run.settings, train)
        return decide(train, run.settings.training.policy, standing, night)

    return run_step(run, "policy", work)


def _train(run: Run, training: Training, night: datetime) -> None:
    """Train; whatever goes wrong, the night goes on, and its row and its state say what it was."""
    try_step(run, "train", "not trained", lambda: train_task(run, training, night))


if __name__ == "__main__":
    nightly_flow()
