"""Each consumer query on known rows, against an answer worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from math import log2
from typing import Any

import pytest

from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from sql import load
from tests import lakes

YESTERDAY, TODAY = date(2026, 1, 2), date(2026, 1, 3)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("known") / "lake"), ObjectStorage())
    lakes.fill(lake, {1: [10, 11], 2: [12], 3: [10], 4: [13]})
    lakes.write(
        lake,
        "items",
        [
            {"item_id": item, "title": f"title {item}", "category": "c", "eligible": True}
            for item in (10, 11, 12)
        ],
    )
    lakes.write(lake, "recommendations", lakes.lists(YESTERDAY, {1: [12], 2: [10, 11]}))
    lakes.write(lake, "recommendations", lakes.lists(TODAY, {1: [12], 2: [11]}))
    lakes.write(lake, "recommendations", lakes.lists(TODAY, {3: [12, 11]}, reason="popular"))
    lakes.write(lake, "recommendations", lakes.lists(TODAY, {2: [10]}, edition=2))
    lakes.write(
        lake,
        "editions",
        [
            lakes.edition(YESTERDAY, users=2, rows=3, without_list=1, published_at=lakes.START),
            lakes.edition(TODAY, users=3, rows=4, without_list=0, eligible_items=4),
            lakes.edition(TODAY, 2, status="withdrawn", why="too short", who="ada@desk"),
        ],
    )
    told = {"subject": f"recommendations {TODAY}", "checked_at": lakes.START, "status": "passed"}
    lakes.write(
        lake,
        "quality_results",
        [
            {**told, "suite": "rules", "rule": "pins: items put first", "observed": "12"},
            {**told, "suite": "recommendations", "rule": "scores are finite", "observed": "0"},
        ],
    )
    model = {
        "model_id": "m",
        "status": "champion",
        "why": "first",
        "preset": "best",
        "seed": 4,
        "interactions_version": 7,
        "test_hr_10": 0.5,
        "test_ndcg_10": 0.3,
        "popularity_test_hr_10": 0.2,
        "popularity_test_ndcg_10": 0.1,
        "config": json.dumps({"judged": "unmasked"}),
        "baselines": json.dumps(
            {
                name: {"test": {"masked": {}, "unmasked": {"hr@10": hr, "ndcg@10": hr / 2}}}
                for name, hr in (("popularity", 0.2), ("item-knn", 0.4), ("champion", 0.9))
            }
        ),
        "metrics": evaluated(0.5, 0.3),
        "trained_at": lakes.START,
    }
    old = {**model, "model_id": "old", "status": "retired", "metrics": evaluated(0.25, 0.1)}
    lakes.write(lake, "models", [model, old])
    write_monitoring(lake)
    rejected = {"batch_id": "b", "source": "s", "object": "f.csv", "quarantined_at": lakes.START}
    lakes.write(
        lake,
        "quarantine",
        [
            {**rejected, "source_row": 3, "row": "{}", "reasons": ["user_id is null"]},
            {
                **rejected,
                "source_row": 9,
                "row": '{"a":1}',
                "reasons": ["user_id is null", "timestamp is null"],
                "quarantined_at": lakes.START + timedelta(hours=1),
            },
        ],
    )
    now = datetime.now(UTC)
    outcome = '{"ingest": {"accepted": 3}, "recommend": {"users": 2}}'
    run = {"flow": "nightly", "status": "completed", "seconds": 1.0, "outcome": outcome}
    lakes.write(
        lake,
        "runs",
        [
            {"run_id": "new", "started": now - timedelta(days=1), **run},
            {"run_id": "newer", "started": now, **run},
            {"run_id": "old", "started": now - timedelta(days=31), **run},
        ],
    )
    publish_catalog(lake)
    return lake


def evaluated(hit_rate: float, ndcg: float) -> str:
    """A report of three users, as `models.metrics` has it."""
    part = {"name": "history 3-5", "users": 2, "masked": {"ndcg@10": ndcg / 2}, "unmasked": {}}
    masked = {"hr@10": hit_rate, "ndcg@10": ndcg}
    unmasked = {"hr@10": 1.5 * hit_rate, "ndcg@10": 1.5 * ndcg}
    test = {"users": 3, "masked": masked, "unmasked": unmasked, "slices": [part]}
    return json.dumps({"test": test})


def write_monitoring(lake: Lake) -> None:
    """Rows of what looks at lists and data."""
    live = {"run_date": YESTERDAY, "edition": 1, "model_id": "m", "days": 1, "users": 100}
    everybody = {**live, "slice": "all", "value": "all"}
    rank = {**live, "slice": "rank", "metric": "hr"}
    lakes.write(
        lake,
        "live_metrics",
        [
            {**everybody, "lists": "served", "metric": "hr@5", "result": 0.3},
            {**everybody, "lists": "served", "metric": "hr@10", "hits": 48, "result": 0.48},
            {**everybody, "lists": "popularity", "metric": "hr@10", "hits": 40, "result": 0.4},
            {**everybody, "lists": "lead", "metric": "hr@10", "result": 0.08, "deviation": 0.5},
            {**everybody, "lists": "served", "metric": "hr@20", "result": 0.9},
            {**everybody, "lists": "served", "metric": "hr@10", "days": 2, "result": 0.7},
            {**rank, "lists": "served", "value": "1", "hits": 30},
            {**rank, "lists": "served", "value": "10", "hits": 2},
            {**rank, "lists": "popularity", "value": "1", "hits": 20},
            {**live, "lists": "served", "slice": "user", "value": "new", "metric": "hr@10"},
        ],
    )
    drift = {"run_date": TODAY, "kind": "psi", "warn_at": 0.1, "retrain_at": 0.25}
    lakes.write(
        lake,
        "drift",
        [
            {**drift, "measure": "hours", "result": 0.05, "verdict": "steady"},
            {**drift, "measure": "weekdays", "result": 0.3, "verdict": "retrain"},
            {**drift, "measure": "categories", "verdict": "unknown"},
        ],
    )
    batch = {"batch_id": "b", "source": "s", "status": "accepted", "finished": lakes.START}
    counts = {"rows_in": 10, "accepted": 7, "quarantined": 2, "duplicates": 1}
    lakes.write(lake, "batches", [{**batch, **counts}])
    check = {"subject": "b", "suite": "rows", "observed": "9", "threshold": "5"}
    lakes.write(
        lake,
        "quality_results",
        [{**check, "rule": status, "status": status} for status in ("passed", "failed", "broken")],
    )
    erased = {"erased_at": lakes.START, "who": "ada@desk", "why": "asked"}
    lakes.write(lake, "erasures", [{"user_hash": "h", "salt": "s", **erased}])
    promoted = {"promoted_at": lakes.START, "action": "gate", "model_id": "m", "who": "ada@desk"}
    lakes.write(lake, "promotions", [promoted])


def ask(lake: Lake, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    rows = query_catalog(lake, load(f"queries/{name}"), parameters)
    return [tuple(row.values()) for row in rows.to_pylist()]


@pytest.mark.slow
def test_user_list(known: Lake) -> None:
    assert ask(known, "user_list", user_id=3) == [
        (1, 12, "title 12", 1.0, "popular", None, TODAY, None),
        (2, 11, "title 11", 0.5, "popular", None, TODAY, None),
    ]
    (unknown,) = ask(known, "user_list", user_id=77)
    assert unknown == (*[None] * 7, "no interaction of this user is known")
    assert ask(known, "user_list", user_id="3") == ask(known, "user_list", user_id=3)


def test_list_editions(known: Lake) -> None:
    found = ask(known, "list_editions")
    assert [row[:6] for row in found] == [
        (TODAY, 2, "withdrawn", None, None, None),
        (TODAY, 1, "current", 3, 0, 4),
        (YESTERDAY, 1, "current", 2, 1, 3),
    ]
    assert found[0][9:] == ("too short", "ada@desk", None)


def test_list_rules(known: Lake) -> None:
    assert ask(known, "list_rules") == [(TODAY, "pins: items put first", 12)]


def test_user_history(known: Lake) -> None:
    found = ask(known, "user_history", user_id=1, count=5)
    assert [row[1:] for row in found] == [(11, "title 11"), (10, "title 10")]
    assert len(ask(known, "user_history", user_id=1, count="1")) == 1


def test_sample_users(known: Lake) -> None:
    assert ask(known, "sample_users", count=2) == [(1,), (2,)]


def test_list_changes(known: Lake) -> None:
    assert ask(known, "list_changes") == [
        (3, "new", 0, 2, 0),
        (1, "same", 1, 0, 0),
        (2, "changed", 1, 0, 1),
    ]


def test_item_exposure(known: Lake) -> None:
    assert ask(known, "item_exposure") == [
        (11, "title 11", 2, 2 / 3, 1.5),
        (12, "title 12", 2, 2 / 3, 1.0),
    ]


def test_catalogue_coverage(known: Lake) -> None:
    assert ask(known, "catalogue_coverage") == [
        (TODAY, 2, 4, 0.5),
        (YESTERDAY, 3, None, None),
    ]


def test_served_by_popularity(known: Lake) -> None:
    assert ask(known, "served_by_popularity") == [(TODAY, 3, 1, 1 / 3), (YESTERDAY, 2, 0, 0.0)]


def test_rejected_rows(known: Lake) -> None:
    later = lakes.START + timedelta(hours=1)
    assert ask(known, "rejected_rows") == [
        ("s", "user_id is null", 2, later, "f.csv", 9, '{"a":1}'),
        ("s", "timestamp is null", 1, later, "f.csv", 9, '{"a":1}'),
    ]


def test_lineage(known: Lake) -> None:
    assert ask(known, "lineage", user_id=2, run_date=TODAY) == [
        (1, 11, "model", "m", "best", 4, 7, 1, "run", lakes.START)
    ]


def test_recent_runs(known: Lake) -> None:
    found = ask(known, "recent_runs")
    assert [row[-1] for row in found] == ["newer", "new"]
    assert found[0][4:8] == (3, None, 2, None)


def test_model_history(known: Lake) -> None:
    found = ask(known, "model_history")
    assert {(row[0], row[1]) for row in found} == {("m", "champion"), ("old", "retired")}
    assert found[0][3:] == pytest.approx((0.5, 0.2, 0.3, 0.1, 3.0))


def test_champion_metrics(known: Lake) -> None:
    model, baseline, popularity = ask(known, "champion_metrics")
    assert (model[0], baseline[0], popularity[0]) == ("model m", "item-knn", "popularity")
    assert model[1:] == pytest.approx((0.75, 0.45, 4.5))
    assert baseline[1:] == pytest.approx((0.4, 0.2, 2.0))
    assert popularity[1:] == pytest.approx((0.2, 0.1, 1.0))


def test_new_users(known: Lake) -> None:
    assert ask(known, "new_users") == [(3, "popular", 2)]


def test_items_never_shown(known: Lake) -> None:
    assert ask(known, "items_never_shown") == [(13, None, 1)]


def test_exposure_gini(known: Lake) -> None:
    assert [row[:2] for row in ask(known, "exposure_gini")] == [(TODAY, 2), (YESTERDAY, 3)]
    uneven = "(values (date '2026-01-01', 1), (date '2026-01-01', 2)) as r (run_date, item_id)"
    for _ in range(2):
        uneven = uneven.replace("(values ", "(values (date '2026-01-01', 1), ")
    statement = load("queries/exposure_gini").replace("from recommendations", f"from {uneven}")
    ((_, items, gini),) = (
        tuple(row.values()) for row in query_catalog(known, statement).to_pylist()
    )
    assert (items, gini) == (2, pytest.approx(0.25)), "of places 1 and 3"


def test_novelty(known: Lake) -> None:
    rare, common = log2(5), log2(5 / 2)
    assert ask(known, "novelty") == [
        (TODAY, pytest.approx(rare)),
        (YESTERDAY, pytest.approx((2 * rare + common) / 3)),
    ]


def test_category_calibration(known: Lake) -> None:
    assert ask(known, "category_calibration") == [("c", 0.8, 1.0), ("", 0.2, 0.0)]


def test_freshness(known: Lake) -> None:
    assert ask(known, "freshness") == [(TODAY, 2.0), (YESTERDAY, 1.0)]


def test_short_histories(known: Lake) -> None:
    assert ask(known, "short_histories", longest=2) == [(1, 3, 2, 1), (2, 1, 1, 1)]
    assert ask(known, "short_histories", longest="1") == [(1, 3, 2, 1)]


def test_live_hits(known: Lake) -> None:
    (row,) = ask(known, "live_hits", days=1)
    assert row[:6] == (YESTERDAY, "m", 10, 100, 0.48, 0.4)
    assert row[6:] == pytest.approx((0.08 - 0.098, 0.08 + 0.098))
    assert [row[4] for row in ask(known, "live_hits", days="2")] == [0.7]


def test_live_hits_by_rank(known: Lake) -> None:
    assert ask(known, "live_hits_by_rank") == [(1, 0.3, 0.2), (10, 0.02, None)]


def test_live_hits_by_part(known: Lake) -> None:
    assert ask(known, "live_hits_by_part") == [(YESTERDAY, "user", "new", "hr@10", 100, None)]


def test_model_against_model(known: Lake) -> None:
    assert ask(known, "model_against_model", model_a="old", model_b="m") == [
        ("masked", "hr@10", 0.25, 0.5, 0.25),
        ("masked", "ndcg@10", 0.1, 0.3, pytest.approx(0.2)),
        ("unmasked", "hr@10", 0.375, 0.75, 0.375),
        ("unmasked", "ndcg@10", *map(pytest.approx, (0.15, 0.45, 0.3))),
    ]


def test_batch_quality(known: Lake) -> None:
    assert ask(known, "batch_quality") == [(date(2026, 1, 1), "s", 1, 10, 7, 2, 1, 0.2)]


def test_failed_checks(known: Lake) -> None:
    assert [row[3:5] for row in ask(known, "failed_checks")] == [
        ("broken", "broken"),
        ("failed", "failed"),
    ]


def test_run_times(known: Lake) -> None:
    assert ask(known, "run_times", days=30) == [("nightly", 2, 0, 1.0, 1.0)]
    assert ask(known, "run_times", days="40") == [("nightly", 3, 0, 1.0, 1.0)]


def test_drift_by_night(known: Lake) -> None:
    found = ask(known, "drift_by_night")
    assert [row[1] for row in found] == ["weekdays", "hours", "categories"]
    assert found[0] == (TODAY, "weekdays", "psi", 0.3, 0.1, 0.25, "retrain")


def test_erased_users(known: Lake) -> None:
    assert ask(known, "erased_users") == [(lakes.START, "ada@desk", "asked")]


def test_late_rows(known: Lake) -> None:
    assert ask(known, "late_rows", days=0) == [(date(2026, 1, 1), 5, 0)]
    assert ask(known, "late_rows", days=-1) == [(date(2026, 1, 1), 5, 5)], "it looks at the days"


def test_model_slices(known: Lake) -> None:
    assert ask(known, "model_slices") == [
        ("all", 3, "masked", 0.3),
        ("all", 3, "unmasked", pytest.approx(0.45)),
        ("history 3-5", 2, "masked", 0.15),
    ]


def test_promotion_history(known: Lake) -> None:
    assert ask(known, "promotion_history") == [(lakes.START, "gate", "m", None, "ada@desk", None)]


def test_active_users(known: Lake) -> None:
    assert ask(known, "active_users") == [(date(2026, 1, 1), 4, 5, 4)]


def test_every_query_states_its_grain_and_has_a_test() -> None:
    for path in files("sql").joinpath("queries").iterdir():
        assert path.read_text(encoding="utf-8").startswith("-- One row"), path.name
        assert f"test_{path.name.removesuffix('.sql')}" in globals(), path.name
