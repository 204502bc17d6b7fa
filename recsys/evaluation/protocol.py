"""Where the held-out items stand in the full ranking, and what that says of a scorer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from recsys.evaluation.metrics import (
    UNRANKED,
    average_popularity,
    coverage,
    figures,
    intervals,
    novelty,
)
from recsys.evaluation.splits import HeldOut
from recsys.histories import Histories
from recsys.model.scoring import Scorer as ModelScorer
from recsys.model.top_k import best_of
from recsys.progress import Progress, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime

Protocol = Literal["masked", "unmasked"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""Items of the history left out of the ranking, or in it."""

_TELL_SECONDS = 0.3
_LISTED = 10

Scorer = Callable[[Histories], Iterator[tuple["NDArray[np.int64]", "Tensor"]]]
"""Yields (R,) rows of users and their (R, V + 1) scores; column 0 and unrankable items -inf.

A row may be left out, and counts as a miss. The tensors are the caller's to change.
"""


def ranks(
    scorer: Scorer,
    held_out: HeldOut,
    progress: Progress = silent,
    *,
    lists: NDArray[np.int32] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return each user's (U,) rank of the target over the whole catalogue, by protocol.

    ``unmasked`` ranks all items; ``masked`` gives items of the history -inf, as production does.
    Ties go to the lower item index, as in ``top_k``. A target that is unknown, or that -inf rules
    out, is ``UNRANKED``.

    Args:
        scorer: what ranks.
        held_out: users and their targets.
        progress: told as the work goes on.
        lists: (U, K) zeros that the users' masked top K are written to.
    """
    found: dict[str, NDArray[np.int64]]
    found = {name: np.full(len(held_out), UNRANKED) for name in PROTOCOLS}
    done, told = 0, 0.0
    for rows, scored in scorer(held_out.history):
        target = torch.from_numpy(held_out.target[rows]).long().to(scored.device)
        found["unmasked"][rows] = _rank(scored, target)
        seen_row, seen_item = held_out.history[rows].interactions()
        scored[torch.from_numpy(seen_row), torch.from_numpy(seen_item).long()] = -torch.inf
        found["masked"][rows] = _rank(scored, target)
        if lists is not None:
            best, items = best_of(partial(iter, [(1, scored[:, 1:])]), lists.shape[1])
            items = items.masked_fill(best == -torch.inf, 0)
            lists[rows, : items.shape[1]] = items.to(torch.int32).cpu().numpy()
        done += len(rows)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            progress("evaluating", done, len(held_out))
    progress("evaluating", len(held_out), len(held_out))
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


def evaluate(scorer: Scorer, held_out: HeldOut, progress: Progress = silent) -> dict[str, Any]:
    """Return ``{"users": U, "masked": {"hr@5": ..., ...}, "unmasked": {...}}``, per-user means."""
    found = ranks(scorer, held_out, progress)
    return {"users": len(held_out), **{name: figures(each) for name, each in found.items()}}


def evaluation_report(
    scorer: Scorer,
    held_out: HeldOut,
    train: Histories,
    n_items: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return what ``evaluate`` does, and how sure it is, for whom it holds, and what lists show.

    Args:
        scorer: what is judged.
        held_out: users and their targets.
        train: what was learnt from: an item's popularity is its interactions there.
        n_items: V.
        progress: told as the work goes on.

    Returns:
        ``users``, ``masked`` and ``unmasked`` as ``evaluate``; ``intervals``, the 95 % bootstrap
        interval of each figure, by protocol; ``slices``, a list of ``name``, ``users``, ``masked``
        and ``unmasked``: users by history length (quintiles) and by whether the target is among
        the most popular fifth of the items; ``lists``, of the masked top 10: ``coverage@10``,
        ``novelty@10`` (bits) and ``popularity@10`` (mean interactions).
    """
    lists = np.zeros((len(held_out), _LISTED), dtype=np.int32)
    found = ranks(scorer, held_out, progress, lists=lists)
    counts = train.counts(n_items)
    return {
        "users": len(held_out),
        **{name: figures(each) for name, each in found.items()},
        "intervals": {name: intervals(each) for name, each in found.items()},
        "slices": [
            {
                "name": name,
                "users": int(users.sum()),
                **{protocol: figures(each[users]) for protocol, each in found.items()},
            }
            for name, users in _slices(held_out, counts)
        ],
        "lists": {
            f"coverage@{_LISTED}": coverage(lists, n_items),
            f"novelty@{_LISTED}": novelty(lists, counts),
            f"popularity@{_LISTED}": average_popularity(lists, counts),
        },
    }


def _slices(
    held_out: HeldOut, counts: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    lengths = held_out.history.lengths
    # Whole lengths: a quintile of equal lengths falls together with its neighbour.
    lowest = np.unique(np.quantile(lengths, np.arange(5) / 5, method="higher"))
    for low, high in pairwise([*lowest.tolist(), int(lengths.max()) + 1]):
        yield f"history {low}-{high - 1}", (lengths >= low) & (lengths < high)
    order = np.argsort(-counts[1:], kind="stable") + 1
    popular = np.zeros(len(counts), dtype=bool)
    popular[order[: max(1, len(order) // 5)]] = True
    yield "popular fifth of items", popular[held_out.target]
    yield "other items", ~popular[held_out.target]


def validator(
    held_out: HeldOut,
    *,
    seed: int,
    runtime: Runtime,
    metric: str = "ndcg@10",
    protocol: Protocol = "masked",
    most_users: int = 20_000,
) -> Callable[[Recommender], float]:
    """Return the figure that early stopping watches: a metric of a model.

    Above ``most_users`` a sample of the users, drawn once, stands for all, so that validation
    does not outgrow training.
    """
    chosen = held_out
    if len(held_out) > most_users:
        generator = np.random.default_rng(seed)
        users = np.sort(generator.choice(len(held_out), most_users, replace=False))
        chosen = HeldOut(held_out.history[users], held_out.target[users])

    def figure(model: Recommender) -> float:
        scorer = ModelScorer(model, seed=seed, runtime=runtime)
        return float(evaluate(scorer, chosen)[protocol][metric])

    return figure
