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
    seen_bias: float | Tensor = -math.inf,
) -> tuple[Tensor, Tensor]:
    """Return the k largest log-probabilities (B, k) and their items (B, k) int64.

    Items are ranked by inner products (Eq. 26), ties by lower item. The probability is the softmax
    of these over the items that the row may list: not the padding, not what is ineligible, and not
    what was seen where ``seen_bias`` is -inf. Natural logarithm; -inf where no item is left.

    Products are taken a chunk of the catalogue at a time; the best so far are merged with the best
    of each chunk, so memory grows neither with users nor with items. Chunks always have the same
    number of rows, so that a row's last bits do not depend on how many rows come with it.

    Args:
        predicted: (B, D) float32.
        weight: (V + 1, D) float32, item embeddings; row 0 is padding and never listed.
        k: at most V.
        seen: (S,) row, ascending, and (S,) item, of what each row's user has had.
        ineligible: (V + 1,) bool, items that no row may list.
        seen_bias: added to the scores of ``seen``, one for all or (S,); where it is -inf, they are
            not listed.
    """
    rows = _ROWS if predicted.device.type == "cpu" else _ROWS_CUDA
    scores = predicted.new_empty(len(predicted), k)
    items = torch.empty(len(predicted), k, dtype=torch.int64, device=predicted.device)
    for start in range(0, len(predicted), rows):
        part = predicted[start : start + rows]
        span = slice(start, start + len(part))
        part_seen, part_bias = None, seen_bias
        if seen is not None:
            bounds = torch.tensor([start, start + rows], device=seen[0].device)
            first, last = torch.searchsorted(seen[0], bounds).tolist()
            part_seen = seen[0][first:last] - start, seen[1][first:last]
            if not isinstance(seen_bias, float):
                part_bias = seen_bias[first:last]
        filled = torch.cat([part, part[-1:].expand(rows - len(part), -1)])
        chunks = partial(_scores, filled, weight, part_seen, ineligible, part_bias)
        log_totals = filled.new_full((rows, 1), -torch.inf)
        best, best_items = top_k_of_chunks(chunks, k, log_totals)
        best = torch.where(best > -torch.inf, best - log_totals, best)
        scores[span], items[span] = best[: len(part)], best_items[: len(part)]
    return scores, items


def top_k_of_chunks(
    chunks: Callable[[], Iterable[tuple[int, Tensor]]], k: int, log_totals: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the k best scores (R, k) and their items (R, k) int64, ties by lower item.

    Both are narrower where there are fewer items.

    Args:
        chunks: each call goes through the catalogue in order: (first item, (R, C) scores) of each
            chunk.
        k: items of a row.
        log_totals: (R, 1) of -inf, to which the log of the sum of exp(score) is written.
    """
    for first, chunk in chunks():
        # One more than k, so that a tie for the last place shows.
        scores, column = chunk.topk(min(k + 1, chunk.shape[1]), dim=1)
        if log_totals is not None:
            # One fused pass: the probability of the chunk's best item says what all of it adds to.
            log_share = chunk.softmax(1).gather(1, column[:, :1]).log()
            has_item = scores[:, :1] > -torch.inf
            total = torch.where(has_item, scores[:, :1] - log_share, -torch.inf)
            torch.logaddexp(log_totals, total, out=log_totals)
        if first == 1:
            best, items = scores, column + first
            continue
        best, items = torch.cat([best, scores], 1), torch.cat([items, column + first], 1)
        best, place = best.topk(min(k + 1, best.shape[1]), dim=1)
        items = items.gather(1, place)
    if best.shape[1] > k:
        last = best[:, k - 1]
        tied = (last == best[:, k]) & (last > -torch.inf)
        best, items = best[:, :k], items[:, :k]
        if bool(tied.any()):  # topk took any of them; such rows are sorted in full
            for row in tied.nonzero().squeeze(1).tolist():
                whole = torch.cat([chunk[row] for _, chunk in chunks()])
                ordered, columns = whole.sort(descending=True, stable=True)
                best[row], items[row] = ordered[:k], columns[:k] + 1
    items, order = items.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, items.gather(1, order)


def _scores(
    predicted: Tensor,
    weight: Tensor,
    seen: tuple[Tensor, Tensor] | None,
    ineligible: Tensor | None,
    seen_bias: float | Tensor,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first item, (R, C) scores) of each chunk of items, -inf where they are not allowed."""
    size = _ITEMS if predicted.device.type == "cpu" else _ITEMS_CUDA
    for first in range(1, len(weight), size):
        chunk = weight[first : first + size]
        with torch.autocast(predicted.device.type, enabled=False):
            scores = predicted @ chunk.T
        if seen is not None:
            (row, item), bias = seen, seen_bias
            if len(weight) > size + 1:
                within = (item >= first) & (item < first + size)
                row, item = row[within], item[within]
                if not isinstance(seen_bias, float):
                    bias = seen_bias[within]
            scores[row, item - first] += bias  # each once, however often it was had
        if ineligible is not None:
            scores.masked_fill_(ineligible[first : first + size], -torch.inf)
        yield first, scores
