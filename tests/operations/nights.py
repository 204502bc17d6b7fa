"""A small shop whose nights have been run: three files, each ingested, lists made from it."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lists.recommend import recommend
from recsys.operations.runs import record_run
from recsys.settings import Maintenance, Recommending, Settings, Source

USERS, ITEMS = 12, 9
FIRST = date(2026, 1, 1)
NIGHTS = 3
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def put_day(source: Path, number: int) -> None:
    """A file with an interaction of everybody, and one bad row."""
    source.mkdir(exist_ok=True)
    with duckdb.connect() as con:
        con.execute(
            f"copy (select u as user_id, (u * 7 + {number}) % {ITEMS} as item_id, "
            f"timestamp '2026-01-01' + to_days({number}) as timestamp from range({USERS}) users(u) "
            f"union all select null, 1, timestamp '2026-01-01' + to_days({number})) "
            f"to '{source}/{number}.parquet' (format parquet)"
        )


def settings_of(folder: Path, **maintenance: Any) -> Settings:
    return Settings(
        lake=str(folder / "lake"),
        source=Source(uri=os.path.realpath(folder / "source") + "/*.parquet"),
        recommending=Recommending(k=3),
        contract={"max_rejected_share": 0.5},
        maintenance=Maintenance(**maintenance),
        memory_limit="1GB",
        device="cpu",
        threads=1,
    )


def night(settings: Settings, number: int, source: Source | None = None) -> None:
    with record_run("nightly", f"run {number}", settings, {}) as run:
        run.record("ingest", ingest(run.lake, settings, source))
        day = FIRST + timedelta(days=number)
        bound = Bound.of(settings, day, "now")
        lists = recommend(run.lake, settings, run_date=day, run_id=run.run_id, bound=bound)
        run.record("recommend", lists)
