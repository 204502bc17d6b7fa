"""A new model, the baselines and the champions: all are evaluated on the same users."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.errors import ConfigurationError, GateError
from recsys.evaluation.baselines import (
    DECAY,
    NEIGHBOURS,
    ItemKNN,
    OwnHistory,
    Popularity,
    Transitions,
)
from recsys.evaluation.metrics import ndcg
from recsys.evaluation.protocol import evaluate, evaluation_report, ranks
from recsys.evaluation.results import Evaluation, EvaluationReport, SplitResults
from recsys.evaluation.splits import HeldOut, in_first_half
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.gate import ChampionScore, judge
from recsys.registry.models import (
    CHAMPION,
    UnusableModelError,
    find_champion,
    load_model,
    model_rows,
)
from recsys.registry.promotions import promotions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
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

_MOST_USERS = 50_000  # of the gate: their figure varies by .001 from one draw of users to another
_MOST_EARLIER = 4
_EARLIER = timedelta(days=90)
_MOST_COMPARED = 20_000_000  # interactions, of about 50 bytes each in a sparse matrix of floats


@dataclass(frozen=True)
class Judges:
    """The users whose validation items decide, and how their lists are made.

    Attributes:
        stopping: those that early stopping watches.
        gate: the others, which the gate asks; all users where there are too few for two parts.
        protocol: whether lists leave out what a user has had.
    """

    stopping: HeldOut
    gate: HeldOut
    protocol: Protocol

    @classmethod
    def of(cls, split: Split, users: pa.Array, protocol: Protocol) -> Judges:
        """Divide the users of the validation by a hash of their ids, the same every night.

        So early stopping of no model, old or new, has seen the users of the gate.

        Args:
            split: of the histories of all users.
            users: (U,) ids of the users who have a validation item.
            protocol: how lists are made.
        """
        stops = in_first_half(users, "early stopping")
        if stops.all() or not stops.any():
            return cls(split.validation, split.validation, protocol)
        gate = split.validation[~stops]
        if len(gate) > _MOST_USERS:
            drawn = np.random.default_rng(0).choice(len(gate), _MOST_USERS, replace=False)
            gate = gate[np.sort(drawn)]
        return cls(split.validation[stops], gate, protocol)

    def scores(self, scorer: Scorer) -> NDArray[np.float64]:
        """Return the (U,) NDCG@10 of each user of the gate."""
        return ndcg(ranks(scorer, self.gate)[self.protocol], 10)


@dataclass(frozen=True)
class Champion:
    """The champion on today's users, and those before it.

    Attributes:
        score: what the gate compares with.
        evaluation: by split; None where it is proven that it can't serve.
        earlier: the scores of the best champions of the last 90 days.
    """

    score: ChampionScore
    evaluation: SplitResults[Evaluation] | None
    earlier: tuple[ChampionScore, ...] = ()

    @property
    def model_id(self) -> str:
        """Key of `models`."""
        return self.score.model_id


@dataclass(frozen=True)
class Scores:
    """What the gate asks: NDCG@10 of each of its users, by system.

    Attributes:
        model: of the new model.
        baselines: name -> of a baseline; ``popularity`` is always among them.
        champion: None where `models` has none.
    """

    model: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    champion: Champion | None

    @classmethod
    def of(
        cls,
        model: Recommender,
        split: Split,
        judges: Judges,
        n_items: int,
        champion: Champion | None,
        settings: Settings,
    ) -> Scores:
        """Score a model and the baselines, without what else an evaluation reports."""
        return cls(
            judges.scores(as_served(model, settings)),
            {name: judges.scores(baseline) for name, baseline in _baselines(split, n_items)},
            champion,
        )

    def verdict(self, tolerance: float, settings: Settings) -> Verdict:
        """Ask the gate."""
        return judge(
            self.model,
            baselines=self.baselines,
            champion=self.champion.score if self.champion else None,
            earlier=self.champion.earlier if self.champion else (),
            tolerance=tolerance,
            allow_below_baseline=settings.gate.allow_below_baseline,
        )


@dataclass(frozen=True)
class Comparison:
    """A new model and what it is compared with.

    Attributes:
        model: its reports.
        baselines: name -> evaluations; ``popularity`` is always among them.
        scores: what the gate asks.
    """

    model: SplitResults[EvaluationReport]
    baselines: Mapping[str, SplitResults[Evaluation]]
    scores: Scores

    def others(self) -> dict[str, SplitResults[Evaluation]]:
        """Return the evaluations of the baselines and of a champion that can serve, by name."""
        others, champion = dict(self.baselines), self.scores.champion
        if champion and champion.evaluation:
            others[CHAMPION] = champion.evaluation
        return others

    def others_as_dict(self) -> dict[str, Any]:
        """Return what the column `baselines` of `models` holds as JSON."""
        values = {name: results.to_dict() for name, results in self.others().items()}
        if self.scores.champion and CHAMPION in values:
            values[CHAMPION] = {"model_id": self.scores.champion.model_id, **values[CHAMPION]}
        return values


def compare(
    model: Recommender,
    split: Split,
    judges: Judges,
    n_items: int,
    champion: Champion | None,
    settings: Settings,
) -> Comparison:
    """Evaluate a new model, scored as a night does, and the baselines."""
    scorer = as_served(model, settings)
    evaluations, scores = {}, {}
    for name, baseline in _baselines(split, n_items):
        evaluations[name] = SplitResults.of(split, partial(evaluate, baseline))
        scores[name] = judges.scores(baseline)
    return Comparison(
        SplitResults.of(
            split, lambda held_out: evaluation_report(scorer, held_out, split.train, n_items)
        ),
        evaluations,
        Scores(judges.scores(scorer), scores, champion),
    )


def evaluate_champion(
    lake: Lake, items: ItemIds, split: Split, judges: Judges, settings: Settings
) -> Champion | None:
    """Evaluate the champion on the users of a split; an item that it doesn't know is a miss.

    Args:
        lake: where the champion is.
        items: what the indices in ``split`` stand for.
        split: today's users.
        judges: those of them who decide.
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
        scorer, index_map = _load(lake, row, items, settings)
        evaluation = SplitResults.of(
            split, lambda held_out: evaluate(scorer, _reindexed(held_out, index_map))
        )
        score = ChampionScore(row.model_id, _scores(scorer, judges, index_map))
    except UnusableModelError as error:
        _log.warning("the champion can't serve: %s", error)
        return Champion(ChampionScore(row.model_id, None, error.reason), None)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the champion {row.model_id} can't be compared with: {error}. Unset "
            "recommending.steps until a model that has enough of them serves"
        ) from error
    except GateError as error:  # its scores are not finite: it can't serve either
        _log.warning("the champion %s can't serve: %s", row.model_id, error)
        return Champion(ChampionScore(row.model_id, None, str(error)), None)
    return Champion(score, evaluation, tuple(_earlier_scores(lake, row, items, judges, settings)))


def _earlier_scores(
    lake: Lake, champion: ModelRow, items: ItemIds, judges: Judges, settings: Settings
) -> Iterator[ChampionScore]:
    """Yield the scores of the best champions of the last 90 days, but for the one that serves.

    The best are those with the best figures of their own day: to score all of them again would
    take long. One that a person rolled back is not asked, nor is one that can't serve any more.
    """
    for row in _earlier_champions(lake, champion):
        try:
            scorer, index_map = _load(lake, row, items, settings)
            scores = _scores(scorer, judges, index_map)
        except (UnusableModelError, ConfigurationError, GateError) as error:
            _log.info("an earlier champion is not compared with: %s", error)
            continue
        yield ChampionScore(row.model_id, scores)


def _earlier_champions(lake: Lake, champion: ModelRow) -> list[ModelRow]:
    served: dict[str | None, bool] = {}  # whether a person took it back
    since = datetime.now(UTC) - _EARLIER
    for change in promotions(lake):
        if change.promoted_at >= since:
            served[change.previous_model_id] = change.action == "rollback"
        served.pop(change.model_id, None)
    rows = [row for row in model_rows(lake) if served.get(row.model_id) is False]
    rows.sort(key=lambda row: row.validation_ndcg_10, reverse=True)
    return [row for row in rows if row != champion][:_MOST_EARLIER]


def _load(
    lake: Lake, row: ModelRow, items: ItemIds, settings: Settings
) -> tuple[ModelScorer, NDArray[np.int32]]:
    """Return a judged model as a night scores with it, and its index of each of today's items."""
    model = load_model(lake, row, settings.device, judged=True)
    return as_served(model.recommender, settings), items.index_map_to(model.items)


def _scores(
    scorer: ModelScorer, judges: Judges, index_map: NDArray[np.int32]
) -> NDArray[np.float64]:
    return replace(judges, gate=_reindexed(judges.gate, index_map)).scores(scorer)


def as_served(model: Recommender, settings: Settings) -> ModelScorer:
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
    """Yield the baselines one at a time.

    Transitions and item-kNN are left out where their matrices could need more memory than the
    training.
    """
    yield "popularity", Popularity.of(split.train, n_items)
    yield "own-history", OwnHistory.of(split.train, n_items)
    if split.train.lengths.sum() <= _MOST_COMPARED:
        yield "transitions", Transitions.of(split.train, n_items)
        yield "item-knn", ItemKNN.of(split.train, n_items, NEIGHBOURS, DECAY)
