"""What the gate decides, and how it says so."""

from __future__ import annotations

import pytest

from recsys.registry.gate import ChampionScore, Verdict, judge

CHAMPION = ChampionScore("m-1a2b", 0.0619)
LOST = ChampionScore("m-1a2b", None, "the model has no file items.parquet")


@pytest.mark.parametrize(
    ("ndcg", "champion", "verdict"),
    [
        (
            0.0621,
            CHAMPION,
            Verdict(
                "champion",
                "validation NDCG@10 0.0621 "
                "(champion m-1a2b: 0.0619, tolerance 0.002; popularity: 0.0423)",
            ),
        ),
        (
            0.0598,
            CHAMPION,
            Verdict(
                "rejected",
                "validation NDCG@10 0.0598 is below the champion by more than the tolerance "
                "(champion m-1a2b: 0.0619, tolerance 0.002; popularity: 0.0423)",
            ),
        ),
        (
            0.0423,
            CHAMPION,
            Verdict(
                "rejected",
                "validation NDCG@10 0.0423 is not above popularity "
                "(champion m-1a2b: 0.0619, tolerance 0.002; popularity: 0.0423)",
            ),
        ),
        (
            0.0424,
            None,
            Verdict("champion", "validation NDCG@10 0.0424 (no champion yet; popularity: 0.0423)"),
        ),
        (
            0.0424,
            LOST,
            Verdict(
                "champion",
                "validation NDCG@10 0.0424 (champion m-1a2b can't serve: "
                "the model has no file items.parquet; popularity: 0.0423)",
            ),
        ),
        (
            0.0400,
            LOST,
            Verdict(
                "rejected",
                "validation NDCG@10 0.0400 is not above popularity (champion m-1a2b can't serve: "
                "the model has no file items.parquet; popularity: 0.0423)",
            ),
        ),
    ],
)
def test_a_verdict_names_every_figure_it_rests_on(
    ndcg: float, champion: ChampionScore | None, verdict: Verdict
) -> None:
    assert judge(ndcg, popularity=0.0423, champion=champion, tolerance=0.002) == verdict


def test_a_model_may_be_worse_than_the_champion_by_the_tolerance() -> None:
    statuses = [
        judge(ndcg, popularity=0.1, champion=ChampionScore("m", 0.5), tolerance=0.125).status
        for ndcg in (0.375, 0.374)
    ]
    assert statuses == ["champion", "rejected"]


@pytest.mark.parametrize(
    ("ndcg", "popularity", "champion"),
    [(float("nan"), 0.1, 0.2), (0.3, float("nan"), 0.2), (0.3, 0.1, float("nan"))],
)
def test_a_figure_that_is_not_a_number_lets_nothing_serve(
    ndcg: float, popularity: float, champion: float
) -> None:
    score = ChampionScore("m", champion)
    assert judge(ndcg, popularity=popularity, champion=score, tolerance=0.1).status == "rejected"
