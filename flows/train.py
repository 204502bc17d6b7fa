"""Train a model on the lake's interactions and let the gate decide whether it serves."""

from __future__ import annotations

from datetime import datetime

from prefect import State, flow
from prefect.states import Completed, Failed

from flows.artifacts import link_report, run_step
from flows.runs import flow_run, retrying_task, run_name
from flows.story import training_line
from recsys.errors import GateError
from recsys.model.presets import resolve
from recsys.operations.runs import Run
from recsys.registry.train_result import TrainResult
from recsys.settings import Epochs, Overrides, PresetName, Seed, Training
from recsys.version import code_version


@retrying_task("train", (30,))
def train_task(run: Run, training: Training, at: datetime | None = None) -> TrainResult:
    """Train, evaluate and register one model; ``at`` is the time of the night, if it is of one."""
    from recsys.registry.retrain import train  # here: `recsys serve` does without torch

    return run_step(
        run,
        "train",
        lambda progress: train(
            run.lake, run.settings, training, at=at, run_id=run.run_id, progress=progress
        ),
    )


@flow(name="train", flow_run_name=run_name, version=code_version())
def train_flow(
    preset: PresetName | None = None,
    epochs: Epochs | None = None,
    seed: Seed | None = None,
    overrides: Overrides | None = None,
) -> State[None]:
    """Train on the newest interactions; the model serves if it passes the gate.

    A model that the gate rejects ends the run as Rejected: its files and the reason are kept.

    Args:
        preset: a named model and its training. Empty: as configured; "best" by default.
        epochs: most passes over the data. Empty: as configured; 40 in the preset "best".
        seed: the seed of every random draw. Empty: as configured; 0 by default.
        overrides: fields of the preset to change for this run, beside those that are configured.
    """
    changes = {"preset": preset, "epochs": epochs, "seed": seed, **(overrides or {})}
    with flow_run("train") as run:
        training = run.settings.training.with_fields(changes)
        check_training(training)
        result = train_task(run, training)
        message = training_line(run.outcome["train"])
        if result.status == "rejected":
            run.status = "rejected"
    link_report(run)
    if result.status == "rejected":
        return Failed(name="Rejected", message=message, data=GateError(message))
    return Completed(message=message)


def check_training(training: Training) -> None:
    """Refuse a training that can't be made, before any work is done for it.

    Raises:
        ConfigurationError: no such preset or field, or a value that the field does not take.
    """
    resolve(training.preset, training.overrides)
