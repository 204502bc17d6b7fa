"""The result of a training, for a person, an artifact and `runs.outcome`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.registry.repeats import advice

if TYPE_CHECKING:
    from recsys.registry.models import ModelRow, Status


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        model_id: key of `models`.
        status: champion or rejected. A model that was trained before keeps its status, but one
            that was rejected is judged again, by today's tolerance and champion.
        why: the gate's reason.
        is_new: False where the same model had been trained before.
        interactions_version: version of `interactions` it learnt from.
        epochs: epochs that were run.
        validation_ndcg_10: of lists as they are served (see ``GATE_METRIC``), as all figures here.
        test_ndcg_10: on every user's last item, by the judged weights.
        test_hr_10: likewise.
        popularity_test_ndcg_10: popularity's, same users.
        popularity_test_hr_10: likewise.
        best_baseline: the baseline with the best validation NDCG@10; None in older rows.
        best_baseline_test_ndcg_10: its figure on the same test items.
        repeat_share: share of users' last items that they had had before; None in older rows.
        advice: what to set, by that share; None where nothing is to be changed.
        seconds: wall time.
    """

    model_id: str
    status: Status
    why: str
    is_new: bool
    interactions_version: int
    epochs: int
    validation_ndcg_10: float
    test_ndcg_10: float
    test_hr_10: float
    popularity_test_ndcg_10: float
    popularity_test_hr_10: float
    best_baseline: str | None
    best_baseline_test_ndcg_10: float | None
    repeat_share: float | None
    advice: str | None
    seconds: float

    @classmethod
    def of(cls, row: ModelRow, *, is_new: bool, seconds: float) -> TrainResult:
        """Return the result that a model's row tells of."""
        best = row.best_baseline()
        on_test = best[1].test.metrics(row.protocol) if best else None
        config = json.loads(row.config)
        repeats = config.get("repeat_share")
        return cls(
            model_id=row.model_id,
            status=row.status,
            why=row.why,
            is_new=is_new,
            interactions_version=row.interactions_version,
            epochs=config["epochs_run"],
            validation_ndcg_10=row.validation_ndcg_10,
            test_ndcg_10=row.test_ndcg_10,
            test_hr_10=row.test_hr_10,
            popularity_test_ndcg_10=row.popularity_test_ndcg_10,
            popularity_test_hr_10=row.popularity_test_hr_10,
            best_baseline=best[0] if best else None,
            best_baseline_test_ndcg_10=on_test["ndcg@10"] if on_test else None,
            repeat_share=repeats,
            advice=None if repeats is None else advice(repeats, row.protocol),
            seconds=seconds,
        )
