"""The training loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recsys.errors import ConfigurationError, GateError
from recsys.model.presets import adapted
from recsys.model.recommender import Recommender
from recsys.progress import Progress, silent
from recsys.training.batches import batches, plan, training_rows
from recsys.training.negatives import Negatives

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recsys.histories import Histories
    from recsys.model.presets import Preset
    from recsys.model.runtime import Runtime

_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about.

    Attributes:
        model: with the weights of the best epoch.
        best_epoch: counted from 1; the last one where nothing was validated.
        log: one entry per epoch: epoch, loss, validation (None where not validated),
            learning_rate, seconds (of training alone), targets_per_second.
        seconds: wall time of the fit, validation included.
    """

    model: Recommender
    best_epoch: int
    log: list[dict[str, Any]]
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
) -> Fitted:
    """Train a model.

    The same arguments on the same machine give the same weights: on a CPU bit by bit, on a GPU as
    far as sums of floats do not depend on their order.

    Args:
        train: histories over items 1..``n_items``; those with one item bring no target.
        n_items: V.
        preset: the model and its training.
        seed: of weights, order, noise and dropout.
        runtime: device, threads and precision.
        validate: a figure of merit of the model so far, larger is better; with it, training stops
            when nothing improves any more, and the best weights are kept.
        epochs: most epochs; the preset's when None.
        progress: told as training goes on.

    Raises:
        ConfigurationError: ``epochs`` is below 1.
        GateError: there is nothing to train on, or training diverged.
    """
    began = time.perf_counter()
    config = preset.training
    epochs = config.epochs if epochs is None else epochs
    if epochs < 1:
        raise ConfigurationError(f"epochs = {epochs} is not allowed; it must be 1 or more")
    rows = training_rows(train, preset.model.objective, preset.model.max_length)
    if not len(rows):
        raise GateError("there is nothing to train on: no user has two items or more")

    preset = adapted(preset, rows.targets / n_items)
    device = runtime.torch_device
    order = np.random.default_rng(seed)
    model = Recommender(preset.model, n_items, torch.Generator().manual_seed(seed)).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    padded_to = preset.model.max_length if model.attends_padding else None
    limits = config.batch_size, config.batch_tokens
    per_epoch = len(plan(rows, *limits, np.random.default_rng(seed), padded_to))
    averaged, judged = None, model
    if config.average:
        kept = 1 - 1 / min(config.average, per_epoch)
        averaging = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
        averaged = AveragedModel(model, multi_avg_fn=averaging)
        judged = cast("Recommender", averaged.module)
    negatives = None
    if config.negatives:
        negatives = Negatives.of(train, n_items, config.negatives, device)

    log: list[dict[str, Any]] = []
    best, best_epoch, best_weights = -float("inf"), 0, _weights(judged)
    stale, rate, gradient_steps, told = 0, config.learning_rate, 0, 0.0
    for epoch in range(1, epochs + 1):
        epoch_began = time.perf_counter()
        if config.decay == "step" and epoch > 1 and (epoch - 1) % config.decay_every == 0:
            rate *= config.decay_factor
        losses: list[Tensor] = []
        for batch in batches(
            rows,
            *limits,
            order,
            with_seen=model.repeat_bias is not None,
            padded_to=padded_to,
        ):
            gradient_steps += 1
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, gradient_steps / max(1, config.warmup))
            optimizer.zero_grad(set_to_none=True)
            with runtime.applied():
                drawn = negatives.draw(generator) if negatives else None
                loss = model.loss(batch.to(device), generator, drawn)
                loss.backward()  # type: ignore[no-untyped-call]
            if config.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            if averaged:
                averaged.update_parameters(model)
            losses.append(loss.detach())
            if time.perf_counter() - told > _TELL_SECONDS:
                told = time.perf_counter()
                done = (epoch - 1) * per_epoch + len(losses)
                progress("training", min(done, epochs * per_epoch), epochs * per_epoch, _note(log))
        mean_loss = float(torch.stack(losses).mean())
        if not np.isfinite(mean_loss):
            raise GateError(
                f"training diverged in epoch {epoch}: the loss is {mean_loss}; try a lower "
                f"learning_rate than {config.learning_rate} or set clip_norm"
            )
        seconds = time.perf_counter() - epoch_began
        entry = {
            "epoch": epoch,
            "loss": mean_loss,
            "validation": None,
            "learning_rate": rate,
            "seconds": seconds,
            "targets_per_second": rows.targets / seconds,
        }
        log.append(entry)
        if validate is None:
            best_epoch = epoch
        elif epoch % config.validate_every == 0 or epoch == epochs:
            figure = entry["validation"] = validate(judged)
            if figure > best:
                best, best_epoch, best_weights, stale = figure, epoch, _weights(judged), 0
            else:
                stale += 1
            if stale >= config.patience:
                break
            if config.decay == "plateau" and stale and stale % config.decay_every == 0:
                rate *= config.decay_factor
                for each in (model, judged):
                    each.load_state_dict(best_weights)
    if validate is not None:
        judged.load_state_dict(best_weights)
    progress("training", epochs * per_epoch, epochs * per_epoch, _note(log))
    return Fitted(judged, best_epoch, log, time.perf_counter() - began)


def _weights(model: Recommender) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def _note(log: list[dict[str, Any]]) -> str:
    if not log:
        return "epoch 1"
    last = log[-1]
    known = [entry["validation"] for entry in log if entry["validation"] is not None]
    said = f"epoch {last['epoch']}, "
    return said + (f"best validation {max(known):.4f}" if known else f"loss {last['loss']:.3f}")
