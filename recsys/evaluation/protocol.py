"""Who is judged by which item, and where it stands in the full ranking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.evaluation.metrics import (
    UNRANKED,
    average_popularity,
    coverage,
    figures,
    intervals,
    novelty,
)
from recsys.histories import Histories, Packed
from recsys.model.ranking import best_of
from recsys.model.scoring import Scorer as ModelScorer
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
    """What is learnt from and what is judged by: views of one packed array, nothing is copied.

    Attributes:
        train: every user, without validation and test items.
        validation: users with an item withheld for validation.
        test: users with an item withheld for the test; the history includes validation items.
    """

    train: Histories
    validation: Withheld
    test: Withheld

    @property
    def withheld(self) -> dict[str, Withheld]:
        """What is judged by, by name."""
        return {"validation": self.validation, "test": self.test}


def leave_one_out(histories: Histories) -> Split:
    """Split off each user's last item (test) and the one before it (validation; 3 items or more).

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


def temporal(
    histories: Histories,
    before_validation: NDArray[np.int64],
    before_test: NDArray[np.int64],
) -> Split:
    """Split all users at two moments: train before the first, validate between them, test after.

    Each user's target is the first item after the moment; who has none, or nothing before it, is
    not judged. Unlike leave-one-out, nothing is learnt from what others do later (Ji et al. 2023).

    Args:
        histories: in time order.
        before_validation: (U,) how many of a user's items lie before the first moment.
        before_test: (U,) before the second one.
    """
    lengths = histories.lengths

    def withheld(before: NDArray[np.int64], until: NDArray[np.int64]) -> Withheld:
        judged = (before > 0) & (until > before)
        ends = histories.starts + before + 1
        return _withhold(Histories(histories.items, histories.starts, ends)[judged])

    return Split(
        train=Histories(histories.items, histories.starts, histories.starts + before_validation),
        validation=withheld(before_validation, before_test),
        test=withheld(before_test, lengths),
    )


def numbered(packed: Packed, split: Callable[[Histories], Split]) -> tuple[Packed, Split]:
    """Return the data with its items in order of what is learnt from, and its split.

    Ties in a ranking go to the lower index, so the order of all interactions, those withheld among
    them, would tell what is to be found. Here it is that of the training part, then of the ids.
    """
    trained = split(packed.histories).train.counts(len(packed.items))
    table = pa.table({"trained": trained[1:], "item_id": packed.items})
    keys = [("trained", "descending"), ("item_id", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys)
    index = np.zeros(len(trained), dtype=np.int32)
    index[order.to_numpy() + 1] = np.arange(1, len(trained))
    held = packed.histories
    histories = Histories(index[held.items], held.starts, held.ends)
    items, counts = packed.items.take(order), packed.counts[order.to_numpy()]
    return Packed(packed.users, items, counts, histories), split(histories)


def _withhold(histories: Histories) -> Withheld:
    return Withheld(histories.without_last(1), histories.items[histories.ends - 1])


def ranks(
    scorer: Scorer,
    withheld: Withheld,
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
        withheld: users and their targets.
        progress: told as the work goes on.
        lists: (U, K) zeros that the users' masked top K are written to.
    """
    found: dict[str, NDArray[np.int64]]
    found = {name: np.full(len(withheld), UNRANKED) for name in PROTOCOLS}
    done, told = 0, 0.0
    for rows, scored in scorer(withheld.history):
        target = torch.from_numpy(withheld.target[rows]).long().to(scored.device)
        found["unmasked"][rows] = _rank(scored, target)
        seen_row, seen_item = withheld.history[rows].interactions()
        scored[torch.from_numpy(seen_row), torch.from_numpy(seen_item).long()] = -torch.inf
        found["masked"][rows] = _rank(scored, target)
        if lists is not None:
            best, items = best_of(partial(iter, [(1, scored[:, 1:])]), lists.shape[1])
            items = items.masked_fill(best == -torch.inf, 0)
            lists[rows, : items.shape[1]] = items.to(torch.int32).cpu().numpy()
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


def assess(
    scorer: Scorer,
    withheld: Withheld,
    train: Histories,
    n_items: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return what ``evaluate`` does, and how sure it is, for whom it holds, and what lists show.

    Args:
        scorer: what is judged.
        withheld: users and their targets.
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
    lists = np.zeros((len(withheld), _LISTED), dtype=np.int32)
    found = ranks(scorer, withheld, progress, lists=lists)
    counts = train.counts(n_items)
    return {
        "users": len(withheld),
        **{name: figures(each) for name, each in found.items()},
        "intervals": {name: intervals(each) for name, each in found.items()},
        "slices": [
            {
                "name": name,
                "users": int(users.sum()),
                **{protocol: figures(each[users]) for protocol, each in found.items()},
            }
            for name, users in _slices(withheld, counts)
        ],
        "lists": {
            f"coverage@{_LISTED}": coverage(lists, n_items),
            f"novelty@{_LISTED}": novelty(lists, counts),
            f"popularity@{_LISTED}": average_popularity(lists, counts),
        },
    }


def _slices(
    withheld: Withheld, counts: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    lengths = withheld.history.lengths
    # Whole lengths: a quintile of equal lengths falls together with its neighbour.
    lowest = np.unique(np.quantile(lengths, np.arange(5) / 5, method="higher"))
    for low, high in pairwise([*lowest.tolist(), int(lengths.max()) + 1]):
        yield f"history {low}-{high - 1}", (lengths >= low) & (lengths < high)
    order = np.argsort(-counts[1:], kind="stable") + 1
    popular = np.zeros(len(counts), dtype=bool)
    popular[order[: max(1, len(order) // 5)]] = True
    yield "popular fifth of items", popular[withheld.target]
    yield "other items", ~popular[withheld.target]


def validator(
    withheld: Withheld,
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
    chosen = withheld
    if len(withheld) > most_users:
        generator = np.random.default_rng(seed)
        users = np.sort(generator.choice(len(withheld), most_users, replace=False))
        chosen = Withheld(withheld.history[users], withheld.target[users])

    def figure(model: Recommender) -> float:
        scorer = ModelScorer(model, seed=seed, runtime=runtime)
        return float(evaluate(scorer, chosen)[protocol][metric])

    return figure
