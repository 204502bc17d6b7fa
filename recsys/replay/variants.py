"""Settings that are replayed side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast, get_args

from recsys.errors import ConfigurationError
from recsys.model.presets import resolve
from recsys.registry.policy import Train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.settings import Settings

_TRAIN = "train"
_SECTIONS = ("training.policy.", "training.", "recommending.")


@dataclass(frozen=True)
class Variant:
    """A name, the settings that its nights run with, and when they train.

    Attributes:
        name: what a person calls it.
        settings: of its nights.
        train: "policy", "always" or "never".
    """

    name: str
    settings: Settings
    train: Train

    @classmethod
    def read(cls, text: str, settings: Settings, common: Mapping[str, Any], train: Train) -> Self:
        """Return the variant of ``NAME[:FIELD=VALUE,...]``.

        Args:
            text: a name alone is as configured.
            settings: as configured.
            common: fields that are changed in all variants.
            train: when its nights train, unless the field ``train`` says so.

        Raises:
            ConfigurationError: a word is not a pair, or a field does not exist.
        """
        name, _, words = text.partition(":")
        changes = dict(common)
        for word in filter(None, words.split(",")):
            field, equals, value = word.partition("=")
            if not equals:
                raise ConfigurationError(f"{text!r} should read NAME:FIELD=VALUE,...")
            changes[field.strip()] = value
        chosen = changes.pop(_TRAIN, train)
        if not name.strip() or chosen not in get_args(Train):
            raise ConfigurationError(
                f"{text!r}: give a name, and train = {', '.join(get_args(Train))}"
            )
        changed = _changed(settings, changes)
        resolve(changed.training.preset, changed.training.overrides)  # refused now
        return cls(name.strip(), changed, cast("Train", chosen))

    def as_dict(self) -> dict[str, Any]:
        """Return what decides its nights, which JSON can carry."""
        names = {"training", "recommending", "rules", "events", "gate", "timezone"}
        return {"train": self.train, **self.settings.model_dump(mode="json", include=names)}


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with fields changed: of lists by name, others by section and name."""
    policy, training, lists = ({}, {}, {})  # type: dict[str, Any], dict[str, Any], dict[str, Any]
    for field, value in changes.items():
        section = next((one for one in _SECTIONS if field.startswith(one)), "recommending.")
        fields = {_SECTIONS[0]: policy, _SECTIONS[1]: training}.get(section, lists)
        fields[field.removeprefix(section)] = value
    changed = settings.training.with_fields(training)
    return settings.model_copy(
        update={
            "training": changed.changed({"policy": changed.policy.changed(policy)}),
            "recommending": settings.recommending.changed(lists),
        }
    )
