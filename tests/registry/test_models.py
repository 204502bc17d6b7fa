"""The files of a model: written whole or not at all, and nothing else beside them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.model.recommender import Recommender
from recsys.registry import models
from recsys.registry.models import load_model, save_model
from recsys.settings import ObjectStorage
from tests import lakes, servers, worlds

ROW = lakes.model_row("m-1")
FILES = {"model.safetensors", "model.json", "model.md", "items.parquet"}


def save(lake: Lake, text: str = "card") -> None:
    model = Recommender(worlds.small("best").model, 3)
    save_model(lake, "m-1", model, ItemIds(pa.array([7, 8, 9])), {}, text)


def save_and_die(root: str, last: int) -> None:
    """Save a model, and be killed before the step on the file system that comes after the last."""
    lake, steps = Lake(root, ObjectStorage()), 0

    def step(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event.startswith(("os.", "open", "shutil", "ctypes")) and "weights" in str(arguments):
            steps += 1
            if steps > last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    save(lake, "new")


def test_a_save_killed_on_its_way_leaves_the_previous_model_or_the_new_one(lake: Lake) -> None:
    lakes.fill(lake, {1: [7]})
    save(lake, "previous")
    weights = Path(lake.uri("weights"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.registry.models", "tests.worlds"])
    texts = []
    for last in (0, 3, 8, 1000):  # tests/test_temporary.py takes every step of a smaller folder
        child = context.Process(target=save_and_die, args=(lake.root, last))
        child.start()
        child.join(60)
        texts.append((weights / "m-1" / "model.md").read_text())
        assert {path.name for path in (weights / "m-1").iterdir()} == FILES
        assert load_model(lake, ROW).items.ids.to_pylist() == [7, 8, 9]
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert len(list(weights.iterdir())) <= 2, "of all the killed ones, the last alone is left"
    assert child.exitcode == 0
    assert [path.name for path in weights.iterdir()] == ["m-1"]
    assert texts[0] == "previous"
    assert texts[-1] == "new"


@pytest.mark.slow
def test_a_model_on_s3_is_its_own_files_and_loads_while_others_make_temporary_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    sweep = "from recsys.temporary import temporary_folder as t; t().__enter__()"
    real = models.checkpoint.load

    def load_beside_another(*arguments: Any) -> Any:
        subprocess.run([sys.executable, "-c", sweep], check=True)
        return real(*arguments)

    monkeypatch.setattr(models.checkpoint, "load", load_beside_another)
    with servers.moto_s3(tmp_path) as endpoint:
        s3 = servers.client(endpoint)
        s3.create_bucket(Bucket="lake")
        lake = Lake("s3://lake/nightly", ObjectStorage(endpoint_url=endpoint))
        lakes.fill(lake, {1: [7]})
        save(lake)
        prefix = "nightly/weights/m-1/"
        stored = s3.list_objects_v2(Bucket="lake", Prefix=prefix)["Contents"]
        assert {entry["Key"].removeprefix(prefix) for entry in stored} == FILES
        assert load_model(lake, ROW).items.ids.to_pylist() == [7, 8, 9]
        # Models saved at first have the lock of the folder that they were saved from.
        s3.put_object(Bucket="lake", Key=f"{prefix}.held", Body=b"")
        assert load_model(lake, ROW).items.ids.to_pylist() == [7, 8, 9]
