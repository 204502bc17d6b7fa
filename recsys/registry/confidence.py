"""How sure a model's lists are: fitted on users that early stopping has not seen, told on the test.

The users of the gate decide: neither the weights nor the choice of an epoch knows their validation
items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.evaluation.calibration import Calibration, CalibrationReport
from recsys.histories import HAD, INPUT
from recsys.model.runtime import Runtime
from recsys.model.scoring import top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recsys.evaluation.splits import HeldOut, Split
    from recsys.model.recommender import Recommender
    from recsys.registry.comparison import Judges
    from recsys.settings import Settings

_MOST_USERS = 50_000  # of the test


def calibrate(
    model: Recommender, split: Split, judges: Judges, settings: Settings
) -> dict[str, Any] | None:
    """Return what `models.config` keeps as ``confidence``; None where too few users were hit.

    It is the `Calibration` and, under ``test``, its `CalibrationReport` on test users.

    Args:
        model: as it was judged.
        split: of the histories of all users.
        judges: whose gate decides.
        settings: how a night makes lists, and how long they are.
    """
    calibration = Calibration.fit(*_lists(model, judges.gate, judges, settings))
    if calibration is None:
        return None
    test = split.test
    if len(test) > _MOST_USERS:
        drawn = np.random.default_rng(0).choice(len(test), _MOST_USERS, replace=False)
        test = test[np.sort(drawn)]
    share, lengths, hits = _lists(model, test, judges, settings)
    report = CalibrationReport.of(calibration(share, lengths), hits)
    return {**calibration.to_dict(), "k": settings.recommending.k, "test": report.to_dict()}


def _lists(
    model: Recommender, held_out: HeldOut, judges: Judges, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the model's own probability of each list, the history's length, and whether it hit."""
    held_out = held_out[held_out.history.of_role(INPUT).lengths > 0]
    inputs = held_out.history.of_role(INPUT)
    recommending = settings.recommending
    shares, hits = [], []
    for block in top_k(
        model,
        inputs,
        recommending.k,
        steps=recommending.steps,
        seed=recommending.seed,
        exclude_seen=judges.protocol == "masked",
        had=None if inputs.roles is None else held_out.history.of_role(HAD),
        runtime=Runtime(settings.device, settings.threads),
    ):
        target = held_out.target[block.start : block.start + len(block.items)]
        shares.append(np.exp(block.scores, dtype=np.float64).sum(axis=1))
        hits.append(((block.items == target[:, None]) & (target[:, None] > 0)).any(axis=1))
    return np.concatenate(shares), inputs.lengths, np.concatenate(hits)
