"""A training run: a pinned version of `interactions` in, a judged model in the registry out."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys import columns
from recsys.errors import ConfigurationError, GateError, LakeError
from recsys.evaluation.baselines import DECAY, NEIGHBOURS, ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import evaluate, evaluation_report, validator
from recsys.evaluation.splits import HeldOut, leave_one_out, reindex_by_train_popularity
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.schemas import as_json
from recsys.model.presets import resolve
from recsys.model.runtime import Runtime
from recsys.model.scoring import Scorer
from recsys.progress import Progress, silent
from recsys.registry.card import model_card
from recsys.registry.gate import GATE, judge
from recsys.registry.models import ModelRow, find_champion, find_model, load_model, save_model
from recsys.registry.promote import register_model
from recsys.training.trainer import fit
from recsys.version import code_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recsys.evaluation.protocol import Protocol
    from recsys.evaluation.protocol import Scorer as Judged
    from recsys.evaluation.splits import Split
    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.model.recommender import Recommender
    from recsys.registry.models import Model, Status
    from recsys.settings import Settings, Training

_log = logging.getLogger(__name__)

_MOST_COMPARED = 20_000_000  # interactions, of about 50 bytes each in a sparse matrix of floats


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        model_id: key of `models`.
        status: champion or rejected; for a model trained before, what it is now: one that was
            rejected is judged again, by the tolerance asked for and what serves today.
        why: the gate's reason.
        is_new: False where this very model had been trained before.
        interactions_version: version of `interactions` it learnt from.
        epochs: epochs that were run.
        validation_ndcg_10: of lists as they are served (see ``GATE``), as all figures here.
        test_ndcg_10: on every user's last item.
        test_hr_10: likewise.
        popularity_test_ndcg_10: popularity's, same users.
        popularity_test_hr_10: likewise.
        seconds: wall time.
    """

    model_id: str
    status: Status
    why: str
    is_new: bool
    interactions_version: int
    epochs: int
    validation_ndcg_10: float
    test_ndcg_10: float
    test_hr_10: float
    popularity_test_ndcg_10: float
    popularity_test_hr_10: float
    seconds: float


def train(
    lake: Lake, settings: Settings, training: Training | None = None, *, progress: Progress = silent
) -> TrainResult:
    """Train on the newest version of `interactions`, judge, and register the model.

    The same data, settings and code give the same ``model_id``, and a model that is registered
    already is not trained again.

    Raises:
        ConfigurationError: preset, field or value is not known.
        LakeError: the lake has no interactions, or can't be read or written.
        GateError: there is too little data to train on or to judge by.
    """
    started = time.perf_counter()
    asked = training or settings.training
    preset = resolve(asked.preset, asked.overrides)
    if settings.recommending.steps:  # refused now rather than after the training
        replace(preset.model, steps=settings.recommending.steps)
    version = lake.version(columns.INTERACTIONS)
    protocol: Protocol = "unmasked" if settings.recommending.seen == "include" else "masked"
    recipe = {
        "preset": asked.preset,
        **asdict(preset),
        "epochs": asked.epochs,
        "seed": asked.seed,
        "judged": protocol,
        "interactions_version": version,
        "code_version": code_version(),
    }
    model_id = "m-" + hashlib.sha256(as_json(recipe).encode()).hexdigest()[:12]
    standing = find_model(lake, model_id)
    if standing and not _load(lake, standing, settings):
        standing = None
    if standing and standing.status != "rejected":
        return _result(standing, is_new=False, seconds=time.perf_counter() - started)

    with open_duckdb(settings) as con:
        packed = load_histories(lake, con, version)
    packed, split = reindex_by_train_popularity(packed, leave_one_out)
    if standing:
        metrics, found = json.loads(standing.metrics), json.loads(standing.baselines)
        others = {name: each for name, each in found.items() if name != "champion"}
        baselines = {**others, **_champion(lake, packed, split, settings)}
        status, why = judge(metrics, baselines, protocol, asked.tolerance)
        row = replace(standing, status=status, why=why, baselines=as_json(baselines))
        if row != standing:
            register_model(lake, row)
        return _result(row, is_new=False, seconds=time.perf_counter() - started)
    if not len(split.validation):
        raise GateError(
            f"too little data to train on: none of {len(packed.histories):,} users has three "
            "interactions, so that one could be learnt from and two held out; popularity serves "
            "until there are more"
        )
    runtime = Runtime(settings.device, settings.threads)
    fitted = fit(
        split.train,
        len(packed.items),
        preset,
        seed=asked.seed,
        runtime=runtime,
        validate=validator(split.validation, seed=asked.seed, runtime=runtime, protocol=protocol),
        epochs=asked.epochs,
        progress=progress,
    )
    scorer = _scorer(fitted.model, settings)
    metrics = {
        name: evaluation_report(scorer, held_out, split.train, len(packed.items))
        for name, held_out in split.held_out.items()
    }
    baselines = {
        name: {part: evaluate(each, held_out) for part, held_out in split.held_out.items()}
        for name, each in _baselines(split, len(packed.items))
    }
    baselines |= _champion(lake, packed, split, settings)
    status, why = judge(metrics, baselines, protocol, asked.tolerance)
    row = ModelRow(
        model_id=model_id,
        status=status,
        why=why,
        preset=asked.preset,
        seed=asked.seed,
        interactions_version=version,
        users=len(packed.histories),
        items=len(packed.items),
        interactions=int(packed.counts.sum()),
        validation_ndcg_10=metrics["validation"][protocol][GATE],
        test_ndcg_10=metrics["test"][protocol]["ndcg@10"],
        test_hr_10=metrics["test"][protocol]["hr@10"],
        popularity_validation_ndcg_10=baselines["popularity"]["validation"][protocol][GATE],
        popularity_test_ndcg_10=baselines["popularity"]["test"][protocol]["ndcg@10"],
        popularity_test_hr_10=baselines["popularity"]["test"][protocol]["hr@10"],
        metrics=as_json(metrics),
        baselines=as_json(baselines),
        config=as_json(
            {**recipe, "model": asdict(fitted.model.config), "epochs_run": len(fitted.log)}
        ),
        code_version=code_version(),
        seconds=time.perf_counter() - started,
        trained_at=datetime.now(UTC),
    )
    card = {**recipe, "metrics": metrics, "baselines": baselines, "log": fitted.log}
    card["runtime"] = runtime.describe()
    text = model_card(row, card["runtime"])
    save_model(lake, model_id, fitted.model, packed.items, card, text)
    register_model(lake, row)
    return _result(row, is_new=True, seconds=row.seconds)


def _baselines(split: Split, n_items: int) -> Iterator[tuple[str, Judged]]:
    """Yield what a model is told beside, one at a time: popularity is what the gate asks for.

    The others are for the card, and left out where their matrices could outgrow the training.
    """
    yield "popularity", Popularity.of(split.train, n_items)
    if split.train.lengths.sum() <= _MOST_COMPARED:
        yield "transitions", Transitions.of(split.train, n_items)
        yield "item-knn", ItemKNN.of(split.train, n_items, NEIGHBOURS, DECAY)


def _load(lake: Lake, row: ModelRow, settings: Settings) -> Model | None:
    """Return a model, or None where its files aren't whole: it can't serve and can't be judged."""
    try:
        return load_model(lake, row, settings.device)
    except LakeError as error:
        _log.warning("%s", error)
        return None


def _scorer(model: Recommender, settings: Settings) -> Scorer:
    """Return a model as a night scores with it."""
    served = settings.recommending
    return Scorer(
        model,
        steps=served.steps,
        seed=served.seed,
        runtime=Runtime(settings.device, settings.threads),
    )


def _champion(lake: Lake, packed: Packed, split: Split, settings: Settings) -> dict[str, Any]:
    """Evaluate the champion on the same users; an item that it doesn't know is a miss.

    Nothing where none can serve: there is none, its files are lost, or it lacks the steps.
    """
    serving = find_champion(lake)
    model = serving and _load(lake, serving, settings)
    if not model:
        return {}
    index = packed.items.index_map_to(model.items)
    scorer = _scorer(model.recommender, settings)
    renamed = {
        name: HeldOut(held_out.history.remap_items(index), index[held_out.target])
        for name, held_out in split.held_out.items()
    }
    try:
        figures = {name: evaluate(scorer, held_out) for name, held_out in renamed.items()}
    except ConfigurationError as error:
        _log.warning("the champion %s can't be judged: %s", model.row.model_id, error)
        return {}
    return {"champion": {"model_id": model.row.model_id, **figures}}


def _result(row: ModelRow, *, is_new: bool, seconds: float) -> TrainResult:
    return TrainResult(
        model_id=row.model_id,
        status=row.status,
        why=row.why,
        is_new=is_new,
        interactions_version=row.interactions_version,
        epochs=json.loads(row.config)["epochs_run"],
        validation_ndcg_10=row.validation_ndcg_10,
        test_ndcg_10=row.test_ndcg_10,
        test_hr_10=row.test_hr_10,
        popularity_test_ndcg_10=row.popularity_test_ndcg_10,
        popularity_test_hr_10=row.popularity_test_hr_10,
        seconds=seconds,
    )
