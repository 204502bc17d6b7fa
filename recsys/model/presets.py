"""Named models with their training."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from recsys.errors import ConfigurationError
from recsys.model.config import (
    RESEARCH_FIELDS,
    ModelConfig,
    TrainingConfig,
    converted,
    json_schema,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Preset:
    """A model and how it is trained.

    Attributes:
        model: the network and its diffusion.
        training: how it is fitted.
        auto_fields: fields of ``model`` that `fit_to_data` sets when the data is known.

    Raises:
        ConfigurationError: padding can't be scored among sampled negatives.
    """

    model: ModelConfig
    training: TrainingConfig
    auto_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.model.padding == "attended" and self.training.negatives:
            raise ConfigurationError("padding = attended goes with negatives = 0")


# Hyperparameters as published: arXiv 2304.00686 (diffurec) and arXiv 2410.19429 (diffurecsys). What
# no paper states and their code has otherwise is ours: item embeddings start at init_std = .02, not
# 1, and dropout is where a block adds to its input, not within attention and feed-forward layers.
_DIFFUREC = Preset(
    ModelConfig(
        objective="prefix",
        approximator="additive",
        blocks=4,
        max_length=50,
        positions="none",
    ),
    TrainingConfig(
        epochs=500,
        batch_size=512,
        decay="step",
        decay_every=100,
        validate_every=20,
        patience=5,
    ),
)
_DIFFURECSYS_V1 = Preset(
    replace(_DIFFUREC.model, approximator="cross-attention", max_length=100, activation="relu"),
    TrainingConfig(
        epochs=41,
        batch_size=1024,
        batch_tokens=1024 * 100,
        weight_decay=1e-4,
        decay="step",
        decay_every=30,
        validate_every=8,
        patience=3,
    ),
)

_BEST = Preset(
    ModelConfig(
        objective="causal",
        approximator="additive",
        width=256,
        blocks=2,
        max_length=100,
        positions="reversed",
        item_dropout=0.15,
        similarity="cosine",
        repeat_bias="learned",
        steps=1,
    ),
    TrainingConfig(epochs=40, batch_size=2048, average=100, patience=5),
    auto_fields=("dropout", "embedding_dropout"),
)

PRESETS: Mapping[str, Preset] = {
    "best": _BEST,
    # The network of `best` without diffusion: SASRec (Kang & McAuley 2018), full cross-entropy.
    "sasrec": replace(_BEST, model=replace(_BEST.model, approximator="none", repeat_bias="none")),
    "diffurec": _DIFFUREC,
    "diffurecsys-v1": _DIFFURECSYS_V1,
    # The defects of the authors' newest code: of its four blocks, which all read the same input,
    # the last one; padding attended to and scored; the key softmax over heads; no offset noise.
    # Left out: that cross-attention shares its normalisation with the block's self-attention, and
    # that what it returns at padding is -1e9.
    "released": Preset(
        replace(
            _DIFFURECSYS_V1.model,
            approximator="headwise",
            padding="attended",
            width=256,
            blocks=1,
            activation="gelu",
        ),
        replace(_DIFFURECSYS_V1.training, batch_size=512),
    ),
    "diffurecsys": replace(_DIFFURECSYS_V1, model=replace(_DIFFURECSYS_V1.model, offset="mean")),
}


def resolve(name: str, overrides: Mapping[str, Any]) -> Preset:
    """Return a preset with some fields changed; strings such as "0.3" become numbers.

    Raises:
        ConfigurationError: no such preset or field, or a value that the field does not take.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    changed: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
    for field, value in overrides.items():
        for part, config in (("model", ModelConfig), ("training", TrainingConfig)):
            if field in {allowed.name for allowed in fields(config)}:
                changed[part][field] = converted(config, field, value)
                break
        else:
            names = [field.name for kind in (ModelConfig, TrainingConfig) for field in fields(kind)]
            raise ConfigurationError(f"no field {field!r}; there are {', '.join(sorted(names))}")
    if "timesteps" in changed["model"] and "steps" not in changed["model"]:
        steps = min(preset.model.steps, changed["model"]["timesteps"])
        changed["model"]["steps"] = steps
    return Preset(
        replace(preset.model, **changed["model"]),
        replace(preset.training, **changed["training"]),
        tuple(field for field in preset.auto_fields if field not in changed["model"]),
    )


def override_schema() -> dict[str, dict[str, Any]]:
    """Return field -> the JSON Schema of what a preset may be changed by; for experiments last."""
    best = PRESETS["best"]
    properties = {**json_schema(ModelConfig), **json_schema(TrainingConfig)}
    for name, schema in properties.items():
        part = best.model if hasattr(best.model, name) else best.training
        value = "set from the data" if name in best.auto_fields else getattr(part, name)
        schema["description"] += f" In the preset best: {value}."
    first = sorted(properties, key=lambda name: name in RESEARCH_FIELDS)
    return {name: properties[name] for name in first}


def fit_to_data(preset: Preset, targets_per_item: float) -> Preset:
    """Return a preset with its ``auto_fields`` set.

    Dropout falls from .5 to .2 as an item's training targets rise from 10 to 250: what is rarely
    seen is soon learnt by heart. docs/experiment-log.md has the trials that this comes from.
    """
    scarcity = 1 - math.log(max(targets_per_item, 1) / 10) / math.log(250 / 10)
    rate = round(0.2 + 0.3 * min(max(scarcity, 0), 1), 3)
    changed: dict[str, Any] = dict.fromkeys(preset.auto_fields, rate)
    return Preset(replace(preset.model, **changed), preset.training)
