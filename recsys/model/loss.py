"""Softmax cross-entropy without a batch x catalogue matrix: full, or over sampled negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CELLS = 2_000_000  # of a chunk of scores: one that stays in cache; four times as many cost 1.6 x
_CELLS_CUDA = 256_000_000
_MANY_ITEMS = 32_768
_SMALLEST = torch.finfo(torch.float32).tiny


class _CrossEntropy(torch.autograd.Function):
    """Summed loss and both its gradients in one pass; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, bf16: bool) -> Tensor:
        dtype = torch.bfloat16 if bf16 else torch.float32
        swept = _by_rows if len(weight) <= _MANY_ITEMS else _by_items
        cells = _CELLS if hidden.device.type == "cpu" else _CELLS_CUDA
        loss, grad_hidden, grad_weight = swept(hidden.to(dtype), weight.to(dtype), target, cells)
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_weight)
        ctx.rows = len(hidden)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0] / ctx.rows
        return grad_hidden * scale, grad_weight * scale, None, None


def _by_rows(
    hidden: Tensor, weight: Tensor, target: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Take some rows at a time, whole: the softmax is one fused pass over a chunk in cache."""
    grad_hidden = torch.empty_like(hidden, dtype=torch.float32)
    grad_weight = torch.zeros_like(weight, dtype=torch.float32)
    loss = torch.zeros((), device=hidden.device)
    size = max(1, min(len(hidden), cells // len(weight)))
    for rows, labels, into in zip(
        *(torch.split(each, size) for each in (hidden, target, grad_hidden)), strict=True
    ):
        slope = (rows @ weight.T).softmax(1)  # (C, V)
        label = labels.unsqueeze(1)
        likelihood = slope.gather(1, label).float()
        loss -= likelihood.clamp(min=_SMALLEST).log().sum()
        slope.scatter_(1, label, (likelihood - 1).to(slope.dtype))
        into.copy_(slope @ weight)
        grad_weight += slope.T @ rows
    return loss, grad_hidden, grad_weight


def _by_items(
    hidden: Tensor, weight: Tensor, target: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Take some items at a time, for all rows: memory does not grow with the catalogue.

    The scores of a chunk are computed twice, once for the normaliser, once for the gradients. A
    chunk's own softmax, weighted by its share of the whole, is the softmax over all items; the
    weights go onto the rows, which are few, not onto the scores.
    """
    size = max(1, 4 * cells // len(hidden))  # 8 M cells measured best here
    chunks = torch.split(weight, size)
    parts = torch.stack([torch.logsumexp((hidden @ some.T).float(), 1) for some in chunks])
    total = torch.logsumexp(parts, 0)  # (N,)
    grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
    grad_weight = torch.empty_like(weight, dtype=torch.float32)
    for part, some, into in zip(parts, chunks, torch.split(grad_weight, size), strict=True):
        slope = (hidden @ some.T).softmax(1)  # (N, C)
        share = (part - total).exp().unsqueeze(1)
        grad_hidden += share * (slope @ some)
        into.copy_(slope.T @ (share * hidden).to(hidden.dtype))
    own = weight[target].float()
    grad_hidden -= own
    grad_weight.index_add_(0, target, hidden.float(), alpha=-1)
    return (total - (hidden.float() * own).sum(1)).sum(), grad_hidden, grad_weight


def cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -log softmax(hidden weight^T)[target] (Eq. 24-25).

    Products run in bfloat16 under autocast; the softmax and the sums are float32.

    Args:
        hidden: (N, D).
        weight: (V, D).
        target: (N,) int64 row of ``weight``.
    """
    kind = hidden.device.type
    bf16 = torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _CrossEntropy.apply(hidden.float(), weight, target, bf16)  # type: ignore[no-untyped-call]
        return loss


def sampled_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, negatives: Tensor, log_expected: Tensor
) -> Tensor:
    """Return the mean of -log softmax over a target and sampled negatives.

    The sum over the catalogue is estimated without bias from draws with replacement: each draw is
    divided by how often it is expected (the logQ correction, Bengio & Senecal 2008; Yi et al.
    2019). The target is always there, so it is not corrected, and draws that hit it are left out.

    Args:
        hidden: (N, D).
        weight: (V, D).
        target: (N,) int64 row of ``weight``.
        negatives: (S,) int64 rows of ``weight``, shared by all targets.
        log_expected: (S,) log of S times each draw's probability.
    """
    own = (hidden * weight[target]).sum(1).float()
    others = (hidden @ weight[negatives].T).float() - log_expected  # (N, S)
    others = others.masked_fill(negatives == target.unsqueeze(1), -torch.inf)
    return (torch.logaddexp(own, others.logsumexp(1)) - own).mean()
