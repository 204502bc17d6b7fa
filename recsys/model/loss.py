"""Softmax cross-entropy without a batch x catalogue matrix: full, or over sampled negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CELLS = 2_000_000  # of a chunk of scores: one that stays in cache; four times as many cost 1.6 x
_CELLS_CUDA = 64_000_000
_CHUNKS = 8  # chunks of scores between one addition to the items' gradients and the next
_MANY_ITEMS = 32_768
_SMALLEST = torch.finfo(torch.float32).tiny

Seen = tuple[Tensor, Tensor]
"""(S,) int64 row and (S,) int64 item of what each row's user had before."""


class _CrossEntropy(torch.autograd.Function):
    """Mean loss and all its gradients in one pass; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor,
        seen: Seen,
        bf16: bool,
    ) -> Tensor:
        dtype = torch.bfloat16 if bf16 else torch.float32
        sweep = _by_rows if len(weight) <= _MANY_ITEMS else _by_items
        cells = 4 * _CELLS if sweep is _by_items else _CELLS  # 390 against 4,800 ms at 100,000
        if hidden.device.type != "cpu":
            cells = _CELLS_CUDA
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight)
        low = hidden.to(dtype), weight[1:].to(dtype)
        row, item = seen
        inputs = *low, target - 1, bias.to(dtype), (row, item - 1)
        losses, grad_bias = sweep(*inputs, grad_hidden, grad_weight[1:], cells)
        grad_hidden.sub_(weight[target], alpha=1 / len(hidden))
        grad_weight.index_add_(0, target, hidden, alpha=-1 / len(hidden))
        grad_bias = (grad_bias - (item == target[row]).sum()) / len(hidden)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = (grad * grads[0] for grad in ctx.saved_tensors)
        return grad_hidden, grad_weight, None, grad_bias, None, None


class _Directions(torch.autograd.Function):
    """Rows over their lengths; autograd's own way back takes seven passes over the catalogue."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=1e-12)
        along: Tensor = x / length
        ctx.save_for_backward(along, length)
        return along

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        along, length = ctx.saved_tensors
        with torch.autocast(along.device.type, enabled=False):  # vecdot would be one of bfloat16
            radial = torch.linalg.vecdot(grads[0], along).unsqueeze(1)
        tangent: Tensor = torch.addcmul(grads[0], along, radial, value=-1)
        return tangent.div_(length)


def directions(x: Tensor) -> Tensor:
    """Return each row of x (N, D), float32, over its Euclidean length; zeros stay zeros."""
    along: Tensor = _Directions.apply(x)  # type: ignore[no-untyped-call]
    return along


def _by_rows(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor,
    seen: Seen,
    grad_hidden: Tensor,
    grad_weight: Tensor,
    cells: int,
) -> tuple[Tensor, Tensor]:
    """Return each row's loss (N,) and the likelihood of all that was seen, a scalar.

    The gradients of the mean log-sum-exp are added. Some rows at a time, whole: the softmax is one
    fused pass over a chunk that stays in cache. A gradient as large as the catalogue is added to
    once for several chunks, since that costs as much as one of their products. A loss beyond 87 is
    returned as 87, where a float32 likelihood ends; its gradients are exact.
    """
    size = max(1, min(len(hidden), cells // len(weight)))
    likelihoods, repeated = [], hidden.new_zeros((), dtype=torch.float32)
    slopes = hidden.new_empty(min(len(hidden), _CHUNKS * size), len(weight))
    chunks = zip(
        *(torch.split(by_row, size) for by_row in (hidden, target, grad_hidden)),
        _parts(seen[0], size, len(hidden)),
        strict=True,
    )
    for rows, labels, into, (first, part) in chunks:
        pair = seen[0][part] - first, seen[1][part]
        scores = rows @ weight.T
        scores[pair] += bias
        begun = first % len(slopes)
        filled = begun + len(rows)
        slope = slopes[begun:filled]  # (C, V)
        torch.softmax(scores, 1, out=slope)
        likelihoods.append(slope.gather(1, labels.unsqueeze(1)).squeeze(1).float())
        repeated += slope[pair].sum(dtype=torch.float32)
        into.add_(slope @ weight, alpha=1 / len(hidden))
        last = first + len(rows)
        if filled == len(slopes) or last == len(hidden):
            product = slopes[:filled].T @ hidden[last - filled : last]
            grad_weight.add_(product, alpha=1 / len(hidden))
    return -torch.cat(likelihoods).clamp(min=_SMALLEST).log(), repeated


def _by_items(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor,
    seen: Seen,
    grad_hidden: Tensor,
    grad_weight: Tensor,
    cells: int,
) -> tuple[Tensor, Tensor]:
    """Do as ``_by_rows``, some items at a time: memory does not grow with the catalogue.

    The scores of a chunk are computed twice, once for the normaliser, once for the gradients. A
    chunk's own softmax, weighted by its share of the whole, is the softmax over all items; the
    weights go onto the rows, which are few, not onto the scores.
    """
    size = max(1, cells // len(hidden))
    item, order = seen[1].sort()
    row = seen[0][order]
    chunks = [
        (chunk, into, (row[part], item[part] - first))
        for chunk, into, (first, part) in zip(
            torch.split(weight, size),
            torch.split(grad_weight, size),
            _parts(item, size, len(weight)),
            strict=True,
        )
    ]

    def chunk_scores(chunk: Tensor, pair: Seen) -> Tensor:
        scores = hidden @ chunk.T
        scores[pair] += bias
        return scores

    parts = [chunk_scores(chunk, pair).float().logsumexp(1) for chunk, _, pair in chunks]
    total = torch.stack(parts).logsumexp(0)  # (N,)
    repeated = torch.zeros_like(total[0])
    for part, (chunk, into, pair) in zip(parts, chunks, strict=True):
        slope = chunk_scores(chunk, pair).softmax(1)  # (N, C)
        share = (part - total).exp()
        repeated += (slope[pair] * share[pair[0]]).sum()
        grad_hidden.add_(share.unsqueeze(1) * (slope @ chunk), alpha=1 / len(hidden))
        weighted = (share.unsqueeze(1) * hidden).to(hidden.dtype)
        into.add_(slope.T @ weighted, alpha=1 / len(hidden))
    of_target = (hidden.float() * weight[target]).sum(1)
    of_target.index_add_(0, seen[0], (seen[1] == target[seen[0]]) * bias.float())
    return total - of_target, repeated


def _parts(place: Tensor, size: int, length: int) -> list[tuple[int, slice]]:
    """Return, for each ``size`` places of 0..length - 1, the first and what lies there.

    ``place`` (S,) is ascending.
    """
    if (
        size >= length
    ):  # as on a GPU, up to some ten thousand items: it is not asked where parts end
        return [(0, slice(None))]
    firsts = range(0, length, size)
    edges = torch.tensor([*firsts, length], device=place.device)
    bounds = torch.searchsorted(place, edges).tolist()
    return [(first, slice(*bounds[nth : nth + 2])) for nth, first in enumerate(firsts)]


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    seen: Seen | None = None,
) -> Tensor:
    """Return the mean of -log softmax(hidden weight^T)[target] (Eq. 24-25).

    Products run in bfloat16 under autocast; sums are float32.

    Args:
        hidden: (N, D).
        weight: (V + 1, D) float32, item embeddings; row 0 is padding and not scored.
        target: (N,) int64, 1..V.
        bias: scalar, added to the scores of ``seen``; 0 when None.
        seen: (S,) int64 row, ascending, and (S,) int64 item, each pair once; none when None.
    """
    kind = hidden.device.type
    bf16 = torch.is_autocast_enabled(kind)
    if bias is None or seen is None:
        bias, seen = hidden.new_zeros(()), (target[:0], target[:0])
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _CrossEntropy.apply(hidden.float(), weight, target, bias, seen, bf16)  # type: ignore[no-untyped-call]
        return loss


def sampled_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    bias: Tensor | None = None,
    seen: Seen | None = None,
) -> Tensor:
    """Return the mean of -log softmax over a target and sampled negatives.

    The sum over the catalogue is estimated without bias from draws with replacement: each draw is
    divided by how often it is expected (the logQ correction, Bengio & Senecal 2008; Yi et al.
    2019). The target is always there, so it is not corrected, and draws that hit it are left out.

    Args:
        hidden: (N, D).
        weight: (V + 1, D) float32, item embeddings.
        target: (N,) int64, 1..V.
        negatives: (S',) int64, 1..V, shared by all targets.
        log_expected: (S',) log of S' times each draw's probability.
        bias: as in ``cross_entropy``.
        seen: likewise.
    """
    of_target = (hidden * weight[target]).sum(1).float()
    others = (hidden @ weight[negatives].T).float() - log_expected  # (N, S')
    if bias is not None and seen is not None:
        row, item = seen
        again = item == target[row]
        of_target = of_target.index_add(0, row, again * bias)
        ordered, order = negatives.sort()
        edges = torch.searchsorted(ordered, torch.stack([item, item + 1]))
        hits = edges[1] - edges[0]
        count = int(hits.sum())
        nth = torch.arange(count, device=row.device)
        first = edges[0] - hits.cumsum(0) + hits
        nth += first.repeat_interleave(hits, output_size=count)
        pair = row.repeat_interleave(hits, output_size=count), order[nth]
        others = others.index_put(pair, bias.expand(count), accumulate=True)
    others = others.masked_fill(negatives == target.unsqueeze(1), -torch.inf)
    return (torch.logaddexp(of_target, others.logsumexp(1)) - of_target).mean()
