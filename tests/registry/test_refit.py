"""The weights that serve learn from whole histories; the gate judges by those that have not."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.errors import GateError
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.registry import refit as refitting
from recsys.registry.models import Model, ModelRow, UnusableModelError, find_model, load_model
from recsys.registry.refit import refit_epochs
from recsys.registry.retrain import train
from recsys.registry.train_result import TrainResult
from recsys.settings import Recommending, Settings
from tests.registry.test_retrain import known_world, training
from tests.worlds import pack


def row_of(lake: Lake, result: TrainResult) -> ModelRow:
    row = find_model(lake, result.model_id)
    assert row
    return row


def are_equal(first: Model, second: Model) -> bool:
    weights = second.recommender.state_dict()
    return all(
        torch.equal(part, weights[name]) for name, part in first.recommender.state_dict().items()
    )


@pytest.mark.slow
def test_what_serves_was_refit_and_what_is_judged_was_not(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=8, refit=True))
    row = row_of(lake, first)
    assert row.status == "champion"
    assert row.refit_epochs
    judged = load_model(lake, row, judged=True)
    assert not are_equal(load_model(lake, row), judged)
    assert "trained once more, on whole histories" in (
        Path(lake.uri("weights", first.model_id)) / "model.md"
    ).read_text(encoding="utf-8")
    # A later gate finds the champion where it was: by weights that have not seen the answers.
    second = train(lake, settings, training(epochs=8, seed=1, refit=True))
    champion = json.loads(row_of(lake, second).baselines)["champion"]
    assert champion["model_id"] == first.model_id
    assert champion["validation"]["masked"]["ndcg@10"] == first.validation_ndcg_10
    assert champion["test"]["masked"]["ndcg@10"] == first.test_ndcg_10


@pytest.mark.slow
def test_without_refit_the_judged_weights_serve(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    with_refit = train(lake, settings, training(epochs=2, refit=True))
    without = train(lake, settings, training(epochs=2, refit=False))
    assert without.model_id != with_refit.model_id
    row = row_of(lake, without)
    assert row.refit_epochs is None
    served = load_model(lake, row)
    assert are_equal(served, load_model(lake, row, judged=True))
    judged = load_model(lake, row_of(lake, with_refit), judged=True)
    assert are_equal(served, judged), "the refit changes nothing of what is judged"


@pytest.mark.slow
def test_a_model_is_refit_when_the_gate_lets_it_serve_and_not_before(
    lake: Lake, settings: Settings
) -> None:
    known_world(lake)
    train(lake, settings, training(epochs=40, refit=False))
    rejected = train(lake, settings, training(epochs=2, refit=True))
    assert rejected.status == "rejected"
    assert row_of(lake, rejected).refit_epochs is None
    served = Path(lake.uri("weights", rejected.model_id, "served.safetensors"))
    assert not served.exists()
    again = train(lake, settings, training(epochs=2, refit=True, tolerance=1.0))
    assert (again.model_id, again.status) == (rejected.model_id, "champion")
    assert row_of(lake, again).refit_epochs
    assert served.exists()
    today = settings.run_date()
    recommend(lake, settings, Recommending(k=3), run_date=today, run_id="r")
    served.write_bytes(b"")
    with pytest.raises(UnusableModelError, match=r"served\.safetensors is damaged"):
        recommend(lake, settings, run_date=today + timedelta(days=1), run_id="r")


@pytest.mark.slow
def test_a_refit_that_diverges_leaves_the_judged_weights_to_serve(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_world(lake)

    def diverge(*_: Any, **__: Any) -> None:
        raise GateError("training diverged in epoch 1")

    monkeypatch.setattr(refitting, "fit", diverge)
    row = row_of(lake, train(lake, settings, training(epochs=1, refit=True)))
    assert (row.status, row.refit_epochs) == ("champion", None)
    assert are_equal(load_model(lake, row), load_model(lake, row, judged=True))


def test_a_refit_takes_as_many_gradient_steps_as_the_judged_weights_took() -> None:
    whole = pack([list(range(1, 12))] * 10)  # 10 targets each, 8 without the last two items
    assert refit_epochs(10, whole.without_last(2), whole) == 8
    assert refit_epochs(1, whole.without_last(9), whole) == 1
    assert refit_epochs(5, whole, whole) == 5
