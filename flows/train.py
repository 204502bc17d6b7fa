"""Train a model on the lake's interactions and let the gate decide whether it serves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task
from recsys.model.presets import PRESETS, resolve
from recsys.operations.runs import Run
from recsys.registry.retrain import train
from recsys.registry.train_result import TrainResult
from recsys.settings import Epochs, Seed, Training

# Prefect's API reads the schema of a parameter, and refuses a wrong one before it makes a run.
PresetName = Annotated[str, Field(json_schema_extra={"enum": [*PRESETS]})]
Override = (
    Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
    | str
)


@retrying_task("train", (30,))
def train_task(run: Run, training: Training, at: datetime | None = None) -> TrainResult:
    """Train, evaluate and register one model; ``at`` is the time of the night, if it is of one."""
    return run_step(
        run,
        "train",
        lambda progress: train(
            run.lake, run.settings, training, at=at, run_id=run.run_id, progress=progress
        ),
    )


@flow(name="train")
def train_flow(
    preset: PresetName | None = None,
    epochs: Epochs | None = None,
    seed: Seed | None = None,
    overrides: dict[str, Override] | None = None,
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
        training = run.settings.training.with_fields(changes)
        check_training(training)
        if train_task(run, training).status == "rejected":
            run.status = "rejected"


def check_training(training: Training) -> None:
    """Refuse a training that can't be made, before any work is done for it.

    Raises:
        ConfigurationError: no such preset or field, or a value that the field does not take.
    """
    resolve(training.preset, training.overrides)
