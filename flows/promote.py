"""Change the champion by a person's decision: let a model serve, or the champion before."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.runs import flow_run, retrying_task
from recsys.operations.runs import Run
from recsys.registry.promote import PromotionResult, promote, rollback

Why = Annotated[str, Field(min_length=1)]


@retrying_task("promote")
def promote_task(run: Run, model_id: str, why: str) -> PromotionResult:
    """Let one model serve."""
    result = promote(run.lake, model_id, why=why, run_id=run.run_id)
    run.record("promote", result)
    return result


@retrying_task("rollback")
def rollback_task(run: Run, why: str) -> PromotionResult:
    """Let the champion before serve again."""
    result = rollback(run.lake, why=why, run_id=run.run_id)
    run.record("rollback", result)
    return result


@flow(name="promote")
def promote_flow(model_id: Annotated[str, Field(min_length=1)], why: Why) -> None:
    """Let a model serve from the next lists on, whatever the gate said of it.

    Args:
        model_id: the model, as `recsys models` lists it.
        why: the reason; it is kept in the table `promotions`.
    """
    with flow_run("promote") as run:
        promote_task(run, model_id, why)


@flow(name="rollback")
def rollback_flow(why: Why) -> None:
    """Let the champion before serve again from the next lists on; popularity where there was none.

    Args:
        why: the reason; it is kept in the table `promotions`.
    """
    with flow_run("rollback") as run:
        rollback_task(run, why)
