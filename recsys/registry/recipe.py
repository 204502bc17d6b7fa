"""A recipe: all that decides what a training makes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.lake.schemas import as_json
from recsys.model.presets import resolve
from recsys.version import code_version

if TYPE_CHECKING:
    from recsys.evaluation.results import Protocol
    from recsys.lake.tables import Lake
    from recsys.model.presets import Preset
    from recsys.settings import Events, Settings, Splitting, Training


@dataclass(frozen=True)
class Recipe:
    """Data, settings and code of a training: the same recipe makes the same model.

    Attributes:
        preset_name: the named model and training that it starts from.
        preset: the same with the settings' overrides.
        epochs: most epochs; the preset's own when None.
        seed: of every random draw.
        split: what is held out, to judge by.
        protocol: whether lists are judged without the items that a user has had.
        served_steps: reverse steps of the lists that are judged; the preset's own when None.
        served_seed: seed of their reverse process.
        refit: whether the weights that serve learn from whole histories.
        events: what is learnt from and judged on, and what counts as had.
        interactions_version: version of `interactions`.
        code_version: the code that trains.
        starts_from: the model whose judged weights it goes on from; None: from scratch.
    """

    preset_name: str
    preset: Preset
    epochs: int | None
    seed: int
    split: Splitting
    protocol: Protocol
    served_steps: int | None
    served_seed: int
    refit: bool
    events: Events
    interactions_version: int
    code_version: str
    starts_from: str | None = None

    @property
    def model_id(self) -> str:
        """Key of `models`."""
        return "m-" + hashlib.sha256(as_json(self.as_dict()).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into the model's card and `models.config`."""
        return {
            "preset": self.preset_name,
            **asdict(self.preset),
            "epochs": self.epochs,
            "seed": self.seed,
            "split": self.split,
            "judged": self.protocol,
            "served_steps": self.served_steps,
            "served_seed": self.served_seed,
            "refit": self.refit,
            **self.events.as_dict(),
            "interactions_version": self.interactions_version,
            "code_version": self.code_version,
            "starts_from": self.starts_from,
        }


def resolve_recipe(lake: Lake, settings: Settings, training: Training) -> Recipe:
    """Return the recipe for the newest version of `interactions`.

    Raises:
        ConfigurationError: the preset, a field or a value does not exist, or the split knows
            nothing of [events].
        LakeError: the lake has no interactions, or can't be read.
    """
    preset = resolve(training.preset, training.overrides)
    if settings.recommending.steps:  # refused now rather than after the training
        replace(preset.model, steps=settings.recommending.steps)
    if training.split == "temporal" and settings.events.is_set:
        raise ConfigurationError(
            'training.split = "temporal" looks at every interaction, and [events] says that some '
            'are no targets: set training.split = "leave-one-out", or unset [events]'
        )
    return Recipe(
        preset_name=training.preset,
        preset=preset,
        epochs=training.epochs,
        seed=training.seed,
        split=training.split,
        protocol="unmasked" if settings.recommending.seen == "include" else "masked",
        served_steps=settings.recommending.steps,
        served_seed=settings.recommending.seed,
        refit=training.refit,
        events=settings.events,
        interactions_version=lake.version(columns.INTERACTIONS),
        code_version=code_version(),
    )
