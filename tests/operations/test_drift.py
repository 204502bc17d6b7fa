"""A shift that is put into the data is found, and the same data are steady."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from flows.events import tell_result
from recsys import columns
from recsys.operations.drift import stability_index, update_drift
from recsys.operations.runs import Run
from recsys.registry.promote import register_model
from recsys.settings import Drift, Settings
from tests import lakes

if TYPE_CHECKING:
    from pathlib import Path

    from recsys.lake.tables import Lake

NIGHT = date(2026, 3, 2)
UNTIL = datetime(2026, 3, 3, tzinfo=UTC)
SINCE = UNTIL - timedelta(days=7)


def test_the_index_is_its_formula() -> None:
    assert stability_index([10, 20], [10, 20]) == 0
    p, q = (9.5 / 20, 10.5 / 20), (4.5 / 20, 15.5 / 20)
    right = sum((a - b) * log(a / b) for a, b in zip(p, q, strict=True))
    assert stability_index([9, 10], [4, 15]) == pytest.approx(right)


def shop(folder: Path, trained_at: datetime, **shift: Any) -> tuple[Lake, Settings]:
    """Five weeks of 200 interactions a day; the last one may be shifted."""
    from recsys.lake.tables import Lake

    settings = Settings(
        lake=str(folder / "lake"), memory_limit="1GB", threads=1, drift=Drift(min_rows=500)
    )
    lake, random = Lake.from_settings(settings), np.random.default_rng(0)
    lake.create(pa.int64(), pa.int64())
    rows = []
    for day in range(35):
        start = UNTIL - timedelta(days=35 - day)
        is_new = start >= SINCE
        for _ in range(200):
            item = int(50 * random.random() ** 2)
            hour = shift.get("hour") if is_new else None
            rows.append(
                {
                    "user_id": int(random.integers(0, 80)),
                    "item_id": item + (shift.get("items", 0) if is_new else 0),
                    "timestamp": start
                    + timedelta(hours=int(random.integers(0, 24)) if hour is None else hour),
                    "batch_id": "b",
                }
            )
    lakes.write(lake, columns.INTERACTIONS, rows)
    categories = [{"item_id": item, "category": "ab"[item % 2]} for item in range(50)]
    lakes.write(lake, columns.ITEMS, categories)
    batch = {"batch_id": "b", "source": "s", "status": "accepted", "rows_in": 1000}
    lakes.write(lake, columns.BATCHES, [{**batch, "quarantined": 150, "finished": SINCE}])
    register_model(lake, lakes.model_row("m", trained_at=trained_at))
    return lake, settings


def verdicts(lake: Lake) -> dict[str, str]:
    return {row["measure"]: row["verdict"] for row in lake.rows(columns.DRIFT).to_pylist()}


@pytest.mark.slow
def test_the_same_kind_of_data_is_steady_and_bad_rows_only_warn(tmp_path: Path) -> None:
    lake, settings = shop(tmp_path, SINCE)
    result = update_drift(lake, settings, NIGHT, now=UNTIL)
    assert verdicts(lake) == {
        "item popularity": "steady",
        "categories": "steady",
        "history lengths": "unknown",  # of eighty users
        "hours": "steady",
        "weekdays": "steady",
        "unknown users": "steady",
        "unknown items": "steady",
        "quarantined rows": "warn",
    }
    assert "quarantined rows 0.15 (limit 0.1)" in result.why
    version = lake.version(columns.DRIFT)
    update_drift(lake, settings, NIGHT, now=UNTIL)
    assert lake.version(columns.DRIFT) == version, "the same rows"


@pytest.mark.slow
def test_a_shift_asks_for_a_training_once_the_newest_is_old_enough(tmp_path: Path) -> None:
    lake, settings = shop(tmp_path / "old", SINCE, hour=3, items=30)
    result = update_drift(lake, settings, NIGHT, now=UNTIL)
    found = verdicts(lake)
    assert {found[name] for name in ("item popularity", "hours", "unknown items")} == {"retrain"}
    assert (result.verdict, result.asks_for_training) == ("retrain", True)
    lake, settings = shop(tmp_path / "new", UNTIL - timedelta(days=1), hour=3, items=30)
    result = update_drift(lake, settings, NIGHT, now=UNTIL)
    assert result.verdict == "retrain"
    assert not result.asks_for_training, "it was trained yesterday"


def test_too_few_rows_say_nothing(tmp_path: Path) -> None:
    lake, settings = shop(tmp_path, SINCE)
    later = UNTIL + timedelta(days=90)
    result = update_drift(lake, settings, later.date(), now=later)
    assert (result.verdict, result.why) == ("unknown", "")
    assert set(verdicts(lake).values()) == {"unknown"}


def test_the_event_is_told_where_a_training_is_asked_for(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        "flows.events.emit_event", lambda name, _, payload: told.append((name, payload))
    )
    result = {"run_date": NIGHT, "verdict": "retrain", "why": "hours 1.00 (limit 0.25)"}
    for asks in (False, True):
        outcome = {"drift": {**result, "asks_for_training": asks}}
        tell_result(Run("r", lake, settings, outcome), "drift")
    payload = {"run_date": "2026-03-02", "why": "hours 1.00 (limit 0.25)"}
    assert told == [("recsys.data.drifted", payload)]
