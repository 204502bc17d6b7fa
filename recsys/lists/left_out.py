"""What each item of a history does to the scores of listed items: it is left out in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recsys.histories import Histories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recsys.model.scoring import ModelScorer

_USERS = 16  # scored at a time: enough that micro-batches are full
_NAMED = 3  # items of a history that are named for a listed item


def left_out_effects(
    scorer: ModelScorer,
    inputs: Histories,
    had: Histories | None,
    listed: NDArray[np.int32],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """Yield for each user the H items that the model reads, and their effects on K listed items.

    An effect is by how much the listed item's score is higher than without the item, wherever it is
    in the history. It is nan where nothing else is there, and for a listed item that is padding or
    that the user has had.

    Args:
        scorer: the model.
        inputs: of U users, what the model reads.
        had: of the same users, the items that no list may hold; None where it may hold all.
        listed: (U, K) items that the model knows; 0 is none.

    Yields:
        (H,) items, the newest last, and (H, K) effects.
    """
    for start in range(0, len(inputs), _USERS):
        users = np.arange(start, min(start + _USERS, len(inputs)))
        read, variants, owners = [], [], []
        for user in users:
            history = inputs.items[inputs.starts[user] : inputs.ends[user]]
            newest = history[-scorer.model.config.max_length :]
            _, last = np.unique(newest[::-1], return_index=True)
            items = newest[::-1][np.sort(last)[::-1]]
            read.append(items)
            variants += [history, *(history[history != item] for item in items)]
            owners += [user] * (1 + len(items))
        offsets = np.cumsum([0, *map(len, variants)]).astype(np.int64)
        packed = Histories.from_offsets(np.concatenate(variants), offsets)
        scores = _scores(scorer, packed, np.array(owners), had, listed)
        row = 0
        for items in read:
            yield items, scores[row] - scores[row + 1 : row + 1 + len(items)]
            row += 1 + len(items)


def _scores(
    scorer: ModelScorer,
    variants: Histories,
    owners: NDArray[np.int64],
    had: Histories | None,
    listed: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Return (R, K) the log-probabilities of the items that are listed for each row's user."""
    scores = np.full((len(variants), listed.shape[1]), np.nan)
    for rows, block in scorer(variants):
        if had is not None:
            row, item = map(torch.from_numpy, had[owners[rows]].interactions())
            block[row.to(block.device), item.long().to(block.device)] = -torch.inf
        asked = torch.from_numpy(listed[owners[rows]]).long().to(block.device)
        found = block.gather(1, asked) - block.logsumexp(1, keepdim=True)
        scores[rows] = found.double().cpu().numpy()
    return np.where(np.isfinite(scores), scores, np.nan)


def strongest(ids: list[Any], effects: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """Yield the items with the largest effects, those that raise the score alone."""
    if len(ids) == 1:
        yield {"number": 1, "because_item_id": ids[0], "effect": None}
        return
    order = np.argsort(-effects, kind="stable")[:_NAMED]
    for number, place in enumerate(order.tolist(), start=1):
        if effects[place] > 0:
            effect = float(effects[place])
            yield {"number": number, "because_item_id": ids[place], "effect": effect}
