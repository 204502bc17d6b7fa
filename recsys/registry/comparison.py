"""A new model, the baselines and the champion: all are evaluated on the same users."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys.errors import ConfigurationError, GateError
from recsys.evaluation.baselines import DECAY, NEIGHBOURS, ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import evaluate, evaluation_report
from recsys.evaluation.results import SPLITS, Evaluation, EvaluationReport, SplitResults
from recsys.evaluation.splits import HeldOut
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.gate import GATE_METRIC, ChampionScore, judge
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
    from recsys.registry.gate import Verdict
    from recsys.registry.models import ModelRow
    from recsys.settings import Settings

_log = logging.getLogger(__name__)

_CHAMPION = "champion"
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
    """A new model and what it is compared with.

    Attributes:
        model: its reports.
        baselines: name -> evaluations; ``popularity`` is always among them.
        champion: None where `models` has none.
    """

    model: SplitResults[EvaluationReport]
    baselines: Mapping[str, SplitResults[Evaluation]]
    champion: Champion | None

    @classmethod
    def from_row(cls, row: ModelRow, champion: Champion | None) -> Comparison:
        """Compare a model that was evaluated before with today's champion."""
        reports, baselines = json.loads(row.metrics), json.loads(row.baselines)
        return cls(
            SplitResults(*(EvaluationReport.from_dict(reports[split]) for split in SPLITS)),
            {
                name: SplitResults(*(Evaluation.from_dict(values[split]) for split in SPLITS))
                for name, values in baselines.items()
                if name != _CHAMPION
            },
            champion,
        )

    def verdict(self, protocol: Protocol, tolerance: float) -> Verdict:
        """Ask the gate."""
        ndcg, popularity = (
            results.validation.metrics(protocol)[GATE_METRIC]
            for results in (self.model, self.baselines["popularity"])
        )
        champion = self.champion.score(protocol) if self.champion else None
        return judge(ndcg, popularity=popularity, champion=champion, tolerance=tolerance)

    def others(self) -> dict[str, SplitResults[Evaluation]]:
        """Return the evaluations of the baselines and of a champion that can serve, by name."""
        others = dict(self.baselines)
        if self.champion and self.champion.evaluation:
            others[_CHAMPION] = self.champion.evaluation
        return others

    def others_as_dict(self) -> dict[str, Any]:
        """Return what the column `baselines` of `models` holds as JSON."""
        values = {name: results.to_dict() for name, results in self.others().items()}
        if self.champion and _CHAMPION in values:
            values[_CHAMPION] = {"model_id": self.champion.model_id, **values[_CHAMPION]}
        return values


def compare(
    model: Recommender,
    split: Split,
    n_items: int,
    champion: Champion | None,
    settings: Settings,
) -> Comparison:
    """Evaluate a new model, scored as a night does, and the baselines."""
    scorer = _as_served(model, settings)
    return Comparison(
        SplitResults.of(
            split, lambda held_out: evaluation_report(scorer, held_out, split.train, n_items)
        ),
        {
            name: SplitResults.of(split, partial(evaluate, baseline))
            for name, baseline in _baselines(split, n_items)
        },
        champion,
    )


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
    except GateError as error:  # its scores are not finite: it can't serve either
        _log.warning("the champion %s can't serve: %s", row.model_id, error)
        return Champion(row.model_id, None, str(error))
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
