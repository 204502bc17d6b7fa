"""What the network reads: a batch of training, and the noise of an inference run.

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
    def of(cls, config: ModelConfig, steps: int, seed: int, device: torch.device) -> InferenceNoise:
        """Draw on the CPU, so that every device sees the same numbers.

        They are not those that a model of the same seed started from: x_T would be an item.
        """
        key = np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        length, width = config.max_length, config.width
        weight = config.delta + config.delta * torch.randn(length, width, generator=generator)
        start = torch.randn(width, generator=generator)
        context_step = torch.randint(1, config.timesteps + 1, (length,), generator=generator)
        context_noise = torch.randn(length, width, generator=generator)
        reverse = torch.randn(steps, width, generator=generator)
        noise = (start, reverse, weight, context_step, context_noise)
        return cls(*(part.to(device) for part in noise))
