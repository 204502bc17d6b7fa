"""A training that goes on from the champion's judged weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from recsys.lake.tables import Lake
from recsys.registry import retrain
from recsys.registry.models import ModelRow, find_model, load_model
from recsys.registry.retrain import train
from recsys.registry.train_result import TrainResult
from recsys.settings import Settings
from tests import lakes
from tests.registry.test_retrain import known_world, training


def grow(lake: Lake, day: int = 1) -> None:
    """Users u200 and later, who also take an item that nobody had, in the middle."""
    new = {
        f"u{200 + user}": [f"item {1 + (user + step) % 30}" for step in range(5)]
        for user in range(12)
    }
    for items in new.values():
        items.insert(2, "item new")
    lakes.fill(lake, new, batch_id=f"day {day}", day=day)


def starts_from(lake: Lake, result: TrainResult) -> Any:
    return json.loads(row_of(lake, result).config)["starts_from"]


def row_of(lake: Lake, result: TrainResult) -> ModelRow:
    row = find_model(lake, result.model_id)
    assert row
    return row


@pytest.mark.slow
def test_a_refresh_goes_on_from_the_judged_weights(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_world(lake)
    champion = train(lake, settings, training(epochs=20, refit=True))
    assert champion.status == "champion"
    grow(lake)
    fitted: list[Any] = []
    fit = retrain.fit
    monkeypatch.setattr(
        retrain, "fit", lambda *given, **options: fitted.append(options) or fit(*given, **options)
    )
    refresh = train(lake, settings, training(epochs=None, warm_start=True, warm_epochs=2))
    assert (starts_from(lake, refresh), refresh.is_new) == (champion.model_id, True)
    (options,) = fitted
    assert options["epochs"] == 2
    before = load_model(lake, row_of(lake, champion), judged=True)
    now = load_model(lake, row_of(lake, refresh))
    places = now.items.index_map_to(before.items)
    rows = options["initial"]["items.weight"]
    known = np.flatnonzero(places)
    learnt = before.recommender.items.weight
    assert torch.equal(rows[known], learnt[places[known]]), "served weights are no start"
    (new,) = np.flatnonzero(places[1:] == 0) + 1
    lengths = torch.linalg.vector_norm(learnt[1:], dim=1)
    assert rows[new].norm().item() == pytest.approx(lengths.median().item(), rel=1e-4)
    # Twice is once, also where the model serves that goes on.
    again = train(lake, settings, training(epochs=None, warm_start=True, warm_epochs=2))
    assert (again.model_id, again.is_new) == (refresh.model_id, False)


@pytest.mark.slow
def test_where_rows_were_removed_a_training_starts_anew(lake: Lake, settings: Settings) -> None:
    """Then what the champion learnt may be what the gate asks for today."""
    known_world(lake)
    champion = train(lake, settings, training(epochs=20))
    assert champion.status == "champion"
    lake.delete("interactions", "user_id = 'u3'")
    grow(lake)
    anew = train(lake, settings, training(epochs=1, warm_start=True))
    assert starts_from(lake, anew) is None


@pytest.mark.slow
def test_another_network_and_the_first_model_start_anew(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=20, warm_start=True))
    assert (first.status, starts_from(lake, first)) == ("champion", None)
    grow(lake)
    wider = training(epochs=1, warm_start=True)
    wider = wider.changed({"overrides": {**wider.overrides, "width": 16}})
    assert starts_from(lake, train(lake, settings, wider)) is None
