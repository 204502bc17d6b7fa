"""What the gate decides, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.registry.gate import ChampionScore, Verdict, judge

LOST = ChampionScore("m-1a2b", None, "the model has no file items.parquet")
POPULARITY = 0.0423
Scores = NDArray[np.float64]


def scores(mean: float, users: int = 4) -> Scores:
    """Users who all have the same NDCG@10: nothing is left to chance."""
    return np.full(users, mean)


def verdict(ndcg: Scores, champion: ChampionScore | None = None, **changes: Any) -> Verdict:
    baselines = {"popularity": np.full(len(ndcg), POPULARITY), **changes.pop("baselines", {})}
    return judge(ndcg, baselines=baselines, champion=champion, **{"tolerance": 0.002, **changes})


CHAMPION = ChampionScore("m-1a2b", scores(0.0619))


@pytest.mark.parametrize(
    ("ndcg", "champion", "expected"),
    [
        (
            0.0621,
            CHAMPION,
            Verdict(
                "champion",
                "validation NDCG@10 0.0621 (champion m-1a2b: 0.0619, difference +0.0002 to "
                "+0.0002, tolerance 0.002; popularity: 0.0423; 4 users)",
            ),
        ),
        (
            0.0598,
            CHAMPION,
            Verdict(
                "rejected",
                "validation NDCG@10 0.0598 is below the champion by more than the tolerance "
                "(champion m-1a2b: 0.0619, difference -0.0021 to -0.0021, tolerance 0.002; "
                "popularity: 0.0423; 4 users)",
            ),
        ),
        (
            0.0423,
            None,
            Verdict(
                "rejected",
                "validation NDCG@10 0.0423 is not above popularity "
                "(no champion yet; popularity: 0.0423; 4 users)",
            ),
        ),
        (
            0.0424,
            LOST,
            Verdict(
                "champion",
                "validation NDCG@10 0.0424 (champion m-1a2b can't serve: "
                "the model has no file items.parquet; popularity: 0.0423; 4 users)",
            ),
        ),
    ],
)
def test_a_verdict_names_every_figure_it_rests_on(
    ndcg: float, champion: ChampionScore | None, expected: Verdict
) -> None:
    assert verdict(scores(ndcg), champion) == expected


def test_a_model_below_the_best_baseline_serves_only_where_the_settings_allow_it() -> None:
    """A champion of .1848 was praised as 6.4 times popularity while transitions had .2312."""
    baselines = {"transitions": scores(0.2312), "item-knn": scores(0.1)}
    refused = verdict(scores(0.1848), baselines=baselines)
    assert refused == Verdict(
        "rejected",
        "validation NDCG@10 0.1848 is not above transitions, the best baseline (no champion yet; "
        "transitions: 0.2312, difference -0.0464 to -0.0464; popularity: 0.0423; 4 users)",
    )
    allowed = verdict(scores(0.1848), baselines=baselines, allow_below_baseline=True)
    assert allowed.status == "champion"
    assert "0.1848, below transitions, as the settings allow (" in allowed.why
    assert verdict(scores(0.2313), baselines=baselines).status == "champion"
    below_popularity = verdict(scores(0.04), baselines=baselines, allow_below_baseline=True)
    assert below_popularity.status == "rejected"


def test_a_model_may_be_worse_than_the_champion_by_the_tolerance() -> None:
    champion = ChampionScore("m", scores(0.5))
    statuses = [verdict(scores(ndcg), champion, tolerance=0.125).status for ndcg in (0.375, 0.374)]
    assert statuses == ["champion", "rejected"]


def test_what_may_be_chance_rejects_nothing_and_what_is_not_does() -> None:
    """Both models are .03 below; on the second one's users that is far beyond chance."""
    generator = np.random.default_rng(0)
    for users, status in ((40, "champion"), (40_000, "rejected")):
        hits = generator.random(users)
        champion = ChampionScore("m", (hits < 0.33).astype(float))
        other = (generator.random(users) < 0.30).astype(float)
        assert verdict(other, champion).status == status


def test_many_models_can_not_each_be_a_little_worse_than_the_one_before() -> None:
    best = ChampionScore("m-best", scores(0.060))
    serves = ChampionScore("m-now", scores(0.0585))
    assert verdict(scores(0.057), serves).status == "champion"
    judged = verdict(scores(0.057), serves, earlier=[best])
    assert judged.status == "rejected"
    assert "is below an earlier champion by more than the tolerance (champion m-now" in judged.why
    assert "earlier champion m-best: 0.0600, difference -0.0030 to -0.0030" in judged.why
    assert "earlier" not in verdict(scores(0.061), serves, earlier=[best]).why


@pytest.mark.parametrize(
    ("ndcg", "baseline", "champion"),
    [(float("nan"), 0.1, 0.2), (0.3, float("nan"), 0.2), (0.3, 0.1, float("nan"))],
)
def test_a_figure_that_is_not_a_number_lets_nothing_serve(
    ndcg: float, baseline: float, champion: float
) -> None:
    for name in ("popularity", "item-knn"):
        judged = verdict(
            scores(ndcg),
            ChampionScore("m", scores(champion)),
            baselines={name: scores(baseline)},
            tolerance=0.1,
        )
        assert judged.status == "rejected"


@dataclass(frozen=True)
class Trained:
    """A model of a simulated shop.

    Attributes:
        name: as the gate is told.
        quality: its true mean NDCG@10.
        figure: its NDCG@10 on the day that it was judged.
    """

    name: str
    quality: float
    figure: float


def served_quality(
    rounds: int, *, loss: float, with_earlier: bool, seed: int, users: int = 4_000
) -> list[float]:
    """The true NDCG@10 that serves after each round, in which the gate judges one new model.

    A round has new items to be found. Users differ in how easy they are, for all models alike. A
    new model has .06, or what the champion has less a ``loss``, and what its seed brings (2 %).
    """
    generator = np.random.default_rng(seed)
    chances = generator.beta(0.5, 4, users)
    chances *= 0.1 / chances.mean()  # of a hit, worth .6 each: .06 on average
    champions: list[Trained] = []
    served: list[float] = []
    for number in range(rounds):
        luck = generator.random(users)

        def ndcg(model: Trained, luck: Scores = luck) -> Scores:
            own = luck + generator.normal(0, 0.01, users)
            return np.where(own < chances * model.quality / 0.06, 0.6, 0.0)

        recipe = champions[-1].quality - loss if champions and loss else 0.06
        new = Trained(f"m-{number}", recipe * generator.normal(1, 0.02), 0.0)
        scored = ndcg(new)
        rivals = [ChampionScore(model.name, ndcg(model)) for model in champions[-1:]]
        best = sorted(champions[:-1], key=lambda model: model.figure)[-4:] if with_earlier else []
        judged = judge(
            scored,
            baselines={"popularity": np.zeros(users)},
            champion=rivals[0] if rivals else None,
            earlier=[ChampionScore(model.name, ndcg(model)) for model in best],
            tolerance=0.002,
        )
        if judged.status == "champion":
            champions.append(replace(new, figure=float(scored.mean())))
        served.append(champions[-1].quality)
    return served


@pytest.mark.slow
def test_seeds_of_one_recipe_in_turn_leave_quality_where_it_was() -> None:
    ends = [served_quality(30, loss=0.0, with_earlier=True, seed=seed)[-1] for seed in range(8)]
    assert np.mean(ends) > 0.99 * 0.06
    assert min(ends) > 0.95 * 0.06


@pytest.mark.slow
def test_a_loss_within_the_tolerance_does_not_add_up() -> None:
    """Each of 30 models is worse than its champion by .0015, less than the tolerance."""
    alone, together = (
        np.mean(
            [
                served_quality(30, loss=0.0015, with_earlier=with_earlier, seed=seed)[-1]
                for seed in range(4)
            ]
        )
        for with_earlier in (False, True)
    )
    assert alone < 0.75 * 0.06
    assert together > 0.93 * 0.06
