"""A training run: a pinned version of `interactions` in, a judged model in the registry out."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys.evaluation.diffusion import DiffusionReport
from recsys.evaluation.protocol import validator
from recsys.lake.schemas import as_json
from recsys.model.runtime import Runtime
from recsys.progress import Progress, silent
from recsys.registry.card import model_card
from recsys.registry.comparison import (
    Scores,
    as_served,
    compare,
    evaluate_champion,
)
from recsys.registry.confidence import calibrate
from recsys.registry.gate import GATE_METRIC
from recsys.registry.models import (
    ModelRow,
    UnusableModelError,
    find_champion,
    find_model,
    load_model,
    save_model,
    save_served,
)
from recsys.registry.promote import register_model
from recsys.registry.promotions import record_missing
from recsys.registry.recipe import resolve_recipe
from recsys.registry.refit import refit
from recsys.registry.repeats import repeat_share
from recsys.registry.resume import SavedTraining
from recsys.registry.train_result import TrainResult
from recsys.registry.training_data import load_training_data
from recsys.registry.warm_start import with_start
from recsys.training.trainer import fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.model.recommender import Recommender
    from recsys.registry.comparison import Champion, Comparison
    from recsys.registry.gate import Verdict
    from recsys.registry.models import Model
    from recsys.registry.recipe import Recipe
    from recsys.registry.training_data import TrainingData
    from recsys.settings import Settings, Training
    from recsys.training.trainer import FitResult

_log = logging.getLogger(__name__)


def train(
    lake: Lake,
    settings: Settings,
    training: Training | None = None,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train on the newest version of `interactions`, judge, and register the model.

    The same data, settings and code give the same ``model_id``, and a model that is registered
    already is not trained again. A training that was stopped goes on where its state was saved.

    Args:
        lake: what to learn from, and where the model goes.
        settings: the device, how a night scores, the training.
        training: the training, in place of the settings'.
        at: when it is trained, by which a night later knows its age; now by default.
        run_id: of the run that trains, for `promotions`.
        progress: called as the work goes on.

    Raises:
        ConfigurationError: the preset, a field or a value does not exist.
        LakeError: the lake has no interactions, or can't be read or written. The champion is among
            what is read: as long as nothing is known about it, nothing takes its place.
        GateError: there is too little data to train on or to judge by.
    """
    started = time.perf_counter()
    training = training or settings.training
    recipe = resolve_recipe(lake, settings, training)
    recipe, start = with_start(lake, settings, training, recipe)
    registered = find_model(lake, recipe.model_id)
    previous = _load_trained(lake, registered, settings) if registered else None
    if previous and previous.row.status != "rejected":
        record_missing(lake)  # the run that made it the champion may have been killed
        return TrainResult.of(previous.row, is_new=False, seconds=time.perf_counter() - started)

    data = load_training_data(lake, settings, recipe, start)
    saved = SavedTraining(lake, recipe, training.save_every)
    with lake.unlocked():  # a night that is due meanwhile does not wait
        champion = evaluate_champion(lake, data.packed.items, data.split, data.judges, settings)
        if previous:
            row = _judge_again(lake, previous, data, champion, recipe, training, settings, progress)
        else:
            row = _train(lake, settings, training, recipe, data, champion, saved, started, progress)
            row = replace(row, trained_at=at or row.trained_at)
    other = find_model(lake, recipe.model_id)
    if other and other != registered:  # another run has registered the same model meanwhile
        saved.remove()
        return TrainResult.of(other, is_new=False, seconds=time.perf_counter() - started)
    champion, row = _judge_by_todays_champion(lake, settings, training, data, champion, row)
    if previous is None or row != previous.row:
        judged_against = champion.model_id if champion else None
        register_model(lake, row, judged_against, run_id=run_id, at=at)
    saved.remove()
    return TrainResult.of(row, is_new=previous is None, seconds=time.perf_counter() - started)


def _judge_by_todays_champion(
    lake: Lake,
    settings: Settings,
    training: Training,
    data: TrainingData,
    champion: Champion | None,
    row: ModelRow,
) -> tuple[Champion | None, ModelRow]:
    """Judge a new model again where the champion is another than the one it was judged by."""
    now = find_champion(lake)
    if now is None or (champion and now.model_id == champion.model_id):
        return champion, row
    champion = evaluate_champion(lake, data.packed.items, data.split, data.judges, settings)
    model = load_model(lake, row, settings.device, judged=True).recommender
    scores = Scores.of(model, data.split, data.judges, data.n_items, champion, settings)
    verdict = scores.verdict(training.tolerance, settings)
    return champion, replace(row, status=verdict.status, why=verdict.why)


def _train(
    lake: Lake,
    settings: Settings,
    training: Training,
    recipe: Recipe,
    data: TrainingData,
    champion: Champion | None,
    saved: SavedTraining,
    started: float,
    progress: Progress,
) -> ModelRow:
    """Train a model, judge it, and write its files; return its row, which is not written yet."""
    runtime = Runtime(settings.device, settings.threads)
    fitted = _fit(data, recipe, runtime, saved, progress)
    comparison = compare(fitted.model, data.split, data.judges, data.n_items, champion, settings)
    verdict = comparison.scores.verdict(training.tolerance, settings)
    served = None
    if recipe.refit and verdict.status == "champion":
        served = _refit(data, recipe, fitted.best_epoch, runtime, progress)
    outcome = {
        "epochs_run": len(fitted.log),
        "best_epoch": fitted.best_epoch,
        "log": [asdict(epoch) for epoch in fitted.log],
        "refit_epochs": served[1] if served else None,
        "repeat_share": repeat_share(data.split.test),
        "confidence": calibrate(fitted.model, data.split, data.judges, settings),
        "diffusion": _diffusion(fitted.model, data, settings),
    }
    row = _row(recipe, data.packed, fitted.model, comparison, verdict, outcome, started)
    machine = runtime.machine_info()
    card = {
        **recipe.as_dict(),
        "metrics": comparison.model.to_dict(),
        "baselines": comparison.others_as_dict(),
        "log": [asdict(epoch) for epoch in fitted.log],
        "runtime": asdict(machine),
    }
    text = model_card(row, comparison, machine)
    save_model(lake, row.model_id, fitted.model, data.packed.items, card, text)
    if served:
        save_served(lake, row.model_id, served[0])
    return row


def _judge_again(
    lake: Lake,
    previous: Model,
    data: TrainingData,
    champion: Champion | None,
    recipe: Recipe,
    training: Training,
    settings: Settings,
    progress: Progress,
) -> ModelRow:
    """Return the row of a rejected model after today's verdict; one that serves now is refit."""
    scores = Scores.of(
        previous.recommender, data.split, data.judges, data.n_items, champion, settings
    )
    verdict = scores.verdict(training.tolerance, settings)
    row = replace(previous.row, status=verdict.status, why=verdict.why)
    if row.status == "champion" and recipe.refit:
        best_epoch = json.loads(row.config)["best_epoch"]
        runtime = Runtime(settings.device, settings.threads)
        if served := _refit(data, recipe, best_epoch, runtime, progress):
            save_served(lake, row.model_id, served[0])
            row = row.with_refit(served[1])
    return row


def _load_trained(lake: Lake, row: ModelRow, settings: Settings) -> Model | None:
    """Return a model that was trained before, where its files are whole."""
    try:
        return load_model(lake, row, settings.device, judged=True)
    except UnusableModelError as error:
        _log.warning("%s", error)
        return None


def _fit(
    data: TrainingData, recipe: Recipe, runtime: Runtime, saved: SavedTraining, progress: Progress
) -> FitResult:
    validate = validator(
        data.judges.stopping, seed=recipe.seed, runtime=runtime, protocol=recipe.protocol
    )
    return fit(
        data.split.train,
        data.n_items,
        recipe.preset,
        seed=recipe.seed,
        runtime=runtime,
        validate=validate,
        epochs=recipe.epochs,
        progress=progress,
        resume=saved.load(),
        after_step=saved.save_when_due,
        initial=data.initial,
    )


def _diffusion(model: Recommender, data: TrainingData, settings: Settings) -> dict[str, Any] | None:
    scorer = as_served(model, settings)
    report = DiffusionReport.of(scorer, data.split.test, data.judges.protocol)
    return report.to_dict(data.packed.items) if report else None


def _refit(
    data: TrainingData, recipe: Recipe, best_epoch: int, runtime: Runtime, progress: Progress
) -> tuple[Recommender, int] | None:
    return refit(data.split, data.packed, recipe, best_epoch, runtime, progress, data.initial)


def _row(
    recipe: Recipe,
    packed: Packed,
    model: Recommender,
    comparison: Comparison,
    verdict: Verdict,
    outcome: Mapping[str, Any],
    started: float,
) -> ModelRow:
    """Return the row of a new model, the gate's verdict and what came of the training included."""
    validation, test, popularity_validation, popularity_test = (
        evaluation.metrics(recipe.protocol)
        for results in (comparison.model, comparison.baselines["popularity"])
        for evaluation in (results.validation, results.test)
    )
    config = {**recipe.as_dict(), "model": asdict(model.config), **outcome}
    return ModelRow(
        model_id=recipe.model_id,
        status=verdict.status,
        why=verdict.why,
        preset=recipe.preset_name,
        seed=recipe.seed,
        interactions_version=recipe.interactions_version,
        users=len(packed.histories),
        items=len(packed.items),
        interactions=int(packed.counts.sum()),
        validation_ndcg_10=validation[GATE_METRIC],
        test_ndcg_10=test["ndcg@10"],
        test_hr_10=test["hr@10"],
        popularity_validation_ndcg_10=popularity_validation[GATE_METRIC],
        popularity_test_ndcg_10=popularity_test["ndcg@10"],
        popularity_test_hr_10=popularity_test["hr@10"],
        metrics=as_json(comparison.model.to_dict()),
        baselines=as_json(comparison.others_as_dict()),
        config=as_json(config),
        code_version=recipe.code_version,
        seconds=time.perf_counter() - started,
        trained_at=datetime.now(UTC),
    )
