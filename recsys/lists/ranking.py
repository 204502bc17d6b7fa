"""What the model ranks for each user, and how sure it is of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.histories import HAD, INPUT, PADDING
from recsys.model.fold_in import fold_in
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.model.recommender import Recommender
    from recsys.registry.models import Model
    from recsys.settings import Recommending, Settings

_USERS = 32_768  # whose histories are copied at a time where the model does not read all of them


@dataclass(frozen=True)
class Ranked:
    """What the model ranks for a block of B users; less than K items where it can't rank more.

    Attributes:
        start: position of the first user among all.
        items: (B, K) int32 indices, best first; 0 at the end of short lists.
        scores: (B, K) float32, logarithms of probabilities; -inf there.
        confidence: (B,) float32, how likely the items have the user's next one; nan: not known.
    """

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    confidence: NDArray[np.float32]

    @classmethod
    def empty(cls, start: int, users: int, k: int) -> Ranked:
        """Return what no model ranks."""
        no_scores = np.full((users, k), -np.inf, dtype=np.float32)
        no_items = np.zeros((users, k), dtype=np.int32)
        return cls(start, no_items, no_scores, np.full(users, np.nan, dtype=np.float32))


def ranked_by_model(
    model: Model | None,
    packed: Packed,
    eligible: NDArray[np.bool_],
    recommending: Recommending,
    settings: Settings,
    begin: int = 0,
    candidates: int | None = None,
) -> Iterator[Ranked]:
    """Yield what the model ranks, block by block; nothing where there is none.

    Args:
        model: the champion.
        packed: histories whose first indices are those of the model's items.
        eligible: (V + 1,) whether each index may be listed.
        recommending: how many items, of which kind.
        settings: the device and its threads.
        begin: the first user that is ranked for; those before are left out.
        candidates: items that are ranked for each; as many as a list has when None.
    """
    histories, k = packed.histories, candidates or recommending.k
    if model is None:
        for start in range(begin, len(histories), recommending.block):
            yield Ranked.empty(start, min(recommending.block, len(histories) - start), k)
        return
    runtime = Runtime(settings.device, settings.threads)
    recommender, index = _with_new_items(model, packed, recommending, runtime)
    calibration = model.row.calibration
    # Leaving out what the model doesn't know or read copies, so not everybody's history at once.
    is_whole = index is None and histories.roles is None
    step = len(histories) if is_whole else _USERS
    most_new = recommending.most_new_items
    for first in range(begin, len(histories), step):
        known = histories[first : first + step]
        if index is not None:
            known = known.remap_items(index)
        inputs = known.of_role(INPUT)
        for block in top_k(
            recommender,
            inputs,
            k if recommender is model.recommender else 2 * k - most_new,
            steps=recommending.steps,
            seed=recommending.seed,
            block=recommending.block,
            exclude_seen=recommending.seen == "exclude",
            eligible=_listable(eligible, index, recommender.n_items),
            had=None if known.roles is None else known.of_role(HAD),
            runtime=runtime,
        ):
            items, scores = _capped(block.items, block.scores, len(model.items), most_new, k)
            confidence = np.full(len(items), np.nan, dtype=np.float32)
            if calibration:
                has_list = np.flatnonzero(items[:, 0])
                listed = scores[has_list, : recommending.k]
                share = np.exp(listed, dtype=np.float64).sum(axis=1)
                lengths = inputs.lengths[block.start + has_list]
                confidence[has_list] = calibration(share, lengths)
            yield Ranked(first + block.start, items, scores, confidence)


def _with_new_items(
    model: Model, packed: Packed, recommending: Recommending, runtime: Runtime
) -> tuple[Recommender, NDArray[np.int32] | None]:
    """Return the model that ranks, and its index of each item of ``packed``, 0 for none.

    The map is None where the model knows all of them.
    """
    count, known = len(packed.items), len(model.items)
    if count == known:
        return model.recommender, None
    index = np.arange(count + 1, dtype=np.int32)
    has_vector = index <= known
    recommender = model.recommender
    if recommending.new_items_share and recommender.config.similarity == "cosine":
        scorer = ModelScorer(recommender, recommending.steps, recommending.seed, runtime)
        recommender, is_new = fold_in(scorer, packed.histories, count)
        has_vector = has_vector | is_new
    return recommender, np.where(has_vector, index, np.int32(PADDING))


def _listable(
    eligible: NDArray[np.bool_], index: NDArray[np.int32] | None, n_items: int
) -> NDArray[np.bool_]:
    """Return (n_items + 1,) whether the model may list each of its items."""
    listable = eligible if index is None else eligible & (index != PADDING)
    return listable[: n_items + 1]


def _capped(
    items: NDArray[np.int32], scores: NDArray[np.float32], known: int, most_new: int, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the first k of (B, K') items and scores, without the new ones beyond ``most_new``."""
    if items.shape[1] == k:
        return items, scores
    is_new = items > known
    is_kept = ~is_new | (np.cumsum(is_new, axis=1) <= most_new)
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(is_kept, order, axis=1)
    return (
        np.where(kept, np.take_along_axis(items, order, axis=1), np.int32(PADDING)),
        np.where(kept, np.take_along_axis(scores, order, axis=1), np.float32(-np.inf)),
    )
