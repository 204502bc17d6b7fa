"""Events for Prefect's automations: of batches, models and lists, and of data that drifted.

Each is about one lake, under `prefect.resource.id` ``recsys.lake.<digest of its root>``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from prefect.events import emit_event

from recsys.errors import ContractError

if TYPE_CHECKING:
    from recsys.errors import RecsysError
    from recsys.lake.tables import Lake
    from recsys.operations.runs import Run

Name = Literal[
    "recsys.batch.refused",
    "recsys.model.promoted",
    "recsys.model.rejected",
    "recsys.lists.published",
    "recsys.lists.late",
    "recsys.data.drifted",
]


def tell_event(name: Name, lake: Lake, payload: dict[str, Any]) -> None:
    """Tell Prefect of an event; its server runs the automations that wait for one.

    Nothing is raised where it can't be told: Prefect sends events in the background.
    """
    digest = hashlib.sha256(lake.root.encode()).hexdigest()[:12]
    resource = {"prefect.resource.id": f"recsys.lake.{digest}", "prefect.resource.name": lake.root}
    emit_event(name, resource, payload=payload)


def tell_refusal(run: Run, step: str, error: RecsysError) -> None:
    """Tell of a batch that was refused; of other refusals the state of the run tells."""
    if step == "ingest" and isinstance(error, ContractError):
        tell_event("recsys.batch.refused", run.lake, {"run_id": run.run_id, "why": str(error)})


def tell_result(run: Run, step: str) -> None:
    """Tell of a new model, of new lists, or of drift that asks for a training."""
    result = run.outcome[step]
    if step == "train" and result["is_new"]:
        payload = {"model_id": result["model_id"], "why": result["why"]}
        promoted = result["status"] == "champion"
        name: Name = "recsys.model.promoted" if promoted else "recsys.model.rejected"
        tell_event(name, run.lake, payload)
    elif step in ("promote", "rollback") and result["status"] == "changed":
        payload = {"model_id": result["model_id"] or "popularity", "why": result["why"]}
        tell_event("recsys.model.promoted", run.lake, payload)
    elif step == "drift" and result["asks_for_training"]:
        payload = {"run_date": str(result["run_date"]), "why": result["why"]}
        tell_event("recsys.data.drifted", run.lake, payload)
    elif step == "recommend" and result["status"] == "published":
        payload = {"run_date": str(result["run_date"]), "users": result["users"]}
        tell_event("recsys.lists.published", run.lake, payload)
