"""Noise schedules: T betas each, in float64, from the first step to the last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

_LARGEST = 0.999


def truncated_linear(timesteps: int) -> Tensor:
    """Linear betas lifted by 0.01, so that the first step already hides something.

    As in DiffuRec (arXiv 2304.00686). With T = 32: 0.0131 to 0.635.
    """
    scale = 1000 / timesteps
    first, last = 1e-4 * scale + 0.01, 0.02 * scale + 0.01
    if last > 1:
        last = 0.001 * scale + 0.01
    return _line(first, last, timesteps)


def linear(timesteps: int) -> Tensor:
    """Linear betas of DDPM (Ho et al. 2020), rescaled from 1000 steps to T."""
    scale = 1000 / timesteps
    return _line(1e-4 * scale, 0.02 * scale, timesteps)


def cosine(timesteps: int) -> Tensor:
    """Betas of the squared-cosine alpha-bar (Nichol & Dhariwal 2021, Eq. 17)."""
    return _from_alpha_bar(
        torch.cos((_times(timesteps) + 0.008) / 1.008 * math.pi / 2).square(),
    )


def sqrt(timesteps: int) -> Tensor:
    """Betas of Diffusion-LM (Li et al. 2022): alpha-bar falls with the root of the step."""
    return _from_alpha_bar((1 - torch.sqrt(_times(timesteps) + 1e-4)).clamp(min=0))


def _times(timesteps: int) -> Tensor:
    return torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)


def _line(first: float, last: float, timesteps: int) -> Tensor:
    return torch.linspace(first, last, timesteps, dtype=torch.float64).clamp(max=_LARGEST)


def _from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=_LARGEST)


SCHEDULES: Mapping[str, Callable[[int], Tensor]] = {
    "truncated-linear": truncated_linear,
    "linear": linear,
    "cosine": cosine,
    "sqrt": sqrt,
}
