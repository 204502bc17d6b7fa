"""The diffusion process: noising a target, offset noise, and the way back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from recsys.errors import ConfigurationError
from recsys.model.schedule import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class Diffusion(nn.Module):
    """A noise schedule with the constants of the forward and the reverse process.

    Steps are numbered 1..T; index 0 of ``alpha_bar`` is the clean target.
    """

    alpha_bar: Tensor

    def __init__(self, schedule: str, timesteps: int) -> None:
        super().__init__()
        after_steps = torch.cumprod(1 - SCHEDULES[schedule](timesteps), dim=0)
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), after_steps])
        self.timesteps = timesteps
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)  # (T + 1,)

    def q_sample(self, x_0: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Noise a target (Eq. 20): sqrt(alpha-bar_s) x_0 + sqrt(1 - alpha-bar_s) noise.

        Args:
            x_0: (..., D).
            step: (...) int64, 1..T.
            noise: broadcastable to (..., D).
        """
        alpha_bar = self.alpha_bar[step].unsqueeze(-1)  # (..., 1)
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise

    def respaced(self, steps: int) -> list[int]:
        """Return ``steps`` of the steps 1..T, evenly spread, T among them."""
        if not 1 <= steps <= self.timesteps:
            raise ConfigurationError(
                f"steps = {steps} is not allowed; this model has 1..{self.timesteps} reverse steps"
            )
        return [-(-nth * self.timesteps // steps) for nth in range(1, steps + 1)]


def posterior(
    x_0: Tensor, x_s: Tensor, alpha_bar: Tensor | float, alpha_bar_before: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Return mean (Eq. 23) and variance of q(x_before | x_s, x_0).

    The two moments need not be neighbours: with alpha = alpha-bar_s / alpha-bar_before this is
    the posterior of the respaced process (Nichol & Dhariwal 2021, Eq. 19).

    Args:
        x_0: (..., D) the (predicted) clean target.
        x_s: (..., D) the noised one.
        alpha_bar: at the step of ``x_s``.
        alpha_bar_before: at the earlier step; 1 at the clean target.
    """
    now = torch.as_tensor(alpha_bar, dtype=torch.float64)
    before = torch.as_tensor(alpha_bar_before, dtype=torch.float64)
    alpha = now / before
    weight_0 = before.sqrt() * (1 - alpha) / (1 - now)
    weight_s = alpha.sqrt() * (1 - before) / (1 - now)
    variance = (1 - alpha) * (1 - before) / (1 - now)
    mean = weight_0.to(x_0) * x_0 + weight_s.to(x_s) * x_s
    return mean, variance.to(x_0)


def reverse(
    approximate: Callable[[Tensor, int], Tensor],
    x: Tensor,
    noise: Tensor,
    diffusion: Diffusion,
    steps: int,
    callback: Callable[[int, Tensor, Tensor], None] = lambda *_: None,
) -> Tensor:
    """Run the reverse process (Alg. 2) in ``steps`` of the T steps; return the last x_0 (B, D).

    Args:
        approximate: x_s (B, D) and its step s to the predicted x_0 (B, D).
        x: (B, D) standard normal, x_T.
        noise: (steps, D) standard normal; the draw of the last step is not used.
        diffusion: the process that the approximator was trained on.
        steps: how many reverse steps.
        callback: called at each step with the step s, x_s and the predicted x_0, both (B, D).
    """
    timesteps = [0, *diffusion.respaced(steps)]
    x_0 = x
    for nth in range(steps, 0, -1):
        step, before = timesteps[nth], timesteps[nth - 1]
        x_0 = approximate(x, step)
        callback(step, x, x_0)
        if nth == 1:
            break  # the posterior at the clean target is the prediction itself, without noise
        mean, variance = posterior(x_0, x, diffusion.alpha_bar[step], diffusion.alpha_bar[before])
        x = mean + variance.sqrt() * noise[nth - 1]
    return x_0


def standard_normal(shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:  # noqa: ARG001 - the signature of every form
    """Draw N(0, I): no offset."""
    return torch.randn(shape, generator=generator, device=generator.device)


def offset_mean(shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:
    """Draw N(scale * delta_c, I), Eq. 17, with delta_c = 1, which the paper never states."""
    return standard_normal(shape, generator, scale) + scale


def offset_iid(shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:
    """Draw N(0, I) plus an independent scale * N(0, I), as the authors' released history does."""
    return standard_normal(shape, generator, scale).add_(
        standard_normal(shape, generator, scale), alpha=scale
    )


def offset_shared(shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:
    """Draw N(0, I) plus one scale * N(0, 1) shared by all D features, as for images."""
    return standard_normal(shape, generator, scale).add_(
        standard_normal((*shape[:-1], 1), generator, scale), alpha=scale
    )


OFFSETS: Mapping[str, Callable[[tuple[int, ...], torch.Generator, float], Tensor]] = {
    "none": standard_normal,
    "mean": offset_mean,
    "iid": offset_iid,
    "shared": offset_shared,
}


class StepEmbedding(nn.Module):
    """d_s of every step: sinusoidal(s * 1000 / T), then Linear, SiLU, Linear."""

    waves: Tensor

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        step = torch.arange(timesteps + 1, dtype=torch.float64) * 1000 / timesteps
        rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
        angles = step[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).float()
        self.register_buffer("waves", waves, persistent=False)  # (T + 1, D)
        self.up_proj = nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)

    def forward(self) -> Tensor:
        """Return (T + 1, D), to be indexed by step; there are few steps and many rows."""
        table: Tensor = self.down_proj(nn.functional.silu(self.up_proj(self.waves)))
        return table
