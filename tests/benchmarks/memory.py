"""The memory of one process that lives through many nights.

`python -m tests.benchmarks.memory 200` ingests a day, makes everybody's list and publishes it,
night by night, with a maintenance a week, and prints what the process holds after each tenth night.
The data of every night is as large as that of another: what grows is kept by something.

`recsys serve` and workers start a process for each run, so that no night sees another's memory. A
backfill, a replay and a program that calls the library go through many days in one.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lists.recommend import recommend
from recsys.operations.maintain import maintain
from recsys.operations.runs import record_run
from recsys.registry.retrain import train
from recsys.settings import Gate, Maintenance, Recommending, Settings, Source, Training

USERS, ITEMS, STEPS = 80, 40, 9
FIRST = date(2026, 1, 1)


def main(nights: int) -> None:
    """Live through some nights, and print a line for each tenth."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        source = Path(folder, "source")
        source.mkdir()
        settings = Settings(
            lake=f"{folder}/lake",
            source=Source(uri=f"{source}/*.parquet"),
            training=Training(epochs=2, overrides={"width": 16, "blocks": 1, "max_length": 10}),
            gate=Gate(allow_below_baseline=True),
            recommending=Recommending(k=5),
            maintenance=Maintenance(retention=timedelta(0)),
            device="cpu",
            threads=1,
            memory_limit="1GB",
        )
        for night in range(1, nights + 1):
            day = FIRST + timedelta(days=night)
            add_day(source, day, STEPS if night == 1 else 1)
            live_through(settings, day, trains=night == 1)
            if night % 7 == 0:
                with record_run("maintain", f"maintain {day}", settings, {}) as run:
                    maintain(run.lake, settings)
            if night % 10 == 0:
                print(f"{night} {held_mb():.0f} MB", flush=True)


def add_day(source: Path, day: date, steps: int) -> None:
    """Write a file of as many interactions of every user."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    rows = [
        {
            "user_id": user,
            "item_id": (user * 7 + day.toordinal() * 3 + step) % ITEMS,
            "timestamp": start + timedelta(minutes=step),
        }
        for user in range(USERS)
        for step in range(steps)
    ]
    pq.write_table(pa.Table.from_pylist(rows), source / f"{day}.parquet")


def live_through(settings: Settings, day: date, *, trains: bool) -> None:
    """Do a night: a row of `runs`, an ingest, lists, the catalog."""
    with record_run("nightly", f"night {day}", settings, {}) as run:
        run.record("ingest", ingest(run.lake, settings))
        if trains:
            run.record("train", train(run.lake, settings))
        bound = Bound.of(settings, day, "now")
        lists = recommend(run.lake, settings, run_date=day, run_id=run.run_id, bound=bound)
        run.record("recommend", lists)


def held_mb() -> float:
    """Return what the process holds after what is free was given back to the system."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
