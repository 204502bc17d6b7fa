"""Seconds and peak memory of a delivery to each kind of sink.

`python -m tests.benchmarks.sinks 1000000` makes lists of 20 items for a million users, and delivers
them in a process of its own each time: to a folder, a DuckDB file, and Postgres where its programs
are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import duckdb

from recsys import columns
from recsys.lake.tables import Lake
from recsys.lists.sinks.deliver import deliver
from recsys.settings import Settings
from tests import lakes, servers

DAY, K = date(2026, 1, 5), 20


def make_lists(lake: Lake, users: int) -> None:
    """Publish lists of K items; an item's score is that of a rank."""
    lakes.fill(lake, {1: [1]})
    with duckdb.connect() as con:
        rows = con.sql(
            f"select date '{DAY}' as run_date, 'run' as run_id, u as user_id, r::int as rank, "
            f"(hash(u, r) % 50000)::bigint as item_id, (-r - random())::float as score, "
            "'model' as reason, 'm-1a2b3c' as model_id, 1::bigint as interactions_version, "
            "timestamptz '2026-01-05' as generated_at, 1 as edition, 0.5::float as confidence "
            f"from range({users}) users(u), range(1, {K + 1}) ranks(r)"
        ).to_arrow_reader(100_000)
        lake.append(columns.RECOMMENDATIONS, rows.cast(lake.schema(columns.RECOMMENDATIONS)))
    lakes.write(lake, columns.EDITIONS, [lakes.edition(DAY, rows=users * K)])


def deliver_once() -> None:
    """Deliver to the one sink of the settings; print seconds and peak memory (MB)."""
    settings = Settings()
    started = time.perf_counter()
    result = deliver(
        Lake.from_settings(settings), settings, settings.sinks[0], [DAY], run_id="bench"
    )
    seconds = time.perf_counter() - started
    # Not ru_maxrss, which a child begins with its parent's.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"rows": result.rows, "seconds": round(seconds, 1), "peak_mb": round(peak)}))


def main(users: int) -> None:
    """Measure each kind of sink twice: what a new day costs, and the same day again."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = {"folder": str(folder / "lists"), "duckdb": str(folder / "shop.duckdb")}
        if Path("/usr/lib/postgresql").exists():
            places["postgres"] = stack.enter_context(servers.postgres(server))
        settings = Settings(lake=str(folder / "lake"))
        make_lists(Lake.from_settings(settings), users)
        for kind, place in places.items():
            env = {
                **os.environ,
                "RECSYS_LAKE": settings.lake,
                "RECSYS_MEMORY_LIMIT": "1GB",
                "RECSYS_SINKS": json.dumps([{"name": kind, "to": place}]),
                "PGPASSWORD": servers.POSTGRES_PASSWORD,
            }
            for what in ("new day", "again"):
                command = [sys.executable, "-m", "tests.benchmarks.sinks"]
                run = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                print(kind, what, run.stdout.strip(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1])) if len(sys.argv) > 1 else deliver_once()
