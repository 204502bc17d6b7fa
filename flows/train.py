"""Train a model on the lake's interactions and let the gate decide whether it serves."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.artifacts import step
from flows.runs import flow_run, retried
from recsys.operations.runs import Run
from recsys.registry.retrain import TrainResult
from recsys.registry.retrain import train as train_model
from recsys.settings import Training


@retried("train", (30,))
def fit(run: Run, training: Training) -> TrainResult:
    """Train, evaluate and register one model."""
    return step(
        run,
        "train",
        lambda progress: train_model(run.lake, run.settings, training, progress=progress),
    )


@flow(name="train")
def train(
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
    given = {"preset": preset, "epochs": epochs, "seed": seed, **(overrides or {})}
    with flow_run("train") as run:
        fit(run, run.settings.training.with_fields(given))
