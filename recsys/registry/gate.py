"""The gate: whether a new model serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.evaluation.metrics import paired_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from recsys.registry.models import Status

GATE_METRIC = "ndcg@10"
"""The metric of the gate, on validation items, of lists as they are served: with the settings'
reverse steps, and without items that the user has had unless ``recommending.seen`` is include."""


@dataclass(frozen=True)
class ChampionScore:
    """How a champion does on the users that the new model is judged on.

    Attributes:
        model_id: of the champion.
        scores: (U,) NDCG@10 of each user; None where it is proven that it can't serve any more.
        problem: why it can't, for the reader of the verdict.
    """

    model_id: str
    scores: NDArray[np.float64] | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why."""

    status: Status
    why: str


def judge(
    scores: NDArray[np.float64],
    *,
    baselines: Mapping[str, NDArray[np.float64]],
    champion: ChampionScore | None,
    earlier: Sequence[ChampionScore] = (),
    tolerance: float,
    allow_below_baseline: bool = False,
) -> Verdict:
    """Let a model serve when it is above every baseline and not worse than a champion.

    All figures are of the same users, which no early stopping has seen. A model is worse
    than a champion when it is below it by more than the tolerance, and the 95 % bootstrap interval
    of the difference, paired by user, says that this is not chance. Champions of the last months
    count beside the one that serves: else each of many models could be a little worse than the one
    before it.

    Args:
        scores: (U,) the model's validation NDCG@10 of each user.
        baselines: name -> (U,) likewise; popularity is always among them.
        champion: the one that serves; None while there is none.
        earlier: earlier champions.
        tolerance: how much worse than a champion the model may be.
        allow_below_baseline: ask for more than popularity only.
    """
    ndcg = scores.mean()
    means = {name: float(values.mean()) for name, values in baselines.items()}
    best = max(means, key=lambda name: means[name])
    rivals = [rival for rival in (champion, *earlier) if rival and rival.scores is not None]
    figures = [_against_champion(scores, champion, tolerance)]
    figures += [
        f"earlier champion {_against(scores, rival, tolerance)}"
        for rival in earlier
        if rival.scores is not None and rival.scores.mean() > ndcg
    ]
    if best != "popularity":
        low, high = paired_interval(scores, baselines[best])
        figures.append(f"{best}: {means[best]:.4f}, difference {low:+.4f} to {high:+.4f}")
    figures.append(f"popularity: {means['popularity']:.4f}")
    about = f"({'; '.join(figures)}; {len(scores):,} users)"
    measured = f"validation NDCG@10 {ndcg:.4f}"

    is_above_all = all(ndcg > mean for mean in means.values())
    if not ndcg > means["popularity"]:  # as written, a figure that is not a number is refused
        return Verdict("rejected", f"{measured} is not above popularity {about}")
    if not (is_above_all or allow_below_baseline):
        return Verdict("rejected", f"{measured} is not above {best}, the best baseline {about}")
    for rival in rivals:
        if _is_worse(scores, rival, tolerance):
            which = "the champion" if rival is champion else "an earlier champion"
            problem = f"is below {which} by more than the tolerance"
            return Verdict("rejected", f"{measured} {problem} {about}")
    if not is_above_all:
        return Verdict("champion", f"{measured}, below {best}, as the settings allow {about}")
    return Verdict("champion", f"{measured} {about}")


def _is_worse(scores: NDArray[np.float64], rival: ChampionScore, tolerance: float) -> bool:
    """Say whether a model is below a champion by more than the tolerance, and not by chance."""
    if rival.scores is None:
        return False
    difference = scores.mean() - rival.scores.mean()
    # As written, a figure that is not a number is worse.
    return not (difference >= -tolerance or paired_interval(scores, rival.scores)[1] >= 0)


def _against_champion(
    scores: NDArray[np.float64], champion: ChampionScore | None, tolerance: float
) -> str:
    if champion is None:
        return "no champion yet"
    if champion.scores is None:
        return f"champion {champion.model_id} can't serve: {champion.problem}"
    return f"champion {_against(scores, champion, tolerance)}"


def _against(scores: NDArray[np.float64], rival: ChampionScore, tolerance: float) -> str:
    assert rival.scores is not None  # noqa: S101 - for the type checker: its callers have asked
    low, high = paired_interval(scores, rival.scores)
    return (
        f"{rival.model_id}: {rival.scores.mean():.4f}, difference {low:+.4f} to {high:+.4f}, "
        f"tolerance {tolerance}"
    )
