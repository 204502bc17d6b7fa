"""The gate: whether a new model serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.registry.models import Status

GATE_METRIC = "ndcg@10"
"""The metric of the gate, on validation items, of lists as they are served: with the settings'
reverse steps, and without items that the user has had unless ``recommending.seen`` is include."""


@dataclass(frozen=True)
class ChampionScore:
    """How the champion does on the users that the new model is judged on.

    Attributes:
        model_id: of the champion.
        ndcg: its figure; None where it is proven that it can't serve any more.
        problem: why it can't, for the reader of the verdict.
    """

    model_id: str
    ndcg: float | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why."""

    status: Status
    why: str


def judge(
    ndcg: float, *, popularity: float, champion: ChampionScore | None, tolerance: float
) -> Verdict:
    """Let a model serve when it is better than popularity and not worse than the champion.

    Args:
        ndcg: the model's validation NDCG@10.
        popularity: popularity's, on the same users.
        champion: the champion's, on the same users; None while there is none.
        tolerance: how much worse than the champion the model may be, since a figure of so many
            users varies that much from one seed to the next.
    """
    figures = f"popularity: {popularity:.4f}"
    if champion is None:
        figures = f"no champion yet; {figures}"
    elif champion.ndcg is None:
        figures = f"champion {champion.model_id} can't serve: {champion.problem}; {figures}"
    else:
        score = f"{champion.ndcg:.4f}, tolerance {tolerance}"
        figures = f"champion {champion.model_id}: {score}; {figures}"
    if not ndcg > popularity:  # as written, a figure that is not a number is refused
        return Verdict(
            "rejected", f"validation NDCG@10 {ndcg:.4f} is not above popularity ({figures})"
        )
    if champion and champion.ndcg is not None and not ndcg >= champion.ndcg - tolerance:
        problem = "is below the champion by more than the tolerance"
        return Verdict("rejected", f"validation NDCG@10 {ndcg:.4f} {problem} ({figures})")
    return Verdict("champion", f"validation NDCG@10 {ndcg:.4f} ({figures})")
