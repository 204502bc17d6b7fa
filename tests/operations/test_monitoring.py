"""Live metrics, against an answer worked out in plain Python."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import floor, log2
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from recsys import columns
from recsys.evaluation.metrics import CUTOFFS
from recsys.histories import ItemIds
from recsys.lake.bound import Bound
from recsys.lists.recommend import recommend
from recsys.model.recommender import Recommender
from recsys.operations.monitoring import recompute_live_metrics, update_live_metrics
from recsys.registry.models import save_model
from recsys.registry.promote import register_model
from recsys.settings import Recommending, Settings
from tests import lakes, worlds

if TYPE_CHECKING:
    from recsys.lake.tables import Lake

FIRST = date(2026, 1, 10)
MIDNIGHT = datetime(2026, 1, 10, tzinfo=UTC)
USERS, ITEMS, NIGHTS, K = 60, 80, 3, 8
NOW = MIDNIGHT + timedelta(days=NIGHTS + 1, hours=5)


def at(day: float) -> datetime:
    return MIDNIGHT + timedelta(days=day)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Earlier histories, and what 5 days brought; some of it came a day late."""
    random = np.random.default_rng(3)
    drawn = []
    for user in range(USERS):
        for day in [-5.0] * int(random.integers(1, 25)) + list(range(NIGHTS + 2)):
            for _ in range(1 if day == -5.0 else int(random.integers(0, 3))):
                timestamp = at(day + random.random())
                item = int(ITEMS * random.random() ** 2)
                if user % 10 == 0 and day < 0:  # the model does not know what these had
                    item = ITEMS - 1 - item // 2
                late = timedelta(days=int(random.random() < 0.15))
                drawn.append(
                    {
                        "user_id": user,
                        "item_id": item,
                        "timestamp": timestamp,
                        "ingested_at": at(floor(day) + 1) + late,
                        "batch_id": "b",
                    }
                )
    return drawn


def published(night: int) -> datetime:
    return at(night + 2 / 24)


@pytest.fixture(scope="module")
def judged(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lake, Settings]:
    """Nights at 02:00, each with what had been ingested by then."""
    folder = tmp_path_factory.mktemp("judged")
    settings = Settings(lake=str(folder / "lake"), memory_limit="1GB", device="cpu", threads=1)
    from recsys.lake.tables import Lake

    lake = Lake.from_settings(settings)
    lake.create(pa.int64(), pa.int64())
    network = Recommender(worlds.small("best").model, ITEMS // 2).eval()
    save_model(lake, "m", network, ItemIds(pa.array(range(ITEMS // 2))), {}, "")
    register_model(lake, lakes.model_row("m", trained_at=at(-1)))
    times = [at(-99), *map(published, range(NIGHTS)), at(99)]
    for night in range(NIGHTS + 1):
        arrived = [row for row in rows if times[night] <= row["ingested_at"] < times[night + 1]]
        lakes.write(lake, columns.INTERACTIONS, arrived)
        if night == NIGHTS:
            break
        day = FIRST + timedelta(days=night)
        bound = Bound(settings.end_of(day))
        recommend(
            lake, settings, Recommending(k=K), run_date=day, run_id=f"run {night}", bound=bound
        )
    editions = lake.rows(columns.EDITIONS).to_pylist()
    for row in editions:
        row["published_at"] = published((row["run_date"] - FIRST).days)
    lake.replace(
        columns.EDITIONS, pa.Table.from_pylist(editions, schema=lake.schema(columns.EDITIONS))
    )
    return lake, settings


def answer(lake: Lake, rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(run_date, lists, days, slice, value, metric) -> users, hits, result, deviation."""
    lists = lake.rows(columns.RECOMMENDATIONS).to_pylist()
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for night in range(NIGHTS):
        run_date = FIRST + timedelta(days=night)
        end, since = at(night + 1), published(night)
        known = [row for row in rows if row["timestamp"] < end and row["ingested_at"] < since]
        seen = {
            user: {r["item_id"] for r in known if r["user_id"] == user} for user in range(USERS)
        }
        counts = dict.fromkeys(range(ITEMS), 0)
        for row in known:
            counts[row["item_id"]] += 1
        ranking = sorted((i for i in counts if counts[i]), key=lambda i: -counts[i])
        served: dict[int, dict[int, tuple[int, str]]] = {}
        for row in lists:
            if row["run_date"] == run_date:
                served.setdefault(row["user_id"], {})[row["item_id"]] = row["rank"], row["reason"]
        popular = {
            user: {
                item: rank
                for rank, item in enumerate((i for i in ranking if i not in seen[user]), 1)
                if rank <= 20
            }
            for user in served
        }
        for days in range(1, NIGHTS - night + 2):
            taken = {
                user: {
                    row["item_id"]
                    for row in rows
                    if row["user_id"] == user and since <= row["timestamp"] < at(night + days)
                }
                - seen[user]
                - {r["item_id"] for r in rows if r["user_id"] == user and r["timestamp"] < since}
                for user in served
            }
            add(found, (run_date, days), served, popular, taken)
    return found


def add(
    found: dict[tuple[Any, ...], tuple[Any, ...]],
    key: tuple[date, int],
    served: dict[int, dict[int, tuple[int, str]]],
    popular: dict[int, dict[int, int]],
    taken: dict[int, set[int]],
) -> None:
    run_date, days = key
    people = [user for user in taken if taken[user]]
    is_new_user = {
        u: next(r for rank, r in served[u].values() if rank == 1) != "model" for u in people
    }

    def kind(item: int) -> str:
        return "known" if item < ITEMS // 2 else "new"

    slices: dict[tuple[str, str], dict[int, set[int]]] = {
        ("all", "all"): {u: taken[u] for u in people}
    }
    for user in people:
        value = "new" if is_new_user[user] else "known"
        slices.setdefault(("user", value), {})[user] = taken[user]
        for item in taken[user]:
            slices.setdefault(("item", kind(item)), {}).setdefault(user, set()).add(item)

    def put(lists: str, part: tuple[str, str], metric: str, values: list[float], hits: Any) -> None:
        spread = stdev(values) if len(values) > 1 else None
        found[run_date, lists, days, *part, metric] = (len(values), hits, mean(values), spread)

    for part, items in slices.items():
        for k in sorted({min(k, K) for k in CUTOFFS}):
            figures: dict[str, list[list[float]]] = {"hr": [], "ndcg": []}
            for user, some in items.items():
                ranks = (
                    [served[user][i][0] for i in some if i in served[user]],
                    [popular[user][i] for i in some if i in popular[user]],
                )
                ideal = sum(1 / log2(n + 2) for n in range(min(len(some), k)))
                figures["hr"].append([float(any(r <= k for r in each)) for each in ranks])
                figures["ndcg"].append(
                    [sum(1 / log2(r + 1) for r in each if r <= k) / ideal for each in ranks]
                )
            hits = [int(sum(pair[n] for pair in figures["hr"])) for n in (0, 1)]
            for metric, pairs in figures.items():
                put("served", part, f"{metric}@{k}", [a for a, _ in pairs], hits[0])
                put("popularity", part, f"{metric}@{k}", [b for _, b in pairs], hits[1])
                put("lead", part, f"{metric}@{k}", [a - b for a, b in pairs], None)
    listed = {u: [served[u][i] for i in taken[u] if i in served[u]] for u in people}
    for reason in ("model", "popular"):
        for k in sorted({min(k, K) for k in CUTOFFS}):
            values = [float(any(r == reason and n <= k for n, r in listed[u])) for u in people]
            if sum(values):
                put("served", ("reason", reason), f"hr@{k}", values, int(sum(values)))
    for rank in range(1, K + 1):
        values = [float(any(n == rank for n, _ in listed[u])) for u in people]
        if sum(values):
            put("served", ("rank", str(rank)), "hr", values, int(sum(values)))
        values = [float(any(popular[u].get(i) == rank for i in taken[u])) for u in people]
        if sum(values):
            put("popularity", ("rank", str(rank)), "hr", values, int(sum(values)))


def stored(lake: Lake) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    names = ("run_date", "lists", "days", "slice", "value", "metric")
    return {
        tuple(row[name] for name in names): (
            row["users"],
            row["hits"],
            row["result"],
            row["deviation"],
        )
        for row in lake.rows(columns.LIVE_METRICS).to_pylist()
    }


@pytest.mark.slow
def test_they_are_what_a_loop_over_every_user_gives(
    judged: tuple[Lake, Settings], rows: list[dict[str, Any]]
) -> None:
    lake, settings = judged
    result = update_live_metrics(lake, settings, NOW.date(), now=NOW)
    right = answer(lake, rows)
    found = stored(lake)
    assert found.keys() == right.keys()
    for key, figures in right.items():
        assert found[key][:2] == figures[:2], key
        assert found[key][2:] == pytest.approx(figures[2:], abs=1e-9), key
    assert {key[3:5] for key in found} >= {
        ("item", "new"),
        ("item", "known"),
        ("user", "known"),
        ("reason", "popular"),
        ("reason", "model"),
    }
    newest = FIRST + timedelta(days=NIGHTS - 1)
    assert (result.nights, result.run_date, result.rows) == (NIGHTS, newest, len(found))
    told = [right[newest, lists, 1, "all", "all", "hr@8"] for lists in ("served", "popularity")]
    assert (result.k, result.users) == (8, told[0][0])
    assert (result.hit_rate, result.popularity_hit_rate) == pytest.approx((told[0][2], told[1][2]))


@pytest.mark.slow
def test_the_same_lists_give_the_same_rows_and_no_commit(judged: tuple[Lake, Settings]) -> None:
    lake, settings = judged
    update_live_metrics(lake, settings, NOW.date(), now=NOW)
    before, version = stored(lake), lake.version(columns.LIVE_METRICS)
    update_live_metrics(lake, settings, NOW.date(), now=NOW)
    assert lake.version(columns.LIVE_METRICS) == version
    lake.delete(columns.LIVE_METRICS, "days > 1")
    # By now all seven days of each list are over: there are more figures, and none is another one.
    recompute_live_metrics(lake, settings)
    assert before.items() <= stored(lake).items()
