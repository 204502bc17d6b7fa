"""A training that is judged by what came later than all that it learnt from."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import columns
from recsys.errors import ConfigurationError, GateError
from recsys.evaluation.splits import HeldOut
from recsys.histories import Histories
from recsys.lake.tables import Lake
from recsys.registry.models import find_model
from recsys.registry.recipe import resolve_recipe
from recsys.registry.retrain import train
from recsys.registry.training_data import TrainingData, load_training_data
from recsys.settings import Events, Settings
from tests import lakes
from tests.registry.test_retrain import known_world, training

TEMPORAL = training(epochs=1, split="temporal")


def load(lake: Lake, settings: Settings) -> TrainingData:
    return load_training_data(lake, settings, resolve_recipe(lake, settings, TEMPORAL), None)


def of_users(histories: Histories, data: TrainingData) -> list[list[Any]]:
    """Items of each history, by their ids."""
    return [
        data.packed.items.of_indices(histories.items[start:end]).to_pylist()
        for start, end in zip(histories.starts, histories.ends, strict=True)
    ]


def judged(held_out: HeldOut, data: TrainingData) -> list[tuple[list[Any], Any]]:
    targets = data.packed.items.of_indices(held_out.target).to_pylist()
    return list(zip(of_users(held_out.history, data), targets, strict=True))


@pytest.mark.slow
def test_what_came_after_two_times_is_held_out_of_everybody(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    by_user: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for row in lake.rows(columns.INTERACTIONS).to_pylist():
        by_user[row["user_id"]].append((row["timestamp"], row["item_id"]))
    times = sorted(time for rows in by_user.values() for time, _ in rows)
    validated, tested = (times[int(np.ceil(share * len(times))) - 1] for share in (0.8, 0.9))
    histories = [sorted(by_user[user]) for user in sorted(by_user)]

    def expected(since: datetime, until: datetime | None) -> list[tuple[list[str], str]]:
        return [
            ([item for time, item in rows if time < since], later[0])
            for rows in histories
            if (later := [i for time, i in rows if time >= since and (not until or time < until)])
            and rows[0][0] < since
        ]

    data = load(lake, settings)
    assert of_users(data.split.train, data) == [
        [item for time, item in rows if time < validated] for rows in histories
    ]
    assert judged(data.split.validation, data) == expected(validated, tested)
    assert judged(data.split.test, data) == expected(tested, None)
    assert 0 < len(data.judges.gate) < len(data.split.validation)

    result = train(lake, settings, TEMPORAL)
    row = find_model(lake, result.model_id)
    assert row
    assert json.loads(row.config)["split"] == "temporal"
    assert result.model_id != resolve_recipe(lake, settings, training(epochs=1)).model_id
    card = (Path(lake.uri("weights", result.model_id)) / "model.md").read_text(encoding="utf-8")
    assert "What came after 80 % of all interactions was held out" in card


def test_where_it_can_not_be_split_by_time_it_is_said(lake: Lake, settings: Settings) -> None:
    for day in range(4):  # nobody is there on two days, as if times were made up
        lakes.fill(lake, {day: [1, 2, 3]}, batch_id=f"b{day}", day=day)
    with pytest.raises(GateError, match="Timestamps that are not those of the events"):
        load(lake, settings)
    with_events = settings.model_copy(update={"events": Events(targets=("bought",))})
    with pytest.raises(ConfigurationError, match=r"or unset \[events\]"):
        load(lake, with_events)
