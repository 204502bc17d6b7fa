"""A training that was stopped goes on where its state was saved, and makes the same model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recsys.lake import object_store
from recsys.lake.tables import Lake
from recsys.registry.models import model_rows
from recsys.registry.recipe import resolve_recipe
from recsys.registry.resume import SavedTraining
from recsys.registry.retrain import train
from recsys.settings import ObjectStorage, Settings, Training
from recsys.training import trainer
from tests import servers
from tests.registry.test_retrain import SMALL, known_world

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = Training(
    epochs=2, overrides={**SMALL, "batch_size": 128}, save_every=timedelta(0), tolerance=1
)

KILLED = """
from recsys.lake.tables import Lake
from recsys.registry.recipe import resolve_recipe
from recsys.registry.resume import SavedTraining
from recsys.registry.retrain import train
from recsys.settings import Settings
from tests.registry.test_resume import RECIPE, gradient_steps

with gradient_steps(kill_after=STEPS):
    train(Lake.from_settings(Settings()), Settings(), RECIPE)
"""
STEPS = 8


class StoppedError(Exception):
    """The training was stopped."""


@contextmanager
def gradient_steps(stop_after: int | None = None, kill_after: int | None = None) -> Iterator[list]:
    """Give a list that grows with each gradient step; stop, or kill the process, after so many."""
    real, steps = trainer._gradient_step, []

    def step(*inputs: Any) -> Any:
        if len(steps) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(steps) == stop_after:
            raise StoppedError
        steps.append(inputs)
        return real(*inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_gradient_step", step)
        yield steps


def weights(lake: Lake) -> bytes:
    (row,) = model_rows(lake)
    return Path(lake.uri("weights", row.model_id, "model.safetensors")).read_bytes()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_gives_the_same_weights(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    known_world(lake)
    other = Settings(lake=shutil.copytree(lake.root, tmp_path / "other").as_posix(), device="cpu")
    with gradient_steps() as all_steps:
        train(lake, settings, RECIPE)
    assert len(all_steps) > STEPS, "it is killed in its middle"
    retried = Lake.from_settings(other)
    env = {**os.environ, "RECSYS_LAKE": other.lake, "RECSYS_DEVICE": "cpu"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    code = KILLED.replace("STEPS", str(STEPS))
    killed = subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not model_rows(retried)
    with gradient_steps() as steps:
        train(retried, other, RECIPE)
    assert len(steps) == len(all_steps) - STEPS
    assert weights(retried) == weights(lake)
    assert not list(Path(retried.uri("weights")).glob("*-training")), "nothing is left of it"


@pytest.mark.slow
def test_another_worker_finds_it_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        storage = ObjectStorage(endpoint_url=endpoint)
        settings = Settings(lake="s3://lake/nightly", s3=storage, device="cpu")
        lake = Lake.from_settings(settings)
        known_world(lake)
        with pytest.raises(StoppedError), gradient_steps(stop_after=STEPS):
            train(lake, settings, RECIPE)
        worker = Lake.from_settings(settings)
        recipe = resolve_recipe(worker, settings, RECIPE)
        saved = SavedTraining(worker, recipe, timedelta(0))
        state = saved.load()
        assert state
        assert state["gradient_steps"] == STEPS
        saved.remove()
        assert not object_store.find(lake.uri("weights", "*-training", "*"), storage)


def test_a_state_that_is_damaged_or_of_other_code_is_not_used(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_world(lake)
    with pytest.raises(StoppedError), gradient_steps(stop_after=2):
        train(lake, settings, RECIPE)
    recipe = resolve_recipe(lake, settings, RECIPE)
    assert SavedTraining(lake, recipe, timedelta(0)).load()
    monkeypatch.setattr("torch.__version__", "99.0")
    assert SavedTraining(lake, recipe, timedelta(0)).load() is None
    monkeypatch.undo()
    (state,) = Path(lake.uri("weights")).glob("*-training/*")
    state.write_bytes(state.read_bytes()[:100])
    assert SavedTraining(lake, recipe, timedelta(0)).load() is None
