"""The gate: whether a new model serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.evaluation.protocol import Protocol
    from recsys.registry.models import Status

GATE = "ndcg@10"
"""The metric of the gate, on validation items, of lists as they are served: with the settings'
reverse steps, and without items that the user has had unless ``recommending.seen`` is include."""


def judge(
    metrics: dict[str, Any], baselines: dict[str, Any], protocol: Protocol, tolerance: float
) -> tuple[Status, str]:
    """Decide whether a model serves: above popularity, and no worse than what serves."""
    own = metrics["validation"][protocol][GATE]
    popularity = baselines["popularity"]["validation"][protocol][GATE]
    said = f"validation NDCG@10 {own:.4f}"
    if own <= popularity:
        return "rejected", f"{said} is not above popularity's {popularity:.4f}"
    said += f", popularity's {popularity:.4f}"
    if "champion" not in baselines:
        return "champion", f"{said}, no champion before"
    before = baselines["champion"]["validation"][protocol][GATE]
    name = baselines["champion"]["model_id"]
    if own < before - tolerance:
        return "rejected", f"{said}, below the champion {name}'s {before:.4f} less {tolerance}"
    return "champion", f"{said}, the champion {name}'s {before:.4f} less {tolerance}"
