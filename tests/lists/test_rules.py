"""`[rules]`: what a shop asks of every list."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import pytest

from recsys.errors import ConfigurationError, GateError
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.recommend import RecommendResult, recommend
from recsys.lists.rule_conditions import evaluate_rules
from recsys.lists.rules import MODEL, OWN, PINNED, POPULAR, ListRules
from recsys.settings import Recommending, Rules, Settings
from tests import lakes
from tests.lists.test_recommend import DAY, HISTORIES, by_user, published_rows, untrained

CATEGORY = {item: "ab"[item % 2] for item in range(100, 117)}


def rules(**changed: Any) -> ListRules:
    """Over items 1..6, of categories 0 0 0 1 1 and none."""
    codes = np.array([-1, 0, 0, 0, 1, 1, -1], dtype=np.int32)
    nothing = {
        "shown": np.ones(7, dtype=bool),
        "pins": np.zeros(7, dtype=np.int32),
        "boost": np.zeros(7, dtype=np.float32),
        "caps": {},
        "diversity": None,
    }
    cap, cost = changed.pop("cap", None), changed.pop("cost", None)
    changed |= {"caps": {"category": (codes, cap)}} if cap else {}
    changed |= {"diversity": (codes, cost)} if cost else {}
    return ListRules(**{**nothing, **changed})


def chosen(asked: ListRules, k: int = 3) -> tuple[list[int], list[float]]:
    items = np.array([[1, 2, 3, 4, 6, 5, 0]], dtype=np.int32)
    scores = np.array([[-1, -1.1, -1.2, -2, -0.5, -1, -np.inf]], dtype=np.float32)
    reasons = np.array([[MODEL] * 4 + [OWN, POPULAR, POPULAR]], dtype=np.int8)
    listed, scores, _ = asked.choose(items, scores, reasons, k)
    return listed[0].tolist(), np.round(scores[0].astype(float), 4).tolist()


def test_without_rules_a_list_is_its_first_candidates() -> None:
    assert chosen(rules()) == ([1, 2, 3], [-1, -1.1, -1.2])


def test_a_cap_makes_room_for_the_next() -> None:
    asked = rules(cap=1)
    assert chosen(asked) == ([1, 4, 6], [-1, -2, -0.5])
    assert asked.counts["at most 1 per category: items left out"] == 2
    assert asked.counts["items at another place than without rules"] == 2
    assert chosen(rules(cap=1), k=5)[0] == [1, 4, 6, 0, 0], "5 is of the category of 4"


def test_a_boost_multiplies_the_probability() -> None:
    boost = np.zeros(7, dtype=np.float32)
    boost[4] = np.log(4)
    assert chosen(rules(boost=boost)) == ([4, 1, 2], [-0.6137, -1, -1.1])


def test_diversity_costs_what_repeats_a_category() -> None:
    assert chosen(rules(cost=0.3)) == ([1, 2, 3], [-1, -1.4, -1.8])
    assert chosen(rules(cost=0.6)) == ([1, 2, 4], [-1, -1.7, -2])


def test_pins_come_first_in_their_order() -> None:
    pins = np.array([0, 0, 0, 2, 0, 1, 0], dtype=np.int32)
    asked = rules(pins=pins)
    assert chosen(asked) == ([5, 3, 1], [0, 0, -1])
    assert asked.counts["pins: items put first"] == 2


def shop(lake: Lake) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    rows = [
        {"item_id": item, "category": category, "eligible": True}
        | {"extra": json.dumps({"price": item - 100, "launched": f"2026-01-{item - 99:02}"})}
        for item, category in CATEGORY.items()
    ]
    lakes.write(lake, "items", rows)


def run(lake: Lake, settings: Settings, **asked: Any) -> RecommendResult:
    changed = settings.model_copy(update={"rules": Rules.model_validate(asked)})
    return recommend(
        lake,
        changed,
        Recommending(k=4),
        run_date=DAY,
        run_id="run",
        bound=Bound.of(settings, DAY, "now"),
        replace_why="a test",
    )


@pytest.mark.slow
def test_a_night_keeps_the_rules_and_says_what_they_did(lake: Lake, settings: Settings) -> None:
    shop(lake)
    run(lake, settings)
    before = by_user(published_rows(lake, settings))
    run(
        lake,
        settings,
        show_only="launched::date <= run_date + 9",
        pins=["item_id = 104"],
        boosts=[{"when": "price between 5 and 6", "factor": 1000}],
        max_per={"category": 2},
    )
    rows = published_rows(lake, settings)
    after = by_user(rows)
    assert after.keys() == before.keys()
    assert {item for items in after.values() for item in items} <= set(range(100, 111))
    for user, items in after.items():
        for category in "ab":
            assert [CATEGORY[item] for item in items].count(category) <= 2
        had = set(HISTORIES[user])
        assert (items[0] == 104) == (104 not in had)
        boosted = {105, 106} - had
        assert boosted <= set(items), "a thousand times as likely"
    assert {reason for _, rank, item, _, reason in rows if item == 104} == {"pinned"}
    with open_duckdb(settings) as con:
        lake.view(con, "quality_results")
        told = con.sql("select rule, observed from quality_results where suite = 'rules'")
        counts = dict(told.fetchall())
    assert int(counts["pins: items put first"]) == sum(items[0] == 104 for items in after.values())
    assert int(counts["at most 2 per category: items left out"]) > 0
    assert run(lake, settings, max_per={"category": 1}).status == "published"
    assert {len(items) for items in by_user(published_rows(lake, settings)).values()} == {2}


def test_a_pinned_item_needs_no_champion(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [10, 11], 2: [12], 3: [13]})
    lakes.write(lake, "items", [{"item_id": item, "eligible": True} for item in range(10, 14)])
    result = run(lake, settings, pins=["item_id in (13, 10)"])
    lists = by_user(published_rows(lake, settings))
    assert lists == {1: [13, 12], 2: [10, 13, 11], 3: [10, 11, 12]}
    assert result.popular_users == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"show_only": "prise < 10"}, r"rules.show_only = .*prise.* price, launched, run_date"),
        ({"pins": ["price <"]}, r"rules.pins\[0\] = .*syntax error"),
        ({"show_only": "price < 3, true"}, "TUPLE"),
        ({"pins": ["true) from items; drop table items; select (true"]}, r"rules.pins\[0\]"),
        ({"show_only": "(select count(*) from read_csv('/etc/hostname')) > 0"}, "Permission"),
        ({"boosts": [{"when": "category", "factor": 2}]}, r"rules.boosts\[0\].when"),
        ({"max_per": {"colour": 2}}, "colour"),
    ],
)
def test_a_bad_condition_is_refused_before_any_work(
    lake: Lake, settings: Settings, asked: dict[str, Any], message: str
) -> None:
    shop(lake)
    changed = settings.model_copy(update={"rules": Rules.model_validate(asked)})
    with pytest.raises(ConfigurationError, match=message):
        evaluate_rules(lake, changed, lake.version("items"), date(2026, 1, 2))


def test_rules_that_leave_no_item_keep_the_previous_lists(lake: Lake, settings: Settings) -> None:
    shop(lake)
    with pytest.raises(GateError, match=r"rules.show_only rules out 17 others"):
        run(lake, settings, show_only="price > 1000")


def test_the_rules_ask_nothing_of_a_lake_without_them(lake: Lake, settings: Settings) -> None:
    assert evaluate_rules(lake, settings, 0, DAY) is None
    assert not Rules().is_set
    assert PINNED == 5, "the last code of recsys.lists.rules.REASONS"
