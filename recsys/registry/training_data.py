"""What a training learns from and is judged by: a version of `interactions`, split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.errors import GateError
from recsys.evaluation.splits import (
    TESTED_FROM,
    VALIDATED_FROM,
    SeenWindow,
    leave_one_out,
    reindex_by_train_popularity,
    temporal,
)
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.packing import interactions_before
from recsys.lake.roles import Roles
from recsys.registry.comparison import Judges
from recsys.registry.warm_start import initial_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from recsys.evaluation.splits import Split
    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.registry.models import Model
    from recsys.registry.recipe import Recipe
    from recsys.settings import Events, Settings


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from and judged by.

    Attributes:
        packed: all histories.
        split: the same, with what is held out.
        judges: the users whose validation items decide.
        initial: the weights that a training starts with; None where it draws them.
    """

    packed: Packed
    split: Split
    judges: Judges
    initial: Mapping[str, Tensor] | None

    @property
    def n_items(self) -> int:
        """V."""
        return len(self.packed.items)


def load_training_data(
    lake: Lake, settings: Settings, recipe: Recipe, start: Model | None
) -> TrainingData:
    """Return the interactions of a recipe's version, and what is learnt from and judged by.

    With ``start``, also the weights that a training starts with.

    Raises:
        GateError: nobody has enough interactions to judge by.
    """
    with open_duckdb(settings) as con:
        roles = Roles.of(recipe.events)
        packed = load_histories(lake, con, recipe.interactions_version, roles=roles)
        divide = partial(leave_one_out, window=_window(packed, recipe.events))
        if recipe.split == "temporal":
            lake.view(con, columns.INTERACTIONS, recipe.interactions_version)
            validation, test = interactions_before(con, VALIDATED_FROM, TESTED_FROM)
            divide = partial(temporal, before_validation=validation, before_test=test)
    packed, split = reindex_by_train_popularity(packed, divide)
    if not len(split.validation):
        raise GateError(_why_too_little_data(packed, recipe))
    users = packed.users.filter(pa.array(split.is_validated))
    initial = initial_weights(start, split, packed.items, recipe, settings) if start else None
    return TrainingData(packed, split, Judges.of(split, users, recipe.protocol), initial)


def _window(packed: Packed, events: Events) -> SeenWindow | None:
    if packed.seconds is None or events.seen_window is None:
        return None
    return SeenWindow(packed.seconds, events.seen_window.total_seconds())


def _why_too_little_data(packed: Packed, recipe: Recipe) -> str:
    events = recipe.events
    if recipe.split == "temporal":
        return (
            f"there is too little data to train: none of {len(packed.histories):,} users has an "
            f"interaction among the first {VALIDATED_FROM:.0%} and one in the time after them; "
            "popularity serves until there are more. Timestamps that are not those of the events "
            'ask for training.split = "leave-one-out"'
        )
    targets = int(packed.target_counts.sum())
    if events.is_set and not targets:
        return (
            f"there is nothing to learn from: of {int(packed.counts.sum()):,} interactions, none "
            "is a target by [events]; compare targets and min_value with the columns event and "
            "value of `interactions`"
        )
    wanted = "an interaction and two later targets" if events.is_set else "three interactions"
    return (
        f"there is too little data to train: none of {len(packed.histories):,} users has {wanted} "
        "(one to learn from, one to validate, one to test); popularity serves until there are more"
    )
