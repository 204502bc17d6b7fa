"""Leave-one-out with full ranking: the last item is the test, the one before the validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recsys.evaluation.metrics import UNRANKED, figures
from recsys.model.scoring import Scorer as ModelScorer
from recsys.progress import Progress, silent
from recsys.sequences import Histories

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime

_TELL_SECONDS = 0.3

Scorer = Callable[[Histories], Iterator[tuple["NDArray[np.int64]", "Tensor"]]]
"""Yields (R,) rows of users and their (R, V + 1) scores; column 0 and unrankable items -inf.

A row may be left out, and counts as a miss. The tensors are the caller's to change.
"""


@dataclass(frozen=True)
class Withheld:
    """Users with what is known of them and the item to be found.

    Attributes:
        history: of each user, everything before the target.
        target: (U,) int32; 0 is an item that the model does not know, a miss.
    """

    history: Histories
    target: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Split:
    """Leave-one-out: views of one packed array, nothing is copied.

    Attributes:
        train: every user, without validation and test items.
        validation: users with three items or more; the target is the last but one.
        test: users with two items or more; the target is the last, the history includes the
            validation item.
    """

    train: Histories
    validation: Withheld
    test: Withheld


def leave_one_out(histories: Histories) -> Split:
    """Split off each user's last item (test) and the one before it (validation).

    A user with two items has a test item only; a user with one is trained on only, as far as one
    item teaches anything.
    """
    lengths = histories.lengths
    kept = np.where(lengths >= 3, lengths - 2, np.minimum(lengths, 1))
    train = Histories(histories.items, histories.starts, histories.starts + kept)
    return Split(
        train=train,
        validation=_withhold(histories.without_last(1)[lengths >= 3]),
        test=_withhold(histories[lengths >= 2]),
    )


def _withhold(histories: Histories) -> Withheld:
    return Withheld(histories.without_last(1), histories.items[histories.ends - 1])


def ranks(
    scorer: Scorer, withheld: Withheld, progress: Progress = silent
) -> dict[str, NDArray[np.int64]]:
    """Return each user's (U,) rank of the target over the whole catalogue, by protocol.

    ``unmasked`` ranks all items; ``masked`` gives items of the history -inf, as production does.
    Ties go to the lower item index, as in ``top_k``. A target that is unknown, or that -inf rules
    out, is ``UNRANKED``.
    """
    found = {name: np.full(len(withheld), UNRANKED) for name in ("masked", "unmasked")}
    done, told = 0, 0.0
    for rows, scored in scorer(withheld.history):
        target = torch.from_numpy(withheld.target[rows]).long().to(scored.device)
        found["unmasked"][rows] = _rank(scored, target)
        seen_row, seen_item = withheld.history[rows].flat()
        scored[torch.from_numpy(seen_row), torch.from_numpy(seen_item).long()] = -torch.inf
        found["masked"][rows] = _rank(scored, target)
        done += len(rows)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            progress("evaluating", done, len(withheld))
    progress("evaluating", len(withheld), len(withheld))
    return found


def _rank(scored: Tensor, target: Tensor) -> NDArray[np.int64]:
    own = scored.gather(1, target.unsqueeze(1))  # (R, 1)
    # Comparing into floats and adding those is ten times faster on the CPU than adding booleans,
    # and exact below 2^24 items.
    compared = torch.empty_like(scored)
    better = torch.gt(scored, own, out=compared).sum(1)
    if bool((tied := torch.eq(scored, own, out=compared).sum(1) > 1).any()):
        before = torch.arange(scored.shape[1], device=scored.device) < target[tied].unsqueeze(1)
        better[tied] += ((scored[tied] == own[tied]) & before).sum(1)
    rank = better.long() + 1
    rank[(own.squeeze(1) == -torch.inf) | (target == 0)] = UNRANKED
    found: NDArray[np.int64] = rank.cpu().numpy()
    return found


def evaluate(scorer: Scorer, withheld: Withheld, progress: Progress = silent) -> dict[str, Any]:
    """Return ``{"users": U, "masked": {"hr@5": ..., ...}, "unmasked": {...}}``, per-user means."""
    found = ranks(scorer, withheld, progress)
    return {"users": len(withheld), **{name: figures(each) for name, each in found.items()}}


def validator(
    withheld: Withheld,
    *,
    seed: int,
    runtime: Runtime,
    metric: str = "ndcg@10",
    most_users: int = 20_000,
) -> Callable[[Recommender], float]:
    """Return the figure that early stopping watches: a masked metric of a model.

    Above ``most_users`` a sample of the users, drawn once, stands for all, so that validation
    does not outgrow training.
    """
    chosen = withheld
    if len(withheld) > most_users:
        generator = np.random.default_rng(seed)
        users = np.sort(generator.choice(len(withheld), most_users, replace=False))
        chosen = Withheld(withheld.history[users], withheld.target[users])

    def figure(model: Recommender) -> float:
        scorer = ModelScorer(model, seed=seed, runtime=runtime)
        return float(evaluate(scorer, chosen)["masked"][metric])

    return figure
