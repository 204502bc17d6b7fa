"""Train a model on the lake's interactions and let the gate decide whether it serves."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task
from recsys.operations.runs import Run
from recsys.registry.retrain import TrainResult, train
from recsys.settings import Training


@retrying_task("train", (30,))
def train_task(run: Run, training: Training) -> TrainResult:
    """Train, evaluate and register one model."""
    return run_step(
        run,
        "train",
        lambda progress: train(run.lake, run.settings, training, progress=progress),
    )


@flow(name="train")
def train_flow(
    preset: str | None = None,
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None,
    seed: Annotated[int, Field(ge=0)] | None = None,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Train on the newest interactions; the model serves if it passes the gate.

    Args:
        preset: a named model and its training; the configured one when not given.
        epochs: most epochs.
        seed: seed of every random draw.
        overrides: fields of the preset to change, beside those that are configured.
    """
    changes = {"preset": preset, "epochs": epochs, "seed": seed, **(overrides or {})}
    with flow_run("train") as run:
        train_task(run, run.settings.training.with_fields(changes))
