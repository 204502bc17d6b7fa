"""Everything that a training needs to go on: one record, saved between any two gradient steps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recsys.errors import DamagedError
from recsys.model.recommender import Recommender

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
        epoch_order: ``order`` as it was when that epoch started.
        epoch_losses: the loss of each of its steps.
        epoch_seconds: time that it took before it was resumed.
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
    epoch_order: Mapping[str, Any] = field(default_factory=dict)
    epoch_losses: list[Tensor] = field(default_factory=list)
    epoch_seconds: float = 0.0

    @classmethod
    def start(
        cls,
        model_config: ModelConfig,
        config: TrainingConfig,
        n_items: int,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
        initial: Mapping[str, Tensor] | None = None,
    ) -> TrainingState:
        """Return the state before the first gradient step; ``seed`` decides every draw.

        ``initial`` are weights in place of drawn ones.
        """
        model = Recommender(model_config, n_items, torch.Generator().manual_seed(seed)).to(device)
        if initial is not None:
            model.load_state_dict(initial)
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

        Tensors are the training's own, not copies.
        """
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict()["state"],
            "order": self.epoch_order if self.epoch_steps else self.order.bit_generator.state,
            "generator": self.generator.get_state(),
            "best_weights": self.best_weights,
            "log": [asdict(entry) for entry in self.log],
            "epoch_losses": self.epoch_losses,
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, for the same data, preset, seed and device."""
        self.model.load_state_dict(saved["model"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        moments = {int(parameter): values for parameter, values in saved["optimizer"].items()}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.order.bit_generator.state = saved["order"]
        self.generator.set_state(saved["generator"].cpu())
        device = self.generator.device
        self.best_weights = {name: part.to(device) for name, part in saved["best_weights"].items()}
        self.epoch_losses = [loss.to(device) for loss in saved["epoch_losses"]]
        self.log = [EpochLog(**entry) for entry in saved["log"]]
        for name in _NUMBERS:
            setattr(self, name, saved[name])


_NUMBERS = (
    "learning_rate",
    "epoch",
    "epoch_steps",
    "gradient_steps",
    "best",
    "best_epoch",
    "stale_validations",
    "epoch_seconds",
)
_TENSOR = "tensor:"
_KEY, _VALUES = "key", "values"


def save_state(state: TrainingState, file: Path, key: str) -> None:
    """Write a training's state: tensors as safetensors, all else as JSON in its header.

    Args:
        state: between two gradient steps.
        file: to be written.
        key: what `load_state` asks for: of the data, the settings and the code.

    Raises:
        OSError: the file can't be written.
    """
    from safetensors.torch import save_file  # here: the training itself runs without it

    tensors: dict[str, Tensor] = {}
    values = json.dumps(_without_tensors(state.state_dict(), _TENSOR, tensors))
    save_file(tensors, file, {_KEY: key, _VALUES: values})


def load_state(file: Path, key: str) -> dict[str, Any] | None:
    """Read what `save_state` wrote, for `TrainingState.load_state_dict`; None of another key.

    Raises:
        DamagedError: it is not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get(_KEY) != key:
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
            saved: dict[str, Any] = _with_tensors(json.loads(metadata[_VALUES]), tensors)
            return saved
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{file} is not the state of a training: {error}") from error


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value whose tensors are replaced by names, and collect them under these names."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return name
    if isinstance(value, dict):
        return {
            str(key): _without_tensors(part, f"{name}/{key}", tensors)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_without_tensors(part, f"{name}/{at}", tensors) for at, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value]
    if isinstance(value, dict):
        return {key: _with_tensors(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    return value


def _copy_of_weights(model: Recommender) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}
