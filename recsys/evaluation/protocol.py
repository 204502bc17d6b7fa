"""Where the held-out items stand in the full ranking, and what that says of a scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.evaluation.metrics import (
    UNRANKED,
    average_popularity,
    coverage,
    intervals,
    mean_metrics,
    novelty,
)
from recsys.evaluation.results import PROTOCOLS, Evaluation, EvaluationReport, Slice
from recsys.histories import HAD, INPUT, TARGET, Histories
from recsys.model.scoring import ModelScorer
from recsys.model.top_k import top_k_of_chunks
from recsys.progress import Progress, silent, throttled

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.evaluation.results import Protocol
    from recsys.evaluation.splits import HeldOut
    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime

_LIST_LENGTH = 10

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
) -> dict[Protocol, NDArray[np.int64]]:
    """Return each user's (U,) rank of the target over the whole catalogue, by protocol.

    ``unmasked`` ranks all items; ``masked`` gives items that count as had -inf, as production does.
    Ties go to the lower item index, as in ``top_k``. A target that is unknown, or that -inf rules
    out, is ``UNRANKED``.

    Args:
        scorer: what ranks.
        held_out: users and their targets.
        progress: called as the work goes on.
        lists: (U, K) zeros that the users' masked top K are written to.
    """
    by_protocol: dict[Protocol, NDArray[np.int64]]
    by_protocol = {protocol: np.full(len(held_out), UNRANKED) for protocol in PROTOCOLS}
    done, tell = 0, throttled(progress)
    had = held_out.history.of_role(HAD)
    for rows, scores in scorer(held_out.history.of_role(INPUT)):
        target = torch.from_numpy(held_out.target[rows]).long().to(scores.device)
        by_protocol["unmasked"][rows] = _rank(scores, target)
        seen_row, seen_item = had[rows].interactions()
        scores[torch.from_numpy(seen_row), torch.from_numpy(seen_item).long()] = -torch.inf
        by_protocol["masked"][rows] = _rank(scores, target)
        if lists is not None:
            best, items = top_k_of_chunks(partial(iter, [(1, scores[:, 1:])]), lists.shape[1])
            items = items.masked_fill(best == -torch.inf, 0)
            lists[rows, : items.shape[1]] = items.to(torch.int32).cpu().numpy()
        done += len(rows)
        if done < len(held_out):
            tell("evaluating", done, len(held_out))
    progress("evaluating", len(held_out), len(held_out))
    return by_protocol


def _rank(scores: Tensor, target: Tensor) -> NDArray[np.int64]:
    target_score = scores.gather(1, target.unsqueeze(1))  # (R, 1)
    # Comparing into floats and adding those is ten times faster on the CPU than adding booleans,
    # and exact below 2^24 items.
    compared = torch.empty_like(scores)
    better = torch.gt(scores, target_score, out=compared).sum(1)
    if bool((tied := torch.eq(scores, target_score, out=compared).sum(1) > 1).any()):
        lower = torch.arange(scores.shape[1], device=scores.device) < target[tied].unsqueeze(1)
        better[tied] += ((scores[tied] == target_score[tied]) & lower).sum(1)
    rank = better.long() + 1
    rank[(target_score.squeeze(1) == -torch.inf) | (target == 0)] = UNRANKED
    ranks: NDArray[np.int64] = rank.cpu().numpy()
    return ranks


def evaluate(scorer: Scorer, held_out: HeldOut, progress: Progress = silent) -> Evaluation:
    """Return the means over users of every metric, masked and unmasked."""
    return _evaluation(ranks(scorer, held_out, progress))


def _evaluation(by_protocol: Mapping[Protocol, NDArray[np.int64]]) -> Evaluation:
    masked, unmasked = by_protocol["masked"], by_protocol["unmasked"]
    return Evaluation(len(masked), mean_metrics(masked), mean_metrics(unmasked))


def evaluation_report(
    scorer: Scorer,
    held_out: HeldOut,
    train: Histories,
    n_items: int,
    progress: Progress = silent,
) -> EvaluationReport:
    """Return what ``evaluate`` does, how certain it is, by part of users, and what lists contain.

    Args:
        scorer: what is judged.
        held_out: users and their targets.
        train: what was learnt from: an item's popularity is its targets there.
        n_items: V.
        progress: called as the work goes on.
    """
    lists = np.zeros((len(held_out), _LIST_LENGTH), dtype=np.int32)
    by_protocol = ranks(scorer, held_out, progress, lists=lists)
    counts = train.of_role(TARGET).counts(n_items)
    return EvaluationReport(
        **vars(_evaluation(by_protocol)),
        intervals={protocol: intervals(rank) for protocol, rank in by_protocol.items()},
        slices=[
            Slice(
                **vars(_evaluation({name: rank[users] for name, rank in by_protocol.items()})),
                name=slice_name,
            )
            for slice_name, users in _slices(held_out, counts)
        ],
        lists={
            f"coverage@{_LIST_LENGTH}": coverage(lists, n_items),
            f"novelty@{_LIST_LENGTH}": novelty(lists, counts),
            f"popularity@{_LIST_LENGTH}": average_popularity(lists, counts),
        },
    )


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
    """Return what early stopping watches: a metric of a model.

    Above ``most_users`` a sample of the users, drawn once, represents all, so that validation
    does not outgrow training.
    """
    sample = held_out
    if len(held_out) > most_users:
        generator = np.random.default_rng(seed)
        users = np.sort(generator.choice(len(held_out), most_users, replace=False))
        sample = held_out[users]

    def validate(model: Recommender) -> float:
        scorer = ModelScorer(model, seed=seed, runtime=runtime)
        return evaluate(scorer, sample).metrics(protocol)[metric]

    return validate
