"""The best items of predicted targets, without a users x items matrix."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

_ROWS, _ITEMS = 128, 16_384  # of one product of scores; larger ones leave the cache
_ROWS_CUDA, _ITEMS_CUDA = 2048, 131_072


def top_k_items(
    predicted: Tensor,
    weight: Tensor,
    k: int,
    seen: tuple[Tensor, Tensor] | None = None,
    ineligible: Tensor | None = None,
    seen_bias: float = -math.inf,
) -> tuple[Tensor, Tensor]:
    """Return the k best scores (B, k) and their items (B, k) int64, ties by lower item.

    Scores are inner products (Eq. 26), taken a chunk of the catalogue at a time; the best so far
    are merged with the best of each chunk, so memory grows neither with users nor with items.
    Chunks always have the same number of rows, so that a row's last bits do not depend on how many
    rows come with it.

    Args:
        predicted: (B, D) float32.
        weight: (V + 1, D) float32, item embeddings; row 0 is padding and never listed.
        k: at most V.
        seen: (S,) row, ascending, and (S,) item, of what a row has had.
        ineligible: (V + 1,) bool, what no row may list.
        seen_bias: added to the scores of ``seen``; they are not listed when it is -inf.
    """
    rows = _ROWS if predicted.device.type == "cpu" else _ROWS_CUDA
    scores = predicted.new_empty(len(predicted), k)
    items = torch.empty(len(predicted), k, dtype=torch.int64, device=predicted.device)
    for start in range(0, len(predicted), rows):
        part = predicted[start : start + rows]
        held = slice(start, start + len(part))
        had = None
        if seen is not None:
            bounds = torch.tensor([start, start + rows], device=seen[0].device)
            first, last = torch.searchsorted(seen[0], bounds).tolist()
            had = seen[0][first:last] - start, seen[1][first:last]
        filled = torch.cat([part, part[-1:].expand(rows - len(part), -1)])
        best, at = best_of(partial(_scores, filled, weight, had, ineligible, seen_bias), k)
        scores[held], items[held] = best[: len(part)], at[: len(part)]
    return scores, items


def best_of(scores: Callable[[], Iterable[tuple[int, Tensor]]], k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores (R, k) and their items (R, k) int64, ties by lower item.

    Both are narrower where there are fewer items. ``scores`` goes through the catalogue in order,
    anew each time: (first item, (R, C) scores) of each chunk.
    """
    for first, scored in scores():
        # One more than wanted, so that a tie for the last place shows.
        found, column = scored.topk(min(k + 1, scored.shape[1]), dim=1)
        if first == 1:
            best, at = found, column + first
            continue
        best, at = torch.cat([best, found], 1), torch.cat([at, column + first], 1)
        best, place = best.topk(min(k + 1, best.shape[1]), dim=1)
        at = at.gather(1, place)
    if best.shape[1] > k:
        last = best[:, k - 1]
        tied = (last == best[:, k]) & (last > -torch.inf)
        best, at = best[:, :k], at[:, :k]
        if bool(tied.any()):  # topk took any of them; such rows are sorted in full
            for row in tied.nonzero().squeeze(1).tolist():
                every = [scored[row] for _, scored in scores()]
                ordered, columns = torch.cat(every).sort(descending=True, stable=True)
                best[row], at[row] = ordered[:k], columns[:k] + 1
    at, order = at.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, at.gather(1, order)


def _scores(
    predicted: Tensor,
    weight: Tensor,
    seen: tuple[Tensor, Tensor] | None,
    ineligible: Tensor | None,
    seen_bias: float,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first item, (R, C) scores) of each chunk of items, -inf where they may not be."""
    size = _ITEMS if predicted.device.type == "cpu" else _ITEMS_CUDA
    for first in range(1, len(weight), size):
        some = weight[first : first + size]
        with torch.autocast(predicted.device.type, enabled=False):
            scored = predicted @ some.T
        if seen is not None:
            row, item = seen
            if len(weight) > size + 1:
                within = (item >= first) & (item < first + size)
                row, item = row[within], item[within]
            scored[row, item - first] += seen_bias  # each once, however often it was had
        if ineligible is not None:
            scored.masked_fill_(ineligible[first : first + size], -torch.inf)
        yield first, scored
