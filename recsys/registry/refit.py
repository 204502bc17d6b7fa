"""The weights that serve: the recipe that passed the gate once more, on whole histories.

The judged weights have never learnt from anybody's two newest items, which decided on them. The
weights that serve have. No gate may judge by those: they know the answers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from recsys.errors import GateError
from recsys.histories import TARGET
from recsys.training.trainer import fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from recsys.evaluation.splits import Split
    from recsys.histories import Histories, Packed
    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime
    from recsys.progress import Progress
    from recsys.registry.recipe import Recipe

_log = logging.getLogger(__name__)


def refit(
    split: Split,
    packed: Packed,
    recipe: Recipe,
    best_epoch: int,
    runtime: Runtime,
    progress: Progress,
    initial: Mapping[str, Tensor] | None = None,
) -> tuple[Recommender, int] | None:
    """Train the recipe on whole histories, and return the model and its epochs.

    Args:
        split: what the judged weights learnt from.
        packed: the same users' histories, nothing left out.
        recipe: what passed the gate.
        best_epoch: the epoch of the judged weights.
        runtime: device, threads and precision.
        progress: called as training goes on.
        initial: the weights that the judged ones went on from; None where they did not.

    Returns:
        None where this training diverges: then the judged weights serve.
    """

    def report(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001 - its name is its own
        progress("training on whole histories", done, total, note)

    epochs = refit_epochs(best_epoch, split.train, packed.histories)
    try:
        fitted = fit(
            packed.histories,
            len(packed.items),
            recipe.preset,
            seed=recipe.seed,
            runtime=runtime,
            validate=None,
            epochs=epochs,
            progress=report,
            initial=initial,
        )
    except GateError as error:
        _log.warning("the judged weights serve, without the newest items: %s", error)
        return None
    return fitted.model, epochs


def refit_epochs(best_epoch: int, train: Histories, whole: Histories) -> int:
    """Return the epochs that take about as many gradient steps as the judged weights took."""
    targets = (_targets(part) for part in (train, whole))
    return max(1, round(best_epoch * next(targets) / next(targets)))


def _targets(histories: Histories) -> int:
    if histories.roles is not None:
        return max(1, int(histories.of_role(TARGET).lengths.sum()))
    return int(np.maximum(histories.lengths - 1, 0).sum())
