"""A new model, the baselines and the champion: all are evaluated on the same users."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys.errors import ConfigurationError
from recsys.evaluation.baselines import DECAY, NEIGHBOURS, ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import evaluate, evaluation_report
from recsys.evaluation.results import Evaluation, EvaluationReport, SplitResults
from recsys.evaluation.splits import HeldOut
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.gate import GATE_METRIC, ChampionScore
from recsys.registry.models import UnusableModelError, find_champion, load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from recsys.evaluation.protocol import Scorer
    from recsys.evaluation.results import Protocol
    from recsys.evaluation.splits import Split
    from recsys.histories import ItemIds
    from recsys.lake.tables import Lake
    from recsys.model.recommender import Recommender
    from recsys.settings import Settings

_log = logging.getLogger(__name__)

_MOST_COMPARED = 20_000_000  # interactions, of about 50 bytes each in a sparse matrix of floats


@dataclass(frozen=True)
class Champion:
    """The champion on today's users.

    Attributes:
        model_id: key of `models`.
        evaluation: by split; None where it is proven that it can't serve.
        problem: why it can't.
    """

    model_id: str
    evaluation: SplitResults[Evaluation] | None
    problem: str = ""

    def score(self, protocol: Protocol) -> ChampionScore:
        """Return what the gate compares with."""
        if self.evaluation is None:
            return ChampionScore(self.model_id, None, self.problem)
        metrics = self.evaluation.validation.metrics(protocol)
        return ChampionScore(self.model_id, metrics[GATE_METRIC])


@dataclass(frozen=True)
class Comparison:
    """What a new model is compared with.

    Attributes:
        baselines: name -> results; ``popularity`` is always among them.
        champion: None where `models` has none.
    """

    baselines: Mapping[str, SplitResults[Evaluation]]
    champion: Champion | None

    def to_dict(self) -> dict[str, Any]:
        """Return what the column `baselines` of `models` holds as JSON."""
        values = {name: results.to_dict() for name, results in self.baselines.items()}
        if self.champion and self.champion.evaluation:
            champion = {"model_id": self.champion.model_id, **self.champion.evaluation.to_dict()}
            values["champion"] = champion
        return values


def read_baselines(values: Mapping[str, Any]) -> dict[str, SplitResults[Evaluation]]:
    """Return the baselines of what `Comparison.to_dict` returned, without its champion."""
    return {
        name: SplitResults(
            Evaluation.from_dict(results["validation"]), Evaluation.from_dict(results["test"])
        )
        for name, results in values.items()
        if name != "champion"
    }


def read_reports(values: Mapping[str, Any]) -> SplitResults[EvaluationReport]:
    """Return the reports that the column `metrics` of `models` holds."""
    return SplitResults(
        EvaluationReport.from_dict(values["validation"]),
        EvaluationReport.from_dict(values["test"]),
    )


def evaluate_model(
    model: Recommender, split: Split, n_items: int, settings: Settings
) -> SplitResults[EvaluationReport]:
    """Return the evaluation reports of a model, scored as a night does."""
    scorer = _as_served(model, settings)
    return SplitResults.of(
        split, lambda held_out: evaluation_report(scorer, held_out, split.train, n_items)
    )


def evaluate_baselines(split: Split, n_items: int) -> dict[str, SplitResults[Evaluation]]:
    """Return each baseline's evaluations."""
    return {
        name: SplitResults.of(split, partial(evaluate, scorer))
        for name, scorer in _baselines(split, n_items)
    }


def evaluate_champion(
    lake: Lake, items: ItemIds, split: Split, settings: Settings
) -> Champion | None:
    """Evaluate the champion on the users of a split; an item that it doesn't know is a miss.

    Args:
        lake: where the champion is.
        items: what the indices in ``split`` stand for.
        split: today's users.
        settings: how a night scores.

    Returns:
        None where `models` has no champion.

    Raises:
        LakeError: `models` or the champion's files could not be read, so that nothing is known.
        ConfigurationError: the champion lacks the reverse steps of the settings.
    """
    row = find_champion(lake)
    if row is None:
        return None
    try:
        model = load_model(lake, row, settings.device)
    except UnusableModelError as error:
        _log.warning("the champion can't serve: %s", error)
        return Champion(row.model_id, None, error.reason)
    index_map = items.index_map_to(model.items)
    scorer = _as_served(model.recommender, settings)
    try:
        evaluation = SplitResults.of(
            split, lambda held_out: evaluate(scorer, _reindexed(held_out, index_map))
        )
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the champion {row.model_id} can't be compared with: {error}. Unset "
            "recommending.steps until a model that has enough of them serves"
        ) from error
    return Champion(row.model_id, evaluation)


def _as_served(model: Recommender, settings: Settings) -> ModelScorer:
    """Return a model as a night scores with it."""
    return ModelScorer(
        model,
        steps=settings.recommending.steps,
        seed=settings.recommending.seed,
        runtime=Runtime(settings.device, settings.threads),
    )


def _reindexed(held_out: HeldOut, index_map: NDArray[np.int32]) -> HeldOut:
    return HeldOut(held_out.history.remap_items(index_map), index_map[held_out.target])


def _baselines(split: Split, n_items: int) -> Iterator[tuple[str, Scorer]]:
    """Yield the baselines one at a time; the gate asks for popularity alone.

    The others are for the card. They are left out where their matrices could need more memory
    than the training.
    """
    yield "popularity", Popularity.of(split.train, n_items)
    if split.train.lengths.sum() <= _MOST_COMPARED:
        yield "transitions", Transitions.of(split.train, n_items)
        yield "item-knn", ItemKNN.of(split.train, n_items, NEIGHBOURS, DECAY)
