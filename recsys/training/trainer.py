"""The training loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recsys.errors import ConfigurationError, GateError
from recsys.model.presets import fit_to_data
from recsys.progress import Progress, silent, throttled
from recsys.training.batches import batches, split_into_steps, training_rows
from recsys.training.negatives import Negatives
from recsys.training.state import EpochLog, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from recsys.histories import Histories
    from recsys.model.config import TrainingConfig
    from recsys.model.inputs import Batch
    from recsys.model.presets import Preset
    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime
    from recsys.training.batches import Rows


@dataclass(frozen=True)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        model: with the weights of the best epoch.
        best_epoch: counted from 1; the last one where nothing was validated.
        log: one entry per epoch.
        seconds: wall time of the fit, validation included.
    """

    model: Recommender
    best_epoch: int
    log: list[EpochLog]
    seconds: float


def fit(
    train: Histories,
    n_items: int,
    preset: Preset,
    *,
    seed: int,
    runtime: Runtime,
    validate: Callable[[Recommender], float] | None,
    epochs: int | None = None,
    progress: Progress = silent,
    resume: Mapping[str, Any] | None = None,
    after_step: Callable[[TrainingState], None] = lambda _: None,
    initial: Mapping[str, Tensor] | None = None,
) -> FitResult:
    """Train a model.

    The same arguments on the same machine give the same weights: with the same number of threads
    on a CPU bit by bit, otherwise as far as sums of floats do not depend on their order.

    Args:
        train: histories over items 1..``n_items``; those with one item bring no target.
        n_items: V.
        preset: the model and its training.
        seed: of weights, order, noise and dropout.
        runtime: device, threads and precision.
        validate: a metric of the model so far, larger is better; with it, training stops when
            nothing improves any more, and the best weights are kept.
        epochs: most epochs; the preset's when None.
        progress: called as training goes on.
        resume: `TrainingState.state_dict` of a training with the same arguments; this one goes on
            from there, and gives what that one would have given.
        after_step: called with the state after each gradient step, and after each validation.
        initial: the weights to start with, of all parameters; drawn by the seed when None.

    Raises:
        ConfigurationError: ``epochs`` is below 1.
        GateError: there is nothing to train on, or training diverged.
    """
    began = time.perf_counter()
    epochs = preset.training.epochs if epochs is None else epochs
    if epochs < 1:
        raise ConfigurationError(f"epochs = {epochs} is not allowed; it must be 1 or more")
    task = _Task.of(train, n_items, preset, epochs, seed, runtime, progress, after_step)
    state = task.start(seed, initial)
    if resume is not None:
        state.load_state_dict(resume)

    while state.epoch < epochs and state.stale_validations < preset.training.patience:
        loss, learning_rate, seconds = _train_epoch(task, state)
        validation = _validate(task, state, validate)
        targets_per_second = task.rows.targets / seconds
        state.log.append(
            EpochLog(state.epoch, loss, validation, learning_rate, seconds, targets_per_second)
        )
        after_step(state)

    if validate is not None:
        state.output.load_state_dict(state.best_weights)
    task.tell(state)
    return FitResult(state.output, state.best_epoch, state.log, time.perf_counter() - began)


@dataclass(frozen=True)
class _Task:
    """What a training never changes.

    Attributes:
        rows: what is learnt from.
        n_items: V.
        preset: fitted to the data.
        epochs: most epochs.
        padded_to: cells of a line of a batch that holds one history alone; None where they share.
        steps_per_epoch: about how many gradient steps an epoch takes.
        negatives: None where the whole catalogue is scored.
        runtime: device, threads and precision.
        progress: called as training goes on.
        after_step: called with the state between two gradient steps.
    """

    rows: Rows
    n_items: int
    preset: Preset
    epochs: int
    padded_to: int | None
    steps_per_epoch: int
    negatives: Negatives | None
    runtime: Runtime
    progress: Progress
    after_step: Callable[[TrainingState], None]

    @classmethod
    def of(
        cls,
        train: Histories,
        n_items: int,
        preset: Preset,
        epochs: int,
        seed: int,
        runtime: Runtime,
        progress: Progress,
        after_step: Callable[[TrainingState], None],
    ) -> _Task:
        model, config = preset.model, preset.training
        rows = training_rows(train, model.objective, model.max_length)
        if not len(rows):
            raise GateError("there is nothing to train on: no user has two items or more")
        padded_to = model.max_length if model.padding == "attended" else None
        limits = config.batch_size, config.batch_tokens
        negatives = None
        if config.negatives:
            negatives = Negatives.of(train, n_items, config.negatives, runtime.torch_device)
        steps = split_into_steps(rows, *limits, np.random.default_rng(seed), padded_to)
        return cls(
            rows=rows,
            n_items=n_items,
            preset=fit_to_data(preset, rows.targets / n_items),
            epochs=epochs,
            padded_to=padded_to,
            steps_per_epoch=len(steps),
            negatives=negatives,
            runtime=runtime,
            progress=throttled(progress),
            after_step=after_step,
        )

    @property
    def config(self) -> TrainingConfig:
        return self.preset.training

    def start(self, seed: int, initial: Mapping[str, Tensor] | None) -> TrainingState:
        return TrainingState.start(
            self.preset.model,
            self.config,
            self.n_items,
            self.steps_per_epoch,
            seed,
            self.runtime.torch_device,
            initial,
        )

    def tell(self, state: TrainingState) -> None:
        """Report progress; a training that stopped early has reached its end as well."""
        total = self.epochs * self.steps_per_epoch
        done = total
        if state.epoch_steps:
            done = min(state.epoch * self.steps_per_epoch + state.epoch_steps, total)
        self.progress("training", done, total, _note(state.log))


def _train_epoch(task: _Task, state: TrainingState) -> tuple[float, float, float]:
    """Go through all rows once; return the mean loss, the learning rate and the seconds.

    Of an epoch that is resumed, the steps that were taken are left out.
    """
    began, config = time.perf_counter() - state.epoch_seconds, task.config
    is_new = not state.epoch_steps
    if is_new and config.decay == "step" and state.epoch and state.epoch % config.decay_every == 0:
        state.learning_rate *= config.decay_factor
    state.epoch_order = state.order.bit_generator.state
    for batch in batches(
        task.rows,
        config.batch_size,
        config.batch_tokens,
        state.order,
        with_seen=state.model.repeat_bias is not None,
        padded_to=task.padded_to,
        skip=state.epoch_steps,
    ):
        state.epoch_losses.append(_gradient_step(task, state, batch))
        state.epoch_seconds = time.perf_counter() - began
        task.tell(state)
        task.after_step(state)
    loss, seconds = float(torch.stack(state.epoch_losses).mean()), time.perf_counter() - began
    state.epoch += 1
    state.epoch_steps, state.epoch_losses, state.epoch_seconds = 0, [], 0.0
    if not np.isfinite(loss):
        raise GateError(
            f"training diverged in epoch {state.epoch}: the loss is {loss}; try a lower "
            f"learning_rate than {config.learning_rate} or set clip_norm"
        )
    return loss, state.learning_rate, seconds


def _gradient_step(task: _Task, state: TrainingState, batch: Batch) -> Tensor:
    """Move the weights once; return the loss, detached, so that nothing waits for it."""
    config, model, optimizer = task.config, state.model, state.optimizer
    state.gradient_steps += 1
    state.epoch_steps += 1
    for group in optimizer.param_groups:
        warmup = min(1.0, state.gradient_steps / max(1, config.warmup))
        group["lr"] = state.learning_rate * warmup
    optimizer.zero_grad(set_to_none=True)
    with task.runtime.applied():
        negatives = task.negatives.draw(state.generator) if task.negatives else None
        loss = model.loss(batch.to(task.runtime.torch_device), state.generator, negatives)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        if state.average:
            state.average.update_parameters(model)
    return loss.detach()


def _validate(
    task: _Task, state: TrainingState, validate: Callable[[Recommender], float] | None
) -> float | None:
    """Validate after an epoch where it is time to, and act on it; return the metric."""
    config = task.config
    if validate is None:
        state.best_epoch = state.epoch
        return None
    if state.epoch % config.validate_every and state.epoch < task.epochs:
        return None
    metric = validate(state.output)
    state.keep_best(metric)
    if _at_plateau(config, state.stale_validations):
        state.learning_rate *= config.decay_factor
        state.restore_best()
    return metric


def _at_plateau(config: TrainingConfig, stale_validations: int) -> bool:
    """Whether the learning rate falls now; at the end of patience, training stops instead."""
    return (
        config.decay == "plateau"
        and 0 < stale_validations < config.patience
        and stale_validations % config.decay_every == 0
    )


def _note(log: list[EpochLog]) -> str:
    if not log:
        return "epoch 1"
    validations = [entry.validation for entry in log if entry.validation is not None]
    if validations:
        return f"epoch {log[-1].epoch}, best validation {max(validations):.4f}"
    return f"epoch {log[-1].epoch}, loss {log[-1].loss:.3f}"
