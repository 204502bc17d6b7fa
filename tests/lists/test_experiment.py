"""An experiment: two models make the lists of two groups of users, the same ones every night."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.histories import ItemIds
from recsys.lake.bound import Bound
from recsys.lake.tables import Lake
from recsys.lists.experiment import in_experiment
from recsys.lists.recommend import recommend
from recsys.operations.monitoring import update_live_metrics
from recsys.registry.models import find_model, load_model, save_model
from recsys.registry.promote import promote, register_model
from recsys.settings import Experiment, Recommending, Settings
from tests import lakes
from tests.lists.test_recommend import DAY, HISTORIES, untrained

HALF = Experiment(name="bigger", share=0.5, model="m-other")


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_groups_have_their_share_and_stay_as_they_are(share: float) -> None:
    users = pa.array(range(40_000))
    experiment = Experiment(name="a", share=share, model="m")
    is_in = in_experiment(users, experiment)
    assert is_in.mean() == pytest.approx(share, abs=4 * (share / 40_000) ** 0.5)
    assert (in_experiment(users.slice(17, 100), experiment) == is_in[17:117]).all()
    text = in_experiment(users.cast(pa.string()), experiment)
    assert (text == is_in).all()
    wider = in_experiment(users, Experiment(name="a", share=2 * share, model="other"))
    assert wider[is_in].all(), "whoever is in stays in when the share grows"
    other = in_experiment(users, Experiment(name="b", share=share, model="m"))
    assert (other & is_in).mean() == pytest.approx(share**2, abs=0.01)


def two_models(lake: Lake) -> None:
    """The champion m-test and a rejected m-other, which knows the same items in another order."""
    untrained(lake, list(range(100, 117)))
    row = find_model(lake, "m-test")
    assert row
    network = load_model(lake, row).recommender
    save_model(lake, "m-other", network, ItemIds(pa.array(range(116, 99, -1))), {}, "")
    register_model(lake, replace(row, model_id="m-other", status="rejected"))


def night(lake: Lake, settings: Settings, experiment: Experiment | None, day: int = 0) -> None:
    recommend(
        lake,
        settings.model_copy(update={"experiment": experiment}),
        Recommending(k=5, explained_users=40),
        run_date=DAY + timedelta(days=day),
        run_id="run",
        bound=Bound.of(settings, DAY, "now"),
        replace_why="a test",
    )


def lists(lake: Lake, edition: int, day: int = 0) -> dict[Any, tuple[str, list[Any]]]:
    """User -> model and list."""
    found: dict[Any, tuple[str, list[Any]]] = {}
    rows = lake.rows(columns.RECOMMENDATIONS).to_pylist()
    for row in sorted(rows, key=lambda row: row["rank"]):
        if (row["run_date"], row["edition"]) == (DAY + timedelta(days=day), edition):
            found.setdefault(row["user_id"], (row["model_id"], []))[1].append(row["item_id"])
    return found


@pytest.mark.slow
def test_each_user_gets_the_list_of_the_model_of_the_group(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {**HISTORIES, 31: [900]})
    two_models(lake)
    night(lake, settings, None)
    night(lake, settings, HALF)
    explained = lake.rows(columns.EXPLANATIONS)["user_id"].to_pylist()
    night(lake, settings, HALF, day=1)
    promote(lake, "m-other", why="a test", run_id="r")
    night(lake, settings, None)
    champions, both, others = (lists(lake, edition) for edition in (1, 2, 3))
    users = sorted([*HISTORIES, 31])
    is_in = dict(zip(users, in_experiment(pa.array(users), HALF).tolist(), strict=True))
    assert sorted(both) == users
    assert 8 < sum(is_in.values()) < 23
    for user in users:
        assert both[user] == (others if is_in[user] else champions)[user]
    assert lists(lake, 1, day=1) == both, "the next night has the same groups"
    assert set(explained) == set(users)
    (edition, *_) = [row for row in lake.rows(columns.EDITIONS).to_pylist() if row["edition"] == 2]
    assert (edition["users"], edition["model_id"]) == (31, "m-test")
    assert '"experiment": {"model": "m-other", "name": "bigger", "share": 0.5}' in edition["inputs"]


def test_a_model_that_does_not_exist_stops_the_lists(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    with pytest.raises(ConfigurationError, match="'m-other' does not exist"):
        night(lake, settings, HALF)


@pytest.mark.slow
def test_live_metrics_say_how_each_model_does(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    two_models(lake)
    night(lake, settings, HALF)
    made, end = lists(lake, 1), settings.end_of(DAY)
    random = np.random.default_rng(1)
    for user, (_, items) in made.items():
        taken = items[0] if random.random() < 0.5 else 999
        row = {"user_id": user, "item_id": taken, "timestamp": end + timedelta(hours=1)}
        lakes.write(lake, columns.INTERACTIONS, [{**row, "ingested_at": end, "batch_id": "b"}])
    update_live_metrics(lake, settings, (end + timedelta(days=2)).date(), now=datetime.now(UTC))
    rows = lake.rows(columns.LIVE_METRICS).to_pylist()
    chosen = [r for r in rows if (r["days"], r["metric"], r["lists"]) == (1, "hr@5", "served")]
    by_model = {row["value"]: row for row in chosen if row["slice"] == "model"}
    assert set(by_model) == {"m-test", "m-other"}
    hits = {
        row["user_id"]: row["item_id"] != 999
        for row in lake.rows(columns.INTERACTIONS).to_pylist()
        if row["timestamp"] >= end
    }
    for model_id, row in by_model.items():
        mine = [hits[user] for user, (model, _) in made.items() if model == model_id]
        assert (row["users"], row["hits"]) == (len(mine), sum(mine))
        assert row["result"] == pytest.approx(np.mean(mine))
    (everybody,) = [row for row in chosen if row["slice"] == "all"]
    assert everybody["users"] == sum(row["users"] for row in by_model.values())
