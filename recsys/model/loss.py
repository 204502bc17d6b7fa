"""Full-softmax cross-entropy without a batch x catalogue matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CELLS = 4_000_000
_SMALLEST = torch.finfo(torch.float32).tiny


class _CrossEntropy(torch.autograd.Function):
    """Loss and both gradients in one pass over chunks of rows that stay in cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, bf16: bool) -> Tensor:
        dtype = torch.bfloat16 if bf16 else torch.float32
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        grad_hidden = torch.empty_like(hidden, dtype=torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        loss = torch.zeros((), device=hidden.device)
        size = max(1, min(len(hidden), _CELLS // len(weight)))
        for rows, labels, into in zip(
            *(torch.split(each, size) for each in (low_hidden, target, grad_hidden)), strict=True
        ):
            slope = (rows @ low_weight.T).softmax(1, dtype=torch.float32)  # (C, V)
            label = labels.unsqueeze(1)
            likelihood = slope.gather(1, label)
            loss -= likelihood.clamp(min=_SMALLEST).log().sum()
            slope.scatter_(1, label, likelihood - 1)
            low = slope.to(dtype)
            into.copy_(low @ low_weight)
            grad_weight += low.T @ rows
        ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_weight)
        ctx.rows = len(hidden)
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0] / ctx.rows
        return grad_hidden * scale, grad_weight * scale, None, None


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
