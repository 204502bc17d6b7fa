"""Comparisons, on lists whose figures are worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log2
from typing import Any

import pyarrow as pa
import pytest

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.lists.compare import compare
from recsys.registry.models import find_model, load_model, save_model
from recsys.registry.promote import register_model
from recsys.settings import Recommending, Settings
from tests import lakes
from tests.catalog.test_queries import TODAY, YESTERDAY
from tests.lists.test_recommend import HISTORIES, untrained
from tests.test_cli import recsys


def figures(rows: pa.Table) -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    return {
        (row["section"], row["name"]): (row["a"], row["b"], row["shared"])
        for row in rows.to_pylist()
    }


@pytest.fixture
def served(lake: Lake) -> Lake:
    """Two days: user 1 keeps one item of two, at another place; 2 keeps all; 3 and 4 are in one."""
    lakes.fill(lake, {1: [10, 11], 2: [10], 3: [10, 12]})
    items = {10: "drama", 11: "drama", 12: "comedy", 13: "comedy"}
    rows = [{"item_id": i, "title": f"Title {i}", "category": c} for i, c in items.items()]
    lakes.write(lake, columns.ITEMS, rows)
    before = lakes.lists(YESTERDAY, {1: [12, 13], 2: [11, 12], 3: [13, 11]}, run_id="early")
    after = lakes.lists(TODAY, {1: [13, 10], 2: [11, 12]})
    after += lakes.lists(TODAY, {4: [10, 11]}, reason="popular")
    lakes.write(lake, columns.RECOMMENDATIONS, [*before, *after])
    editions = [
        lakes.edition(YESTERDAY, eligible_items=4, run_id="early"),
        lakes.edition(TODAY, eligible_items=8),
    ]
    lakes.write(lake, columns.EDITIONS, editions)
    live = {"edition": 1, "days": 1, "slice": "all", "value": "all", "metric": "hr@10"}
    rows = [
        {**live, "run_date": YESTERDAY, "lists": "served", "users": 10, "result": 0.4},
        {**live, "run_date": TODAY, "lists": "served", "users": 10, "result": 0.5},
        {**live, "run_date": TODAY, "lists": "lead", "users": 10, "result": 0.1},
    ]
    lakes.write(lake, columns.LIVE_METRICS, rows)
    return lake


def test_two_days_differ_as_a_hand_counts(served: Lake, settings: Settings) -> None:
    found = figures(compare(served, settings, str(YESTERDAY), str(TODAY)))
    assert found["agreement", "users"] == (3, 3, 2)
    assert found["agreement", "overlap@2"] == (None, None, pytest.approx(0.75))
    assert found["agreement", "users with the same list"] == (None, None, 1)
    assert found["agreement", "users with the same first item"] == (None, None, 1)
    assert found["agreement", "places that a shared item moves"][2] == pytest.approx(1 / 3)
    assert found["lists", "items shown"] == (3, 4, None)
    assert found["lists", "share of the items that could be shown"] == (3 / 4, 4 / 8, None)
    assert found["lists", "Gini index of the places"][0] == pytest.approx(0)  # each twice
    # Places 1, 1, 2, 2: 2 * (1 + 2 + 6 + 8) / (4 * 6) - 5 / 4.
    assert found["lists", "Gini index of the places"][1] == pytest.approx(1 / 6)
    assert found["lists", "share of popular items"] == (0, pytest.approx(1 / 3), None)
    bits = {10: log2(5 / 3), 11: log2(5), 12: log2(5), 13: log2(5)}
    shown = [12, 13, 11, 12, 13, 11]
    assert found["lists", "novelty, in bits"][0] == pytest.approx(sum(bits[i] for i in shown) / 6)
    assert found["categories", "comedy"] == (pytest.approx(4 / 6), pytest.approx(2 / 6), None)
    assert found["items", "Title 10"] == (0, 2, None)
    assert ("items", "Title 11") not in found, "as many lists as before hold it"
    assert {name: row for (section, name), row in found.items() if section == "users"} == {
        "1": (2, 2, 1)
    }
    assert found["live", "hr@10"] == (0.4, 0.5, None)
    assert found["live", "hr@10, lead over popularity"] == (None, 0.1, None)


def test_a_day_beside_itself_is_the_same(served: Lake, settings: Settings) -> None:
    found = figures(compare(served, settings, "early", str(YESTERDAY)))
    assert found["agreement", "overlap@2"][2] == 1
    assert found["agreement", "users with the same list"][2] == 3
    assert not {section for section, _ in found} & {"items", "users"}


@pytest.mark.slow
def test_a_name_that_is_nothing_is_refused(
    served: Lake,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ConfigurationError, match="'m-no' is neither a day"):
        compare(served, settings, "m-no", str(TODAY))
    register_model(served, lakes.model_row("m-1"))
    with pytest.raises(ConfigurationError, match="give two models, or two days"):
        compare(served, settings, "m-1", str(TODAY))
    words = ("--lake", served.root, "compare", str(YESTERDAY), str(TODAY), "--format", "json")
    code, out, err = recsys(monkeypatch, capsys, *words)
    assert code == 0, err
    assert json.loads(out)[0] == {
        "section": "agreement",
        "name": "users",
        "a": 3.0,
        "b": 3.0,
        "shared": 2.0,
    }


@pytest.mark.slow
def test_two_models_make_lists_of_the_same_users(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    row = find_model(lake, "m-test")
    assert row
    network = load_model(lake, row).recommender
    turned = ItemIds(pa.array(list(range(116, 99, -1))))
    for model_id, ids in (("m-same", None), ("m-other", turned)):
        items = ids or load_model(lake, row).items
        save_model(lake, model_id, network, items, {}, "")
        register_model(lake, replace(row, model_id=model_id, status="rejected"))
    five = settings.model_copy(update={"recommending": Recommending(k=5)})
    same = figures(compare(lake, five, "m-test", "m-same", users=20))
    assert same["agreement", "users"] == (20, 20, 20)
    assert same["agreement", "users with the same list"][2] == 20
    other = figures(compare(lake, five, "m-test", "m-other", users=20))
    assert other["agreement", "overlap@5"][2] < 1
    assert not lake.rows(columns.EDITIONS).num_rows, "nothing is published"
