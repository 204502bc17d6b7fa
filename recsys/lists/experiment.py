"""Which model makes whose lists: the champion's, or those of an experiment for some of the users.

A hash of the experiment's name and of the user's id decides, so that a user stays in one group as
long as the experiment has its name and its share, however many users come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError
from recsys.evaluation.splits import user_hashes
from recsys.lists.ingredients import Ingredients
from recsys.registry.models import find_model, load_model

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.lists.editions import ListInputs
    from recsys.registry.models import Model, ModelRow
    from recsys.settings import Experiment, Settings

_HASHES = 2.0**64


@dataclass(frozen=True)
class Group:
    """Users whose lists one model makes.

    Attributes:
        model: None where popularity makes all.
        made_from: what their lists are made from.
        experiment: that decides who is in which group; None where everybody is in this one.
        is_other: whether these are the users of the experiment's model.
    """

    model: Model | None
    made_from: Ingredients
    experiment: Experiment | None = None
    is_other: bool = False

    @property
    def model_id(self) -> str | None:
        """Key of `models`."""
        return self.model.row.model_id if self.model else None

    def of(self, packed: Packed) -> Packed:
        """Return the histories of those users who are in this group."""
        if self.experiment is None:
            return packed
        is_in = in_experiment(packed.users, self.experiment)
        return packed.of_users(is_in if self.is_other else ~is_in)


def in_experiment(users: pa.Array, experiment: Experiment) -> NDArray[np.bool_]:
    """Return (U,) whether the other model makes each user's list."""
    hashes = user_hashes(users, f"experiment {experiment.name}")
    is_in: NDArray[np.bool_] = hashes < experiment.share * _HASHES
    return is_in


def groups_of(
    lake: Lake,
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    inputs: ListInputs,
    champion: ModelRow | None,
) -> list[Group]:
    """Return the groups of users of a night, one without an experiment.

    Raises:
        ConfigurationError: the experiment's model does not exist.
        GateError: there is nobody to serve, or no item may be shown.
        LakeError: the lake or a model can't be read, or a model can't serve.
    """
    experiment = inputs.experiment
    other = find_model(lake, experiment.model) if experiment else None
    if experiment and other is None:
        raise ConfigurationError(
            f"experiment.model {experiment.model!r} does not exist; `recsys models` lists them all"
        )
    groups = []
    for row in [champion, other] if experiment else [champion]:
        model = load_model(lake, row, settings.device) if row else None
        made_from = Ingredients.gather(
            lake, settings, con, inputs, model, with_histories=settings.scale.shards == 1
        )
        groups.append(Group(model, made_from, experiment, row is other))
    return groups
