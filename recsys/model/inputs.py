"""What the network reads: a batch of training, the noise of an inference run, places of a row.

Letters of shapes are those of `recsys.model.recommender`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.model.config import ModelConfig
    from recsys.model.loss import Seen


@dataclass(frozen=True)
class Batch:
    """Histories of one training step, several to a line of L cells, each in cells of its own.

    Attributes:
        items: (B, L) int64, 1..V; 0 is an empty cell.
        targets: (B, L) int64, what is to be predicted there: the next item at every position
            (causal), or at a history's newest item alone (prefix); 0 is nothing.
        steps_to_end: (B, L) int64, how many items of the same history follow; 0 in an empty cell.
        target_cells: (M,) int64, ascending, the cells that have a target, counted through all B *
            L; it comes with the batch, since a GPU that is asked for it makes the host wait.
        seen: (S,) int64 target, ascending, counted through the cells that have one, and (S,) int64
            item of what the user had before it, once each; None where the model does not ask.
    """

    items: Tensor
    targets: Tensor
    steps_to_end: Tensor
    target_cells: Tensor
    seen: Seen | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            self.items.to(device),
            self.targets.to(device),
            self.steps_to_end.to(device),
            self.target_cells.to(device),
            self.seen and (self.seen[0].to(device), self.seen[1].to(device)),
        )


@dataclass(frozen=True)
class InferenceNoise:
    """All noise of one inference run, for one row: common random numbers for every user.

    A user's list then does not depend on who else is scored beside them, batch of one equals batch
    of many, two users with one history get one list, and drawing costs nothing. Positions are
    counted from the right end of a history: 0 is its newest item.

    Attributes:
        start: (D,) x_T.
        reverse: (steps, D) of the reverse steps.
        weight: (L, D) lambda of each position.
        context_step: (L,) int64, step at which the next item of an older position is noised
            (causal).
        context_noise: (L, D) its noise (causal).
    """

    start: Tensor
    reverse: Tensor
    weight: Tensor
    context_step: Tensor
    context_noise: Tensor

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        steps: int,
        seed: int,
        device: torch.device,
        delta: float | None = None,
    ) -> InferenceNoise:
        """Draw on the CPU, so that every device sees the same numbers.

        They are not those that a model of the same seed started from: x_T would be an item. All but
        ``reverse`` is the same for any number of steps. With ``delta``, lambda is N(delta, delta)
        in place of what the model was trained with; at 0 the network reads the history alone.
        """
        key = np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        length, width = config.max_length, config.width
        delta = config.delta if delta is None else delta
        weight = delta + delta * torch.randn(length, width, generator=generator)
        start = torch.randn(width, generator=generator)
        context_step = torch.randint(1, config.timesteps + 1, (length,), generator=generator)
        context_noise = torch.randn(length, width, generator=generator)
        reverse = torch.randn(steps, width, generator=generator)
        noise = (start, reverse, weight, context_step, context_noise)
        return cls(*(part.to(device) for part in noise))


def offsets_from_right(items: Tensor) -> Tensor:
    """Return (B, L) int64: 0 at a row's newest item, 1 before it; 0 at padding."""
    lengths = (items > 0).sum(1, keepdim=True)
    position = torch.arange(items.shape[1], device=items.device)
    return (lengths - 1 - position).clamp(min=0)


def newest_cells(items: Tensor) -> Tensor:
    """Return (B,) int64: each row's newest item, counted through all B * L cells."""
    first = torch.arange(len(items), device=items.device) * items.shape[1]
    return first + (items > 0).sum(1) - 1
