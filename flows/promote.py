"""Change the champion by a person's decision: let a model serve, or the champion before."""

from __future__ import annotations

from typing import Annotated

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task, run_name
from recsys.operations.runs import Run
from recsys.registry.promote import PromotionResult, promote, rollback
from recsys.version import code_version

Why = Annotated[str, Field(min_length=1)]


@retrying_task("promote")
def promote_task(run: Run, model_id: str, why: str) -> PromotionResult:
    """Let one model serve."""
    return run_step(
        run, "promote", lambda _: promote(run.lake, model_id, why=why, run_id=run.run_id)
    )


@retrying_task("rollback")
def rollback_task(run: Run, why: str) -> PromotionResult:
    """Let the champion before serve again."""
    return run_step(run, "rollback", lambda _: rollback(run.lake, why=why, run_id=run.run_id))


@flow(name="promote", flow_run_name=run_name, version=code_version())
def promote_flow(model_id: Annotated[str, Field(min_length=1)], why: Why) -> State[None]:
    """Let a model serve from the next lists on, whatever the gate said of it.

    Args:
        model_id: the model, as `recsys models` lists it.
        why: the reason; it is kept in the table `promotions`.
    """
    with flow_run("promote") as run:
        result = promote_task(run, model_id, why)
    return Completed(message=result.sentence)


@flow(name="rollback", flow_run_name=run_name, version=code_version())
def rollback_flow(why: Why) -> State[None]:
    """Let the champion before serve again from the next lists on; popularity where there was none.

    Args:
        why: the reason; it is kept in the table `promotions`.
    """
    with flow_run("rollback") as run:
        result = rollback_task(run, why)
    return Completed(message=result.sentence)
