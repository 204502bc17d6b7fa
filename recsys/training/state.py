"""Everything that a training needs to go on: one record, which can be saved between two epochs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recsys.model.recommender import Recommender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from recsys.model.config import ModelConfig, TrainingConfig


@dataclass(frozen=True)
class EpochLog:
    """What one epoch gave.

    Attributes:
        epoch: counted from 1.
        loss: mean over the epoch's gradient steps.
        validation: the validation metric after it; None where nothing was validated.
        learning_rate: of Adam, after the warm-up.
        seconds: of training alone.
        targets_per_second: training targets over ``seconds``.
    """

    epoch: int
    loss: float
    validation: float | None
    learning_rate: float
    seconds: float
    targets_per_second: float


@dataclass
class TrainingState:
    """A training between two gradient steps.

    Attributes:
        model: the weights that the gradient moves.
        average: moving average of the weights; None where the weights themselves are validated.
        optimizer: Adam with its moments.
        order: draws the order of the training rows.
        generator: draws noise, dropout and negatives, on the model's device.
        learning_rate: as the schedule has it now.
        epoch: epochs that have ended.
        epoch_steps: gradient steps taken in the epoch that runs; 0 between two epochs.
        gradient_steps: gradient steps taken in all.
        best: the best validation metric so far.
        best_epoch: its epoch; the last one where nothing is validated.
        best_weights: its weights.
        stale_validations: validations in a row without a new best.
        log: one entry per epoch that has ended.
    """

    model: Recommender
    average: AveragedModel | None
    optimizer: torch.optim.Adam
    order: np.random.Generator
    generator: torch.Generator
    learning_rate: float
    best_weights: dict[str, Tensor]
    epoch: int = 0
    epoch_steps: int = 0
    gradient_steps: int = 0
    best: float = -float("inf")
    best_epoch: int = 0
    stale_validations: int = 0
    log: list[EpochLog] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        model_config: ModelConfig,
        config: TrainingConfig,
        n_items: int,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
    ) -> TrainingState:
        """Return the state before the first gradient step; ``seed`` decides every draw."""
        model = Recommender(model_config, n_items, torch.Generator().manual_seed(seed)).to(device)
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        average = None
        if config.average:
            decay = 1 - 1 / min(config.average, steps_per_epoch)
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        return cls(
            model=model,
            average=average,
            optimizer=optimizer,
            order=np.random.default_rng(seed),
            generator=torch.Generator(device).manual_seed(seed),
            learning_rate=config.learning_rate,
            best_weights=_copy_of_weights(model),
        )

    @property
    def output(self) -> Recommender:
        """The model that is validated and returned: the average where there is one."""
        return cast("Recommender", self.average.module) if self.average else self.model

    def keep_best(self, validation: float) -> None:
        """Compare a validation metric with the best so far, and remember the better weights."""
        if validation > self.best:
            self.best, self.best_epoch = validation, self.epoch
            self.best_weights = _copy_of_weights(self.output)
            self.stale_validations = 0
        else:
            self.stale_validations += 1

    def restore_best(self) -> None:
        """Go back to the best weights so far; Adam's moments stay."""
        self.model.load_state_dict(self.best_weights)
        self.output.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and plain containers, from which `load_state_dict` goes on.

        Only between two epochs: the order of an epoch that runs is not a part of it. Tensors are
        the training's own, not copies.
        """
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.bit_generator.state,
            "generator": self.generator.get_state(),
            "best_weights": self.best_weights,
            "log": [asdict(entry) for entry in self.log],
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, for the same data, preset, seed and device."""
        self.model.load_state_dict(saved["model"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.order.bit_generator.state = saved["order"]
        self.generator.set_state(saved["generator"])
        self.best_weights = dict(saved["best_weights"])
        self.log = [EpochLog(**entry) for entry in saved["log"]]
        for name in _NUMBERS:
            setattr(self, name, saved[name])


_NUMBERS = (
    "learning_rate",
    "epoch",
    "gradient_steps",
    "best",
    "best_epoch",
    "stale_validations",
)


def _copy_of_weights(model: Recommender) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}
